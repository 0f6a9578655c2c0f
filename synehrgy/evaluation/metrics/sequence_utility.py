"""Whether models of sequences that learn from the patients are good for real patients (GRU)."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Label
from synehrgy.evaluation.gru import Fitted, Hourly, fit, hourly
from synehrgy.evaluation.judge import Judged, judge
from synehrgy.evaluation.metric import TEST, TRAIN, Bench, Found, Metric, Score
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.tasks import (
    KINDS,
    OUTCOME,
    TRAINED_ON,
    asked,
    examples,
    facts,
    frequent_enough,
    learners,
    long_enough,
    too_few,
)
from synehrgy.evaluation.tstr import (
    SCORE_COLUMNS,
    TRTR,
    TRTS,
    TSTR,
    scales,
    score_table,
    scores_of,
)

Floats = NDArray[np.float64]

# Resamples of the test patients, at most.
_MOST_RESAMPLES = 100


class SequenceUtility(Metric):
    """Gated recurrent units that learn from a row, asked about real patients, and the reverse."""

    name = "sequence_utility"
    title = "Utility: recurrent network"
    group = "utility"
    scales = scales("sequence_utility", "GRU")
    rows = TRAINED_ON
    needs = frozenset({"labels", "series"})
    quick = False

    def lacks(self, bench: Bench) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        return super().lacks(bench) or too_few(bench)

    def measure(self, bench: Bench, row: str) -> Found:
        """Train, predict and judge: all labels at once, from the first 48 hours."""
        ways = {TSTR: (TEST, row)} if row == TRAIN else {TSTR: (TEST, row), TRTS: (row, TRAIN)}
        found: dict[str, Score] = {}
        tables = []
        for setting, (pupil, teacher) in ways.items():
            by_kind = _judged(bench, pupil, teacher)
            for kind, judged in by_kind.items():
                found |= scores_of("sequence_utility", kind, setting, judged)
                if row == TRAIN:
                    found |= scores_of("sequence_utility", kind, TRTS, judged)
                if judged is not None:
                    shown, share = (
                        (TRTR, 1.0) if row == TRAIN else (setting, float(setting == TRTS))
                    )
                    tables.append(score_table(judged, _labels(bench)[kind], kind, shown, share))
        empty = pd.DataFrame(columns=SCORE_COLUMNS)
        scores = pd.concat(tables, ignore_index=True) if tables else empty
        return Found(found, {"sequence_utility_scores": scores})


def _labels(bench: Bench) -> dict[str, list[Label]]:
    """Labels that can be learnt and tested, by kind."""
    found = {}
    for kind in KINDS:
        enough = frequent_enough(examples(bench.train, kind), examples(asked(bench, TEST), kind))
        declared = bench.train.schema.labels_of(kind)
        found[kind] = [label for label, keep in zip(declared, enough, strict=True) if keep]
    return found


@dataclass(frozen=True)
class _Stays:
    """Stays of a row, with their labels in the order of ``_labels``.

    Attributes:
        known: their first hours.
        labels: int8 [stays, labels].
        counts: which labels of which stays are learnt and asked about [stays, labels].
        patient: int64 [stays], the place of each stay's patient.
    """

    known: Hourly
    labels: NDArray[np.int8]
    counts: NDArray[np.bool_]
    patient: NDArray[np.int64]

    @classmethod
    def of(cls, patients: Patients, labels: dict[str, list[Label]]) -> "_Stays":
        columns = [label.column for of_kind in labels.values() for label in of_kind]
        # Outcomes are those of stays that are long enough.
        always = [kind != OUTCOME for kind, of_kind in labels.items() for _ in of_kind]
        counts = np.array(always, dtype=bool) | long_enough(patients)[:, None]
        values = patients.stays[columns].to_numpy(np.int8)
        return cls(hourly(patients, facts(patients)), values, counts, patients.patient)


@dataclass(frozen=True)
class _Learnt:
    """Networks, and how frequent each label was among what each learnt from [seeds, labels]."""

    networks: Fitted
    prevalence: Floats


# The networks that learnt from real patients, which every row is compared with.
_KEPT: WeakKeyDictionary[Patients, dict[tuple[int, bytes, str], _Learnt]] = WeakKeyDictionary()


def _learn(bench: Bench, row: str) -> _Learnt:
    labels = _labels(bench)
    chosen = learners(bench, row)
    kept = _KEPT.setdefault(bench.train, {}) if row == TRAIN else {}
    key = (bench.seed, chosen.tobytes(), repr(labels))
    if key not in kept:
        stays = _Stays.of(bench.rows[row], labels)
        learns = chosen[:, stays.patient]
        networks = fit(stays.known, stays.labels, stays.counts, learns, bench.seed)
        n = learns.astype(np.float64) @ stays.counts
        ones = learns.astype(np.float64) @ (stays.counts & (stays.labels == 1))
        kept[key] = _Learnt(networks, np.divide(ones, n, out=np.zeros(n.shape), where=n > 0))
    return kept[key]


def _judged(bench: Bench, pupil: str, teacher: str) -> dict[str, Judged | None]:
    """What the networks of the teacher's patients say of the stays that are asked about."""
    labels = _labels(bench)
    if not any(labels.values()):
        return dict.fromkeys(KINDS)
    learnt = _learn(bench, teacher)
    stays = _Stays.of(asked(bench, pupil), labels)
    predicted = learnt.networks.predict(stays.known, np.arange(len(stays.labels)))
    found: dict[str, Judged | None] = {}
    start = 0
    for kind, of_kind in labels.items():
        columns = np.arange(start, start + len(of_kind))
        start += len(of_kind)
        # All labels of a kind are asked of the same stays.
        some = stays.counts[:, columns].any(axis=1)
        if not some.any():
            found[kind] = None
            continue
        found[kind] = judge(
            stays.labels[np.ix_(some, columns)],
            predicted[:, some][:, :, columns],
            learnt.prevalence[:, columns],
            stays.patient[some],
            min(bench.effort.n_resamples, _MOST_RESAMPLES),
            bench.seed,
        )
    return found
