"""Small recurrent networks that predict the labels of a stay from its first hours.

Several learn side by side, each from its own patients: one multiplication serves them all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synehrgy.evaluation.patients import FIRST_HOURS, Patients

N_STEPS = int(FIRST_HOURS)
# Hours since the last value where there is none yet.
_NEVER = N_STEPS

HIDDEN = 32
N_UPDATES = 200
BATCH = 64
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True)
class Hourly:
    """The first 48 hours of stays, hour by hour.

    Attributes:
        values: float32 [stays, hours, series], the last value up to the end of the hour; NaN before
            the first. A categorical series has the number of its level.
        since: uint8 [stays, hours, series], hours since that value; ``N_STEPS`` before the first.
        facts: float32 [stays, facts], known at admission.
    """

    values: NDArray[np.float32]
    since: NDArray[np.uint8]
    facts: NDArray[np.float32]


def hourly(patients: Patients, facts: NDArray[np.float32]) -> Hourly:
    """The stays of patients, in their order, with what is known at admission."""
    grid = patients.grid.first(FIRST_HOURS)
    shape = (len(patients.stays), N_STEPS, len(patients.schema.variables))
    values = np.full(shape, np.nan, dtype=np.float32)
    point, series = np.nonzero(grid.observed)
    hour = np.clip(grid.hours, 0, N_STEPS - 1).astype(np.int64)
    # Points ascend in time: of several in an hour, the last stays.
    values[grid.stay[point], hour[point], series] = grid.values[point, series]
    steps = np.arange(N_STEPS, dtype=np.int16)[None, :, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=1)
    filled = np.take_along_axis(values, np.maximum(last, 0).astype(np.int64), axis=1)
    since = np.where(last < 0, _NEVER, steps - last).astype(np.uint8)
    return Hourly(filled, since, facts)


@dataclass(frozen=True)
class _Scaler:
    """Mean and standard deviation of the training set, by which everything is standardised."""

    values: tuple[NDArray[np.float32], NDArray[np.float32]]
    facts: tuple[NDArray[np.float32], NDArray[np.float32]]

    @classmethod
    def of(cls, known: Hourly) -> "_Scaler":
        observed = np.where(known.since == 0, known.values, np.nan)
        return cls(_moments(observed, (0, 1)), _moments(known.facts, (0,)))

    def inputs(self, known: Hourly, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Values, whether they are new, and their age [rows, hours, 3 x series]; facts."""
        since = known.since[rows]
        parts = [
            _scaled(known.values[rows], *self.values),
            (since == 0).astype(np.float32),
            since.astype(np.float32) / N_STEPS,
        ]
        facts = _scaled(known.facts[rows], *self.facts)
        return torch.from_numpy(np.concatenate(parts, axis=2)), torch.from_numpy(facts)


