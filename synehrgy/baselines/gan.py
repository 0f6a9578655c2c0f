"""What Wasserstein GANs of several baselines share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def gradient_penalty(
    judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """By how much, squared, slopes of a critic between real and fake differ from 1.

    Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.

    Args:
        judge: the critic.
        real, fake: what it judges [batch, ...].
        share: of the real one at each point in between [batch, 1, ...].
    """
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


@torch.no_grad()
def average(mean: nn.Module, latest: nn.Module, share: float) -> None:
    """Move weights towards the latest ones, by a share of the way."""
    for old, new in zip(mean.parameters(), latest.parameters(), strict=True):
        old.lerp_(new, share)
