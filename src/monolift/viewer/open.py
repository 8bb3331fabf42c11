"""What ``monolift view`` can be pointed at, as scenes that are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from monolift.data.formats.autolabel_note import is_autolabels, labelled_data
from monolift.data.formats.depth_maps import read_depth
from monolift.data.formats.kitti_format import KittiCalib, KittiLabels, read_calib, read_labels, read_split
from monolift.data.formats.velodyne import velodyne_points
from monolift.data.kitti import find_image, read_camera, sample_from_labels
from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.files.folders import dataset_root, listed, text_file
from monolift.files.images import IMAGE_SUFFIXES, image_size
from monolift.geometry import Boxes3D, Camera
from monolift.render.glb import read_glb
from monolift.render.mesh import Mesh
from monolift.typing import Float, Tensor
from monolift.viewer.result_files import entries_of, is_result_file, scene_of_row
from monolift.viewer.scene import Scene

LONGEST_RANGE = 100.0  # metres of a depth map; sky is further
RESULT_SUFFIXES = (".json", ".jsonl")
DEPTH_STRIDE = 2  # pixels between points of a dense depth map


@dataclass(frozen=True)
class Frames:
    """Named scenes; each is read from disk when it is asked for.

    inputs: folders that must not be written to. times: seconds, of a video's frames.
    """

    names: tuple[str, ...]
    read: Callable[[int], Scene]
    inputs: tuple[Path, ...] = ()
    times: tuple[float | None, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Scene:
        return self.read(range(len(self))[index])

    def __iter__(self) -> Iterator[Scene]:
        return (self[k] for k in range(len(self)))


def open_frames(
    path: Path,
    predictions: Path | None = None,
    images: Path | None = None,
    split: Path | None = None,
    limit: int | None = None,
    points: Path | None = None,
) -> Frames:
    """The scenes of a KITTI-format folder, a result file or a folder of them, a folder of auto-labels, or a GLB file.

    predictions: result files to show against a KITTI folder's labels; images: where the images of results are, or the data
    set of auto-labels; split: ids of a KITTI folder or of auto-labels; limit: at most so many scenes; points: folder of scans
    (NAME.bin) or depth maps (NAME.png), by default the data set's own velodyne or depth_2.
    Raises InputError for a path that is none of these, and later for files that cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if is_autolabels(path) and predictions is None:
        frames = _autolabels(path, split, images, points)
    elif path.is_dir() and (root := _kitti_root(path)) is not None:
        if images is not None:
            raise InputError(f"--images goes with results; {path} has its own images")
        frames = _kitti_frames(_Kitti(root, predictions, points=points), split)
    elif predictions is not None or split is not None or points is not None:
        raise InputError(
            f"{path}: --predictions, --split and --points go with a KITTI folder (image_2, calib)"
        )
    elif path.suffix.lower() == ".glb":
        frames = Frames((path.stem,), lambda _: _glb(path), (path.parent,))
    elif path.is_file() and path.suffix.lower() not in RESULT_SUFFIXES:
        raise InputError(
            f"{path}: expected a folder, a result file (.json, .jsonl) or meshes (.glb), got a {path.suffix or 'nameless'} file"
            "; for an image or a video: monolift detect --save html, or --save jsonl and view of that"
        )
    else:
        frames = _results(path, images)
    if limit is not None and limit < 1:
        raise InputError(f"--limit: expected a number of at least 1, got {limit}")
    return Frames(frames.names[:limit], frames.read, frames.inputs, frames.times[:limit])


# -- results of detect ------------------------------------------------------------------------------------------------------


def _results(path: Path, images: Path | None) -> Frames:
    if path.is_dir():
        files = [p for p in listed(path, RESULT_SUFFIXES).files if is_result_file(p)]
        if not files:
            raise InputError(
                f"{path}: expected a KITTI folder (image_2 and calib, here or in training/), or results of "
                "`monolift detect --save json`; found neither"
            )
    else:
        files = [path]
    entries = [(file, entry) for file in files for entry in entries_of(file)]
    if not entries:
        raise InputError(f"{path}: holds no result")
    return Frames(
        tuple(entry.name for _, entry in entries),
        lambda k: scene_of_row(entries[k][1].read(), entries[k][0], images),
        (path if path.is_dir() else path.parent,),
        tuple(entry.time for _, entry in entries),
    )


def _glb(path: Path) -> Scene:
    """The meshes, each with the box of its extent: no image, no camera."""
    meshes = tuple(read_glb(path))
    low, high = (
        torch.stack([bound(m.vertices) for m in meshes]) if meshes else torch.zeros(0, 3)
        for bound in (lambda v: v.amin(0), lambda v: v.amax(0))
    )
    boxes = Boxes3D((low + high) / 2, high - low, torch.zeros(len(meshes)))
    return Scene(path.stem, objects=Objects.named(boxes, ("Mesh",) * len(meshes), meshes=meshes))


