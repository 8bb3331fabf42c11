"""The service with a detector that needs no training: answers, refusals, batches, limits; a thousand malformed requests."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import monolift
from fake_detector import COLORS, FakeDetector
from monolift.cli import main
from monolift.data.cameras import CameraChoice
from monolift.data.sources import input_image
from monolift.geometry import Camera
from monolift.inference.model import Model
from monolift.inference.shots import Shot
from monolift.inference.zoo import EXAMPLE

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from starlette.testclient import TestClient

from monolift.serve import Limits, create_app
from monolift.serve.batching import Batcher, QueueFullError

CAMERA = "700,700,320,96"


def image_bytes(width: int = 640, height: int = 192, color: str | None = "Car", kind: str = "PNG") -> bytes:
    pixels = np.full((height, width, 3), 40, np.uint8)
    if color:
        pixels[80:120, 200:320] = COLORS[color]
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = create_app(
        Model(FakeDetector(), "fake", {"licence": "none"}), Limits(bytes=300_000, pixels=500_000)
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_a_form_and_a_raw_body_give_what_the_model_gives(client: TestClient) -> None:
    body = image_bytes()
    expected = Model(FakeDetector()).detect(np.array(Image.open(io.BytesIO(body))), CAMERA).to_dict()
    form = client.post("/v1/detect", files={"image": ("street 7.png", body)}, data={"camera": CAMERA})
    raw = client.post(
        "/v1/detect", content=body, headers={"Content-Type": "image/png"}, params={"camera": CAMERA, "name": "street 7"}
    )  # fmt: skip
    for answer in (form, raw):
        assert answer.status_code == 200
        found = answer.json()
        assert found["name"] == "street 7"
        for key in ("objects", "camera", "image", "warnings"):
            assert found[key] == expected[key]
    assert len(expected["objects"]) == 1


@pytest.mark.parametrize("format", ["kitti", "png", "html"])
def test_other_formats(client: TestClient, format: str) -> None:
    answer = client.post("/v1/detect", files={"image": image_bytes()}, data={"fov": "60", "format": format})
    assert answer.status_code == 200
    if format == "kitti":
        assert re.fullmatch(r"Car -1 -1( -?[\d.]+){13}\n", answer.text)
    elif format == "png":
        assert Image.open(io.BytesIO(answer.content)).width >= 640
    else:
        assert answer.text.lstrip().lower().startswith("<!doctype html>")


def test_a_calibration_is_used_whole_as_text_or_as_a_file(client: TestClient) -> None:
    calib = "P2: 700 0 320 42 0 700 96 0.2 0 0 1 0.003\n"
    answers = [
        client.post("/v1/detect", files={"image": image_bytes()}, data={"calib": calib}),
        client.post("/v1/detect", files={"image": image_bytes(), "calib": ("calib.txt", calib.encode())}),
    ]
    p2 = [[700, 0, 320, 42], [0, 700, 96, 0.2], [0, 0, 1, 0.003]]
    camera = Camera.from_matrix(p2, 640, 192)
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.json()["camera"]["translation"] == pytest.approx(camera.translation.tolist())


def test_score_and_classes_filter(client: TestClient) -> None:
    def objects(**data: str) -> list[Any]:
        answer = client.post("/v1/detect", files={"image": image_bytes()}, data={"camera": CAMERA, **data})
        return list(answer.json()["objects"])

    assert len(objects()) == 1 and objects(classes="Pedestrian") == []
    best = objects()[0]["score"]
    assert objects(score=str(min(1.0, best + 0.01))) == [] or best == 1.0
    assert len(objects(score="0")) == 1


def test_without_a_camera_the_guess_is_a_warning(client: TestClient) -> None:
    answer = client.post("/v1/detect", files={"image": image_bytes()}).json()
    assert any("guess" in warning or "assum" in warning for warning in answer["warnings"])


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"files": {"image": b""}}, 422, "image"),
    ({"files": {"image": b"no image"}}, 422, "image"),
    ({"files": {"image": image_bytes()[:200]}}, 422, "image"),
    ({"files": {"image": image_bytes(8, 8, None)}}, 422, "image"),
    ({"files": {"image": image_bytes(1000, 600, None, "JPEG")}}, 413, "image"),
    ({"files": {"image": b"x" * 400_000}}, 413, "body"),
    ({"files": {"photo": image_bytes()}}, 422, "photo"),
    ({"data": {"image": "text"}, "files": {"other": ("", b"")}}, 422, "image"),
    ({"data": {"camera": "1,2"}}, 422, "camera"),
    ({"data": {"camera": "nan,nan,nan,nan"}}, 422, "camera"),
    ({"data": {"camera": "-700,700,320,96"}}, 422, "camera"),
    ({"data": {"fov": "wide"}}, 422, "fov"),
    ({"data": {"fov": "nan"}}, 422, "fov"),
    ({"data": {"fov": "400"}}, 422, "fov"),
    ({"data": {"calib": "P2: 1 2"}}, 422, "calib"),
    ({"data": {"calib": "P2: 700 0 320 nan 0 700 96 0 0 0 1 0"}}, 422, "calib"),
    ({"data": {"fov": "60", "camera": CAMERA}}, 422, "fov"),
    ({"data": {"score": "2"}}, 422, "score"),
    ({"data": {"score": "high"}}, 422, "score"),
    ({"data": {"classes": "Horse"}}, 422, "classes"),
    ({"data": {"format": "docx"}}, 422, "format"),
    ({"data": {"colour": "red"}}, 422, "colour"),
    ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415, "content-type"),
    ({"content": b"abc", "headers": {"Content-Type": "multipart/form-data"}}, 400, "body"),
    ({"content": b"abc", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "body"),
    ({"params": {"fov": "60"}, "data": {"fov": "60"}}, 422, "fov"),
    ({"params": [("fov", "60"), ("fov", "70")]}, 422, "query"),
]


@pytest.mark.parametrize(("request_", "status", "field"), REFUSED)
def test_what_cannot_be_used_is_named(
    client: TestClient, request_: dict[str, Any], status: int, field: str
) -> None:
    if "content" not in request_:
        request_ = {"files": {"image": image_bytes()}, **request_}
    answer = client.post("/v1/detect", **request_)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field), answer.text
    assert answer.json()["error"]["message"]


def test_a_thousand_malformed_requests_are_all_answered_4xx(client: TestClient) -> None:
    """Sound requests with bytes changed, cut or doubled where it hurts; then a sound one is still served."""
    rng = random.Random(0)
    sound = image_bytes(kind="JPEG")
    words = [
        "nan",
        "inf",
        "-1",
        "",
        "9" * 400,
        "\x00",
        "é",
        "1,2,3",
        "{}",
        "a=b&c",
        "../..",
        "700,700,320,96,0,0",
    ]
    refused = 0
    for k in range(1000):
        options = {
            rng.choice(["camera", "fov", "calib", "score", "classes", "format", "x"]): rng.choice(words)
        }
        body = bytearray(sound)
        match k % 4:
            case 0:
                body = body[: rng.randrange(len(body) // 2)]
            case 1:
                body[: rng.randrange(2, 30)] = rng.randbytes(5)
            case 2:
                options = {"format": "nothing"}
            case 3:
                options["score"] = "-1"
        if k % 2:
            answer = client.post(
                "/v1/detect", content=bytes(body), params=options, headers={"Content-Type": "image/jpeg"}
            )
        else:
            form = b"--x\r\n" + rng.randbytes(rng.randrange(60)) + b"\r\n\r\n" + bytes(body) + b"\r\n--x--"
            kind = f"multipart/form-data; boundary={rng.choice(['x', 'y', ''])}"
            answer = client.post("/v1/detect", content=form, params=options, headers={"Content-Type": kind})
        assert 400 <= answer.status_code < 500, (k, answer.status_code, answer.text)
        assert answer.json()["error"]["message"]
        refused += 1
    assert refused == 1000
    assert client.post("/v1/detect", files={"image": sound}).status_code == 200


def test_other_routes(client: TestClient) -> None:
    assert client.get("/health/live").text == "ok" and client.get("/health/ready").text == "ready"
    assert client.get("/v1/model").json()["classes"] == ["Car", "Pedestrian"]
    assert "<title>monolift</title>" in client.get("/").text
    assert client.get("/v1/detect").status_code == 405 and client.get("/no").status_code == 404
    metrics = client.get("/metrics").text
    assert re.search(r'monolift_requests_total\{format="json",status="200"\} [1-9]', metrics)
    assert re.search(r'monolift_objects_total\{class="Car"\} [1-9]', metrics)
    paths = client.get("/openapi.json").json()["paths"]
    body = paths["/v1/detect"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["properties"]["camera"]["example"] == "721.5,721.5,609.6,172.9"


class SlowDetector(FakeDetector):
    """Notes its batches; each waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.batches = threading.Event(), []  # type: ignore[var-annotated]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.batches.append(len(images))
        assert self.gate.wait(20)
        if bool((images == 13).all()):
            raise RuntimeError("an image that breaks the network")
        return super().forward(images)


