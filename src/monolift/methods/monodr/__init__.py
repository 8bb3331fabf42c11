"""MonoDR: Monocular Differentiable Rendering for Self-Supervised 3D Object Detection (Beker et al., ECCV 2020).

3D boxes, shapes and textures of the objects in an image without any 3D label: a 2D detector gives each object's mask, a depth
network the depth of its pixels, and a car that can be deformed, painted and moved is rendered until it looks like the image.
What a fit takes and returns (`Observation`, `FittedObjects`) is the contract of ``monolift.methods.fitter``.

    config       every choice, with presets: default (ours), paper
    crops        one small image per object, and which of its pixels are evidence
    codec        box <-> the variables that are optimised
    loss         eqs. 2 to 8: colours, 2D boxes, silhouettes, depth, size; confidence
    escape       section 3.2: other rotations are tried, the one that looks best is kept
    perceptual   what "looks best" means; lpips: as in the paper, for those who have the weights
    scale        the scale of an image's depth map (ours)
    fit          the loop over one batch of objects

The generator of textured cars is ``monolift.shapes.textured``. Ours in the default preset, and marked where they stand:
crops of 64 pixels; rotations tried in the first third only, with sizes held at their means, the opposite heading and (twice)
the whole circle among the trials and the form of the depth among the evidence; pixels of other objects are unknown, not
foreground; the 2D box binds only where the object is seen to end; a robust depth loss; sizes as likely as among cars; the
depth map's scale from the objects' sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from monolift.geometry import Boxes3D
from monolift.methods.fitter import FittedMethod, FittedObjects, Fitter, History, Observation
from monolift.methods.monodr.config import PRESETS, MonoDRConfig, paper
from monolift.methods.monodr.fit import fit_batch
from monolift.shapes.textured import CODE, TexturedDecoder, load_textured

__all__ = ["METHOD", "PRESETS", "FittedObjects", "MonoDR", "MonoDRConfig", "Observation", "paper"]


class MonoDR(Fitter[MonoDRConfig]):
    """Fits boxes, shapes and textures to what 2D detectors and depth networks report.

    Args:
        config: ``MonoDRConfig()`` or ``paper()``.
        decoder: a `TexturedDecoder`; by default the bundled one.
        device: where objects are fitted, as PyTorch names it; results are on the CPU.
    """

    method = "monodr"

    def __init__(
        self,
        config: MonoDRConfig | None = None,
        decoder: TexturedDecoder | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = config or MonoDRConfig()
        self.decoder = _on(decoder or load_textured(), torch.device(device))

    @property
    def batch(self) -> int:
        return self.config.batch

    @property
    def iterations(self) -> int:
        return self.config.iterations

    def fit_batch(
        self,
        observations: Sequence[Observation],
        generator: torch.Generator,
        on_step: Callable[[], None],
        history: bool,
    ) -> FittedObjects:
        """Objects fitted together; scores are the confidence of eq. 8, residuals "pixel", "box", "silhouette", "depth", "size"
        and "protrusion"."""
        if observations:
            return fit_batch(observations, self.config, self.decoder, generator, on_step, history)
        numbers, codes, boxes = torch.zeros(0), torch.zeros(0, CODE), Boxes3D.empty()
        return FittedObjects(
            boxes=boxes,
            scores=numbers,
            meshes=(),
            score2d=numbers,
            shape=codes,
            texture=codes,
            start=boxes,
            depth_scale=numbers,
            trace=History((boxes,) * (self.config.iterations + 1), lambda step: ()) if history else None,
        )


def _on(decoder: TexturedDecoder, device: torch.device) -> TexturedDecoder:
    """The decoder on a device: itself where it is there, else a copy, so that the caller's stays where it is."""
    if decoder.faces.device == device:
        return decoder
    if not isinstance(decoder, torch.nn.Module):
        raise TypeError(
            f"a decoder that can move to {device} is a torch.nn.Module, got {type(decoder).__name__}"
        )
    return copy.deepcopy(decoder).to(device)


METHOD = FittedMethod(
    name="monodr",
    title="Monocular Differentiable Rendering for Self-Supervised 3D Object Detection",
    config=MonoDRConfig,
    fitter=MonoDR,
    presets=PRESETS,
)
