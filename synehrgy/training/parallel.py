"""Training on several processes, one for each device, as started by ``torchrun``."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from synehrgy.device import pick_device
from synehrgy.errors import UserError


@dataclass(frozen=True)
class World:
    """The processes that train one model.

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
def world(device: str) -> Iterator[World]:
    """The processes that ``torchrun`` has started; without it, this one alone.

    Only the first process prints.

    Args:
        device: as in the settings; with several processes ``auto`` is a GPU for each, or the CPU.

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
    dist.init_process_group("cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo")
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(sys.stdout if rank == 0 else nowhere),
        ):
            yield World(here, rank, size)
    finally:
        dist.destroy_process_group()


def distributed(module: nn.Module, layers: nn.ModuleList, world: World, how: str) -> nn.Module:
    """A module whose gradients are the mean over all processes.

    Args:
        module: whose forward pass gives the loss.
        layers: its blocks.
        world: the processes.
        how: ``ddp``: each holds all weights; ``fsdp``: each trains a share of them, with a share of
            the gradients and of the optimiser's memory (Zhao et al., 2023).
    """
    if world.size == 1:
        return module
    if how == "ddp":
        return DistributedDataParallel(module)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    # It changes the module in place.
    fully_shard(module, mesh=mesh)
    return module


def keeping_gradients(module: nn.Module, *, local: bool) -> AbstractContextManager[None]:
    """Gradients of the passes inside stay in this process if ``local``, else they are shared."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync() if local else nullcontext()
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not local)
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold only a share; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_held(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as another is held: on its device, and the same share of it."""
    tensor = tensor.to(like.device)
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    return tensor