def test_what_waits_together_goes_together_and_the_queue_has_an_end() -> None:
    detector = SlowDetector()
    batcher = Batcher(Model(detector), largest=4, wait_s=0.01, depth=5)
    photo = input_image(Image.open(io.BytesIO(image_bytes())))
    known = CameraChoice.of(CAMERA).for_image("x", 640, 192)
    first = batcher.submit(Shot(photo, known), None)
    while not detector.batches:
        time.sleep(0.01)
    others = [batcher.submit(Shot(photo, known), None) for _ in range(5)]
    with pytest.raises(QueueFullError, match="5 images"):
        batcher.submit(Shot(photo, known), None)
    others[1].cancel()  # its client has gone
    detector.gate.set()
    assert len(first.result(20)) == 1
    assert [len(f.result(20)) for k, f in enumerate(others) if k != 1] == [1, 1, 1, 1]
    batcher.close()
    assert detector.batches == [1, 3, 1] and not batcher.alive


def test_one_bad_image_does_not_take_its_batch_with_it() -> None:
    detector = SlowDetector()
    batcher = Batcher(Model(detector), largest=3, wait_s=0.2, depth=8)
    good = input_image(Image.open(io.BytesIO(image_bytes())))
    bad = input_image(np.full((192, 640, 3), 13, np.uint8))
    known = CameraChoice.of(CAMERA).for_image("x", 640, 192)
    detector.forward = lambda images: (_ for _ in ()).throw(RuntimeError("broken")) if bool(  # type: ignore[method-assign, assignment]
        (images == 13).flatten(1).all(1).any()
    ) else {"image": images}  # fmt: skip
    futures = [batcher.submit(Shot(photo, known), None) for photo in (good, bad, good)]
    assert len(futures[0].result(20)) == len(futures[2].result(20)) == 1
    with pytest.raises(RuntimeError, match="broken"):
        futures[1].result(20)
    assert batcher.alive
    batcher.close()


