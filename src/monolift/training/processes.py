"""The processes of a training: one, or several under torchrun that average their gradients."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from monolift.errors import InputError
from monolift.inference.device import pick_device

PATIENCE = timedelta(hours=12)  # others wait while the first process validates
KINDS = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class Processes:
    """This process among ``world`` of them, numbered by ``rank``, and the device it trains on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @classmethod
    def join(cls, device: str) -> Processes:
        """Join the others where torchrun has started several. Raises InputError for a device that cannot be used."""
        world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        chosen = torch.device(pick_device(device))
        if chosen.type not in KINDS:
            raise InputError(f"device {device!r}: expected {', '.join(KINDS)} or auto")
        if chosen.type == "cuda":
            local = int(os.environ.get("LOCAL_RANK", 0)) if chosen.index is None else chosen.index
            if local >= torch.cuda.device_count():
                raise InputError(
                    f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; "
                    "start as many processes as there are GPUs"
                )
            chosen = torch.device("cuda", local)
            torch.cuda.set_device(chosen)
        if world > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
        return cls(rank, world, chosen)

    def leave(self) -> None:
        """Leave the others."""
        if self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def share_gradients(self, detector: nn.Module) -> nn.Module:
        """The detector to train with: the same, or one whose gradients are averaged over the processes."""
        return DistributedDataParallel(detector) if self.world > 1 else detector

    def mean(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The mean of each loss over the processes, the same in all of them: what the first one saves is true of all."""
        if self.world == 1:
            return losses
        values = torch.stack([value.float() for value in losses.values()])
        distributed.all_reduce(values)
        return dict(zip(losses, values / self.world, strict=True))
