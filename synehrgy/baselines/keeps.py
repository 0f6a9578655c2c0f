"""Baselines that keep the real patients: what they have learnt is the cohort itself."""

from abc import ABC
from pathlib import Path

import pandas as pd
import torch

from synehrgy.baselines.baseline import Baseline
from synehrgy.baselines.records import assemble
from synehrgy.cohort import Cohort, CohortWriter, read_cohort

_COHORT = "cohort"


class KeepsPatients(Baseline, ABC):
    """Draws from real patients, so that its model is as confidential as they are."""

    cohort: Cohort

    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Keep them all, under new numbers: nothing needs those of the hospital."""
        stays = train.stays.assign(patient=train.stays["subject_id"])
        row = pd.Series(range(len(stays)), index=stays["stay_id"])
        codes, measurements = (
            table.assign(stay=row.loc[table["stay_id"]].to_numpy())
            for table in (train.codes, train.measurements)
        )
        self.cohort = assemble(train.schema, stays, codes, measurements)

    def save(self, folder: Path) -> None:
        """Write them all."""
        with CohortWriter(folder / _COHORT, self.cohort.schema, {}) as writer:
            writer.write(self.cohort.stays, self.cohort.codes, self.cohort.measurements)

    @classmethod
    def load(cls, folder: Path, **settings: object) -> "KeepsPatients":
        """What ``save`` wrote."""
        found = cls(**settings)
        found.cohort = read_cohort(folder / _COHORT)
        return found
