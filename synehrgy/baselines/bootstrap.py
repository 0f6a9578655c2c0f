"""Real patients with a little noise: realistic, useful, and no privacy at all."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from synehrgy.baselines.baseline import limited
from synehrgy.baselines.keeps import KeepsPatients
from synehrgy.baselines.records import assemble, drawn_patients
from synehrgy.cohort import Cohort


@dataclass
class BootstrapSettings:
    """How much noise.

    Attributes:
        noise: of each continuous value and covariate, in standard deviations of its series.
        dropped: share of codes and of values that are left out.
    """

    noise: float = limited(0.1, minimum=0.0)
    dropped: float = limited(0.1, minimum=0.0, maximum=1.0)


class Bootstrap(KeepsPatients):
    """Patients drawn with replacement, their values blurred: the trap that privacy must catch."""

    name = "bootstrap"
    title = "Real patients with noise"
    competes = False
    Settings = BootstrapSettings

    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Draw whole patients and blur them; numbers stay within what each series has."""
        rng = np.random.default_rng(seed)
        stays, noise = self.cohort.stays, self.settings.noise
        rows, patient = drawn_patients(stays, n, rng)
        drawn = stays.iloc[rows].reset_index(drop=True).assign(patient=patient)
        for covariate in self.cohort.schema.covariates:
            if covariate.kind == "continuous":
                values = stays[covariate.name]
                # All stays of a patient by the same, so that ages still rise.
                shift = rng.standard_normal(n)[drawn["patient"]] * noise * float(values.std())
                blurred = drawn[covariate.name] + np.nan_to_num(shift)
                drawn[covariate.name] = blurred.clip(values.min(), values.max())
        codes, measurements = (
            self._of_stays(table, stays, rows, rng)
            for table in (self.cohort.codes, self.cohort.measurements)
        )
        for variable in self.cohort.schema.variables_of("continuous"):
            mine = measurements["variable"] == variable.name
            values = measurements.loc[mine, "value"]
            if len(values):
                blurred = values + rng.standard_normal(len(values)) * noise * values.std(ddof=0)
                measurements.loc[mine, "value"] = blurred.clip(values.min(), values.max())
        return assemble(self.cohort.schema, drawn, codes, measurements)

    def _of_stays(
        self, table: pd.DataFrame, stays: pd.DataFrame, rows: np.ndarray, rng: np.random.Generator
    ) -> pd.DataFrame:
        """The rows of the drawn stays, less those that are left out, with ``stay``."""
        drawn = pd.DataFrame(
            {"stay_id": stays["stay_id"].to_numpy()[rows], "stay": np.arange(len(rows))}
        )
        found = drawn.merge(table, on="stay_id", how="inner", sort=False)
        return found[rng.random(len(found)) >= self.settings.dropped].reset_index(drop=True)