def test_too_slow_is_504_and_too_many_is_503() -> None:
    detector = SlowDetector()
    app = create_app(Model(detector), Limits(seconds=0.5), largest_batch=1, depth=1)
    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(client.post, "/v1/detect", files={"image": image_bytes()}) for _ in range(4)]
        codes = sorted(a.result().status_code for a in answers)
        detector.gate.set()
        assert set(codes) == {503, 504}
        retry = [a.result().headers.get("retry-after") for a in answers if a.result().status_code == 503]
        assert retry and set(retry) == {"1"}
        while app.state.batcher.waiting:
            time.sleep(0.01)
        assert client.post("/v1/detect", files={"image": image_bytes()}).status_code == 200


def test_the_command_serves_the_bundled_model_on_loopback_and_stops(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monolift", "serve", "--port", "0", "--quiet"]
    source = str(Path(monolift.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        match = re.match(r"smoke on (http://127\.0\.0\.1:\d+) \(this machine only", line)
        assert match, line
        data = (EXAMPLE / "example.jpg").read_bytes()
        request = urllib.request.Request(
            f"{match[1]}/v1/detect?camera=721.5,721.5,609.6,172.9", data, {"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)["objects"]) > 3
        # the port is taken now: one line, exit code 2
        port = match[1].rsplit(":", 1)[1]
        assert main(["serve", "--port", port]) == 2
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(20) in (0, 130, -signal.SIGINT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port: expected 0 to 65535"),
        (["--batch", "0"], "--batch: expected 1"),
        (["--max-seconds", "0"], "--max-seconds"),
    ],
)
def test_bad_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("camera", "1,1,1,1,1e400,1"),
        ("camera", "1,1,1,1,nan,1"),
        ("camera", "1,1,1,1,inf,inf"),
        ("camera", "1,1,1,1," + "9" * 400 + ",1"),
        ("camera", "1e38,1e38,160,48,320,96"),
        ("camera", "200,200,1e38,48,640,192"),
        ("camera", "200,200,160,-1e308"),
        ("camera", "700,1e38,320,96"),
        ("camera", "1e400,1,1,1"),
        ("camera", "350,350,160,48"),  # of an image of half the size
        ("calib", "P2: 200 0 160 1e38 0 200 48 1e38 0 0 1 1e38"),
        ("calib", "P2: 700 0 320 42000 0 700 96 200 0 0 1 2.7"),  # millimetres
        ("calib", "P2: 1400 0 640 42 0 1400 192 0.2 0 0 1 0.003"),  # of an image of double the size
        ("calib", '{"fx": 1e999, "fy": 1, "cx": 1, "cy": 1}'),
        ("calib", "[" * 100_000),
        ("calib", "\ud800"),
        ("fov", "1e400"),
        ("fov", "1e-300"),
    ],
)
def test_no_number_of_a_camera_is_an_error_of_ours(client: TestClient, field: str, text: str) -> None:
    answer = client.post(
        "/v1/detect", files={"image": image_bytes()}, data={field: text.encode("utf-8", "replace").decode()}
    )
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field), answer.text


def test_the_service_reads_the_camera_files_that_detect_reads(client: TestClient) -> None:
    for calib in (
        '{"width": 640, "height": 192, "fx": 700, "fy": 700, "ppx": 320, "ppy": 96}',
        "700 0 320\n0 700 96\n0 0 1\n",
        "\ufeffP2: 700 0 320 0 0 700 96 0 0 0 1 0\r\nR_rect 1 0 0 0 1 0 0 0 1\r\n",
    ):
        answer = client.post("/v1/detect", files={"image": image_bytes(), "calib": ("c", calib.encode())})
        assert answer.status_code == 200 and answer.json()["camera"]["fx"] == 700, answer.text
    odd = client.post(
        "/v1/detect", files={"image": image_bytes()}, data={"calib": "P2: 700 0 450 0 0 700 96 0 0 0 1 0"}
    )
    assert "far from the middle" in odd.json()["warnings"][0]


def test_a_form_leaves_no_file_open(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette import formparsers

    opened: list[Any] = []

    class Spied(formparsers.SpooledTemporaryFile):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            opened.append(self)

    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", Spied)
    files = {"image": ("a.png", image_bytes()), "calib": ("a.txt", b"P2: x")}
    assert client.post("/v1/detect", files=files).status_code == 422
    assert client.post("/v1/detect", files={"image": files["image"]}).status_code == 200
    assert client.post("/v1/detect", files={"other": files["image"]}).status_code == 422
    assert len(opened) == 4 and all(file.closed for file in opened)
