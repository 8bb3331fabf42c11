"""The viewer's server: whom it answers, what it refuses, and where it writes."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monolift.errors import InputError
from monolift.viewer.open import open_frames
from monolift.viewer.server import LARGEST_BODY, ViewerServer
from viewer_scenes import toy_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return toy_world(tmp_path / "world", 2)


@pytest.fixture
def server(world: Path, tmp_path: Path) -> Iterator[ViewerServer]:
    with ViewerServer(open_frames(world), "world", save_to=tmp_path / "saved") as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def ask(
    server: ViewerServer, path: str, body: bytes | None = None, method: str = "", **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    is_json = "json" in (answer.getheader("Content-Type") or "")
    return answer.status, json.loads(text) if is_json else text.decode()


def review(
    server: ViewerServer, content: Any, path: str = "/api/frames/0/review", **headers: str
) -> tuple[int, Any]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ask(server, path, body, **{"Content_Type": "application/json", **headers})


def decisions(server: ViewerServer, status: str = "accepted", **changes: Any) -> dict[str, Any]:
    frame = ask(server, "/api/frames/0")[1]
    keys = ("center", "size", "yaw")
    return {"objects": [{"status": status, **{k: o[k] for k in keys}, **changes} for o in frame["objects"]]}


def test_page_and_frames(server: ViewerServer) -> None:
    status, page = ask(server, "/")
    assert status == 200 and '"names":["000000","000001"]' in page and "connect-src 'self'" in page
    assert '<script type="application/json" data-frame' not in page  # frames are asked for one at a time
    status, frame = ask(server, "/api/frames/1")
    assert status == 200 and frame["name"] == "000001" and len(frame["objects"]) == 3


@pytest.mark.parametrize(
    "path", ["/api/frames/2", "/api/frames/-1", "/api/frames/99999999999", "/api/frames/../../etc/passwd",
             "/api/frames/0/../../../x", "/%2e%2e/etc/passwd", "/label_2/000000.txt", "/api/frames/0x0"],
)  # fmt: skip
def test_what_is_not_there_is_404(server: ViewerServer, path: str) -> None:
    assert ask(server, path)[0] == 404
    assert review(server, decisions(server), path=path + "/review")[0] == 404


def test_foreign_sites_are_refused(server: ViewerServer, tmp_path: Path) -> None:
    assert ask(server, "/", Host="evil.example")[0] == 403  # a name that was pointed at this machine
    assert ask(server, "/", Host=f"localhost:{server.server_port}")[0] == 200
    good = decisions(server)
    assert review(server, good, Origin="http://evil.example")[0] == 403
    assert review(server, good, Origin="null")[0] == 403
    assert review(server, good, Content_Type="text/plain")[0] == 415  # what a form of another page can send
    assert not (tmp_path / "saved").exists()
    assert review(server, good, Origin=server.url.rstrip("/"))[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"objects": 3}', b'{"objects": []}', b"[" * 100_000, b"\xff\xfe"]
)  # fmt: skip
def test_malformed_reviews_are_refused(server: ViewerServer, tmp_path: Path, body: bytes) -> None:
    status, answer = review(server, body)
    assert 400 <= status < 500 and answer["error"].startswith("review: ")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    "change",
    [{"status": "maybe"}, {"center": [0, 1]}, {"center": [0, 1, "2"]}, {"center": [0, 0, 1e9]}, {"size": [0, 1, 1]},
     {"size": [1, 1, True]}, {"yaw": None}, {"yaw": float("nan")}, {"yaw": 1e300}],
)  # fmt: skip
def test_impossible_boxes_are_refused(server: ViewerServer, tmp_path: Path, change: dict[str, Any]) -> None:
    status, answer = review(server, decisions(server, **change))
    assert status == 422 and "objects[0]" in answer["error"]
    assert not (tmp_path / "saved").exists()


def test_bodies_need_a_length_and_have_a_limit(server: ViewerServer) -> None:
    assert review(server, b"x", Content_Length=str(LARGEST_BODY + 1))[0] == 413
    assert review(server, b"x", Content_Length="many")[0] == 411
    assert ask(server, "/", method="DELETE")[0] == 501


def test_saving_keeps_untouched_rows_and_is_remembered(
    server: ViewerServer, world: Path, tmp_path: Path
) -> None:
    status, answer = review(server, decisions(server))
    assert status == 200 and answer["written"] == 3
    original = (world / "label_2" / "000000.txt").read_bytes()
    assert (tmp_path / "saved/label_2/000000.txt").read_bytes() == original
    everything = decisions(server)
    everything["objects"][1]["status"] = "rejected"
    everything["objects"][2]["status"] = "open"
    review(server, everything)
    lines = original.splitlines()
    assert (tmp_path / "saved/label_2/000000.txt").read_bytes().splitlines() == lines[:1]
    assert [d["status"] for d in ask(server, "/api/frames/0")[1]["review"]] == [
        "accepted",
        "rejected",
        "open",
    ]
    assert (world / "label_2" / "000000.txt").read_bytes() == original


def test_a_broken_frame_is_told_and_the_others_still_come(world: Path) -> None:
    (world / "image_2" / "000000.png").write_bytes(b"")
    with ViewerServer(open_frames(world), "world") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, answer = ask(server, "/api/frames/0")
        assert status == 422 and "000000.png: not a readable image" in answer["error"]
        assert ask(server, "/api/frames/1")[0] == 200
        assert review(server, {"objects": []}, path="/api/frames/1/review")[0] == 403  # no --save-to
        server.shutdown()


def test_the_input_is_never_the_target(world: Path) -> None:
    for folder in (world, world / "label_2" / ".."):
        with pytest.raises(InputError, match="holds the labels under review"):
            ViewerServer(open_frames(world), "world", save_to=folder)


def test_a_port_in_use_is_named(server: ViewerServer, world: Path) -> None:
    with pytest.raises(InputError, match=f"--port {server.server_port}: cannot listen"):
        ViewerServer(open_frames(world), "world", port=server.server_port)
