"""Render, compare, descend: the fit of one batch of objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from monolift.geometry import Boxes3D, Camera
from monolift.methods.fitter import FittedObjects, History, Observation
from monolift.methods.monodr.codec import MonoDRCodec, Variables, place
from monolift.methods.monodr.config import MonoDRConfig
from monolift.methods.monodr.crops import Crops, crop
from monolift.methods.monodr.escape import better_rotation
from monolift.methods.monodr.loss import confidence, protrusion, terms, total
from monolift.methods.monodr.perceptual import Metric, make_metric
from monolift.methods.monodr.scale import scale_correction
from monolift.render.mesh import Mesh
from monolift.render.rasterize import project
from monolift.render.renderer import Rendering, render_screen
from monolift.shapes.textured import CODE, TexturedDecoder, on_sphere
from monolift.typing import Float, Tensor

BETAS = (0.5, 0.9)
# What a step may not pass (ours): metres from the camera; metres of length, height, width.
NEAREST, SMALLEST = 1.5, 0.3


def fit_batch(
    observations: Sequence[Observation],
    config: MonoDRConfig,
    decoder: TexturedDecoder,
    generator: torch.Generator,
    on_step: Callable[[], None],
    history: bool,
) -> FittedObjects:
    """Fit one or more objects together, on the decoder's device; ``on_step`` is called after each iteration.

    The result is on the CPU. Random numbers are drawn there too: equal seeds begin alike on every device.
    """
    state = _State(observations, config, decoder, generator)
    steps = [state.snapshot()]
    start = steps[0].boxes
    for iteration in range(config.iterations):
        state.descend(hold_size=iteration < config.size_after)
        if iteration < config.escape_until:
            ends = iteration in (0, config.escape_until - 1)
            state.escape(sweep=config.escape_sweep and ends)
        if iteration + 1 == state.scale_after:
            state.calibrate()
        if history:
            steps.append(state.snapshot())
        on_step()
    return state.result(start, steps if history else None)


class _State:
    """The variables of a batch and what moves them."""

    def __init__(
        self,
        observations: Sequence[Observation],
        config: MonoDRConfig,
        decoder: TexturedDecoder,
        generator: torch.Generator,
    ) -> None:
        self.config, self.decoder, self.generator = config, decoder, generator
        self.device = device = decoder.faces.device
        self.score = torch.tensor([o.score for o in observations], device=device)
        self.crops = crop(observations, config).to(device)
        boxes2d = torch.stack([o.box2d for o in observations]).float().to(device)
        cameras = Camera.stack([o.camera for o in observations]).to(device)
        self.topology = _topology(decoder)
        self.codec = MonoDRCodec(boxes2d, cameras, torch.tensor(config.size_mean, device=device))
        self.depth_scale = torch.ones(len(observations), device=device)
        self.variables = self._start().leaves()
        self.optimiser = torch.optim.Adam(list(self.variables), lr=config.lr, betas=BETAS)
        self.metric: Metric = make_metric(
            config.metric, self.crops.colour, self.crops.foreground, self.crops.valid
        )
        # Once the sizes have settled, and with time left to settle again.
        self.scale_after = 2 * config.iterations // 3 if config.scale_spread else -1

    def _start(self) -> Variables:
        config, n = self.config, len(self.crops)

        def codes(middle: Tensor) -> Tensor:
            if not config.start_codes:
                return middle.expand(n, CODE).clone()
            return config.start_codes * self._drawn(torch.randn, n, CODE)

        return Variables(
            offset=torch.zeros(n, 2, device=self.device),
            depth=start_depth(self.crops, self.codec, config),
            size=torch.zeros(n, 3, device=self.device),
            alpha=config.start_rotation * self._drawn(torch.randn, n),
            shape=codes(self.decoder.middle_shape),
            texture=codes(self.decoder.middle_texture),
        )

    def _drawn(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        return draw(*shape, generator=self.generator).to(self.device)

    def descend(self, hold_size: bool = False) -> None:
        """One step of Adam; sizes stay as they are where they are held."""
        parts, _ = self.compare()
        self.optimiser.zero_grad()
        # An object with nothing to see has nothing to learn: no step, not even by Adam's noise.
        (total(parts, self.config) * self.crops.seen).sum().backward()
        if hold_size:
            self.variables.size.grad = None
        self.optimiser.step()
        with torch.no_grad():
            self.variables.depth.clamp_(min=NEAREST)
            self.variables.size.clamp_(min=SMALLEST - self.codec.size_mean)

    def compare(self) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of the loss, and the projected vertices' boxes in the crops' pixels."""
        screen = self._project(self.variables, self.decoder.vertices(self.variables.shape))
        image = self._draw(screen, self.decoder.textures(self.variables.texture))
        box = screen_boxes(screen)
        return terms(image, box, self.variables.size, self.crops, self.depth_scale, self.config), box

    @torch.no_grad()
    def escape(self, sweep: bool) -> None:
        """Take a better rotation where one is found; ``sweep``: the whole circle is searched."""
        vertices = self.decoder.vertices(self.variables.shape)
        textures = self.decoder.textures(self.variables.texture)

        def render(alpha: Tensor, aligned: bool) -> tuple[Rendering, Tensor]:
            screen = self._project(self.variables.with_alpha(alpha), vertices)
            if aligned:
                screen = align(screen, self.crops.boxes)
            return self._draw(screen, textures), screen_boxes(screen)

        alpha = self.variables.alpha.detach()
        random = math.pi * (2 * self._drawn(torch.rand, len(alpha)) - 1)
        better = better_rotation(
            alpha, random, render, self.metric, self.crops, self.depth_scale, self.config, sweep
        )
        jumped = (better != alpha) & self.crops.seen
        self.variables.alpha.copy_(torch.where(jumped, better, alpha))
        # The moments belong to the rotation that was left (the paper does not say what becomes of them).
        for moment in ("exp_avg", "exp_avg_sq"):
            self.optimiser.state[self.variables.alpha][moment][jumped] = 0

    @torch.no_grad()
    def calibrate(self) -> None:
        """Scale depth maps, and with them depths and sizes, so that the image's objects are of likely size."""
        usable = (
            self.crops.seen & (self.crops.depth_share.flatten(1).sum(1) > 0) & ~self.crops.open_sides.any(1)
        )
        size = self.codec.size_mean + self.variables.size
        factor = scale_correction(
            size,
            self.codec.size_mean,
            self.crops.image,
            usable,
            self.config.size_spread,
            self.config.scale_spread,
        )
        self.depth_scale *= factor
        self.variables.depth.mul_(factor)
        self.variables.size.copy_(size * factor[:, None] - self.codec.size_mean)

    def _project(self, variables: Variables, vertices: Tensor) -> Tensor:
        return project(place(vertices, self.codec.decode(variables)), self.crops.cameras)

    def _draw(self, screen: Tensor, textures: Tensor) -> Rendering:
        size = self.config.crop
        return render_screen(
            self.topology.with_texture(textures), screen, size, size, edge_rule=self.config.edge_rule
        )

    @torch.no_grad()
    def snapshot(self) -> _Snapshot:
        v = self.variables
        boxes = self.codec.decode(v)
        return _Snapshot(boxes, on_sphere(v.shape.detach()), on_sphere(v.texture.detach()))

    @torch.no_grad()
    def result(self, start: Boxes3D, steps: list[_Snapshot] | None) -> FittedObjects:
        parts, box = self.compare()
        parts["protrusion"] = protrusion(box, self.crops.boxes, self.crops.open_sides)
        sure = confidence(self.score, parts["silhouette"], parts["protrusion"], self.config)
        end, decoder = self.snapshot(), self.decoder
        return FittedObjects(
            boxes=end.boxes.to("cpu"),
            scores=torch.where(self.crops.seen, sure, 0).cpu(),
            score2d=self.score.cpu(),
            shape=end.shape.cpu(),
            texture=end.texture.cpu(),
            residuals={name: values.cpu() for name, values in parts.items()},
            meshes=end.meshes(decoder),
            start=start.to("cpu"),
            depth_scale=self.depth_scale.cpu(),
            trace=None
            if steps is None
            else History(tuple(s.boxes.to("cpu") for s in steps), lambda k: steps[k].meshes(decoder)),
        )


