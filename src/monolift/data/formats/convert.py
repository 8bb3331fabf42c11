"""Conversion between data set formats: KITTI, Omni3D and COCO; nuScenes as a source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from monolift.data.camera_tally import CameraTally
from monolift.data.cameras import CameraChoice
from monolift.data.formats.coco import CocoDataset, coco_tables
from monolift.data.formats.coco_json import write_json_tables
from monolift.data.formats.frames import Frame, FrameDataset, KittiFrames, write_kitti
from monolift.data.formats.nuscenes import NuscenesDataset, is_nuscenes
from monolift.data.formats.omni3d import Omni3dDataset, omni3d_tables
from monolift.errors import InputError
from monolift.files.images import image_size
from monolift.files.json_text import read_json

TARGETS = ("kitti", "omni3d", "coco")


@dataclass(frozen=True)
class Converted:
    """The outcome of a conversion: frames and objects written, problems found.

    failed: (image, why) of images that cannot be used and are not in ``out``; missing: files of images that are not there and
    were left out as was asked for, or as nuScenes' partial downloads are.
    """

    out: Path
    frames: int
    objects: int
    warnings: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def open_dataset(
    source: str | Path,
    split: str | Path | None = None,
    images: str | Path | None = None,
    version: str | None = None,
    channel: str = "CAM_FRONT",
    scenes: Collection[str] = (),
) -> FrameDataset:
    """Open a data set; its format is detected.

    source: a KITTI folder, a nuScenes folder, or an Omni3D or COCO file. split: ids of a KITTI folder; images: the folder that
    a file's image paths start from; version, channel, scenes: of nuScenes.
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
    if scenes and kind != "nuscenes":
        raise InputError(f"{source}: scenes belong to a nuScenes folder, this is {kind}")
    if kind == "kitti":
        return KittiFrames(source, split)
    if kind == "nuscenes":
        return NuscenesDataset(source, version, channel, scenes)
    return (Omni3dDataset if kind == "omni3d" else CocoDataset)(source, images)


def _kind(source: Path) -> str:
    if source.is_dir():
        return "nuscenes" if is_nuscenes(source) else "kitti"
    content = read_json(source)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise InputError(f"{source}: expected an Omni3D or COCO file, whose images is a list of objects")
    first = next((row for row in images if isinstance(row, dict)), {})
    return "omni3d" if "file_path" in first else "coco"


def convert(
    source: str | Path | FrameDataset,
    to: str,
    out: str | Path,
    *,
    camera: CameraChoice | None = None,
    rename: Mapping[str, str] | None = None,
    advance: Callable[[Frame], None] = lambda _: None,
    skip_missing: bool = False,
) -> Converted:
    """Writes a data set in another format.

    source: a path as for `open_dataset`, or an opened data set. to: "kitti" (out: a new folder, images copied),
    "omni3d" or "coco" (out: a JSON file, images stay where they are). camera: for data sets that know none. rename:
    classes, old name to new, after KITTI's spelling. advance: called with every frame that is done. skip_missing: images that
    are not there are no failures.
    An image that cannot be used (missing, unreadable, of another size than its annotations say, with labels or a camera that
    cannot be its own) is left out and named in ``failed``; the others are written.
    Raises InputError where nothing can be read or written; nothing half-written is left.
    """
    if to not in TARGETS:
        raise InputError(f"to: expected one of {', '.join(TARGETS)}, got {to!r}")
    dataset = source if isinstance(source, FrameDataset) else open_dataset(source)
    out = Path(out)
    job = _Job(dataset, camera, rename or {}, skip_missing)

    def frames() -> Iterator[Frame]:
        for frame in job.frames():
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
    return Converted(out, job.done, job.objects, job.warnings, tuple(job.failed.items()), tuple(job.missing))


class _Job:
    """The sound frames of a data set, one after the other, and what was said about the others."""

    def __init__(
        self,
        dataset: FrameDataset,
        choice: CameraChoice | None,
        rename: Mapping[str, str],
        skip_missing: bool,
    ) -> None:
        self.dataset, self.choice, self.rename, self.skip_missing = dataset, choice, rename, skip_missing
        self.done = self.objects = 0
        self.failed: dict[str, str] = {}
        self.missing = list(getattr(dataset, "missing", ()))
        self.tally = CameraTally()
        self._said: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.dataset.warnings, *self.tally.warnings, *self._said)

    def frames(self) -> Iterator[Frame]:
        """Raises InputError where not one frame is sound."""
        for index, name in enumerate(self.dataset.ids):
            try:
                frame = self.dataset.frame(index)
                if self.skip_missing and not frame.image.is_file():
                    self.missing.append(str(frame.image))
                    continue
                frame = self._with_camera(self._checked(frame))
            except InputError as error:
                self.failed[name] = str(error)
                continue
            self.done += 1
            self.objects += len(frame.labels)
            yield self._renamed(frame)
        if not self.done:
            first = next(
                iter(self.failed.values()),
                f"{self.missing[0]}: no such image" if self.missing else "no images",
            )
            count = len(self.failed) + len(self.missing)
            raise InputError(
                first + (f" (and {count - 1} more: no image can be converted)" if count > 1 else "")
            )

    def _checked(self, frame: Frame) -> Frame:
        """Raises InputError unless the image is there and has the size that its annotations are for."""
        if not frame.image.is_file():
            raise InputError(
                f"{frame.image}: no such image: give the folder of the paths with --images, or --skip-missing"
            )
        size = image_size(frame.image)
        if size != (frame.width, frame.height):
            raise InputError(
                f"{frame.image}: expected {frame.width} x {frame.height} pixels as its annotations say, got "
                f"{size[0]} x {size[1]}: labels and camera of another size would be wrong"
            )
        return frame

    def _with_camera(self, frame: Frame) -> Frame:
        if frame.projection is None:
            if self.choice is None:
                return frame
            known = self.choice.for_image(frame.name, frame.width, frame.height)
            self._said.update(dict.fromkeys(known.warnings))
            return replace(frame, projection=known.camera.matrix.numpy())
        if not self.tally.add(f"{frame.name}: camera", frame.projection.tolist(), frame.width, frame.height):
            raise InputError(self.tally.errors[-1])
        return frame

    def _renamed(self, frame: Frame) -> Frame:
        names = tuple(self.rename.get(name, name) for name in frame.labels.names)
        return replace(frame, labels=replace(frame.labels, names=names))
