"""How many records contradict themselves, beside how many real ones do."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import (
    TEST,
    Bench,
    Found,
    Metric,
    Scale,
    Score,
    bootstrapped,
    patient_weights,
)
from synehrgy.evaluation.patients import Floats, Patients
from synehrgy.evaluation.rules import RULE_GROUPS, Flags, labels_of, rules_of

# Records that are listed of one row of the comparison.
MAX_RECORDS = 1000


@dataclass(frozen=True)
class _Findings:
    """What the rules found in some patients.

    Attributes:
        broken: whether a stay breaks a rule: [stays, rules].
        items, faults: items of each patient and how many of them break a rule: [patients, rules].
        stays: stays of each patient.
        records: stay_id, rule and detail of the stays that break rules, the first of each rule.
    """

    broken: Flags
    items: Floats
    faults: Floats
    stays: Floats
    records: pd.DataFrame


@kept
def _findings(patients: Patients) -> _Findings:
    rules = rules_of(patients.schema)
    n, whose = len(patients), patients.patient
    broken = np.zeros((len(patients.stays), len(rules)), dtype=bool)
    items, faults = np.zeros((n, len(rules))), np.zeros((n, len(rules)))
    ids = patients.stays["stay_id"].to_numpy()
    records = []
    for k, rule in enumerate(rules):
        checked = rule.find(patients)
        at = np.flatnonzero(checked.broken)
        items[:, k] = np.bincount(whose[checked.stay], minlength=n)
        faults[:, k] = np.bincount(whose[checked.stay[at]], minlength=n)
        stays, first, count = np.unique(checked.stay[at], return_index=True, return_counts=True)
        broken[stays, k] = True
        stays, first, count = (x[:MAX_RECORDS] for x in (stays, first, count))
        details = [
            text if more == 1 else f"{text} (and {more - 1} more)"
            for text, more in zip(checked.describe(at[first]), count, strict=True)
        ]
        records.append(pd.DataFrame({"stay_id": ids[stays], "rule": rule.name, "detail": details}))
    # The first of every rule, then the second of every rule, until there are enough.
    listed = pd.concat(records).astype({"stay_id": np.int64, "rule": object, "detail": object})
    turn = listed.groupby("rule").cumcount().to_numpy()
    listed = listed.iloc[np.sort(np.argsort(turn, kind="stable")[:MAX_RECORDS])]
    per_patient = np.bincount(whose, minlength=n).astype(np.float64)
    return _Findings(broken, items, faults, per_patient, listed.reset_index(drop=True))


def _sums(found: _Findings, patients: Patients, groups: NDArray[np.str_]) -> Floats:
    """Stays of each patient that break each rule, any of each group, and any: [patients, all]."""
    by_group = [found.broken[:, groups == group].any(axis=1) for group in RULE_GROUPS]
    flags = np.column_stack([found.broken, *by_group, found.broken.any(axis=1)])
    return np.stack(
        [np.bincount(patients.patient, flag, minlength=len(patients)) for flag in flags.T], axis=1
    )


def _share(part: Floats, whole: Floats) -> Floats:
    """NaN of nothing."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _interval(value: float, replicates: Floats, n: int) -> Score:
    """Of a share; of none among n patients up to 3 / n (Hanley and Lippman-Hand, JAMA 1983)."""
    if value == 0:
        return Score(0.0, 0.0, min(3 / max(n, 1), 1.0))
    return bootstrapped(value, replicates, (0.0, 1.0))


def _group_scale(group: str, meaning: str, good: float, poor: float) -> Scale:
    return Scale(RULE_GROUPS[group], meaning, "low", (0.0, 1.0), TEST, good, poor)


