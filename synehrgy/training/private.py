"""Training with a proof of privacy: how much any one patient can have changed the weights.

DP-SGD (Abadi et al., "Deep Learning with Differential Privacy", CCS 2016) with whole patients as
its unit: for each step every patient is drawn with the same small chance, the gradient of all that
a patient has (all admissions, all segments) is shortened to a bound, and their sum gets Gaussian
noise in proportion to that bound. Whatever the optimiser then does with it cannot take the noise
away.
"""

import secrets
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synehrgy.processes import World
from synehrgy.training.guarantee import Guarantee

Ints = NDArray[np.int64]


class PrivateSteps:
    """Draws the patients of a step and makes a gradient of theirs in which none can be told.

    Each process draws among its own patients and adds its share of the noise, so that the sum over
    all processes is that of one.

    Args:
        guarantee: that is to hold.
        patient_of: int64 [segments]; the patient of each segment of the train split.
        world: the processes that train.
        noise_seed: to repeat a run; None: random numbers of the operating system.
    """

    def __init__(
        self, guarantee: Guarantee, patient_of: Ints, world: World, noise_seed: int | None = None
    ):
        self.guarantee, self.world, self.noise_seed = guarantee, world, noise_seed
        patients, inverse = np.unique(patient_of, return_inverse=True)
        by_patient = np.split(
            np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1]
        )
        self.n_patients = len(patients)
        self.mine = by_patient[world.rank :: world.size]
        # Divides the sum of gradients; the number that was drawn would tell something.
        self.expected = guarantee.rate * self.n_patients
        self.sum: Tensor | None = None

    def begin(self, step: int) -> Iterator[Ints]:
        """Begin a step: the segments of each patient who is drawn, one patient after the other.

        Args:
            step: number of the step in the whole training.
        """
        # Not from the seed of the run, which its folder tells everybody.
        if self.noise_seed is None:
            self.rng = np.random.default_rng(secrets.randbits(128))
        else:
            self.rng = np.random.default_rng([self.noise_seed, step, self.world.rank])
        self.sum = None
        drawn = self.rng.random(len(self.mine)) < self.guarantee.rate
        for number in np.flatnonzero(drawn):
            yield self.mine[number]

    def add(self, parameters: list[nn.Parameter]) -> None:
        """Add the gradient of one patient, no longer than it may be, and clear it."""
        gradient = torch.cat([_gradient_of(parameter).flatten() for parameter in parameters])
        norm = float(gradient.norm())
        # What is not a number counts as nothing: it must not spoil the sum.
        share = min(1.0, self.guarantee.clip / norm) if 0 < norm < float("inf") else 0.0
        if share:
            gradient *= share
            self.sum = gradient if self.sum is None else self.sum.add_(gradient)
        for parameter in parameters:
            parameter.grad = None

    def finish(self, parameters: list[nn.Parameter]) -> None:
        """Give the parameters the noisy mean of what was added."""
        n = sum(parameter.numel() for parameter in parameters)
        scale = self.guarantee.noise * self.guarantee.clip / self.world.size**0.5
        noise = torch.from_numpy(self.rng.standard_normal(n, dtype=np.float32)).mul_(scale)
        total = noise.to(parameters[0].device)
        if self.sum is not None:
            total += self.sum
        mean = self.world.total(total) / self.expected
        for parameter, part in zip(
            parameters, mean.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    return torch.zeros_like(parameter) if gradient is None else gradient.float()
