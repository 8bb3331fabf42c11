"""A synthetic KITTI: driving scenes with exact labels, from a seed.

`make_frame` gives one image with its labels and camera; `write_world` fills a folder in KITTI's layout. The same seed gives
the same bytes, whatever the number of worker processes; image k does not depend on how many images are made.

`world.labels` computes the labels, `world.lidar` the LiDAR points.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monolift.data.formats.kitti_format import (
    KittiCalib,
    KittiLabels,
    format_calib,
    format_labels,
    write_split,
)
from monolift.errors import InputError
from monolift.files.folders import write_atomically
from monolift.files.output_folder import claim
from monolift.world.car_codes import CarCode, format_codes
from monolift.world.labels import Labelled, label_scene
from monolift.world.layout import Scene, sample_scene
from monolift.world.lidar import scan
from monolift.world.render import Stage, shoot, survey
from monolift.world.sensor import develop
from monolift.world.surroundings import build_surroundings

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

GENERATOR = 2
"""Raised whenever the same seed would give other images than before: a folder holds images of one generator."""

# The rigs of KITTI's training set with images of about 1242 x 375: how often each was used; focal length, principal point
# and last column of P2.
_RIGS = (
    (0.81, (721.5377, 609.5593, 172.8540, 44.85728, 0.2163791, 0.002745884)),
    (0.10, (707.0493, 604.0814, 180.5066, 45.75831, -0.3454157, 0.004981016)),
    (0.05, (718.3351, 600.3891, 181.5122, 44.50382, -0.5951107, 0.002616315)),
    (0.04, (718.8560, 607.1928, 185.2157, 45.38225, -0.1130887, 0.003779761)),
)
KITTI_SIZE = (1242, 375)


@dataclass(frozen=True)
class Frame:
    """One synthetic image.

    image (H, W, 3) uint8, RGB; labels, DontCare rows last; actors, for each row the index into `scene.actors`; calib with P0 to
    P3, R0_rect and the sensor transforms; scene with all that stands in it.
    """

    image: npt.NDArray[np.uint8]
    labels: KittiLabels
    actors: tuple[int, ...]
    calib: KittiCalib
    scene: Scene

    def truth(self) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32]]:
        """What the pixel centres show: instances (H, W), k + 1 for row k of the labels and 0 for all else; depth (H, W), z in
        metres, inf for the sky."""
        height, width = self.image.shape[:2]
        owner, depth = survey(_stage(self.scene), self.scene.ground, self.calib.p2, (width, height))
        row = np.zeros(
            len(self.scene.actors) + len(self.scene.scenery) + 2, np.uint16
        )  # the last two: sky and ground
        row[list(self.actors)] = np.arange(1, len(self.actors) + 1)
        return row[owner], depth

    def points(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """(N, 4) what a laser scanner measures of what the image shows: x, y, z in metres, intensity; velodyne frame."""
        height, width = self.image.shape[:2]
        return scan(_stage(self.scene), self.scene.ground, self.calib, (width, height), rng)

    def codes(self) -> dict[int, CarCode]:
        """Shape and style of the family's cars by row of the labels."""
        actors = [self.scene.actors[k] for k in self.actors]
        return {
            row: CarCode(a.shape, a.style)
            for row, a in enumerate(actors)
            if a.shape is not None and a.style is not None
        }


def generator(seed: int, index: int, *purpose: int) -> np.random.Generator:
    """The random numbers of image `index` of the world `seed`; other ones for each further purpose."""
    return np.random.default_rng(np.random.SeedSequence([seed, index, *purpose]))


