"""MonoDR: Monocular Differentiable Rendering for Self-Supervised 3D Object Detection (Beker et al., ECCV 2020).

3D boxes, shapes and textures of the objects in a picture without any 3D label: a 2D detector says which pixels are an
object's, a depth network how far away they are, and a car that can be deformed, painted and moved is rendered until it looks
like the picture.

    config       every choice, with presets: default (ours), paper
    observation  what a fit is given of an object, and what it gives back
    crops        one small picture per object; which of its pixels say something
    codec        box <-> the variables that are optimised
    loss         eqs. 2 to 8: colours, 2D boxes, silhouettes, depth, size; confidence
    escape       section 3.2: other rotations are tried, the one that looks best is kept
    perceptual   what "looks best" means; lpips: as in the paper, for those who have the weights
    scale        the scale of a picture's depth map (ours)
    fit          the loop

The generator of textured cars is ``monolift.shapes.textured``. Ours in the default preset, and marked where they stand:
crops of 64 pixels; rotations tried in the first third only, with sizes held at their means, the opposite heading and (twice)
the whole circle among the trials and the form of the depth among the evidence; pixels of other objects are unknown, not
foreground; the 2D box binds only where the object is seen to end; a robust depth loss; sizes as likely as among cars; the
depth map's scale from the objects' sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import torch

from monolift.geometry import Boxes3D
from monolift.methods.monodr.config import PRESETS, MonoDRConfig, paper
from monolift.methods.monodr.fit import fit_batch
from monolift.methods.monodr.observation import FittedObjects, Observation
from monolift.shapes.textured import CODE, TexturedDecoder, load_textured

__all__ = ["PRESETS", "FittedObjects", "MonoDR", "MonoDRConfig", "Observation", "paper"]


class MonoDR:
    """Fits boxes, shapes and textures to what 2D detectors and depth networks say.

    config: ``MonoDRConfig()`` or ``paper()``. decoder: a `TexturedDecoder`; by default the bundled one.
    """

    def __init__(self, config: MonoDRConfig | None = None, decoder: TexturedDecoder | None = None) -> None:
        self.config = config or MonoDRConfig()
        self.decoder = decoder or load_textured()

    def fit(
        self,
        observations: Sequence[Observation],
        seed: int = 0,
        on_step: Callable[[int, int], None] | None = None,
        history: bool = False,
    ) -> FittedObjects:
        """Fit all objects, of any number of pictures, ``config.batch`` at a time; objects of one picture that stand side by
        side in ``observations`` share a batch where they can.

        seed: of the first angles and the random trials; equal seeds, equal results. on_step: called with iterations done
        and to do, all batches counted. history: keep the boxes after each iteration (and their meshes, on demand).
        """
        generator = torch.Generator().manual_seed(seed)
        batches = list(_batches(observations, self.config.batch))
        done, steps = 0, len(batches) * self.config.iterations

        def step() -> None:
            nonlocal done
            done += 1
            if on_step:
                on_step(done, steps)

        parts = [fit_batch(b, self.config, self.decoder, generator, step, history) for b in batches]
        return _joined(parts, self.config, history)


def _batches(observations: Sequence[Observation], size: int) -> Iterable[list[Observation]]:
    """Runs of at most ``size`` objects; a picture is divided only when it alone has more."""
    batch: list[Observation] = []
    for _, group in groupby(observations, lambda o: o.image.data_ptr()):
        picture = list(group)
        if batch and len(batch) + len(picture) > size:
            yield batch
            batch = []
        batch = batch + picture
        while len(batch) >= size:
            yield batch[:size]
            batch = batch[size:]
    if batch:
        yield batch


def _joined(parts: Sequence[FittedObjects], config: MonoDRConfig, history: bool) -> FittedObjects:
    """The results of all batches as one."""
    if not parts:
        none, codes, boxes = torch.zeros(0), torch.zeros(0, CODE), Boxes3D.empty()
        steps = [boxes] * (config.iterations + 1) if history else None
        return FittedObjects(boxes, none, none, codes, codes, {}, (), boxes, none, steps)
    return FittedObjects(
        boxes=Boxes3D.cat([p.boxes for p in parts]),
        confidence=torch.cat([p.confidence for p in parts]),
        score2d=torch.cat([p.score2d for p in parts]),
        shape=torch.cat([p.shape for p in parts]),
        texture=torch.cat([p.texture for p in parts]),
        residuals={k: torch.cat([p.residuals[k] for p in parts]) for k in parts[0].residuals},
        meshes=tuple(m for p in parts for m in p.meshes),
        start=Boxes3D.cat([p.start for p in parts]),
        depth_scale=torch.cat([p.depth_scale for p in parts]),
        history=[Boxes3D.cat(list(b)) for b in zip(*(p.history or [] for p in parts), strict=True)]
        if history
        else None,
        meshes_at=(lambda k: tuple(m for p in parts for m in p.mesh_at(k))) if history else None,
    )
