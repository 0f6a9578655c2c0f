"""The evaluation: seconds and memory of the whole, and parts of it beside the usual way.

    python -m benchmarks.evaluation <real cohort> <synthetic cohort>

First the whole of ``synehrgy.evaluate`` by preset, with the seconds of each metric over all rows.
Then four parts, of the synthetic patients against the train split:

- ``prdc``: precision, recall, density and coverage in published form. Usual: full matrices of
  distances (as Naeem et al., ICML 2020, publish it).
- ``code_sequences``: correlations of n-grams of codes in published form. Usual: a loop over
  patients and stays that counts with ``Counter``.
- ``correlation``: temporal correlation in published form. Usual: pandas, ``ffill`` and ``corr``.
- ``series_ks``: Kolmogorov-Smirnov distances of series. Usual: a loop over series with SciPy.

Except for ``prdc`` each number comes with its bootstrap interval over patients, from the same
resamples both ways; the usual way computes everything again for each. Ours is the whole metric as
users call it: it finds further scores and tables in the same time, which the usual way does not.
Both ways have to give the same numbers: exactly up to rounding, but for the intervals of
``series_ks``, as resamples are compared at quantiles there.

Everything runs in a process of its own, the parts on one core. One JSON line is printed and kept
in benchmarks/results/evaluation.json. The ratios are the claim; seconds are of this processor.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import pairwise_distances

from benchmarks.machine import cpu_name, peak_memory_mib
from synehrgy import evaluate
from synehrgy.cohort import Cohort, read_cohort
from synehrgy.evaluation.blocks import (
    FEWEST_PAIRS,
    FEWEST_PATIENTS,
    N_BLOCKS,
    block_weights,
    blocks_of_pairs,
    n_blocks,
)
from synehrgy.evaluation.metric import (
    SYNTHETIC,
    Bench,
    Effort,
    Metric,
    Scale,
    bootstrapped,
    patient_weights,
)
from synehrgy.evaluation.metrics.code_sequences import CodeSequences
from synehrgy.evaluation.metrics.correlation import Correlation
from synehrgy.evaluation.metrics.manifold import K, Space, prdc
from synehrgy.evaluation.metrics.series import Series
from synehrgy.evaluation.patients import FIRST_HOURS, Floats, Patients
from synehrgy.files import REPOSITORY, write_json
from synehrgy.provenance import versions

RESULTS = Path(__file__).parent / "results" / "evaluation.json"
PRESETS = ("quick", "full")
WAYS = ("ours", "usual")

Numbers = dict[str, float]


def bench_of_two(real: Cohort, synthetic: Cohort, n_resamples: int) -> Bench:
    """The synthetic patients against the train split, without any other row.

    Args:
        real: with splits, or all of it is taken.
        synthetic: the patients to judge.
        n_resamples: of each bootstrap.
    """
    has_splits = bool(real.stays["split"].notna().any())
    effort = Effort(n_resamples=n_resamples)
    train, other = (
        Patients(cohort).sample(effort.max_patients, seed=0)
        for cohort in (real.select(split="train") if has_splits else real, synthetic)
    )
    return Bench(train, {SYNTHETIC: other}, effort, has_splits=has_splits)


def by_metric(metric: Metric, bench: Bench, names: Sequence[str]) -> Numbers:
    """Some scores of one of our metrics, with their intervals."""
    scores = metric.measure(bench, SYNTHETIC).scores
    numbers: Numbers = {}
    for name in names:
        found = scores[name]
        numbers |= {name: found.value, f"{name} low": found.low, f"{name} high": found.high}
    return numbers


def with_intervals(scales: dict[str, Scale], samples: Sequence[Numbers]) -> Numbers:
    """The same from what was found in the sample itself, the first, and in each resample."""
    numbers: Numbers = {}
    for name, value in samples[0].items():
        replicates = [sample[name] for sample in samples[1:]]
        found = bootstrapped(value, replicates, scales[name].bounds)
        numbers |= {name: found.value, f"{name} low": found.low, f"{name} high": found.high}
    return numbers


def block_resamples(bench: Bench, most: int) -> Iterator[pd.DataFrame]:
    """The sample itself and the resamples of our metrics of series: ``subject_id``, repeated."""
    patients = bench.rows[SYNTHETIC]
    n = len(patients)
    block = np.arange(n) * n_blocks(patients, most) // n
    for weights in block_weights(patients, bench, most).astype(np.int64):
        yield pd.DataFrame({"subject_id": np.repeat(patients.subjects, weights[block])})


def with_subjects(patients: Patients) -> pd.DataFrame:
    """All measurements with the patient and the place of the stay, in a long frame."""
    stays = patients.stays[["stay_id", "subject_id", "stay_index"]]
    return patients.cohort.measurements.merge(stays, on="stay_id")


def continuous_series(patients: Patients) -> list[str]:
    """Names of the continuous series."""
    return [variable.name for variable in patients.schema.variables_of("continuous")]


# Precision, recall, density and coverage.


def places(bench: Bench) -> tuple[Floats, Floats]:
    """Equally many patients of both sides, each standardised by itself, as published."""
    both = [patients.first.embedding for patients in (bench.train, bench.rows[SYNTHETIC])]
    n = min(map(len, both))
    one, two = (Space.of(x[:n]).standardised(x[:n]) for x in both)
    return one, two


def our_prdc(both: tuple[Floats, Floats]) -> Numbers:
    """A part of the rows of the matrix at a time."""
    found = prdc(*both)
    return {
        name: float(getattr(found, name).mean())
        for name in ("precision", "recall", "density", "coverage")
    }


def usual_prdc(both: tuple[Floats, Floats]) -> Numbers:
    """All three matrices of distances at once."""
    real, other = both
    # Each point is the nearest to itself.
    of_real, of_other = (
        np.partition(pairwise_distances(points), K, axis=1)[:, K] for points in both
    )
    between = pairwise_distances(real, other)
    in_real = between < of_real[:, None]
    return {
        "precision": float(in_real.any(axis=0).mean()),
        "recall": float((between < of_other).any(axis=1).mean()),
        "density": float(in_real.sum(axis=0).mean() / K),
        "coverage": float((between.min(axis=1) < of_real).mean()),
    }


# n-grams of codes.

_GRAMS = ("unigram", "bigram", "trigram", "sequential_bigram")


def our_code_sequences(bench: Bench) -> Numbers:
    """By our metric."""
    names = [f"published/code_sequences/{kind}_r" for kind in _GRAMS]
    return by_metric(CodeSequences(), bench, names)


def usual_code_sequences(bench: Bench) -> Numbers:
    """By a loop over patients, stays and codes, for each resample anew."""
    other = bench.rows[SYNTHETIC]
    real_lists, lists = (_lists(patients.cohort) for patients in (bench.train, other))
    # Our metric has at most 50 resamples.
    n_resamples = min(bench.effort.n_resamples, 50)
    weights = patient_weights(len(other), n_resamples, bench.seed).astype(np.int64)
    real = {kind: _conditional(_count(real_lists, kind)) for kind in _GRAMS}
    samples = []
    for times in [np.ones(len(other), np.int64), *weights]:
        drawn = [lists[i] for i in np.repeat(np.arange(len(lists)), times)]
        found = {}
        for kind in _GRAMS:
            shares = _conditional(_count(drawn, kind))
            both = [gram for gram in real[kind] if gram in shares]
            r = np.corrcoef([real[kind][gram] for gram in both], [shares[gram] for gram in both])
            found[f"published/code_sequences/{kind}_r"] = float(r[0, 1])
        samples.append(found)
    return with_intervals(CodeSequences.scales, samples)


def _lists(cohort: Cohort) -> list[list[list[str]]]:
    """The codes of each stay of each patient."""
    text = cohort.codes["system"].astype(str) + ":" + cohort.codes["code"].astype(str)
    of_stay = text.groupby(cohort.codes["stay_id"]).agg(list).to_dict()
    return [
        [of_stay.get(stay, []) for stay in stays]
        for _, stays in cohort.stays.groupby("subject_id")["stay_id"]
    ]


def _count(patients: list[list[list[str]]], kind: str) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for stays in patients:
        if kind == "sequential_bigram":
            for before, after in pairwise(stays):
                counts.update(product(before, after))
        else:
            n = _GRAMS.index(kind) + 1
            counts.update(zip(*(stays[0][i:] for i in range(n)), strict=False))
    return counts


def _conditional(counts: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    """How often each n-gram is, of all with the same beginning."""
    beginnings: Counter[tuple[str, ...]] = Counter()
    for gram, n in counts.items():
        beginnings[gram[:-1]] += n
    return {gram: n / beginnings[gram[:-1]] for gram, n in counts.items()}


# Temporal correlation.


def our_correlation(bench: Bench) -> Numbers:
    """By our metric."""
    names = ("published/correlation/difference", "published/correlation/confusion")
    return by_metric(Correlation(), bench, names)


def usual_correlation(bench: Bench) -> Numbers:
    """With pandas: values carried forward over 6 rows of a stay, then correlated."""
    other = bench.rows[SYNTHETIC]
    names = continuous_series(other)
    real, found = (_carried(patients, names) for patients in (bench.train, other))
    lower = np.tril_indices(len(names), -1)
    one = real[names].corr(min_periods=FEWEST_PAIRS).to_numpy()[lower]
    cuts = (-0.5, -0.2, 0.2, 0.5)
    samples = []
    for drawn in block_resamples(bench, blocks_of_pairs(other)):
        sample = drawn.merge(found, on="subject_id")[names]
        two = sample.corr(min_periods=FEWEST_PAIRS).to_numpy()[lower]
        both = ~np.isnan(one) & ~np.isnan(two)
        same = np.digitize(one[both], cuts) == np.digitize(two[both], cuts)
        samples.append(
            {
                "published/correlation/difference": float(np.abs(one - two)[both].mean()),
                "published/correlation/confusion": float(same.mean()),
            }
        )
    return with_intervals(Correlation.scales, samples)


def _carried(patients: Patients, names: list[str]) -> pd.DataFrame:
    """A row per time point of the first 48 hours of first stays, a column per series."""
    rows = with_subjects(patients)
    rows = rows[(rows["stay_index"] == 0) & (rows["hours"] < FIRST_HOURS)]
    rows = rows.astype({"variable": str})
    wide = rows.pivot(
        index=["subject_id", "stay_id", "hours"], columns="variable", values="value"
    ).reindex(columns=names)
    return wide.groupby("stay_id").ffill(limit=6).reset_index()


# Distributions of series.

_KS = ("series/ks", "series/ks_weighted", "series/ks_worst")


def our_series_ks(bench: Bench) -> Numbers:
    """By our metric."""
    return by_metric(Series(), bench, _KS)


def usual_series_ks(bench: Bench) -> Numbers:
    """By a loop over resamples and series; values beyond the limits of our metric are cut."""
    names = continuous_series(bench.train)
    columns = ["subject_id", "variable", "value"]
    real, found = (
        rows.loc[rows["variable"].isin(names), columns]
        for rows in map(with_subjects, (bench.train, bench.rows[SYNTHETIC]))
    )
    grouped = real.groupby("variable", observed=True)
    low, high = (grouped["value"].quantile(q) for q in (0.005, 0.995))
    width = (high - low).where(high > low, np.inf)
    for rows in (real, found):
        limits = (rows["variable"].astype(str).map(x) for x in (low - width, high + width))
        rows["value"] = rows["value"].clip(*limits)
    n_patients, n_values = grouped["subject_id"].nunique(), grouped["value"].count()
    judged = [name for name in names if n_patients.get(name, 0) >= FEWEST_PATIENTS]
    of_real = dict(list(grouped["value"]))
    samples = []
    for drawn in block_resamples(bench, N_BLOCKS):
        sample = drawn.merge(found, on="subject_id")
        values = dict(list(sample.groupby("variable", observed=True)["value"]))
        # A series without any value is as far off as can be.
        distances = [
            ks_2samp(of_real[name], values[name], method="asymp").statistic
            if name in values
            else 1.0
            for name in judged
        ]
        weighted = np.average(distances, weights=n_values[judged])
        numbers = (np.mean(distances), weighted, max(distances))
        samples.append(dict(zip(_KS, map(float, numbers), strict=True)))
    return with_intervals(Series.scales, samples)


# Both ways.


@dataclass(frozen=True)
class Part:
    """A part of the evaluation that has a usual way.

    Attributes:
        given: what both ways are given; the time that it takes counts for neither.
        ours, usual: the two ways.
        rounding: by how much numbers may differ.
        rounding_of_intervals: the same of the ends of intervals.
    """

    given: Callable[[Bench], Any]
    ours: Callable[[Any], Numbers]
    usual: Callable[[Any], Numbers]
    rounding: float
    rounding_of_intervals: float


def _as_it_is(bench: Bench) -> Bench:
    return bench


PARTS = {
    "prdc": Part(places, our_prdc, usual_prdc, 1e-3, 0.0),
    "code_sequences": Part(_as_it_is, our_code_sequences, usual_code_sequences, 1e-9, 1e-9),
    "correlation": Part(_as_it_is, our_correlation, usual_correlation, 1e-5, 1e-5),
    "series_ks": Part(_as_it_is, our_series_ks, usual_series_ks, 1e-4, 2e-3),
}


def difference(part: str, ours: Numbers, usual: Numbers) -> float:
    """The greatest difference of the numbers of both ways.

    Raises:
        RuntimeError: it is more than rounding.
    """
    greatest = 0.0
    for name, number in ours.items():
        is_end = name.endswith((" low", " high"))
        allowed = PARTS[part].rounding_of_intervals if is_end else PARTS[part].rounding
        if not np.isclose(number, usual[name], rtol=0, atol=allowed, equal_nan=True):
            raise RuntimeError(f"{part}: {name} is {number} our way and {usual[name]} the usual.")
        greatest = float(np.nanmax([greatest, abs(number - usual[name])]))
    return greatest


def whole(real: Path, synthetic: Path, preset: str) -> dict[str, Any]:
    """One evaluation, from the folders to the scores."""
    began, cpu_began = time.perf_counter(), time.process_time()
    found = evaluate(real, synthetic, preset=preset, progress=sys.stderr.isatty())
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    slowest_first = sorted(found.seconds.items(), key=lambda item: -item[1])
    return {
        "patients": found.patients,
        "scores": found.scores["score"].nunique(),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        "seconds_by_metric": {name: round(s, 2) for name, s in slowest_first},
        "left_out": sorted(found.skipped),
    }


def one_way(part: str, way: str, real: Path, synthetic: Path, n_resamples: int) -> dict[str, Any]:
    """A part in one of the two ways."""
    bench = bench_of_two(read_cohort(real), read_cohort(synthetic), n_resamples)
    given = PARTS[part].given(bench)
    function = getattr(PARTS[part], way)
    _import_late_ones()
    began = time.perf_counter()
    numbers = function(given)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_memory_mib": peak_memory_mib(), "numbers": numbers}


def _import_late_ones() -> None:
    """Ours imports these when they are first used, which is to count for neither way."""
    for module in ("scipy.special", "scipy.stats", "sklearn.neighbors"):
        importlib.import_module(module)


def _alone(options: argparse.Namespace, only: str, **environment: str) -> dict[str, Any]:
    """Run this file for one thing in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--only", only]
    command += [str(options.real.resolve()), str(options.synthetic.resolve())]
    command += ["--resamples", str(options.resamples)]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def side_by_side(options: argparse.Namespace, part: str) -> dict[str, Any]:
    """Both ways of a part, one after the other, and how many times faster ours is."""
    found = {way: _alone(options, f"{part}:{way}", OMP_NUM_THREADS="1") for way in WAYS}
    numbers = [found[way].pop("numbers") for way in WAYS]
    ratio = found["usual"]["seconds"] / found["ours"]["seconds"]
    for way in WAYS:
        found[way]["seconds"] = round(found[way]["seconds"], 2)
    return {
        "ratio": round(ratio, 1),
        **found,
        "numbers": len(numbers[0]),
        "greatest_difference": float(f"{difference(part, *numbers):.1g}"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("real", type=Path, help="folder of the real cohort, with splits")
    parser.add_argument("synthetic", type=Path, help="folder of the synthetic cohort")
    parser.add_argument("--preset", choices=PRESETS, help="only this one; otherwise both")
    parser.add_argument(
        "--resamples", type=int, default=20, help="of each bootstrap, in the parts side by side"
    )
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only in PRESETS:
        print(json.dumps(whole(options.real, options.synthetic, options.only)))
        return
    if options.only:
        part, way = options.only.split(":")
        folders = options.real, options.synthetic
        print(json.dumps(one_way(part, way, *folders, options.resamples)))
        return
    result: dict[str, Any] = {"stage": "evaluation"}
    for preset in PRESETS if options.preset is None else (options.preset,):
        result[preset] = _alone(options, preset)
    result["resamples"] = options.resamples
    result["parts"] = {part: side_by_side(options, part) for part in PARTS}
    result |= {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions() | {name: version(name) for name in ("scipy", "lightgbm")},
    }
    write_json(RESULTS, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
