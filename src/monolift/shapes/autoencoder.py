"""ROI-10D's shape space: cars as points of the unit sphere in six dimensions (section 3.3 of the paper).

    space = load_shape_space()
    mesh = space.mesh(space.medians["SUV"], torch.tensor([4.4, 1.75, 1.8]))

A convolutional autoencoder of truncated signed distances: four layers with 1, 8, 16 and 32 filters each way, a fully connected
layer to the code. Deviations from the paper: a car is scaled to its box before it is sampled (the detector predicts the extents
besides, so the code need not hold them, and the same grid is nearly twice as fine); and what is decoded is made symmetric left
to right, as cars are and as the texturing takes them to be.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from monolift.errors import InputError
from monolift.files.folders import partial_file
from monolift.files.json_text import object_of, parse_json
from monolift.files.settings import changed
from monolift.nn.size_limit import SizeLimit, TooLargeError
from monolift.render.mesh import Mesh
from monolift.shapes.tsdf import largest_component, surface
from monolift.typing import Float, Tensor

BUNDLED = Path(__file__).parents[1] / "zoo" / "shapes" / "model.safetensors"
CLASSES = ("Small Car", "Car", "Large Car", "SUV")
ALL = "all"
"""Name of the median of all cars."""


@dataclass(frozen=True)
class ShapeConfig:
    """Grid and network of a shape space."""

    grid: tuple[int, int, int] = (64, 32, 32)
    """Voxels along length, height, width. The paper: 256, 128, 128 (``paper()``)."""
    margin: float = 1.1
    """Sides of the grid's box over those of the car's."""
    truncation: float = 0.2
    """Distances are cut at this many metres."""
    channels: tuple[int, ...] = (1, 8, 16, 32)
    """Filters of the encoder's layers, each of which halves the grid; the decoder's are the reverse."""
    code: int = 6
    """Dimensions of the sphere's space."""
    smoothness: float = 0.2
    """Weight of the total variation in eq. 4. The paper's sum is unweighted, 1: on this coarse grid that wears off wheels."""

    def __post_init__(self) -> None:
        step = 2 ** len(self.channels)
        if any(n < step or n % step for n in self.grid):
            raise InputError(
                f"grid: expected multiples of {step} (2 to the number of layers), got {self.grid}"
            )
        if self.code < 2 or self.truncation <= 0 or self.margin <= 1:
            raise InputError(
                "expected a code of 2 or more numbers, a positive truncation and a margin above 1"
            )

    @property
    def bottleneck(self) -> tuple[int, int, int]:
        """The grid after the encoder's layers."""
        x, y, z = (n >> len(self.channels) for n in self.grid)
        return x, y, z


def paper() -> ShapeConfig:
    """The published resolution, and eq. 4 as it stands."""
    return ShapeConfig(grid=(256, 128, 128), smoothness=1.0)


class ShapeSpace(nn.Module):
    """Encoder and decoder, and the medians of the classes: names of ``CLASSES`` and ``ALL`` -> (C,) unit codes.

    Grids are (N, 1, X, Y, Z), distances as a share of the truncation: -1 inside, 0 on the surface, 1 outside.
    """

    def __init__(
        self, config: ShapeConfig | None = None, medians: Mapping[str, Float[Tensor, " c"]] | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or ShapeConfig()
        self.medians = dict(medians or {})
        widths = (1, *config.channels)
        down: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            down += [nn.Conv3d(before, after, 4, stride=2, padding=1), nn.ELU()]
        cells = config.channels[-1] * config.bottleneck[0] * config.bottleneck[1] * config.bottleneck[2]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(cells, config.code))
        widths = (*reversed(config.channels), 1)
        up: list[nn.Module] = [
            nn.Linear(config.code, cells),
            nn.ELU(),
            nn.Unflatten(1, (config.channels[-1], *config.bottleneck)),
        ]
        for before, after in itertools.pairwise(widths):
            up += [nn.ConvTranspose3d(before, after, 4, stride=2, padding=1), nn.ELU()]
        self.decoder = nn.Sequential(*up[:-1], nn.Tanh())

    def encode_raw(self, tsdf: Float[Tensor, "n 1 X Y Z"]) -> Float[Tensor, "n c"]:
        """Codes before they are brought to the sphere; training pulls their lengths to 1."""
        return self.encoder(tsdf)

    def encode(self, tsdf: Float[Tensor, "n 1 X Y Z"]) -> Float[Tensor, "n c"]:
        """Codes of unit length."""
        return F.normalize(self.encode_raw(tsdf), dim=1)

    def decode(self, codes: Float[Tensor, "n c"]) -> Float[Tensor, "n 1 X Y Z"]:
        """Grids of codes of any length but 0: they are brought to the sphere here."""
        grids = self.decoder(F.normalize(codes, dim=1))
        return (grids + grids.flip(-1)) / 2

    def mesh(self, code: Float[Tensor, " c"], size: Float[Tensor, " 3"]) -> Mesh:
        """The watertight mesh of a code in a box of this length, height and width (metres), which it touches on all sides;
        box frame: x to the front, y down, z along the width, 0 in the middle. Without texture.

        Raises:
            InputError: where the code decodes to nothing, which no code between trained cars does.
        """
        return fit_to_box(surface_of(self.decode(code[None])[0, 0], self.config.margin), size)


