"""Memorisation: stays of train patients that the release repeats, wholly or in long parts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.attacks import (
    attack_scales,
    attack_scores,
    excess,
    roc_table,
)
from synehrgy.evaluation.closeness import nearest_codes, of_patients, vocabulary_of
from synehrgy.evaluation.metric import (
    MARGINALS,
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
from synehrgy.evaluation.runs import (
    LENGTHS,
    SHORTEST,
    Reader,
    Sequences,
    longest_runs,
    paired,
    reader_of,
    shared_parts,
)

Floats = NDArray[np.float64]

# A near copy has this share of its codes in common, of at least so many; or of its measurements.
NEAR_CODES, FEWEST_CODES = 0.9, 5
NEAR_SERIES, FEWEST_VALUES = 0.8, 16
_WORST = 50
# Lengths of runs that the table has.
LONG = [k for k in LENGTHS if k >= SHORTEST]

# Title, what is found, and the thresholds of the excess.
_COPIES = {
    "exact_stays": (
        "Exact copies of stays",
        "the same set of codes and the same values in the same order",
        0.001,
        0.01,
    ),
    "exact_codes": ("Exact copies of codes", "the same set of codes", 0.01, 0.05),
    "exact_series": ("Exact copies of series", "the same values in the same order", 0.001, 0.01),
    "near_codes": (
        "Near copies of codes",
        f"at least {FEWEST_CODES} codes, {NEAR_CODES:.0%} of them the same",
        0.005,
        0.02,
    ),
    "near_series": (
        "Near copies of series",
        f"at least {NEAR_SERIES:.0%} of the measurements alike and in the same order",
        0.002,
        0.02,
    ),
}
_RUN = "memorisation/run"
_RELEASED = "memorisation/released_copies"


def _scales() -> dict[str, Scale]:
    scales = {
        f"memorisation/{name}": Scale(
            title,
            f"By how much more train patients than held-out ones have a stay in the release with "
            f"{what}: 0 if nothing was memorised.",
            "low",
            (-1.0, 1.0),
            0.0,
            good,
            poor,
        )
        for name, (title, what, good, poor) in _COPIES.items()
    }
    scales[_RELEASED] = Scale(
        "Released patients who are copies",
        "The share of released patients with a stay that is exactly that of a train patient, "
        "beyond what held-out patients explain: 0 if nobody is copied.",
        "low",
        (-1.0, 1.0),
        0.0,
        0.001,
        0.01,
    )
    how = "takes patients for members who share a long run of events with a released stay"
    return scales | attack_scales(_RUN, "Longest shared run", how)


class Memorisation(Metric):
    """Exact copies, near copies and longest shared runs, of train against held-out patients.

    What two patients share by chance, or because both are usual, held-out patients share with the
    release, too. Only what train patients share beyond that is memorised.
    """

    name = "memorisation"
    title = "Memorised records"
    group = "privacy"
    rows = (SYNTHETIC, ORACLE, MARGINALS, TRAIN)
    needs = frozenset({"splits"})
    scales = _scales()

    def measure(self, bench: Bench, row: str) -> Found:
        """Look up all train and all test patients in the row."""
        released, sides = bench.rows[row], (bench.train, bench.rows[TEST])
        reader = reader_of(bench.train)
        there = reader.read(released)
        # Copies are looked for among all that there are.
        everybody = bench.whole(row)
        everything = there if everybody is released else reader.read(everybody)
        looked_up = [_look_up(reader, x, released, there, everything) for x in sides]
        (train, train_run), (test, test_run) = [
            (found.flags(patients), of_patients(patients, found.stays["run"].to_numpy(np.float64)))
            for found, patients in zip(looked_up, sides, strict=True)
        ]
        scores = {f"memorisation/{name}": excess(train[name], test[name]) for name in _COPIES}
        scores[_RELEASED] = _released_copies(bench, reader, everybody, everything)
        scores |= attack_scores(_RUN, train_run, test_run, bench.seed, bench.effort.n_resamples)
        runs = pd.DataFrame(
            {
                "length": LONG,
                "train": [(train_run >= k).mean() for k in LONG],
                "test": [(test_run >= k).mean() for k in LONG],
            }
        )
        worst = looked_up[0].stays.sort_values(
            ["run", "series_shared", "codes_shared"], ascending=False, kind="stable"
        )
        if not bench.may_show(TRAIN):
            worst = worst.drop(columns="stay")
        return Found(
            scores,
            {
                "memorisation_runs": runs,
                "memorisation_worst": worst.head(_WORST).reset_index(drop=True),
                "memorisation_roc": roc_table(_RUN, train_run, test_run),
            },
        )


@dataclass(frozen=True)
class _LookedUp:
    """What of each stay was found in the release.

    Attributes:
        stays: one row per stay: ``stay``, ``released_stay`` (that with the longest shared run; 0 if
            there is none), ``tokens``, ``run``, ``series_shared`` and ``codes_shared`` (shares).
        copies: by the names of ``_COPIES``, bool [stays].
    """

    stays: pd.DataFrame
    copies: dict[str, NDArray[np.bool_]]

    def flags(self, patients: Patients) -> dict[str, Floats]:
        """Of each patient whether it is true of any stay."""
        return {
            name: of_patients(patients, flag.astype(np.float64))
            for name, flag in self.copies.items()
        }


def _released_copies(bench: Bench, reader: Reader, released: Patients, there: Sequences) -> Score:
    """The share of released patients who are copied from train, less what chance explains.

    Held-out patients are fewer, so that fewer are met by chance: their share is scaled up.
    """
    wholes = paired(there.code_sets, there.value_lists)
    some = (there.code_sets != 0) | (there.value_lists != 0)
    flags, sizes = [], []
    for row in (TRAIN, TEST):
        patients = bench.whole(row)
        here = reader.read_once(patients)
        found = some & np.isin(wholes, paired(here.code_sets, here.value_lists))
        flags.append(of_patients(released, found.astype(np.float64)))
        sizes.append(len(patients))
    train, test = flags
    share = float(test.mean())
    more = sizes[0] / sizes[1]
    return excess(train, test * (min(more, 1 / share) if share > 0 else 1.0))


def _look_up(
    reader: Reader,
    patients: Patients,
    released: Patients,
    there: Sequences,
    everything: Sequences,
) -> _LookedUp:
    here = reader.read_once(patients)
    n = len(patients.stays)
    runs = longest_runs(here, there, n)
    values = np.bincount(here.stay[here.measured], minlength=n)
    long = (runs.length >= FEWEST_VALUES) & (values >= FEWEST_VALUES)
    series_shared = shared_parts(here, there, np.where(long, runs.released, -1))
    vocabulary = vocabulary_of([patients, released])
    sets = patients.presence(vocabulary)
    codes_shared = nearest_codes(sets, released.presence(vocabulary)).jaccard
    n_codes = np.asarray(sets.sum(axis=1)).ravel()
    ids = released.stays["stay_id"].to_numpy(np.int64)
    whole, wholes = (paired(x.code_sets, x.value_lists) for x in (here, everything))
    some = (here.code_sets != 0) | (here.value_lists != 0)
    return _LookedUp(
        pd.DataFrame(
            {
                "stay": patients.stays["stay_id"].to_numpy(np.int64),
                "released_stay": np.where(runs.length > 0, ids[runs.released], 0),
                "tokens": np.bincount(here.stay, minlength=n),
                "run": runs.length,
                "series_shared": series_shared,
                "codes_shared": codes_shared,
            }
        ),
        {
            "exact_stays": some & np.isin(whole, wholes),
            "exact_codes": (here.code_sets != 0) & np.isin(here.code_sets, everything.code_sets),
            "exact_series": (here.value_lists != 0)
            & np.isin(here.value_lists, everything.value_lists),
            "near_codes": (codes_shared >= NEAR_CODES) & (n_codes >= FEWEST_CODES),
            "near_series": series_shared >= NEAR_SERIES,
        },
    )
