"""A bound on what a configuration may build, so that a wrong number in a file costs neither minutes nor memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full}


class TooLargeError(Exception):
    """More numbers would be made than the limit."""


class SizeLimit(TorchFunctionMode):
    """While it is entered, new tensors may hold ``limit`` numbers in all; raises TooLargeError before one that exceeds it."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.made = limit, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            size = kwargs.get("size", args[0] if args else ())
            sides = [size, *args[1:]] if isinstance(size, int) else list(size)
            self.made += math.prod(side for side in sides if isinstance(side, int))
            if self.made > self.limit:
                raise TooLargeError
        return func(*args, **kwargs)
