"""What stands beside the synthetic patients: the best, the worst, and the failure to be caught."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from synehrgy.cohort import Cohort
from synehrgy.errors import UserError
from synehrgy.evaluation.metric import (
    MARGINALS,
    ORACLE,
    ROWS,
    SYNTHETIC,
    TEST,
    TRAIN,
    Bench,
    Effort,
)
from synehrgy.evaluation.patients import Patients

# What two cohorts must have in common.
_DECLARED = ("covariates", "labels", "variables", "code_systems")

# Of a cohort without splits, the share of patients that count as train.
_TRAIN_SHARE = 0.5


def bench_of(
    real: Cohort,
    synthetic: Cohort,
    oracle: Cohort | None = None,
    *,
    effort: Effort,
    held_out: str = "test",
    seed: int = 0,
    run: Path | None = None,
    show_real: bool = False,
) -> Bench:
    """Set up a comparison.

    Args:
        real: with splits; without any, its patients are parted into two halves by chance.
        synthetic: the patients to judge.
        oracle: fresh patients of the true distribution, if there are any.
        effort: how much is computed.
        held_out: the split of real patients that no model was trained on.
        seed: of everything random.
        run: the folder of the model that made the synthetic patients, if it is known.
        show_real: whether tables may hold whole real patients, to be looked at.

    Raises:
        UserError: other schemas, or a part without patients.
    """
    cohorts = {SYNTHETIC: synthetic} | ({} if oracle is None else {ORACLE: oracle})
    for name, cohort in cohorts.items():
        check_same_schema(real, cohort)
        if not len(cohort.stays):
            raise UserError(f"The {name} cohort {cohort.schema.name!r} has no stay to compare.")
    train, test, has_splits = _parts(real, held_out, seed)
    most = effort.max_patients
    uncut = {name: Patients(cohort) for name, cohort in cohorts.items()}
    uncut |= {TEST: Patients(test), TRAIN: Patients(train)}
    chosen = {name: patients.sample(most, seed) for name, patients in uncut.items()}
    learnt = chosen[TRAIN]
    chosen[MARGINALS] = Patients(independent_columns(learnt.cohort, len(learnt), seed))
    rows = {name: chosen[name] for name in ROWS if name in chosen}
    return Bench(learnt, rows, effort, seed, has_splits, run, show_real, uncut)


def check_same_schema(real: Cohort, synthetic: Cohort) -> None:
    """Refuse two cohorts that do not declare the same columns.

    Raises:
        UserError: names the part that differs.
    """
    for part in _DECLARED:
        if getattr(real.schema, part) != getattr(synthetic.schema, part):
            raise UserError(
                f"Cohorts {real.schema.name!r} and {synthetic.schema.name!r} declare other "
                f"{part.replace('_', ' ')}, so they cannot be compared. Were they extracted with "
                "different settings (preprocess.profile)?"
            )


def _parts(real: Cohort, held_out: str, seed: int) -> tuple[Cohort, Cohort, bool]:
    """Train and held-out patients, and whether these are the cohort's own splits."""
    name = real.schema.name
    if real.stays["split"].notna().any():
        train, test = real.select(split="train"), real.select(split=held_out)
        for split, part in (("train", train), (held_out, test)):
            if not len(part.stays):
                counts = real.stays["split"].value_counts()
                raise UserError(
                    f"Cohort {name!r} has no stay in split {split!r}; it has "
                    f"{', '.join(f'{k} ({n})' for k, n in counts.items())}. Train and held-out "
                    "patients (split=...) are needed to judge synthetic ones."
                )
        return train, test, True
    subjects = np.unique(real.stays["subject_id"])
    if len(subjects) < 2:
        raise UserError(f"Cohort {name!r} has {len(subjects)} patients; at least 2 are needed.")
    mixed = np.random.default_rng(seed).permutation(subjects)
    first = max(int(len(subjects) * _TRAIN_SHARE), 1)
    train, test = (real.select(subjects=s.tolist()) for s in (mixed[:first], mixed[first:]))
    return train, test, False


