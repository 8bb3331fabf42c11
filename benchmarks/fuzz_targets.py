# ruff: noqa: E501  (tables of sound files)
"""What `fuzz.py` reads: for each kind of file a few sound ones, and the function that reads it as the subcommands do."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / "helpers")]


@dataclass(frozen=True)
class Target:
    """kind: json, text or bytes, how it is mutated; share: of all inputs; allowed: errors besides InputError."""

    name: str
    seeds: list[bytes]
    read: Callable[[Path], Any]
    kind: str = "bytes"
    file: str = "x"
    """The file's path within the target's folder, with its suffix."""
    share: float = 1.0
    allowed: tuple[type[Exception], ...] = ()
    before: Callable[[Path], None] | None = None
    """Makes what stands beside the file, once per folder."""

    def write(self, folder: Path, content: bytes) -> Path:
        """The file in ``folder`` with this content."""
        if self.before is not None and not any(folder.iterdir()):
            self.before(folder)
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def targets(folder: Path) -> list[Target]:
    """All of them; ``folder`` is for seeds that only a writer to disk makes."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *_text(),
        *_tables(folder),
        *_arrays(),
        *_images(),
        *_weights(folder),
        *_meshes(folder),
        *_results(),
    ]


LABEL = b"Car 0.00 0 -1.57 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 -1.62\nDontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n"
CALIB = "".join(
    f"{name}: {' '.join(values)}\n"
    for name, values in {
        **{
            f"P{k}": ["700", "0", "300", "44.8", "0", "700", "90", "0.2", "0", "0", "1", "0.003"]
            for k in range(4)
        },
        "R0_rect": ["1", "0", "0", "0", "1", "0", "0", "0", "1"],
        "Tr_velo_to_cam": ["0", "-1", "0", "0", "0", "0", "-1", "0", "1", "0", "0", "0"],
        "Tr_imu_to_velo": ["1", "0", "0", "0", "0", "1", "0", "0", "0", "0", "1", "0"],
    }.items()
).encode()
RUN = b'method = "smoke"\ndata = ["KITTI"]\nseed = 1\n[settings]\nepochs = 3\ninput_width = 640\nlr = 1e-4\nclasses = ["Car"]\n'