# -- KITTI folders ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kitti:
    """A data set's images; ``predictions`` are shown against its labels, each with the mesh of its row."""

    root: Path
    predictions: Path | None = None
    meshes: Path | None = None
    points: Path | None = None


def _kitti_root(path: Path) -> Path | None:
    """``path`` or ``path/training``, whichever holds image_2 and calib."""
    try:
        return dataset_root(path, ("image_2", "calib"))
    except InputError:
        return None


def _autolabels(path: Path, split: Path | None, images: Path | None, points: Path | None) -> Frames:
    """What ``monolift autolabel`` wrote, with the images it was made from."""
    data = images or labelled_data(path)
    root = _kitti_root(data)
    if root is None:
        raise InputError(
            f"{data}: the labelled images are missing: give the folder of image_2 and calib with --images ROOT"
        )
    meshes = path / "meshes"
    return _kitti_frames(_Kitti(root, path / "label_2", meshes if meshes.is_dir() else None, points), split)


def _kitti_frames(source: _Kitti, split: Path | None) -> Frames:
    root, predictions = source.root, source.predictions
    if predictions is not None and not predictions.is_dir():
        raise InputError(f"{predictions}: expected a folder of result files such as 000123.txt")
    if source.points is not None and not source.points.is_dir():
        raise InputError(f"{source.points}: expected a folder of scans (NAME.bin) or depth maps (NAME.png)")
    if split is not None:
        ids = read_split(split)
    else:
        ids = tuple(sorted(listed(root / "image_2", IMAGE_SUFFIXES).by_stem()))
        if predictions is not None:
            found = listed(predictions, (".txt",)).by_stem()
            ids = tuple(i for i in ids if i in found)
    if not ids:
        raise InputError(f"{root / 'image_2'}: no images" + (" with predictions" if predictions else ""))
    inputs = (root, root / "label_2", *([predictions] if predictions else []))
    return Frames(ids, lambda k: _kitti_scene(source, ids[k]), inputs)


def _kitti_scene(source: _Kitti, name: str) -> Scene:
    """Labels as the objects where there are no predictions, else beside them."""
    root = source.root
    image = find_image(root, name)
    width, height = image_size(image)
    calib_file = text_file(root / "calib", name)
    calib = read_calib(calib_file)
    camera = read_camera(calib_file, width, height)
    label_file = text_file(root / "label_2", name)
    rows = read_labels(label_file) if label_file.exists() else None
    objects = Objects() if rows is None else _objects(name, rows, camera)
    labels = Objects()
    if source.predictions is not None:
        rows = read_labels(text_file(source.predictions, name))
        objects, labels = _objects(name, rows, camera), objects
        if source.meshes is not None:
            objects = _with_meshes(objects, source.meshes / f"{name}.glb")
    points = _points(source, name, calib, camera)
    return Scene(name, image, camera, objects, labels, points, rows, _flat(rows))


def _flat(rows: KittiLabels | None) -> tuple[str, ...]:
    """A warning where objects are known in 2D only: there is no box to show."""
    if rows is None:
        return ()
    count = sum(n.lower() != "dontcare" for n in rows.names) - int(rows.boxed.sum())
    return (f"not shown: {count} of {len(rows.names)} rows have no 3D box (sizes of -1)",) if count else ()


def _objects(name: str, rows: KittiLabels, camera: Camera) -> Objects:
    blank = torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, camera.height, camera.width)
    sample = sample_from_labels(name, blank, camera, rows)
    scores = None if rows.score is None else torch.from_numpy(rows.score[rows.boxed]).float()
    return replace(sample.objects, scores=scores)


def _with_meshes(objects: Objects, file: Path) -> Objects:
    """With the meshes of `monolift autolabel`, one per object in the order of the labels."""
    if not file.exists():
        return objects
    meshes: tuple[Mesh, ...] = tuple(read_glb(file))
    if len(meshes) != len(objects):
        raise InputError(f"{file}: expected a mesh for each of {len(objects)} objects, got {len(meshes)}")
    return replace(objects, meshes=meshes)


def _points(source: _Kitti, name: str, calib: KittiCalib, camera: Camera) -> Float[Tensor, "m 3"] | None:
    """What a scanner measured, or else what a depth map holds; None without either."""
    scan = (source.points or source.root / "velodyne") / f"{name}.bin"
    depth = (source.points or source.root / "depth_2") / f"{name}.png"
    if scan.exists():
        return velodyne_points(scan, calib)
    return depth_points(read_depth(depth), camera) if depth.exists() else None


def depth_points(depth: Float[Tensor, "H W"], camera: Camera) -> Float[Tensor, "m 3"]:
    """The points of a depth map (z in metres, 0 unknown), a dense one thinned."""
    known = (depth > 0) & (depth < LONGEST_RANGE)
    if known.float().mean() > 0.25:
        every = torch.zeros_like(known)
        every[::DEPTH_STRIDE, ::DEPTH_STRIDE] = True
        known &= every
    v, u = known.nonzero(as_tuple=True)
    return camera.cam_from_px(torch.stack([u, v], 1).float(), depth[known])
