"""The clock of a record: hours to tokens and back, without drift.

``clock`` writes the time since the last time point in whole minutes, as weeks, days, hours and
minutes: ``+1 h`` ``+30 min``. Minutes are counted from admission, not from the last time point, so
errors do not add up: however long the record, each time point comes back in the minute that it was
in. Charts are kept in minutes, so most gaps need one token (an hour, a quarter of an hour).

``gap`` writes one token per time point, the bin of the gap before it, as published (SynEHRgy, arXiv
2411.13428). What is lost inside the bins adds up: after a hundred time points it is hours.
"""

import numpy as np
from numpy.typing import NDArray

from synehrgy.tokenizer.grammar import Word

UNITS = {"week": 7 * 24 * 60, "day": 24 * 60, "hour": 60, "minute": 1}
_MOST = {"week": 1, "day": 6, "hour": 23, "minute": 59}
_SHORT = {"week": "7 d", "day": "d", "hour": "h", "minute": "min"}
# A time may lie just below its minute by the rounding of hours to floats.
_ROUNDING = 1e-6


def clock_word(kind: str) -> Word:
    """The automaton of a duration: weeks as often as needed, then one token per smaller unit.

    A part that is zero is left out, and ``now`` alone says that all are, so each duration is
    written in one way only.
    """
    units = [f"{kind}:{unit}" for unit in UNITS]
    arcs = {unit: tuple(units[i + 1 :]) for i, unit in enumerate(units)}
    arcs[units[0]] = tuple(units)
    kinds = (f"{kind}:now", *units)
    return Word(kinds, kinds, kinds, arcs)


def clock_texts(kind: str, sign: str) -> dict[str, list[str]]:
    """Readable text of each token of a duration, by kind in the order of the word."""
    texts = {f"{kind}:now": [f"{sign}0 min"], f"{kind}:week": [f"{sign}7 d"]}
    for unit in ("day", "hour", "minute"):
        texts[f"{kind}:{unit}"] = [f"{sign}{i} {_SHORT[unit]}" for i in range(1, _MOST[unit] + 1)]
    return texts


def clock_minutes() -> NDArray[np.int64]:
    """Minutes of each token of a duration, in the order of the word."""
    return np.concatenate(
        [[0], *(length * np.arange(1, _MOST[unit] + 1) for unit, length in UNITS.items())]
    )


def to_minutes(hours: NDArray[np.float64]) -> NDArray[np.int64]:
    """The minute since admission that a time lies in."""
    return np.floor(hours * 60 + _ROUNDING).astype(np.int64)


def seconds_within(hours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds since the beginning of that minute, to the microsecond."""
    seconds: NDArray[np.float64] = np.round((hours * 60 - to_minutes(hours)) * 60, 6)
    return np.maximum(seconds, 0.0)


def clock_tokens(minutes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Durations as tokens, numbered from 0 in the order of the word.

    Args:
        minutes: not negative.

    Returns:
        (tokens, counts): the tokens of all durations one after the other, and how many each has.
    """
    weeks, rest = np.divmod(minutes, UNITS["week"])
    days, rest = np.divmod(rest, UNITS["day"])
    hours, left = np.divmod(rest, UNITS["hour"])
    counts = weeks + (days > 0) + (hours > 0) + (left > 0) + (minutes == 0)
    start = np.cumsum(counts) - counts
    # Weeks stand first, as often as needed; the other parts take their places after them.
    tokens = np.ones(int(counts.sum()), dtype=np.int64)
    tokens[start[minutes == 0]] = 0
    at, first = start + weeks, 2
    for part, unit in ((days, "day"), (hours, "hour"), (left, "minute")):
        some = part > 0
        tokens[at[some]] = first + part[some] - 1
        at, first = at + some, first + _MOST[unit]
    return tokens, counts


def gap_hours(starts: NDArray[np.bool_], hours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hours from each time point to the next of its stay, the first from admission.

    Rounded to a few milliseconds, lest the last bit of a difference decides about its bin.

    Args:
        starts: whether a time point is the first of its stay.
        hours: of each time point since admission, stay by stay.
    """
    passed: NDArray[np.float64] = np.where(starts, hours, np.diff(hours, prepend=0.0))
    return np.round(passed, 6)
