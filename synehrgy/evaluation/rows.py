"""What stands beside the synthetic patients: the best, the worst, and the failure to be caught."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from synehrgy.baselines.marginals import independent_columns
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
        real: with splits; without any, its patients are parted into two halves by chance. Codes,
            or series, of which the synthetic patients have no declaration are left out.
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
    real = as_covered(real, synthetic)
    cohorts = {SYNTHETIC: synthetic}
    if oracle is not None:
        cohorts[ORACLE] = as_covered(oracle, synthetic)
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


def as_covered(real: Cohort, synthetic: Cohort) -> Cohort:
    """A real cohort without codes, or series, where the synthetic one declares none at all."""
    codes = bool(synthetic.schema.code_systems) or not real.schema.code_systems
    series = bool(synthetic.schema.variables) or not real.schema.variables
    return real if codes and series else real.part(codes=codes, series=series)


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


def fingerprint(cohort: Cohort) -> str:
    """A hash of the content: the same tables give the same one."""
    found = hashlib.sha256(repr(cohort.schema.to_dict()).encode())
    for name in ("stays", "codes", "measurements"):
        frame = cohort.table(name)
        found.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return found.hexdigest()
