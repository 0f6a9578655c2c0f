"""Random numbers that belong to a patient, not to a batch.

A draw is a pure function of (seed, stream, record, position), so a synthetic patient is the same
whatever the batch size, the order or the number of processes that made it.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Stream(IntEnum):
    """What draws are for: two uses never share numbers."""

    SAMPLE = 0
    VALUE = 1
    PROMPT = 2
    COVARIATE = 3
    SECONDS = 4
    EXPLAIN = 5
    WINDOW = 6
    DROPOUT = 7
    CHANGE = 8
    # Of training: each epoch has two of its own, from here on.
    EPOCH = 1000


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): 64 well mixed bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seed: int, stream: int, record: ArrayLike, position: ArrayLike) -> NDArray[np.float64]:
    """Uniform draws in the open interval (0, 1), one for each (record, position).

    Args:
        seed: the run's seed.
        stream: which use the draws are for, one of ``Stream``.
        record, position: integer arrays that broadcast against each other.

    Returns:
        Array of the broadcast shape, float64.
    """
    shape = np.broadcast_shapes(np.shape(record), np.shape(position))
    state = np.full(shape, seed % 2**64, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in (stream, record, position):
            state = _mix(state + _GOLDEN * (np.asarray(part).astype(np.uint64) + np.uint64(1)))
    # 52 bits and half a step: neither 0 nor 1 can come out.
    return ((state >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