def independent_columns(cohort: Cohort, n: int, seed: int) -> Cohort:
    """Patients of which nothing hangs together.

    The number of stays of a patient, the number of time points of a stay, its length, each
    covariate, each label, the presence of each code, the presence of each series at a time point,
    each value and the times in a stay are drawn from their own distributions in the cohort, all
    independently. Only what makes a record valid is kept: times lie within the stay and ascend.

    Args:
        cohort: to learn from.
        n: patients.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    schema = cohort.schema
    per_patient = cohort.stays.groupby("subject_id").size().to_numpy()
    n_stays = rng.choice(per_patient, size=n)
    total = int(n_stays.sum())
    subject = np.repeat(np.arange(1, n + 1), n_stays)
    first = np.repeat(np.cumsum(n_stays) - n_stays, n_stays)
    columns: dict[str, object] = {
        "subject_id": subject,
        "stay_id": np.arange(1, total + 1),
        "hadm_id": pd.array([pd.NA] * total, dtype="Int64"),
        "stay_index": (np.arange(total) - first).astype(np.int32),
        "split": None,
    }

    def drawn(column: str) -> object:
        return cohort.stays[column].sample(total, replace=True, random_state=rng).to_numpy()

    for covariate in schema.covariates:
        columns[covariate.name] = drawn(covariate.name)
    for label in schema.labels:
        columns[label.column] = drawn(label.column)
    columns["los_hours"] = drawn("los_hours")
    stays = pd.DataFrame(columns)[list(cohort.stays.columns)].astype(cohort.stays.dtypes)
    codes = _codes(cohort, stays, rng)
    return Cohort(schema, stays, codes, _measurements(cohort, stays, rng), {"seed": seed})


def _codes(cohort: Cohort, stays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Each code with its own probability, in any order."""
    once = cohort.codes.drop_duplicates(["stay_id", "system", "code"])
    counts = once.groupby(["system", "code"], observed=True).size().reset_index(name="n")
    has = rng.binomial(len(stays), counts["n"] / len(cohort.stays))
    which = np.repeat(np.arange(len(counts)), has)
    stay = np.concatenate(
        [rng.choice(len(stays), size=k, replace=False) for k in has] or [np.zeros(0, np.int64)]
    ).astype(np.int64)
    order = np.lexsort((rng.random(len(stay)), stay))
    stay, which = stay[order], which[order]
    start = np.searchsorted(stay, stay)
    frame = pd.DataFrame(
        {
            "stay_id": stays["stay_id"].to_numpy()[stay],
            "position": (np.arange(len(stay)) - start).astype(np.int32),
            "system": counts["system"].to_numpy()[which],
            "code": counts["code"].to_numpy()[which],
        }
    )
    return frame.astype(cohort.codes.dtypes)


def _measurements(cohort: Cohort, stays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Time points at shares of the stay, each series present with its own probability."""
    rows = cohort.measurements
    points = rows[["stay_id", "hours"]].drop_duplicates()
    per_stay = points.groupby("stay_id").size().reindex(cohort.stays["stay_id"], fill_value=0)
    n_points = rng.choice(per_stay.to_numpy(), size=len(stays))
    stay = np.repeat(np.arange(len(stays)), n_points)
    if not len(points) or not len(stay):
        return rows.iloc[:0]
    end = points["stay_id"].map(cohort.stays.set_index("stay_id")["los_hours"])
    longest = points.groupby("stay_id")["hours"].transform("max")
    # A length of stay that is missing, or passed by, ends with the last value.
    end = np.maximum(end.fillna(0.0).to_numpy(np.float64), longest.to_numpy(np.float64))
    share = points["hours"].to_numpy(np.float64) / np.maximum(end, 1e-9)
    at = rng.choice(share, size=len(stay))
    length = stays["los_hours"].fillna(float(longest.median())).to_numpy(np.float64)[stay]
    # To the minute, as charted times are; two points of a minute become one.
    hours = np.round(np.clip(at, 0, 1) * length * 60) / 60
    keep = pd.DataFrame({"stay": stay, "hours": hours}).drop_duplicates()
    keep = keep.sort_values(["stay", "hours"], ignore_index=True)
    parts = []
    for rank, variable in enumerate(cohort.schema.variables):
        mine = rows[rows["variable"] == variable.name]
        if mine.empty:
            continue
        chosen = np.flatnonzero(rng.random(len(keep)) < len(mine) / len(points))
        value = mine[["value", "level"]].sample(len(chosen), replace=True, random_state=rng)
        part = keep.iloc[chosen].reset_index(drop=True)
        part = part.assign(variable=variable.name, rank=rank)
        parts.append(pd.concat([part, value.reset_index(drop=True)], axis=1))
    found = pd.concat(parts, ignore_index=True)
    found = found.sort_values(["stay", "hours", "variable"], ignore_index=True)
    found["stay_id"] = stays["stay_id"].to_numpy()[found["stay"]]
    return found[list(rows.columns)].astype(rows.dtypes)


def fingerprint(cohort: Cohort) -> str:
    """A hash of the content: the same tables give the same one."""
    found = hashlib.sha256(repr(cohort.schema.to_dict()).encode())
    for name in ("stays", "codes", "measurements"):
        frame = cohort.table(name)
        found.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return found.hexdigest()
