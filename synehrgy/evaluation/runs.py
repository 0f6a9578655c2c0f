"""Stays as sequences of tokens, and the longest runs of tokens that two groups of stays share."""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.patients import Patients

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

# Of each stay only so many tokens are looked at: bounds the time and the memory.
MOST_TOKENS = 512
# Lengths of runs that are told apart: each is twice an earlier one, or three times one.
LENGTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, MOST_TOKENS)
# Shorter runs are shared by chance and not looked for.
SHORTEST = 8

# Values of a series are one of so many, of equal counts in the real data: a model that draws values
# within bins would not repeat them digit by digit.
_LEVELS = 10
# Of an exact value, steps to a standard deviation, at least.
_STEPS = 50

_ODD = np.uint64(0x9E3779B97F4A7C15)
# A table by the last bits of a hash.
_SLOTS = 1 << 24
_LAST_BITS = np.uint64(_SLOTS - 1)


def mixed(x: Hashes) -> Hashes:
    """Spread numbers over all of 64 bits (splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    x = x + _ODD
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def paired(left: Hashes, right: Hashes) -> Hashes:
    """The hash of two things in this order."""
    return mixed(left * _ODD + right)


@dataclass(frozen=True)
class Sequences:
    """The tokens of stays, one stay after the other.

    Attributes:
        tokens: uint64 [tokens]: codes in the order of listing, then measurements in order of time.
        stay: int64 [tokens], ascending: the row of the stay.
        end: int64 [tokens]: where its stay ends.
        measured: bool [tokens]: whether it is a measurement.
        code_sets: uint64 [stays]: a hash of the set of codes; 0 of none.
        value_lists: uint64 [stays]: a hash of all values in order; 0 of none.
    """

    tokens: Hashes
    stay: Ints
    end: Ints
    measured: NDArray[np.bool_]
    code_sets: Hashes
    value_lists: Hashes


class Reader:
    """Reads stays as sequences.

    Args:
        real: whose values say which are alike, and how exact a value is.
    """

    def __init__(self, real: Patients) -> None:
        self._names = [v.name for v in real.schema.variables]
        self._kept: WeakKeyDictionary[Patients, Sequences] = WeakKeyDictionary()
        rows = real.cohort.measurements
        column, value = self._column(rows), rows["value"].to_numpy(np.float64)
        self._edges, self._decimals = [], []
        for mine in _groups(column, len(self._names)):
            known = value[mine]
            known = known[~np.isnan(known)]
            cuts = np.linspace(0, 1, _LEVELS + 1)[1:-1]
            self._edges.append(np.unique(np.quantile(known, cuts)) if len(known) else known)
            step = known.std() / _STEPS if len(known) else 0.0
            self._decimals.append(int(np.ceil(-np.log10(step))) if step > 1e-12 else 6)

    def read_once(self, patients: Patients) -> Sequences:
        """The stays of patients that are read again and again: they are kept."""
        if patients not in self._kept:
            self._kept[patients] = self.read(patients)
        return self._kept[patients]

    def read(self, patients: Patients) -> Sequences:
        """The stays of the patients."""
        n = len(patients.stays)
        codes = patients.coded
        code_stay = codes["stay"].to_numpy(np.int64)
        code = pd.util.hash_array(codes["code"].to_numpy(dtype=object))
        rows = patients.cohort.measurements
        stay = patients.stay_rows(rows)
        per_stay = np.bincount(stay, minlength=n)
        early = _place(stay) < MOST_TOKENS
        rows, stay = rows[early], stay[early]
        alike, exact = self._values(rows)

        tokens = np.concatenate([code, alike])
        of_stay = np.concatenate([code_stay, stay])
        measured = np.arange(len(tokens)) >= len(code)
        order = np.argsort(of_stay, kind="stable")
        order = order[_place(of_stay[order]) < MOST_TOKENS]
        of_stay = of_stay[order]
        end = np.searchsorted(of_stay, np.arange(n), side="right")[of_stay]

        once = pd.DataFrame({"stay": code_stay, "code": code}).drop_duplicates()
        return Sequences(
            tokens[order],
            of_stay,
            end.astype(np.int64),
            measured[order],
            _summed(mixed(once["code"].to_numpy(np.uint64)), once["stay"].to_numpy(np.int64), n),
            # Longer lists that begin alike are not the same.
            _summed(paired(exact, _place(stay).astype(np.uint64)), stay, n)
            * mixed(per_stay.astype(np.uint64)),
        )

    def _column(self, rows: pd.DataFrame) -> Ints:
        kind = rows["variable"].astype("category").cat
        of_category = pd.Index(self._names).get_indexer(pd.Index(kind.categories.astype(object)))
        # A category of -1 is no value, which no valid row has.
        return np.append(of_category, -1)[kind.codes.to_numpy()].astype(np.int64)

    def _values(self, rows: pd.DataFrame) -> tuple[Hashes, Hashes]:
        """Of each row a hash of the series with its value, roughly and exactly."""
        column, value = self._column(rows), rows["value"].to_numpy(np.float64)
        level = rows["level"].astype("category").cat
        of_level = pd.util.hash_array(np.append(level.categories.to_numpy(dtype=object), ""))
        text = of_level[level.codes.to_numpy()]
        rough, exact = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        for i, mine in enumerate(_groups(column, len(self._names))):
            known = np.nan_to_num(value[mine])
            rough[mine] = np.searchsorted(self._edges[i], known, side="right")
            # Beyond the range of integers all numbers are the same.
            scaled = np.clip(known * 10.0 ** self._decimals[i], -1e18, 1e18)
            exact[mine] = np.round(scaled).astype(np.int64)
        series = paired(column.astype(np.uint64), text)
        return (
            paired(series, rough.astype(np.uint64)),
            paired(series, exact.astype(np.uint64)),
        )


reader_of = kept(Reader)


def _groups(group: Ints, n: int) -> list[Ints]:
    """The places of each group."""
    order = np.argsort(group, kind="stable")
    limits = np.searchsorted(group[order], np.arange(n + 1))
    return [order[limits[i] : limits[i + 1]] for i in range(n)]


def _place(ascending: Ints) -> Ints:
    """How many equal ones are before each."""
    return np.arange(len(ascending)) - np.searchsorted(ascending, ascending)


def _summed(hashes: Hashes, stay: Ints, n: int) -> Hashes:
    """The sum of the hashes of each stay, in any order of rows: uint64 [n]."""
    found = np.zeros(n, dtype=np.uint64)
    order = np.argsort(stay, kind="stable")
    start = np.flatnonzero(np.diff(stay[order], prepend=-1))
    if len(start):
        found[stay[order][start]] = np.add.reduceat(hashes[order], start)
    return found


@dataclass(frozen=True)
class Runs:
    """Of each stay the longest run of tokens that it shares with any released one.

    Attributes:
        length: int64 [stays]; 0 where it is less than ``SHORTEST``. It is never less than the
            greatest of ``LENGTHS`` that the true one reaches.
        released: int64 [stays]: row of the released stay; -1 of none.
    """

    length: Ints
    released: Ints


def longest_runs(stays: Sequences, released: Sequences, n: int) -> Runs:
    """Find the longest shared runs.

    Windows of each of ``LENGTHS`` are compared by their hashes. Only places where shorter windows
    were found are looked up again, so that what little is shared by chance costs little.

    Args:
        stays: in which to look.
        released: what is looked for in them.
        n: number of ``stays``.
    """
    length, at, there = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    left = np.arange(len(stays.tokens))
    for k, mine, others in zip(LENGTHS, _windows(stays), _windows(released), strict=True):
        if k < SHORTEST:
            continue
        left = left[stays.end[left] - left >= k]
        right = np.flatnonzero(released.end - np.arange(len(others)) >= k)
        found, where = _look_up(mine[left], others[right])
        left, where = left[found], right[where]
        if not len(left):
            break
        # The first place of each stay.
        stay, first = np.unique(stays.stay[left], return_index=True)
        length[stay], at[stay], there[stay] = k, left[first], where[first]
    some = np.flatnonzero(length)
    result = np.full(n, -1)
    result[some] = released.stay[there[some]] if len(some) else -1
    while len(some):
        i, j = at[some] + length[some], there[some] + length[some]
        more = (i < stays.end[at[some]]) & (j < released.end[there[some]])
        some, i, j = some[more], i[more], j[more]
        some = some[stays.tokens[i] == released.tokens[j]]
        length[some] += 1
    return Runs(length, result)


def _windows(sequences: Sequences) -> Iterator[Hashes]:
    """Hashes of the windows of each of ``LENGTHS`` from each token on; void across the end."""
    n = len(sequences.tokens)
    made = {1: sequences.tokens}

    def joined(k: int, m: int) -> Hashes:
        following = np.zeros(n, np.uint64)
        following[: max(n - k, 0)] = made[m][k:]
        return paired(made[k], following)

    for k in LENGTHS:
        made[k] = joined(2 * (k // 3), k // 3) if k % 3 == 0 else joined(k // 2, k // 2)
        yield made[k]


def _look_up(wanted: Hashes, pool: Hashes) -> tuple[NDArray[np.bool_], Ints]:
    """Which are in the pool, [wanted], and of those that are, a place there."""
    slot, slots = (wanted & _LAST_BITS).astype(np.int64), (pool & _LAST_BITS).astype(np.int64)
    asked = np.zeros(_SLOTS, dtype=bool)
    asked[slot] = True
    near = np.flatnonzero(asked[slots])
    table = np.full(_SLOTS, -1, dtype=np.int64)
    table[slots[near]] = near
    place = table[slot]
    hit = place >= 0
    hit[hit] = pool[place[hit]] == wanted[hit]
    # A slot holds one of those that share it: the others are looked for one by one.
    rest = np.flatnonzero((place >= 0) & ~hit)
    if len(rest):
        values, first = np.unique(pool[near], return_index=True)
        which = np.minimum(np.searchsorted(values, wanted[rest]), len(values) - 1)
        hit[rest] = values[which] == wanted[rest]
        place[rest] = near[first[which]]
    return hit, place[hit]


def shared_parts(stays: Sequences, released: Sequences, partner: Ints, size: int = 3) -> Floats:
    """Of each stay the share of its measurements that lie in a window its partner has, too.

    Args:
        stays: of which.
        released: in which.
        partner: int64 [stays]: the row of the released stay; -1 of none.
        size: of the windows.

    Returns:
        float64 [stays]: windows that are shared, of all of the stay's windows of measurements; 0
        without a partner or a window.
    """
    n = len(partner)

    def windows(of: Sequences, keep: NDArray[np.bool_]) -> tuple[Hashes, Ints]:
        start = np.flatnonzero(keep & of.measured)
        start = start[of.end[start] - start >= size]
        found = of.tokens[start]
        for i in range(1, size):
            found = paired(found, of.tokens[start + i])
        return found, of.stay[start]

    mine, stay = windows(stays, partner[stays.stay] >= 0)
    others, other_stay = windows(released, np.isin(released.stay, partner))
    shared = np.isin(
        paired(mine, partner[stay].astype(np.uint64)),
        paired(others, other_stay.astype(np.uint64)),
    )
    total = np.bincount(stay, minlength=n)
    return np.bincount(stay, shared, minlength=n) / np.maximum(total, 1)
