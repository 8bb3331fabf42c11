"""From one data set's format to another: KITTI, Omni3D, COCO; and from nuScenes to any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from monolift.data.cameras import CameraChoice
from monolift.data.formats.coco import CocoDataset, coco_tables
from monolift.data.formats.coco_json import read_json, write_json_tables
from monolift.data.formats.frames import Frame, FrameDataset, KittiFrames, write_kitti
from monolift.data.formats.nuscenes import NuscenesDataset, is_nuscenes
from monolift.data.formats.omni3d import Omni3dDataset, omni3d_tables
from monolift.errors import InputError

TARGETS = ("kitti", "omni3d", "coco")


@dataclass(frozen=True)
class Converted:
    """What came of a conversion: frames and objects written, and what was lost or is doubtful."""

    out: Path
    frames: int
    objects: int
    warnings: tuple[str, ...] = ()


def open_dataset(
    source: str | Path,
    split: str | Path | None = None,
    images: str | Path | None = None,
    version: str | None = None,
    channel: str = "CAM_FRONT",
) -> FrameDataset:
    """The data set at a path, its format told from what is there.

    source: a KITTI folder, a nuScenes folder, or an Omni3D or COCO file. split: ids of a KITTI folder; images: the folder that
    a file's picture paths start from; version, channel: of nuScenes.
    Raises InputError where the path is none of these, or an option belongs to another format.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    kind = _kind(source)
    if split is not None and kind != "kitti":
        raise InputError(f"{source}: a split belongs to a KITTI folder, this is {kind}")
    if images is not None and kind not in ("omni3d", "coco"):
        raise InputError(f"{source}: a folder of images belongs to an Omni3D or COCO file, this is {kind}")
    if version is not None and kind != "nuscenes":
        raise InputError(f"{source}: a version belongs to a nuScenes folder, this is {kind}")
    if kind == "kitti":
        return KittiFrames(source, split)
    if kind == "nuscenes":
        return NuscenesDataset(source, version, channel)
    return (Omni3dDataset if kind == "omni3d" else CocoDataset)(source, images)


def _kind(source: Path) -> str:
    if source.is_dir():
        return "nuscenes" if is_nuscenes(source) else "kitti"
    content = read_json(source)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images or not isinstance(images[0], dict):
        raise InputError(f"{source}: expected an Omni3D or COCO file, whose images is a list of objects")
    return "omni3d" if "file_path" in images[0] else "coco"


def convert(
    source: str | Path | FrameDataset,
    to: str,
    out: str | Path,
    *,
    camera: CameraChoice | None = None,
    rename: Mapping[str, str] | None = None,
    advance: Callable[[Frame], None] = lambda _: None,
) -> Converted:
    """Writes a data set in another format.

    source: a path as for :func:`open_dataset`, or an opened data set. to: "kitti" (out: a new folder, pictures copied),
    "omni3d" or "coco" (out: a JSON file, pictures stay where they are). camera: for data sets that know none. rename:
    classes, old name to new, after KITTI's spelling. advance: called with every frame that is done.
    Raises InputError for what cannot be read or written; nothing half-written is left.
    """
    if to not in TARGETS:
        raise InputError(f"to: expected one of {', '.join(TARGETS)}, got {to!r}")
    dataset = source if isinstance(source, FrameDataset) else open_dataset(source)
    out = Path(out)
    count = _Count()

    def frames() -> Iterator[Frame]:
        for index in range(len(dataset)):
            frame = _renamed(_with_camera(dataset.frame(index), camera, count), rename or {})
            count.add(frame)
            yield frame
            if to != "kitti":
                advance(frame)

    if to == "kitti":
        write_kitti(out, frames(), advance)
    else:
        folder = out.parent
        write_json_tables(
            out, omni3d_tables(frames(), folder) if to == "omni3d" else coco_tables(frames(), folder)
        )
    return Converted(out, count.frames, count.objects, (*dataset.warnings, *count.warnings))


class _Count:
    """Frames and objects as they pass, and what was said about them."""

    def __init__(self) -> None:
        self.frames = self.objects = 0
        self.warnings: dict[str, None] = {}

    def add(self, frame: Frame) -> None:
        self.frames += 1
        self.objects += len(frame.labels)


def _with_camera(frame: Frame, choice: CameraChoice | None, count: _Count) -> Frame:
    if choice is None or frame.projection is not None:
        return frame
    known = choice.for_picture(frame.name, frame.width, frame.height)
    count.warnings.update(dict.fromkeys(known.warnings))
    return replace(frame, projection=known.camera.matrix.numpy())


def _renamed(frame: Frame, rename: Mapping[str, str]) -> Frame:
    names = tuple(rename.get(name, name) for name in frame.labels.names)
    return replace(frame, labels=replace(frame.labels, names=names))