def sample_calib(rng: np.random.Generator, width: int, height: int, focal: float | None = None) -> KittiCalib:
    """A KITTI calibration for images of width x height.

    focal (pixels) replaces KITTI's; without it the field of view is KITTI's, scaled with the width.
    """
    f, cx, cy, *column = _RIGS[int(rng.choice(len(_RIGS), p=[share for share, _ in _RIGS]))][1]
    # P2 = K [I | t]: where the left colour camera stands in the frame of the labels, metres.
    shift = np.linalg.solve(np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]]), np.array(column))
    scale = width / KITTI_SIZE[0]
    # Pixel centres at integers: scaling maps u to s (u + 0.5) - 0.5.
    cx, cy = scale * (cx + 0.5) - 0.5, scale * (cy + 0.5) - 0.5 + (height - scale * KITTI_SIZE[1]) / 2
    f = f * scale if focal is None else focal
    intrinsic = np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])
    matrices: dict[str, npt.NDArray[np.float64]] = {}
    for name, place in (("P0", [0, 0, 0]), ("P1", [-0.5372, 0, 0]), ("P2", shift), ("P3", [-0.4731, 0, 0])):
        exact = np.column_stack([intrinsic, intrinsic @ np.array(place, float)])
        matrices[name] = np.vectorize(lambda v: float(f"{v:.12e}"))(exact)  # as many digits as the file holds
    matrices["R0_rect"] = np.eye(3)
    matrices["Tr_velo_to_cam"] = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]])
    matrices["Tr_imu_to_velo"] = np.array([[1.0, 0, 0, -0.81], [0, 1, 0, 0.32], [0, 0, 1, -0.80]])
    return KittiCalib(matrices)


def make_frame(
    seed: int, index: int, width: int = 1242, height: int = 375, focal: float | None = None
) -> Frame:
    """Image `index` of the world `seed`."""
    rng = generator(seed, index)
    scene, calib = _scene(rng, width, height, focal)
    return render_scene(scene, calib, width, height, rng)


def make_labels(
    seed: int, index: int, width: int = 1242, height: int = 375, focal: float | None = None
) -> Labelled:
    """The labels of image `index` without the image, in a fraction of the time.

    What is seen is counted at the pixels' centres instead of at four places in each: an object on the border between two
    degrees of occlusion may fall on the other side.
    """
    scene, calib = _scene(generator(seed, index), width, height, focal)
    scene.actors = [replace(a, style=None) for a in scene.actors]  # nobody looks at the paint
    owner, _ = survey(_stage(scene), scene.ground, calib.p2, (width, height))
    seen = np.bincount(owner[owner >= 0], minlength=len(scene.actors))[: len(scene.actors)]
    return label_scene(scene.actors, seen.astype(float), calib.p2, width, height)


def _scene(
    rng: np.random.Generator, width: int, height: int, focal: float | None
) -> tuple[Scene, KittiCalib]:
    calib = sample_calib(rng, width, height, focal)
    scene = sample_scene(rng)
    build_surroundings(scene, rng)
    return scene, calib


def render_scene(
    scene: Scene, calib: KittiCalib, width: int, height: int, rng: np.random.Generator, supersample: int = 2
) -> Frame:
    """A scene as the camera sees it, with its labels."""
    stage = _stage(scene)
    prints = np.array(
        [[a.bottom[0], a.bottom[2], a.size[0], a.size[2], a.yaw] for a in scene.actors]
    ).reshape(-1, 5)
    shot = shoot(stage, scene.ground, scene.light, prints, calib.p2, (width, height), rng, supersample)
    image = develop(shot.image, scene.sensor, rng)
    seen = np.bincount(shot.owner[shot.owner >= 0], minlength=len(stage.parts))[: len(scene.actors)]
    found = label_scene(scene.actors, seen / supersample**2, calib.p2, width, height)
    return Frame(image, found.labels, found.actors, calib, scene)


def _stage(scene: Scene) -> Stage:
    """The actors first: their numbers on the stage are their indices."""
    return Stage([a.part for a in scene.actors] + scene.scenery)


# --- files


@dataclass(frozen=True)
class World:
    """What a synthetic data set is made from: the same World gives the same files."""

    seed: int = 0
    width: int = 1242
    height: int = 375
    focal: float | None = None
    """Focal length in pixels; without it the field of view is KITTI's."""
    image_format: str = "jpg"
    """jpg (quality 92) or png."""
    masks: bool = False
    """Also instance_2/ID.png, 16 bit: k + 1 for row k of the labels, 0 for all else; ID.json beside it has the classes."""
    depth: bool = False
    """Also depth_2/ID.png, 16 bit: z in metres times 256, 0 for the sky and beyond 255 m."""
    points: bool = False
    """Also velodyne/ID.bin: a laser scanner's points, float32 x, y, z, intensity, in the frame of Tr_velo_to_cam."""
    shapes: bool = False
    """Also cars_2/ID.json: shape and style of each car, see `car_codes`."""

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not 32 <= getattr(self, name) <= 16384:
                raise InputError(f"{name}: expected 32 to 16384 pixels, got {getattr(self, name)}")
        if self.focal is not None and not self.focal > 0:
            raise InputError(f"focal: expected a positive number of pixels, got {self.focal}")
        if self.image_format not in ("jpg", "png"):
            raise InputError(f"image format: expected jpg or png, got {self.image_format!r}")
        if self.seed < 0:
            raise InputError(f"seed: expected 0 or more, got {self.seed}")