def _text() -> list[Target]:
    from camera_files import SAVED
    from monolift.data import cameras
    from monolift.data.formats.camera_files import parse_camera_file
    from monolift.data.formats.kitti_format import read_calib, read_labels, read_split
    from monolift.data.formats.kitti_table import read_table
    from monolift.files.json_text import read_json
    from monolift.files.settings import split_settings
    from monolift.files.yaml_text import read_yaml
    from monolift.methods import get_method
    from monolift.runtime.camera_file import read_camera
    from monolift.training.options import choose
    from monolift.training.run_file import read_run_file
    from monolift.world.car_codes import read_codes

    opencv = b"%YAML:1.0\n---\nimage_width: 640\nimage_height: 192\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [700., 0., 320., 0., 700., 96., 0., 0., 1.]\n"
    xml_like = b'{"width": 640, "height": 192, "fx": 700, "fy": 700, "ppx": 320, "ppy": 96, "coeffs": [0, 0, 0, 0, 0], "model": "none"}'
    kalibr = b"cam0:\n  camera_model: pinhole\n  intrinsics: [700, 700, 320, 96]\n  resolution: [640, 192]\n  distortion_coeffs: [0, 0, 0, 0]\n"
    raw = b"S_rect_02: 6.400000e+02 1.920000e+02\nR_rect_02: 1 0 0 0 1 0 0 0 1\nP_rect_02: 700 0 320 44 0 700 96 0 0 0 1 0\n"
    bare = b"700 0 320\n0 700 96\n0 0 1\n"
    files = [SAVED.encode(), opencv, xml_like, kalibr, raw, bare, CALIB]

    def settings(path: Path) -> None:
        text = path.read_text("utf-8", "surrogateescape")
        split_settings(text.split("\n"))
        choose(get_method("smoke"), settings=text.split("\n"))

    from dataclasses import asdict

    from monolift.shapes.car_texture import sample_style
    from monolift.shapes.procedural import sample_shape

    rng = np.random.default_rng(0)
    car = {"row": 0, "type": "Car", "shape": asdict(sample_shape(rng)), "style": asdict(sample_style(rng))}
    codes = json.dumps({"cars": [car]}).encode()
    return [
        Target("json", [b'{"a": [1, 2.5, {"b": null}], "c": "x", "d": {"e": true}}', b"[[1, 2], [3, 4]]"], read_json, "json", "x.json", 2),
        Target("yaml", [SAVED.encode(), opencv, kalibr, b"a: {b: [1, ~, yes], c: 'x'}\nd:\n  - 1e3\n  - 0o17\n"], read_yaml, "text", "x.yaml", 4),
        Target("labels", [LABEL, LABEL[:80] + b" 0.9\n"], read_labels, "text", "000001.txt", 3),
        Target("table", [LABEL, LABEL[:80] + b" 0.9\n"], lambda p: read_table([p], False), "text", "000001.txt", 3),
        Target("calib", [CALIB, CALIB.replace(b"R0_rect", b"R_rect")], read_calib, "text", "000001.txt", 3),
        Target("split", [b"000001\n000002\n000003\n"], read_split, "text", "s.txt", 2),
        Target("camera", files, lambda p: parse_camera_file(p.read_bytes(), "camera", (640, 192)), "json", "c.yaml", 10),
        Target("camera-lone", files, lambda p: cameras.CameraChoice.of(None, p, None).for_image("000001", 640, 192), "json", "c.json", 4),
        Target("camera-text", [b"700,700,320,96", b"700,700,320,96,640,192"], lambda p: cameras.CameraChoice.of(p.read_text("utf-8", "replace"), None, None).for_image("x", 640, 192), "text", "t", 3),
        Target("camera-runtime", [xml_like, CALIB, bare], lambda p: read_camera(str(p)), "json", "c.json", 3, (ValueError,)),
        Target("run-toml", [RUN], read_run_file, "text", "run.toml", 3),
        Target("run-yaml", [b"method: smoke\ndata: [KITTI]\nsettings:\n  epochs: 3\n  lr: 1e-4\n  classes: [Car]\n"], read_run_file, "text", "run.yaml", 3),
        Target("run-json", [b'{"method": "smoke", "data": ["K"], "settings": {"epochs": 3, "lr": 1e-4, "classes": ["Car"]}}'], read_run_file, "json", "run.json", 3),
        Target("settings", [b"input_width=640\nlr=1e-4\nclasses=[\"Car\"]\naugmentation.mirror=0.5", b"schedule=steps\nmilestones=[0.3,0.5]\nseed=1"], settings, "text", "s", 3),
        Target("car-codes", [codes], read_codes, "json", "codes.json", 1),
    ]  # fmt: skip