@dataclass(frozen=True)
class _Snapshot:
    """Where N objects stood at one time, with their unit codes."""

    boxes: Boxes3D
    shape: Tensor
    texture: Tensor

    @torch.no_grad()
    def meshes(self, decoder: TexturedDecoder) -> tuple[Mesh, ...]:
        """On the CPU."""
        vertices = place(decoder.vertices(self.shape), self.boxes).cpu()
        textures = decoder.textures(self.texture).cpu()
        faces, uvs = decoder.faces.cpu(), decoder.uvs.cpu()
        return tuple(Mesh(v, faces, uvs, t) for v, t in zip(vertices, textures, strict=True))


@torch.no_grad()
def _topology(decoder: TexturedDecoder) -> Mesh:
    """A mesh to be repainted at every step."""
    vertices, textures = (
        decoder.vertices(decoder.middle_shape[None]),
        decoder.textures(decoder.middle_texture[None]),
    )
    mesh = Mesh(vertices[0], decoder.faces, decoder.uvs, textures[0])
    _ = mesh.edges  # found once here, not again in every copy
    return mesh


def start_depth(crops: Crops, codec: MonoDRCodec, config: MonoDRConfig) -> Float[Tensor, " n"]:
    """Depth of each object's centre before the fit: from the depth map; where it is unknown, from the 2D box's height."""
    share, depth = crops.depth_share.flatten(1), crops.depth.flatten(1)
    known = share.sum(1) > 0
    if config.start_depth == "mean":
        seen = (share * depth).sum(1) / share.sum(1).clamp_min(1e-6)
    else:
        # What is seen of an object is its near side.
        middle = torch.where(share > 0.5 * share.amax(1, keepdim=True), depth, torch.nan).nanmedian(1).values
        seen = middle + config.size_mean[2] / 2
    height = codec.boxes2d[:, 3] - codec.boxes2d[:, 1]
    likely = codec.cameras.fy.float() * config.size_mean[1] / height
    return torch.where(known, seen, likely).clamp_min(NEAREST)


def screen_boxes(screen: Float[Tensor, "n v 3"]) -> Float[Tensor, "n 4"]:
    """2D bounding boxes of projected vertices; differentiable in the outermost ones."""
    pixels = screen[..., :2]
    return torch.cat([pixels.amin(1), pixels.amax(1)], 1)


def align(screen: Float[Tensor, "n v 3"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n v 3"]:
    """Projected vertices moved and scaled in the image so that their box has the middle and the area of another."""
    own = screen_boxes(screen)
    areas = [(b[:, 2:] - b[:, :2]).clamp_min(1e-3).prod(1) for b in (boxes, own)]
    factor = (areas[0] / areas[1]).sqrt()[:, None, None]
    middles = [((b[:, :2] + b[:, 2:]) / 2)[:, None] for b in (boxes, own)]
    return torch.cat([(screen[..., :2] - middles[1]) * factor + middles[0], screen[..., 2:]], 2)
