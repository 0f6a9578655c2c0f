"""How a body goes through a stay: drivers hour by hour, and the series that follow them."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from synehrgy.sources.simulator import population as p
from synehrgy.sources.simulator.chance import Float, Ints, autoregressive, ragged
from synehrgy.sources.simulator.codebook import Codebook
from synehrgy.sources.simulator.conditions import DRIVERS, FACTORS
from synehrgy.sources.simulator.people import HOUR, People
from synehrgy.sources.simulator.series import COUPLINGS, SERIES, YOUNG_SHIFT

SERIES_NAMES = tuple(SERIES)
SERIES_ROW = {name: i for i, name in enumerate(SERIES_NAMES)}


@dataclass(frozen=True)
class Course:
    """The hours of all stays of a block, one stay after the other.

    Attributes:
        stay, hour: row of the stay and hours since its first clock hour, shape [hours].
        first: place of each stay's first hour.
        clock: seconds since 1970 of the beginning of each hour.
        drivers: shape [driver, hours].
        level: the series' standard normal numbers without the noise of measuring, shape
            [series, hours].
    """

    stay: Ints
    hour: Ints
    first: Ints
    clock: Ints
    drivers: Float
    level: Float


def draw_course(rng: np.random.Generator, people: People, codebook: Codebook) -> Course:
    """Draw the course of every stay of a block."""
    start = people.intime // HOUR
    stay, hour = ragged(people.outtime // HOUR - start + 1)
    first = np.flatnonzero(hour == 0)
    drivers = _draw_drivers(rng, people, codebook, stay, hour)
    level = _draw_levels(rng, people, drivers, stay, hour)
    return Course(stay, hour, first, (start[stay] + hour) * HOUR, drivers, level)


def _base(rng: np.random.Generator, people: People, codebook: Codebook) -> Float:
    """Where the drivers of each stay begin, shape [driver, stay]."""
    admission = people.admission
    factors = people.factors[admission]
    # A condition shifts by its effect; without it the driver is the lower, so that the mean is 0.
    surplus = people.conditions[admission] - codebook.share
    base = surplus @ codebook.effects(DRIVERS)
    for table, name in (
        (p.DRIVER_SEVERITY, "severity"),
        (p.DRIVER_AGE, "age"),
        (p.DRIVER_MALE, "male"),
    ):
        weights = np.array([table.get(driver, 0.0) for driver in DRIVERS])
        base = base + factors[:, [FACTORS.index(name)]] * weights
    base += p.DRIVER_OWN * rng.standard_normal(base.shape)
    young = people.young[people.patient[admission]]
    base[young] = 0.4 * rng.standard_normal((int(young.sum()), len(DRIVERS)))
    return np.asarray(base.T, dtype=np.float32)


def _draw_drivers(
    rng: np.random.Generator, people: People, codebook: Codebook, stay: Ints, hour: Ints
) -> Float:
    base = _base(rng, people, codebook)
    k = base.shape[1]
    dying = people.dies_in_unit
    mean = np.where(dying, p.RECOVERY_SHARE["death"][0], p.RECOVERY_SHARE["survivor"][0])
    spread = np.where(dying, p.RECOVERY_SHARE["death"][1], p.RECOVERY_SHARE["survivor"][1])
    share = (mean + spread * rng.standard_normal((len(DRIVERS), k))).astype(np.float32)
    median, spread_hours = p.RECOVERY_HOURS
    constant = median * np.exp(spread_hours * rng.standard_normal(k))
    progress = (1 - np.exp(-hour / constant[stay])).astype(np.float32)
    noise = rng.standard_normal((len(DRIVERS), len(hour)), dtype=np.float32)
    sd, correlation = p.DRIVER_WANDER
    drivers = base[:, stay] * (1 - share[:, stay] * progress)
    drivers += np.float32(sd) * autoregressive(noise, hour, correlation)
    left = (np.bincount(stay)[stay] - hour)[dying[stay]]
    ramp = np.exp(-left / p.DYING_HOURS)
    for name, weight in p.DYING.items():
        drivers[DRIVERS.index(name), dying[stay]] += weight * ramp
    _treat(rng, drivers, stay, hour)
    return drivers


def _treat(rng: np.random.Generator, drivers: Float, stay: Ints, hour: Ints) -> None:
    """What is far from normal is treated at some hour, and comes back with a delay."""
    n = len(hour)
    for name, threshold, rate, effect, delay in p.TREATMENTS:
        row = drivers[DRIVERS.index(name)]
        hit = (row > threshold) & (rng.random(n) < rate)
        begin = np.full(int(stay.max()) + 1 if n else 0, n, dtype=np.int64)
        # The first hit of each stay: written from the last to the first.
        where = np.flatnonzero(hit)[::-1]
        begin[stay[where]] = where
        since = np.arange(n) - begin[stay]
        row += np.where(since > 0, effect * (1 - np.exp(-np.maximum(since, 0) / delay)), 0.0)


@cache
def _tables() -> tuple[Float, Float, Float]:
    loads = [[s.loads.get(driver, 0.0) for driver in DRIVERS] for s in SERIES.values()]
    own = [s.own for s in SERIES.values()]
    return (
        np.array(loads, np.float32),
        np.array(own, np.float32),
        np.array([YOUNG_SHIFT.get(name, 0.0) for name in SERIES], np.float32),
    )


def _draw_levels(
    rng: np.random.Generator, people: People, drivers: Float, stay: Ints, hour: Ints
) -> Float:
    loads, own, shift = _tables()
    k = len(people.admission)
    patients = len(people.male)
    # Half of the own level belongs to the patient, half to the stay.
    lasting = rng.standard_normal((len(SERIES), patients), dtype=np.float32)
    passing = rng.standard_normal((len(SERIES), k), dtype=np.float32)
    mine = people.patient[people.admission]
    levels = own[:, None] * np.float32(np.sqrt(0.5)) * (lasting[:, mine] + passing)
    levels += shift[:, None] * people.young[mine]
    level = loads @ drivers + levels[:, stay]
    noise = rng.standard_normal((len(SERIES), len(hour)), dtype=np.float32)
    by_correlation: dict[float, list[int]] = {}
    for i, series in enumerate(SERIES.values()):
        by_correlation.setdefault(series.wander[1], []).append(i)
    for correlation, rows in by_correlation.items():
        sd = np.array([list(SERIES.values())[i].wander[0] for i in rows], np.float32)
        level[rows] += sd[:, None] * autoregressive(noise[rows], hour, correlation)
    for follower, leader, weight in COUPLINGS:
        level[SERIES_ROW[follower]] += np.float32(weight) * level[SERIES_ROW[leader]]
    return np.asarray(level)