def surface_of(grid: Float[Tensor, "X Y Z"], margin: float) -> Mesh:
    """The largest piece of a grid's surface, in a box of size one."""
    mesh = surface(grid, torch.full((3,), margin))
    if not len(mesh.faces):
        raise InputError(
            "this code decodes to no shape: the space is not trained, or the code lies far from all cars"
        )
    return largest_component(mesh)


def fit_to_box(mesh: Mesh, size: Float[Tensor, " 3"]) -> Mesh:
    """The mesh moved and scaled, along each axis by itself, to touch all sides of a box round 0."""
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    return mesh.with_vertices((mesh.vertices - (low + high) / 2) * (size / (high - low)))


# --- on the sphere


def median(codes: Float[Tensor, "n c"], steps: int = 200) -> Float[Tensor, " c"]:
    """The point of the sphere whose straight distances to unit codes have the smallest sum: Weiszfeld's algorithm, brought
    back to the sphere at the end (as the paper takes its class medians). Raises InputError for no codes."""
    if not len(codes):
        raise InputError("the median of no codes is not defined")
    middle = codes.mean(0)
    for _ in range(steps):
        weight = 1 / (codes - middle).norm(dim=1).clamp_min(1e-9)
        middle = (weight[:, None] * codes).sum(0) / weight.sum()
    return F.normalize(middle, dim=0)


def between(
    a: Float[Tensor, " c"], b: Float[Tensor, " c"], share: Float[Tensor, " s"]
) -> Float[Tensor, "s c"]:
    """Points on the great circle from a (share 0) to b (share 1), evenly spread over the angle.

    Opposite points have no shortest way: InputError.
    """
    angle = torch.arccos((a * b).sum().clamp(-1, 1))
    if float(angle) > torch.pi - 1e-3:
        raise InputError("between opposite codes there is no shortest way on the sphere")
    if float(angle) < 1e-4:
        return F.normalize(torch.lerp(a, b, share[:, None]), dim=1)
    share = share[:, None]
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


def shape_loss(
    predicted: Float[Tensor, "n c"], target: Float[Tensor, "n c"], form: str = "paper"
) -> Float[Tensor, " n"]:
    """Angle between codes of unit length, radians.

    "paper" is eq. 5, arccos(2 <s, s*>^2 - 1). It equals 2 arccos |<s, s*>|, so it cannot tell s from -s, though the two
    decode to different cars: it was made for quaternions. "geodesic" is arccos <s, s*>.
    """
    cosine = (predicted * target).sum(1)
    if form == "paper":
        cosine = 2 * cosine**2 - 1
    elif form != "geodesic":
        raise InputError(f'shape loss: expected "paper" or "geodesic", got {form!r}')
    return torch.arccos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))  # at +-1 the slope of arccos is infinite


# --- files


def save_shape_space(path: str | Path, space: ShapeSpace) -> None:
    """One safetensors file, float16: weights, medians, and the configuration as its metadata."""
    state = {k: v.detach().half().contiguous() for k, v in space.state_dict().items()}
    state |= {f"median.{name}": code.detach().half().contiguous() for name, code in space.medians.items()}
    with partial_file(path, parents=True) as partial:
        save_file(state, str(partial), metadata={"config": json.dumps(dataclasses.asdict(space.config))})
        partial.chmod(0o644)  # safetensors makes it unreadable for others


UNREADABLE = (OSError, SafetensorError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
ROOM = 1_000_000  # numbers that a network may make while it is built and not keep


def load_shape_space(path: str | Path | None = None) -> ShapeSpace:
    """A space written by ``save_shape_space``; without a path the one that ships with the package, in evaluation mode.

    Raises:
        InputError: for a file that is none.
    """
    file = Path(path or BUNDLED)
    try:
        with safe_open(str(file), "pt") as opened:
            fields = object_of(parse_json((opened.metadata() or {})["config"], str(file)), file)
        state = {k: v.float() for k, v in load_file(str(file)).items()}
        config = changed(ShapeConfig(), fields, f"{file}: ")
        prefix = "median."
        named = {k.removeprefix(prefix): state.pop(k) for k in list(state) if k.startswith(prefix)}
        order = [n for n in (ALL, *CLASSES) if n in named]  # files are in alphabetical order
        order += [n for n in named if n not in order]
        medians = {n: F.normalize(named[n], dim=0) for n in order}
        with SizeLimit(
            4 * sum(v.numel() for v in state.values()) + ROOM
        ):  # nothing that is larger than its weights
            space = ShapeSpace(config, medians)
        space.load_state_dict(state)
    except TooLargeError:
        raise InputError(f"{file}: its weights do not fit its configuration, which asks for more") from None
    except UNREADABLE as error:
        raise InputError(f"{file}: not a shape space (monolift shapes build writes one): {error}") from None
    return space.eval().requires_grad_(False)