class Consistency(Metric):
    """How many records break rules, beside how many real ones do."""

    name = "consistency"
    title = "Clinical consistency"
    group = "validity"
    scales = {
        "consistency/any": Scale(
            "Stays that contradict themselves",
            "Share of stays that break at least one rule.",
            "low",
            (0.0, 1.0),
            TEST,
            0.05,
            0.15,
        ),
        "consistency/excess": Scale(
            "Rules broken beyond real stays",
            "How many rules more than real train stays a stay breaks on average.",
            "low",
            (0.0, np.inf),
            TEST,
            0.05,
            0.25,
        ),
        "consistency/worst": Scale(
            "Worst rule",
            "Of the rule furthest above real train stays, the share of stays that is above.",
            "low",
            (0.0, 1.0),
            TEST,
            0.03,
            0.1,
        ),
        "consistency/time": _group_scale(
            "time", "Share of stays with values or stays in an order that cannot be.", 0.01, 0.05
        ),
        "consistency/labels_codes": _group_scale(
            "labels_codes",
            "Share of stays whose labels do not follow from their codes.",
            0.01,
            0.05,
        ),
        "consistency/codes_demographics": _group_scale(
            "codes_demographics",
            "Share of stays with codes that do not go with sex or age, or with a patient who "
            "changes.",
            0.03,
            0.1,
        ),
        "consistency/physiology": _group_scale(
            "physiology",
            "Share of stays with a value that nobody has, or values that contradict each other.",
            0.03,
            0.1,
        ),
        "consistency/duplicates": _group_scale(
            "duplicates",
            "Share of stays that are copies, are empty, or say the same thing twice.",
            0.03,
            0.1,
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Apply the rules that the schema allows to every patient of the row."""
        here, real = bench.rows[row], bench.train
        rules = rules_of(real.schema)
        groups = np.array([rule.group for rule in rules])
        found, known = _findings(here), _findings(real)
        sums, real_sums = _sums(found, here, groups), _sums(known, real, groups)
        n_resamples = bench.effort.n_resamples
        weights = patient_weights(len(here), n_resamples, bench.seed)
        real_weights = patient_weights(len(real), n_resamples, bench.seed + 1)
        share = sums.sum(axis=0) / found.stays.sum()
        real_share = real_sums.sum(axis=0) / known.stays.sum()
        shares = (weights @ sums) / (weights @ found.stays)[:, None]
        real_shares = (real_weights @ real_sums) / (real_weights @ known.stays)[:, None]

        k = len(rules)
        scores = {}
        for i, name in enumerate([*RULE_GROUPS, "any"], start=k):
            applies = name == "any" or name in groups
            score = _interval(float(share[i]), shares[:, i], len(here))
            scores[f"consistency/{name}"] = score if applies else Score(np.nan)
        above = np.maximum(share[:k] - real_share[:k], 0)
        each = np.maximum(shares[:, :k] - real_shares[:, :k], 0)
        scores["consistency/excess"] = bootstrapped(above.sum(), each.sum(axis=1), (0.0, np.inf))
        scores["consistency/worst"] = bootstrapped(above.max(), each.max(axis=1), (0.0, 1.0))

        items, faults = found.items.sum(axis=0), found.faults.sum(axis=0)
        rates = _share(weights @ found.faults, weights @ found.items)
        rate = _share(faults, items)
        judged = (found.items > 0).sum(axis=0)
        of_rate = [_interval(rate[i], rates[:, i], int(judged[i])) for i in range(k)]
        of_share = [_interval(share[i], shares[:, i], len(here)) for i in range(k)]
        listed = found.records["rule"].value_counts()
        table = pd.DataFrame(
            {
                "rule": [rule.name for rule in rules],
                "title": [rule.title for rule in rules],
                "group": [RULE_GROUPS[rule.group] for rule in rules],
                "of": [rule.of for rule in rules],
                "items": items.astype(np.int64),
                "broken": faults.astype(np.int64),
                "rate": rate,
                "rate_low": [s.low for s in of_rate],
                "rate_high": [s.high for s in of_rate],
                "real_rate": _share(known.faults.sum(axis=0), known.items.sum(axis=0)),
                "stays": found.broken.sum(axis=0),
                "listed": [int(listed.get(rule.name, 0)) for rule in rules],
                "share": share[:k],
                "share_low": [s.low for s in of_share],
                "share_high": [s.high for s in of_share],
                "real_share": real_share[:k],
            }
        )
        tables = {"consistency_rules": table}
        if bench.may_show(row):
            tables["consistency_records"] = found.records
        if "labels_codes" in groups:
            tables["consistency_labels"] = _label_table(real, here)
        return Found(scores, tables)


def _label_table(real: Patients, here: Patients) -> pd.DataFrame:
    """How often each label is at odds with its codes."""
    labels = [label for label in real.schema.labels if label.codes]
    table = pd.DataFrame(
        {"label": [la.column for la in labels], "title": [la.title for la in labels]}, dtype=object
    )
    for whose, patients in (("real_", real), ("", here)):
        stated, coded = labels_of(patients)
        for name, has, lacks in (
            ("label_without_code", stated, coded),
            ("code_without_label", coded, stated),
        ):
            table[f"{whose}{name}"] = _share((has & ~lacks).sum(axis=0), has.sum(axis=0))
    return table
