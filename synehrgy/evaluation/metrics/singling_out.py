"""Singling out: descriptions taken from the release that fit exactly one train patient."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.closeness import fact_columns, first_stays, series_columns
from synehrgy.evaluation.metric import (
    MARGINALS,
    NAN,
    ORACLE,
    SYNTHETIC,
    TEST,
    TRAIN,
    Bench,
    Found,
    Metric,
    Scale,
    Score,
)
from synehrgy.evaluation.patients import Patients

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Facts that a description of several has, and how many descriptions there are of each number.
_SIZES, _EACH = (2, 3, 4, 5, 6), 400
# Codes that are looked at: the most frequent ones.
_MOST_CODES = 2000
# Of patients, to leave out one after the other.
_GROUPS = 20

_SCALES = {
    f"singling_out/{name}": Scale(
        f"Singling out by {what}",
        f"By how much more often {what} of a released patient fits exactly one train patient than "
        "exactly one held-out patient, of equally many: 0 if nothing is given away.",
        "low",
        (-1.0, 1.0),
        0.0,
        *lights,
    )
    for name, what, lights in (
        ("one_fact", "one rare fact", (0.15, 0.3)),
        ("several_facts", "a few facts together", (0.04, 0.1)),
    )
}


class SinglingOut(Metric):
    """Singling out as in Anonymeter (Giomi et al., PoPETs 2023), against held-out patients.

    A description that is narrow fits exactly one of any group now and then; how often is told by
    patients who were held out.
    """

    name = "singling_out"
    title = "Singling out"
    group = "privacy"
    rows = (SYNTHETIC, ORACLE, MARGINALS, TRAIN)
    needs = frozenset({"splits"})
    scales = _SCALES

    def measure(self, bench: Bench, row: str) -> Found:
        """Describe first stays of the row; count equally many of train and of test that fit."""
        groups = (bench.train, bench.rows[TEST], bench.rows[row])
        n = min(len(patients) for patients in groups)
        codes = _frequent_codes(bench)
        train, test, released = (_facts(p, n, codes, bench.seed) for p in groups)
        rng = np.random.default_rng(bench.seed)
        scores, rows = {}, []
        single = _fitting(_rare(released), train, test)
        parts = [_fitting(_several(released, k, rng), train, test) for k in _SIZES]
        several = [np.concatenate([part[i] for part in parts]) for i in (0, 1)]
        for name, (of_train, of_test) in (("one_fact", single), ("several_facts", several)):
            scores[f"singling_out/{name}"] = _excess(of_train, of_test)
        for k, found in zip((1, *_SIZES), (single, *parts), strict=True):
            shares = (float(_singled(x).mean()) if len(x) else NAN for x in found)
            rows.append((k, len(found[0]), *shares))
        columns = ["facts", "descriptions", "train", "test"]
        return Found(scores, {"singling_out_descriptions": pd.DataFrame(rows, columns=columns)})


@dataclass(frozen=True)
class _Descriptions:
    """Conjunctions of facts: [descriptions, facts] each.

    Attributes:
        column: what each fact is about.
        value: the limit.
        up: whether what fits is at least the limit, or at most.
    """

    column: Ints
    value: Floats
    up: NDArray[np.bool_]


def _frequent_codes(bench: Bench) -> pd.Index:
    """Ties by name: by place, rare codes of train would come before those of test."""
    counts = pd.concat([p.coded["code"] for p in (bench.train, bench.rows[TEST])]).value_counts()
    order = np.lexsort((counts.index.to_numpy(dtype=str), -counts.to_numpy()))
    return pd.Index(counts.index.to_numpy(dtype=object)[order[:_MOST_CODES]])


def _facts(patients: Patients, n: int, codes: pd.Index, seed: int) -> Floats:
    """What can be stated of the first stays of n patients: [facts, patients].

    NaN where nothing is known. Of codes only presence is stated, as a list of codes is never
    complete.
    """
    first = first_stays(patients)
    # Of equally many patients, the same ones: a copy is compared with what it copies.
    chosen = np.random.default_rng(seed).choice(len(first), size=n, replace=False)
    stays = first[np.sort(chosen)]
    present = patients.presence(codes)[stays].toarray()
    columns = [fact_columns(patients)[stays], series_columns(patients)[stays]]
    present[present == 0] = np.nan
    return np.ascontiguousarray(np.hstack([*columns, present]).T, dtype=np.float32)


def _rare(released: Floats) -> _Descriptions:
    """Extremes that one released patient has alone: the oldest, the only one with a code."""
    known = ~np.isnan(released)
    least = np.where(known, released, np.inf).min(axis=1, initial=np.inf)
    most = np.where(known, released, -np.inf).max(axis=1, initial=-np.inf)
    alone = [(released == limit[:, None]).sum(axis=1) == 1 for limit in (least, most)]
    # What only one patient has is both.
    alone[0] &= least < most
    low, high = (np.flatnonzero(x) for x in alone)
    return _Descriptions(
        np.concatenate([low, high])[:, None],
        np.concatenate([least[low], most[high]])[:, None].astype(np.float32),
        np.repeat([False, True], [len(low), len(high)])[:, None],
    )


def _several(released: Floats, k: int, rng: np.random.Generator) -> _Descriptions:
    """Of released patients by chance, k facts by chance each, on their side of the median."""
    patient = rng.integers(released.shape[1], size=_EACH)
    known = ~np.isnan(released)
    patient = patient[known[:, patient].sum(axis=0) >= k]
    mixed = np.where(known[:, patient], rng.random((len(released), len(patient))), 2.0)
    column = np.argsort(mixed, axis=0, kind="stable")[:k].T
    value = released[column, patient[:, None]]
    return _Descriptions(column, value, value >= _medians(released)[column])


def _medians(released: Floats) -> Floats:
    """Of what is known of each fact; NaN where nothing is."""
    ordered = np.sort(released, axis=1)
    n = (~np.isnan(ordered)).sum(axis=1)
    return ordered[np.arange(len(ordered)), np.maximum((n - 1) // 2, 0)]


def _fitting(descriptions: _Descriptions, *groups: Floats) -> list[Floats]:
    """How many patients of each part of a group each description fits.

    Returns:
        For each group float32 [descriptions, parts].
    """
    found = []
    for facts in groups:
        fits = np.ones((len(descriptions.column), facts.shape[1]), dtype=bool)
        for column, value, up in zip(
            descriptions.column.T, descriptions.value.T, descriptions.up.T, strict=True
        ):
            known, limit = facts[column], value[:, None]
            fits &= np.where(up[:, None], known >= limit, known <= limit)
        part = np.arange(facts.shape[1]) % _GROUPS
        found.append(fits.astype(np.float32) @ np.eye(_GROUPS, dtype=np.float32)[part])
    return found


def _singled(fitting: Floats) -> NDArray[np.bool_]:
    """Whether a description fits exactly one patient."""
    return np.asarray(fitting.sum(axis=1) == 1)


def _excess(train: Floats, test: Floats) -> Score:
    """By how much more descriptions single out a train patient.

    The interval holds that there might have been other descriptions and other patients: whoever is
    extreme in one fact is in many, so that descriptions are no independent trials. The patients are
    left out part by part (the grouped jackknife; Wolter, Introduction to Variance Estimation, 2007,
    chapter 4).
    """
    if not len(train):
        return Score(NAN)
    gap = _singled(train).astype(np.float64) - _singled(test)
    spread = float(gap.var()) / len(gap)
    for fitting in (train, test):
        left = fitting.sum(axis=1, keepdims=True) - fitting
        spread += (_GROUPS - 1) * float((left == 1).mean(axis=0).var())
    value, half = float(gap.mean()), 1.96 * spread**0.5
    return Score(value, max(value - half, -1.0), min(value + half, 1.0))
