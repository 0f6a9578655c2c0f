"""One model trained by several processes, one for each device."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from synehrgy.processes import World


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
