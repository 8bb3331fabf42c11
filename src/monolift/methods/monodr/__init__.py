"""MonoDR: Monocular Differentiable Rendering for Self-Supervised 3D Object Detection (Beker et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monolift.methods.monodr.config import PRESETS, MonoDRConfig, paper
from monolift.methods.monodr.observation import FittedObjects, Observation

__all__ = ["PRESETS", "FittedObjects", "MonoDR", "MonoDRConfig", "Observation", "paper"]


class MonoDR:
    """Fits boxes, shapes and textures to what 2D detectors and depth networks say: no 3D label, no training pictures.

    config:  ``MonoDRConfig()`` or ``paper()``. decoder: ``shapes.textured.TexturedDecoder``; the bundled one by default.
    """

    def __init__(self, config: MonoDRConfig | None = None, decoder: object | None = None) -> None:
        self.config = config or MonoDRConfig()
        self.decoder = decoder

    def fit(
        self,
        observations: Sequence[Observation],
        seed: int = 0,
        on_step: Callable[[int, int], None] | None = None,
        history: bool = False,
    ) -> FittedObjects:
        """Fit all objects, of any number of pictures, ``config.batch`` at a time.

        seed: of the first angles and the random trials; equal seeds, equal results. on_step: called with iterations done
        and to do, all batches counted. history: keep the boxes after each iteration (and their meshes, on demand).
        """
        raise NotImplementedError
