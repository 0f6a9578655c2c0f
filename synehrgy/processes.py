"""Several processes, one for each device, as started by ``torchrun``."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from synehrgy.device import pick_device
from synehrgy.errors import UserError


@dataclass(frozen=True)
class World:
    """The processes that share the work.

    Attributes:
        device: of this process.
        rank: number of this process, from 0.
        size: number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any of the processes."""
        # On the CPU, so that no GPU has to be waited for.
        return bool(self.total(torch.tensor(float(flag))) > 0)

    def first(self, work: Callable[[], object]) -> None:
        """Let the first process do something and the others wait; if it fails, they leave.

        Raises:
            Exception: that of the work, in the first process.
            SystemExit: in the others, which have nothing to add.
        """
        error: Exception | None = None
        if self.is_first:
            try:
                work()
            except Exception as failure:
                error = failure
        if self.any(error is not None):
            raise error or SystemExit(1)


@contextmanager
def world(device: str, patience: timedelta | None = None) -> Iterator[World]:
    """The processes that ``torchrun`` has started; without it, this one alone.

    Only the first process prints.

    Args:
        device: as in the settings; with several processes ``auto`` is a GPU for each, or the CPU.
        patience: how long they wait for each other; default PyTorch's.

    Raises:
        UserError: fewer GPUs than processes, or no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(pick_device(device))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device.startswith("cuda:"):
        raise UserError(
            f"device={device}: {size} processes need a GPU each. Give device=auto; "
            "CUDA_VISIBLE_DEVICES chooses among the GPUs."
        )
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        if local >= torch.cuda.device_count():
            raise UserError(
                f"{os.environ.get('LOCAL_WORLD_SIZE', size)} processes on "
                f"{torch.cuda.device_count()} GPUs: give torchrun --nproc_per_node as many as "
                "there are GPUs, or train with device=cpu."
            )
        device = f"cuda:{local}"
    here = pick_device(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    # Counts and flags go over the CPU, gradients over the fast links between GPUs.
    backend = "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=patience)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(sys.stdout if rank == 0 else nowhere),
        ):
            yield World(here, rank, size)
    finally:
        dist.destroy_process_group()


def leave() -> None:
    """End a process that has done its work, if it is one of several.

    Threads of a process group live as long as a sharded model is held somewhere in PyTorch. If
    they come to the end of the interpreter they ask for what is gone, and abort the process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
