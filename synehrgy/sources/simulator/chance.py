"""Randomness of the simulator: it belongs to (seed, block of patients, stage), to nothing else."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# Patients that are simulated and written together. Part of what a seed means: another number
# gives other patients.
BLOCK = 128

# Weight below which the past of an autoregressive series is left out.
FORGOTTEN = 1e-4

Float = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


def generator(seed: int, block: int, stage: int) -> np.random.Generator:
    """The generator of one stage of one block.

    Stages have their own, so that more rows of one kind do not change those of another.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, block, stage))))


def autoregressive(noise: Float, age: Ints, correlation: float) -> Float:
    """Stationary first-order series of variance one, many one after the other.

    Args:
        noise: standard normal draws, shape [..., n].
        age: place of each number in its own series, from 0 on, shape [n].
        correlation: of neighbours, below one.

    Returns:
        Array like ``noise``.
    """
    innovation = np.where(age == 0, 1.0, np.sqrt(1 - correlation**2)).astype(noise.dtype)
    series = noise * innovation
    # Each round doubles how far back a number remembers, until that is too faint to matter.
    step, weight = 1, correlation
    while weight > FORGOTTEN and step < len(age):
        remembered = (weight * (age[step:] >= step)).astype(noise.dtype)
        series[..., step:] += remembered * series[..., :-step]
        step, weight = 2 * step, weight**2
    return series


def normal_quantile(share: Float) -> Float:
    """Standard normal numbers below which these shares of draws lie."""
    return np.array([NormalDist().inv_cdf(float(x)) for x in np.ravel(share)])


def interpolate(z: Float, knots: Float, values: Float) -> Float:
    """Piecewise linear map that goes on straight beyond its ends."""
    inner = np.interp(z, knots, values)
    below = (values[1] - values[0]) / (knots[1] - knots[0]) * np.minimum(z - knots[0], 0)
    above = (values[-1] - values[-2]) / (knots[-1] - knots[-2]) * np.maximum(z - knots[-1], 0)
    return inner + below + above


def lognormal(rng: np.random.Generator, parameters: tuple[float, float], size: int) -> Float:
    """Draws with a median and a spread of their logarithm, given in this order."""
    median, spread = parameters
    return median * np.exp(spread * rng.standard_normal(size))


def ragged(counts: Ints) -> tuple[Ints, Ints]:
    """Owner and rank of every item, where owner i has ``counts[i]`` items."""
    owner = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, rank