def _rgb(width: int = 64, height: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _encoded(kind: str, pixels: Any = None, **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(_rgb() if pixels is None else pixels).save(data, kind, **options)
    return data.getvalue()


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded("PNG"))


def _tables(folder: Path) -> list[Target]:
    from monolift.data.formats.coco import coco_tables
    from monolift.data.formats.convert import open_dataset
    from monolift.data.formats.frames import KittiFrames
    from monolift.data.formats.masks import open_masks
    from monolift.data.formats.omni3d import omni3d_tables
    from monolift.data.formats.rle import decode_rle, encode_rle
    from nuscenes_tables import TABLES

    root = folder / "kitti" / "training"
    _image(root / "image_2" / "000001.png")
    (root / "label_2").mkdir(parents=True)
    (root / "calib").mkdir()
    label = b"Car 0.00 0 -1.57 10 10 40 30 1.57 1.73 4.15 1.00 1.75 13.22 -1.62\n"
    (root / "label_2" / "000001.txt").write_bytes(label)
    (root / "calib" / "000001.txt").write_bytes(
        CALIB.replace(b"700 0 300", b"60 0 32").replace(b"700 90", b"60 20")
    )
    frames = [KittiFrames(root).frame(0)]
    coco, omni = (json.dumps(make(frames)).encode() for make in (coco_tables, omni3d_tables))

    def frames_of(path: Path) -> None:
        data = open_dataset(path)
        for k in range(min(len(data), 3)):
            data.frame(k)
            data[k]

    def beside(where: Path) -> None:
        for place in ("000001.png", "image_2/000001.png", "images/000001.png"):
            _image(where / place)

    row = {"image_id": 1, "category_id": 3, "score": 0.9, "bbox": [5, 5, 20, 20]}
    rle = {**row, "segmentation": {"size": [40, 64], "counts": [100, 50, 2410]}}
    packed = {
        **row,
        "segmentation": {"size": [40, 64], "counts": encode_rle(np.eye(40, 64, dtype=bool))["counts"]},
    }
    rows = [json.dumps(v).encode() for v in ([rle], [rle, packed], {"images": [{"id": 1, "file_name": "000001.png"}], "categories": [{"id": 3, "name": "Car"}], "annotations": [packed, rle]})]  # fmt: skip

    def masks(path: Path) -> None:
        open_masks(path).read("000001", (64, 40))

    stack = io.BytesIO()
    np.savez(
        stack,
        masks=np.zeros((2, 40, 64), bool),
        classes=np.array(["Car", "Van"]),
        scores=np.ones(2, np.float32),
    )
    packed_stack = io.BytesIO()
    np.savez_compressed(
        packed_stack, masks=np.ones((1, 40, 64), np.uint8), classes=np.array(["Car"]), scores=np.ones(1)
    )
    nuscenes = [Target(f"nuscenes-{name}", [json.dumps(table).encode()], _nuscenes, "json", f"v1.0-mini/{name}.json", 0.5, before=_nuscenes_before) for name, table in TABLES.items()]  # fmt: skip
    return [
        Target("coco", [coco], frames_of, "json", "instances.json", 8, before=beside),
        Target("omni3d", [omni], frames_of, "json", "omni.json", 8, before=beside),
        Target("masks-json", rows, masks, "json", "m.json", 6),
        Target("masks-npz", [stack.getvalue(), packed_stack.getvalue()], lambda p: open_masks(p.parent).read("000001", (64, 40)), "bytes", "000001.npz", 4),
        Target("rle", [b'{"size": [40, 64], "counts": [100, 50, 2410]}', json.dumps(packed["segmentation"]).encode()], lambda p: decode_rle(_json(p), "mask", (64, 40)), "json", "r.json", 4),
        *nuscenes,
    ]  # fmt: skip


def _json(path: Path) -> Any:
    """What the file holds as plain JSON; None where it is none."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _nuscenes_before(where: Path) -> None:
    from nuscenes_tables import TABLES

    (where / "v1.0-mini").mkdir(parents=True)
    for name, table in TABLES.items():
        (where / "v1.0-mini" / f"{name}.json").write_text(json.dumps(table))
    for row in TABLES.get("sample_data", []):
        if str(row.get("filename", "")).endswith((".jpg", ".png")):
            _image(where / row["filename"])


def _nuscenes(path: Path) -> None:
    from monolift.data.formats.nuscenes import NuscenesDataset
    from nuscenes_tables import TABLES

    try:
        data = NuscenesDataset(path.parents[1], "v1.0-mini")
        for k in range(min(len(data), 2)):
            data.frame(k)
    finally:
        path.write_text(json.dumps(TABLES[path.stem]))  # sound again for the other tables


def _arrays() -> list[Target]:
    from monolift.data.formats.depth_maps import read_depth
    from monolift.data.formats.kitti_format import parse_calib
    from monolift.data.formats.velodyne import velodyne_points
    from monolift.files.arrays import read_npy, read_npz

    def npy(values: np.ndarray) -> bytes:
        data = io.BytesIO()
        np.save(data, values)
        return data.getvalue()

    depth = np.linspace(1, 50, 40 * 64, dtype=np.float32).reshape(40, 64)
    archive = io.BytesIO()
    np.savez_compressed(archive, a=depth, b=np.arange(5))
    calib = parse_calib(CALIB)
    return [
        Target("npy", [npy(depth), npy(np.arange(6).reshape(2, 3)), npy(np.array(["a", "bc"]))], read_npy, file="x.npy", share=4),
        Target("npz", [archive.getvalue()], read_npz, file="x.npz", share=4),
        Target("depth-npy", [npy(depth), npy((depth * 100).astype(np.uint16))], read_depth, file="d.npy", share=3),
        Target("depth-png", [_encoded("PNG", (depth * 256).astype(np.uint16))], read_depth, file="d.png", share=3),
        Target("velodyne", [np.random.default_rng(0).normal(0, 20, (50, 4)).astype("<f4").tobytes()], lambda p: velodyne_points(p, calib), file="v.bin", share=2),
    ]  # fmt: skip


def _images() -> list[Target]:
    from monolift.errors import InputError
    from monolift.files.images import image_size, read_rgb
    from monolift.runtime.image_file import read_rgb as runtime_rgb

    grey = _rgb()[..., 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = {
        "jpeg": [_encoded("JPEG", exif=exif), _encoded("JPEG", progressive=True)],
        "png": [_encoded("PNG"), _encoded("PNG", grey), _encoded("PNG", grey.astype(np.uint16) * 200), _encoded("PNG", exif=exif), _strip()],
        "webp": [_encoded("WEBP"), _encoded("WEBP", lossless=True, exif=exif)],
        "bmp": [_encoded("BMP"), _encoded("BMP", grey)],
        "tiff": [_encoded("TIFF"), _encoded("TIFF", compression="tiff_lzw"), _encoded("TIFF", compression="tiff_deflate", exif=exif)],
        "gif": [_encoded("GIF")],
        "ppm": [_encoded("PPM"), _encoded("PPM", grey)],
    }  # fmt: skip

    def both(path: Path) -> None:
        with contextlib.suppress(InputError):
            image_size(path)
        read_rgb(path)

    own = [Target(f"image-{kind}", files, both, file=f"x.{kind}", share=6) for kind, files in seeds.items()]
    every = list(itertools.chain(*seeds.values()))
    return [
        *own,
        Target("image-runtime", every, runtime_rgb, file="x.png", share=6, allowed=(ValueError,)),
    ]


def _strip() -> bytes:
    """A PNG that is larger than the limits and holds almost nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", 19_000, 4_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((19_000 // 8 + 1) * 4_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _weights(folder: Path) -> list[Target]:
    import torch

    from monolift.inference import checkpoint
    from monolift.inference.zoo import resolve
    from monolift.runtime.model import RuntimeInputError, _described
    from monolift.shapes.autoencoder import BUNDLED as SHAPES
    from monolift.shapes.autoencoder import load_shape_space
    from monolift.shapes.textured import BUNDLED as TEXTURED
    from monolift.shapes.textured import load_textured

    torch.set_num_threads(1)
    bundled = Path(resolve("smoke"))
    config, weights = ((bundled / n).read_bytes() for n in (checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE))
    head = weights[: 8 + struct.unpack("<Q", weights[:8])[0]]

    def with_weights(where: Path) -> None:
        (where / checkpoint.WEIGHTS_FILE).write_bytes(weights)

    def with_config(where: Path) -> None:
        (where / checkpoint.CONFIG_FILE).write_bytes(config)

    def load(path: Path) -> None:
        checkpoint.read_card(path.parent)
        checkpoint.load(path.parent)

    def with_rest(rest: bytes, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def completed(path: Path) -> Any:
            with path.open("ab") as file:
                file.write(rest)
            return read(path)

        return completed

    spaces = []
    for name, file, read in (
        ("shape-space", SHAPES, load_shape_space),
        ("textured", TEXTURED, load_textured),
    ):
        content = Path(file).read_bytes()
        length = 8 + struct.unpack("<Q", content[:8])[0]
        spaces.append(
            Target(name, [content[:length]], with_rest(content[length:], read), "bytes", "s.safetensors", 1)
        )
        spaces.append(Target(f"{name}-config", [_configuration(content, length)], _reconfigured(content, length, read), "json", "s.json", 1))  # fmt: skip
    description = json.dumps({"format": 1, "method": "smoke", "classes": ["Car"], "config": {}}).encode()
    return [
        Target("checkpoint-config", [config], load, "json", checkpoint.CONFIG_FILE, 0.4, before=with_weights),
        Target("checkpoint-weights", [head], with_rest(weights[len(head) :], load), "bytes", checkpoint.WEIGHTS_FILE, 0.4, before=with_config),
        Target("onnx-description", [description], lambda p: _described(p, p.read_text("utf-8", "replace")), "json", "x.json", 1, (RuntimeInputError,)),
        *spaces,
    ]  # fmt: skip


def _configuration(content: bytes, length: int) -> bytes:
    return json.dumps(json.loads(json.loads(content[8:length])["__metadata__"]["config"])).encode()


def _reconfigured(content: bytes, length: int, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Reads the file with another configuration in its header."""

    def inner(path: Path) -> Any:
        header = json.loads(content[8:length])
        header["__metadata__"]["config"] = path.read_bytes().decode("utf-8", "replace")
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[length:])
        return read(path)

    return inner


def _meshes(folder: Path) -> list[Target]:
    from monolift.render.glb import read_glb, write_glb
    from monolift.render.mesh import Mesh, icosphere
    from monolift.shapes.mesh_files import read_mesh

    write_glb(folder / "m.glb", [Mesh(*icosphere(1))])
    glb = (folder / "m.glb").read_bytes()
    obj = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1/1 2/2 4/3\nf -4 -1 -2\nf 2 3 4\n"
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    solid = corners[[[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]]
    stl = bytes(80) + struct.pack("<I", 4) + b"".join(bytes(12) + face.tobytes() + bytes(2) for face in solid)
    lines = ["solid x"]
    for face in solid:
        lines += [
            "facet normal 0 0 0",
            "outer loop",
            *(f"vertex {x:g} {y:g} {z:g}" for x, y, z in face),
            "endloop",
            "endfacet",
        ]
    ascii_stl = "\n".join([*lines, "endsolid x", ""]).encode()
    length = struct.unpack("<I", glb[12:16])[0]

    def with_buffer(path: Path) -> Any:
        text = path.read_bytes()
        text += b" " * (-len(text) % 4)
        rest = glb[20 + length :]
        body = struct.pack("<II", len(text), 0x4E4F534A) + text + rest
        path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body)
        return read_glb(path)

    return [
        Target("glb", [glb], read_glb, file="m.glb", share=3),
        Target("glb-json", [glb[20 : 20 + length]], with_buffer, "json", "n.glb", 3),
        Target("obj", [obj], read_mesh, "text", "m.obj", 2),
        Target("stl", [stl, ascii_stl], read_mesh, "text", "m.stl", 2),
        Target("mesh-glb", [glb], read_mesh, file="m.glb", share=1),
    ]


def _results() -> list[Target]:
    from monolift.viewer.encode import encode_scene
    from monolift.viewer.open import open_frames
    from monolift.viewer.review import STATUSES, parse_decisions

    found = {
        "schema": "monolift.result/1", "name": "000001", "source": "000001.png", "image": {"width": 64, "height": 40},
        "camera": {"fx": 60, "fy": 60, "cx": 32, "cy": 20, "translation": [0, 0, 0], "origin": "given"},
        "objects": [{
            "class": "Car", "score": 0.9, "center": [1.0, 0.5, 13.0], "size": {"length": 4.1, "height": 1.5, "width": 1.7}, "yaw": 0.1, "alpha": 0.1,
            "distance": 13.0, "box2d": [10, 10, 30, 30], "standard_deviation": {"x": 0.1, "y": 0.1, "z": 0.5, "length": 0.2, "height": 0.1, "width": 0.1, "yaw": 0.1},
        }],
        "seconds": {"network": 0.1}, "warnings": ["a guess"],
    }  # fmt: skip
    seeds = [json.dumps(v).encode() for v in (found, [found, found], {**found, "source": None})]

    def view(path: Path) -> None:
        frames = open_frames(path)
        for k in range(min(len(frames), 2)):
            json.dumps(encode_scene(frames[k]), allow_nan=False)

    row = {"center": [1.0, 0.5, 13.0], "size": [4.1, 1.5, 1.7], "yaw": 0.1}
    decisions = [json.dumps({"objects": [{"status": status, **row} for status in STATUSES[:2]]}).encode()]
    return [
        Target("result", seeds, view, "json", "r.json", 5, before=lambda where: _image(where / "000001.png")),
        Target("review", decisions, lambda p: parse_decisions(p.read_bytes(), 2), "json", "review.json", 2),
    ]
