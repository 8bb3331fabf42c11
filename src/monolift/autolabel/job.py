"""The description of an auto-labelling job: inputs, settings, outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monolift.data.formats.autolabel_note import NOTE, note_of
from monolift.data.formats.kitti_format import read_split
from monolift.errors import InputError
from monolift.files.folders import dataset_root, listed
from monolift.files.images import IMAGE_SUFFIXES
from monolift.files.output_folder import claim
from monolift.methods.monodr import MonoDRConfig

FORMATS = {
    "kitti": ("label_2/{}.txt",),
    "json": ("json/{}.json",),
    "glb": ("meshes/{}.glb",),
    "image": ("images/{}.jpg", "before_after/{}.jpg"),
    "animation": ("animations/{}.gif",),
}
"""Files of each kind, below the job's folder, named like the image."""
EARLIER = {"images/{}.jpg": "pictures/{}.jpg"}
"""Where version 0.1.0 wrote what has another folder now: such a file is not written again."""


@dataclass(frozen=True)
class Selection:
    """Which of an image's masks are fitted. The others remain known as pixels of other instances."""

    classes: tuple[str, ...] = ("Car",)
    """Classes that are fitted; the bundled decoder makes cars."""
    score: float = 0.1
    """Lowest score of the 2D detector (the paper's). Masks below it are not fitted, but their pixels count as another object's;
    the paper's union holds the masks above it only."""
    min_height: float = 12.0
    """Lowest height of the 2D box, pixels (ours): below it a rotation can no longer be seen. Published: none, 0."""
    min_pixels: int = 60
    """Fewest pixels of the mask (ours). Published: none, 1."""
    box: str = "mask"
    """Where the 2D box comes from: mask (ours: round its pixels) or file (published: the detector's, where it gives one)."""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise InputError(f"score: expected a number from 0 to 1, got {self.score:g}")
        if self.box not in ("mask", "file"):
            raise InputError(f"box: expected mask or file, got {self.box!r}")


def paper_selection() -> Selection:
    """The paper's: every detection from 0.1 on, with the detector's own 2D box."""
    return Selection(min_height=0.0, min_pixels=1, box="file")


SELECTIONS: dict[str, Callable[[], Selection]] = {"default": Selection, "paper": paper_selection}
"""The selection that goes with each preset of MonoDR."""


@dataclass(frozen=True)
class Job:
    """One labelling job; equal jobs give equal labels, but for how images fall into batches.

    Attributes:
        data: KITTI folder with image_2 and calib (or with training/ holding them); no labels are read
        masks: what ``data.masks.open_masks`` reads, or ``model:NAME``, see ``adapters``
        depth: folder of NAME.npy or NAME.png, see ``data.depth_maps``, or ``model:NAME``
        depth_scale: metres per stored unit of the depth maps; None: metres in .npy, metres * 256 in .png, and checked
        decoder: a file of `monolift shapes build --kind textured`; None: the bundled decoder
        foreground: folder of NAME.png of a semantic segmentation, not 0 where a pixel shows an object of the classes: it,
            and not the union of the masks, then divides foreground from background (MonoDR section 3)
        device: where objects are fitted, "cpu" or "cuda:N"; labels of two devices are equal to rounding
    """

    data: Path
    masks: str
    depth: str
    out: Path
    config: MonoDRConfig = field(default_factory=MonoDRConfig)
    selection: Selection = field(default_factory=Selection)
    formats: tuple[str, ...] = ("kitti", "json", "glb", "image")
    depth_scale: float | None = None
    seed: int = 0
    decoder: Path | None = None
    foreground: Path | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise InputError(f"--save: expected {', '.join(FORMATS)}, got {', '.join(unknown) or 'nothing'}")

    @property
    def root(self) -> Path:
        """The folder that holds image_2 and calib. Raises InputError where there is none."""
        return dataset_root(self.data, ("image_2", "calib"))

    def files(self, name: str) -> dict[str, Path]:
        """Where everything that is written of an image goes, by pattern."""
        patterns = [pattern for kind in self.formats for pattern in FORMATS[kind]]
        return {pattern: self.out / pattern.format(name) for pattern in patterns}

    def done(self, name: str) -> bool:
        """Whether everything of an image is there. Files appear whole or not at all."""
        return all(
            path.is_file() or (self.out / EARLIER.get(pattern, pattern).format(name)).is_file()
            for pattern, path in self.files(name).items()
        )

    def claim(self) -> None:
        """Make the folders and note in them what they hold. Raises InputError where another job's labels are.

        Notes of earlier versions lack settings that came later, whose defaults are what those versions did.
        """
        folders = [Path(pattern).parent.as_posix() for pattern in self.files("0")]
        defaults = {"selection": asdict(Selection()), "config": asdict(MonoDRConfig())}
        claim(self.out, NOTE, self.settings(), folders, "set of auto-labels", defaults)

    def settings(self) -> dict[str, Any]:
        """All that labels depend on."""
        inputs = {
            "data": str(self.data),
            "masks": self.masks,
            "depth": self.depth,
            "depth_scale": self.depth_scale,
        }
        # Only where they are given: notes of jobs without them stay equal to those of earlier versions.
        inputs |= {
            name: str(path)
            for name, path in (("decoder", self.decoder), ("foreground", self.foreground))
            if path is not None
        }
        return note_of(
            inputs,
            selection=asdict(self.selection),
            config=asdict(self.config),
            formats=self.formats,
            seed=self.seed,
        )


def image_names(job: Job, known: Sequence[Sequence[str]], split: Path | None) -> list[str]:
    """Ids to label: those of the split, or all images that have masks and depth.

    Args:
        known: the names that each source of files speaks of; sources that can do any image are not among them.

    Raises:
        InputError: when nothing is left.
    """
    if split is not None:
        return list(read_split(split))
    images = set(listed(job.root / "image_2", IMAGE_SUFFIXES).by_stem())
    names = images.intersection(*map(set, known))
    if not names:
        raise InputError(
            f"{job.root / 'image_2'}: none of {len(images)} images has both masks ({job.masks}) and depth "
            f"({job.depth}): the files are matched by name"
        )
    return sorted(names)


def shard_of(names: Sequence[str], shard: str | None) -> list[str]:
    """Part i of n of the ids, "i/n", i from 1: every n-th one. Raises InputError for anything else."""
    if shard is None:
        return list(names)
    first, _, count = shard.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise InputError(f"--shard: expected i/n with i from 1 to n, such as 2/8, got {shard!r}")
    return list(names[int(first) - 1 :: int(count)])
