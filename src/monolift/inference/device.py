"""Which device a network runs on."""

from __future__ import annotations

import torch

from monolift.errors import InputError


def pick_device(name: str) -> str:
    """The device of a name: "auto" is CUDA where there is one, else the CPU; any other name is checked.

    Raises:
        InputError: for a device that this torch cannot use.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "meta":  # torch's own for tensors without content
            raise RuntimeError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r}: not usable here ({reason}): expected cpu, cuda or auto") from None
    return name
