"""Shape labels."""
from __future__ import annotations
import torch
from monolift.data.sample import Sample
from monolift.typing import Float, Tensor
class ShapeLabels:
    def __init__(self, path: str) -> None:
        self.path = path
    def codes(self, sample: Sample) -> Float[Tensor, "n 6"]:
        return torch.zeros(len(sample), 6)