def _moments(
    values: NDArray[np.float32], axes: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation without NaN; 0 and 1 where there is nothing to scale by."""
    there = ~np.isnan(values)
    n = np.maximum(there.sum(axis=axes), 1)
    mean = np.where(there, values, 0).sum(axis=axes, dtype=np.float64) / n
    off = np.where(there, values - mean.astype(np.float32), 0)
    deviation = np.sqrt((off.astype(np.float64) ** 2).sum(axis=axes) / n)
    deviation[deviation == 0] = 1
    return mean.astype(np.float32), deviation.astype(np.float32)


def _scaled(
    values: NDArray[np.float32], mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Standardised, cut at 5 deviations (values of another cohort may be anywhere); NaN is 0."""
    return np.nan_to_num(np.clip((values - mean) / deviation, -5, 5), nan=0.0)


class _Networks(nn.Module):
    """Gated recurrent units (Cho et al., EMNLP 2014) with a head per label, many side by side."""

    def __init__(
        self, n: int, inputs: int, facts: int, labels: int, generator: torch.Generator
    ) -> None:
        super().__init__()

        def weights(*shape: int) -> nn.Parameter:
            bound = HIDDEN**-0.5
            drawn = torch.rand(shape, generator=generator)
            return nn.Parameter((2 * drawn - 1) * bound)

        self.n = n
        self.of_input, self.of_input_bias = weights(inputs, n * 3 * HIDDEN), weights(n * 3 * HIDDEN)
        self.of_state, self.of_state_bias = (
            weights(n, HIDDEN, 3 * HIDDEN),
            weights(n, 1, 3 * HIDDEN),
        )
        self.head, self.head_bias = weights(n, HIDDEN + facts, labels), weights(n, 1, labels)

    def forward(self, series: Tensor, facts: Tensor) -> Tensor:
        """Log odds [networks, rows, labels] of series [rows, hours, inputs] and facts."""
        rows, hours, _ = series.shape
        given = torch.addmm(self.of_input_bias, series.flatten(0, 1), self.of_input)
        given = given.view(rows, hours, self.n, 3 * HIDDEN).permute(1, 2, 0, 3)
        state = torch.zeros(self.n, rows, HIDDEN)
        for at in given.unbind(0):
            of_state = torch.baddbmm(self.of_state_bias, state, self.of_state)
            gates = torch.sigmoid(at[..., : 2 * HIDDEN] + of_state[..., : 2 * HIDDEN])
            reset, keep = gates.chunk(2, dim=-1)
            new = torch.tanh(at[..., 2 * HIDDEN :] + reset * of_state[..., 2 * HIDDEN :])
            state = torch.lerp(new, state, keep)
        state = torch.cat([state, facts.expand(self.n, -1, -1)], dim=-1)
        return torch.baddbmm(self.head_bias, state, self.head)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads wait for each other at every step, and their number would change the last digits."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@dataclass(frozen=True)
class Fitted:
    """Networks that have learnt, and how their inputs are scaled."""

    networks: _Networks
    scaler: _Scaler

    @torch.no_grad()
    @_one_thread()
    def predict(self, known: Hourly, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities [networks, rows, labels] of some stays."""
        parts = [
            torch.sigmoid(self.networks(*self.scaler.inputs(known, part)))
            for part in np.array_split(rows, max(len(rows) // 512, 1))
        ]
        return torch.cat(parts, dim=1).numpy().astype(np.float64)


@_one_thread()
def fit(
    known: Hourly,
    labels: NDArray[np.int8],
    counts: NDArray[np.bool_],
    learns: NDArray[np.bool_],
    seed: int,
) -> Fitted:
    """Train networks on all labels at once.

    The number of updates is fixed, and so is the time: more patients are seen less often.

    Args:
        known: stays.
        labels: 0 or 1 [stays, labels].
        counts: which labels of which stays are learnt [stays, labels].
        learns: from which stays each network learns [networks, stays]; at least one each.
        seed: of the first weights and of the batches.
    """
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    used = np.flatnonzero(learns.any(axis=0))
    n_series, n_facts = known.values.shape[2], known.facts.shape[1]
    networks = _Networks(len(learns), 3 * n_series, n_facts, labels.shape[1], generator)
    scaler = _Scaler.of(Hourly(known.values[used], known.since[used], known.facts[used]))
    optimizer = torch.optim.AdamW(
        networks.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, N_UPDATES)
    order = np.zeros(0, dtype=np.int64)
    for _ in range(N_UPDATES):
        while len(order) < BATCH:
            order = np.concatenate([order, rng.permutation(used)])
        batch, order = order[:BATCH], order[BATCH:]
        weight = torch.from_numpy((learns[:, batch, None] & counts[batch]).astype(np.float32))
        target = torch.from_numpy(labels[batch].astype(np.float32)).expand(len(learns), -1, -1)
        odds = networks(*scaler.inputs(known, batch))
        loss = nn.functional.binary_cross_entropy_with_logits(odds, target, weight, reduction="sum")
        optimizer.zero_grad()
        (loss / BATCH).backward()
        optimizer.step()
        schedule.step()
    return Fitted(networks, scaler)