def files_of(world: World, name: str) -> list[str]:
    """Paths of one frame's files below ROOT/training; the label comes last, it marks the frame as complete."""
    extras = [f"instance_2/{name}.png", f"instance_2/{name}.json"] * world.masks
    extras += [f"depth_2/{name}.png"] * world.depth
    extras += [f"velodyne/{name}.bin"] * world.points + [f"cars_2/{name}.json"] * world.shapes
    return [f"image_2/{name}.{world.image_format}", f"calib/{name}.txt", *extras, f"label_2/{name}.txt"]


def frame_files(world: World, index: int) -> dict[str, bytes]:
    """The files of image `index`: path below ROOT/training -> content, in the order of `files_of`."""
    frame = make_frame(world.seed, index, world.width, world.height, world.focal)
    contents = [_encoded(frame.image, world.image_format), format_calib(frame.calib).encode()]
    if world.masks or world.depth:
        instances, depth = frame.truth()
        coded = np.where(depth < 255, depth * 256, 0).astype(np.uint16)
        contents += [_encoded(instances, "png"), _classes_of(instances, frame.labels.names)] * world.masks
        contents += [_encoded(coded, "png")] * world.depth
    if world.points:
        contents.append(frame.points(generator(world.seed, index, 1)).tobytes())
    if world.shapes:
        contents.append(format_codes(frame.labels, frame.codes()).encode())
    contents.append(format_labels(frame.labels).encode())
    return dict(zip(files_of(world, f"{index:06d}"), contents, strict=True))


def _classes_of(instances: npt.NDArray[np.integer], names: Sequence[str]) -> bytes:
    """The visible instances of a map with their classes, as `open_masks` reads them."""
    rows = [{"id": k, "class": names[k - 1]} for k in np.unique(instances[instances > 0]).tolist()]
    return json.dumps(rows).encode()


def _encoded(image: npt.NDArray[np.integer], image_format: str) -> bytes:
    from PIL import Image

    file = BytesIO()
    if image_format == "jpg":
        Image.fromarray(image).save(file, "JPEG", quality=92)
    else:
        Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_frame(root: Path, world: World, index: int) -> int:
    """Write image `index` below root/training; returns the number of its labelled objects."""
    files = frame_files(world, index)
    for path, content in files.items():
        write_atomically(root / "training" / path, content)
    labels = next(reversed(files.values())).decode().splitlines()
    return sum(not line.startswith("DontCare") for line in labels)


def write_world(root: Path, world: World, images: int, workers: int = 1) -> Iterator[int]:
    """Write images 0 .. images - 1 in KITTI's layout, and ImageSets/all.txt; yields each one's number of objects when done.

    Images that are complete already are left alone (and yield -1), so a killed run resumes where it stopped. Raises
    InputError when the folder holds another world.
    """
    _claim(root, world)
    names = [f"{k:06d}" for k in range(images)]
    write_split(root / "ImageSets" / "all.txt", names)
    missing = []
    for index, name in enumerate(names):
        if all((root / "training" / path).is_file() for path in files_of(world, name)):
            yield -1
        else:
            missing.append(index)
    if workers <= 1:
        for index in missing:
            yield write_frame(root, world, index)
        return
    # spawn: a fork would copy locks of threads that no longer exist
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(write_frame, root, world, index) for index in missing]):
            yield done.result()


def _claim(root: Path, world: World) -> None:
    """Make the folders and note what they hold."""
    folders = ["ImageSets", *sorted({f"training/{Path(path).parent}" for path in files_of(world, "0")})]
    claim(root, "synth.json", {"generator": GENERATOR, **asdict(world)}, folders, "synthetic world")
