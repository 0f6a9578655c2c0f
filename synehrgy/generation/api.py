"""Synthetic patients in a notebook cell."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from synehrgy.cohort import Cohort
from synehrgy.cohort.futures import NEXT_VALUES_FILE, PREDICTIONS_FILE, QUESTIONS_FILE
from synehrgy.device import compute_type, pick_device
from synehrgy.generation.conditions import Condition
from synehrgy.generation.jobs import (
    FIRST_ID,
    PAIRS_FILE,
    WEIGHTS_FILE,
    Job,
    Options,
    futures_job,
    patients_job,
)
from synehrgy.generation.sampler import Drawn
from synehrgy.settings import ConditionSettings, GenerateConfig, check
from synehrgy.training.checkpoint import Run, find_run, load_run


@dataclass(frozen=True)
class SyntheticCohort(Cohort):
    """Synthetic patients: a cohort, and what is known of how it came about.

    Attributes:
        report: records, tokens, segments, forced tokens, share of records accepted.
        weights: of balanced patients, one row each: subject_id, has, weight; else None.
        pairs: of counterfactual patients: subject_id, counterfactual_id; else None.
    """

    report: dict[str, Any] = field(default_factory=dict)
    weights: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None


@dataclass(frozen=True)
class FutureCohort(Cohort):
    """Futures of real stays: a cohort, and what they predict.

    Attributes:
        report: records, tokens, segments, forced tokens.
        questions: one row per future: subject_id, the real stay that it continues, hours known.
        predictions: one row per real stay: the probability of each label.
        next_values: one row per real stay and series: mean and quantiles of its next value.
    """

    report: dict[str, Any] = field(default_factory=dict)
    questions: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    next_values: pd.DataFrame = field(default_factory=pd.DataFrame)


class SynEHRgy:
    """A trained model that makes patients.

    Args:
        run: the trained run.

    Attributes:
        tokenizer: of the model; its ``schema`` says which covariates, labels, series and codes
            there are.
    """

    def __init__(self, run: Run):
        self.run, self.tokenizer = run, run.tokenizer

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "SynEHRgy":
        """Read a trained run from its folder, such as ``saved_models/demo``.

        Raises:
            UserError: no such run, a damaged one, or no such device.
        """
        path = Path(folder)
        where = pick_device(device)
        run = load_run(find_run(path.parent, path.name), where)
        run.model.to(compute_type(where))
        return cls(run)

    def generate(
        self,
        n: int | None = None,
        condition: Condition | Mapping[str, Any] | None = None,
        *,
        table: pd.DataFrame | None = None,
        balance: str | None = None,
        share: float = 0.5,
        counterfactual: Mapping[str, Any] | None = None,
        real: Cohort | None = None,
        max_attempts: int = 10_000,
        seed: int = 0,
        batch_size: int = 256,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        max_segments: int = 64,
        label_contradictions: str = "rule_out",
        value_decoding: str = "empirical",
        value_contradictions: str = "settle",
        progress: bool = True,
    ) -> SyntheticCohort:
        """Synthetic patients; arguments are settings of generate.py (``n``: n_samples).

        Args:
            n: patients; default 1,000, or a row of ``table`` each.
            condition: what all fulfil, such as ``{"age": "70-80", "gender": "F", "labels":
                ["septicemia"], "codes_any": ["4280"], "min_stays": 2}``.
            table: what each is to be, besides: columns are covariates and labels (0 or 1).
            balance: a label or code that a share of them has in the first stay.
            share: of these.
            counterfactual: what is different in the second of each pair of otherwise equal
                patients, such as ``{"gender": "F"}``.
            real: patients whose covariates and labels of the first stay they begin with.
            max_attempts: records begun for a patient, at most.
            seed: of the patients.
            batch_size: patients side by side.
            temperature, top_k, top_p, repetition_penalty: how tokens are drawn; see ``Sampling``.
            max_segments: contexts that a record may take, at most.
            label_contradictions: ``rule_out`` or ``count``.
            value_decoding: ``empirical``, ``uniform`` or ``center``.
            value_contradictions: ``settle`` or ``leave``.
            progress: whether to show a bar.

        Raises:
            UserError: a condition that cannot be met, or arguments that do not go together.
        """
        options = self._options(
            n_samples=n,
            seed=seed,
            batch_size=batch_size,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            max_segments=max_segments,
            label_contradictions=label_contradictions,
            value_decoding=value_decoding,
            value_contradictions=value_contradictions,
            condition=ConditionSettings(share=share, max_attempts=max_attempts),
        )
        if condition is not None and not isinstance(condition, Condition):
            names = [covariate.name for covariate in self.tokenizer.schema.covariates]
            condition = Condition.of(names, **condition)
        job = patients_job(
            self.run,
            options,
            n,
            condition,
            table=table,
            balance=balance,
            share=share,
            counterfactual=counterfactual,
            real=real,
        )
        cohort = _made(job, progress)
        tables = job.tables()
        return SyntheticCohort(
            **_parts(cohort, self.run.path.name),
            report=job.report(),
            weights=tables.get(WEIGHTS_FILE),
            pairs=tables.get(PAIRS_FILE),
        )

    def forecast(
        self,
        real: Cohort,
        hours: float = 24.0,
        n_resample: int = 100,
        *,
        n_stays: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
        temperature: float = 1.0,
        max_segments: int = 64,
        progress: bool = True,
    ) -> FutureCohort:
        """Futures of real stays from their first hours, or from all earlier admissions.

        Args:
            real: the patients, such as ``read_cohort(...).select(split="test")``. Only stays with a
                time point after the window are asked about.
            hours: that are known of each stay; 0: earlier stays and covariates only.
            n_resample: futures of each stay.
            n_stays: stays at most, evenly spread; default all.
            seed: of the futures.
            batch_size: futures side by side.
            temperature: divides the logits; probabilities are those of the model at 1.
            max_segments: contexts that a record may take, at most.
            progress: whether to show a bar.

        Raises:
            UserError: a model that was not trained to forecast (``mode=fcast``), or no stay to ask
                about.
        """
        options = self._options(
            n_samples=n_stays,
            n_resample=n_resample,
            seed=seed,
            batch_size=batch_size,
            temperature=temperature,
            max_segments=max_segments,
            condition=ConditionSettings(hours=hours),
        )
        job = futures_job(self.run, options, real, hours, n_resample, n_stays)
        cohort = _made(job, progress)
        tables = job.tables()
        return FutureCohort(
            **_parts(cohort, self.run.path.name),
            report=job.report(),
            questions=tables[QUESTIONS_FILE],
            predictions=tables[PREDICTIONS_FILE],
            next_values=tables[NEXT_VALUES_FILE],
        )

    def _options(self, **settings: Any) -> Options:
        """From settings of generate.py, which are checked as on the command line."""
        config = GenerateConfig(run_name="run", **settings)
        check(config)
        return Options.of(config, self.run.model.token_embedding.weight.device)


def _made(job: Job, progress: bool) -> Cohort:
    """The tables of all patients of a job."""
    drawn: list[Drawn] = []
    with tqdm(total=job.n, desc="generating", unit="patient", disable=not progress) as bar:
        for one in job.draw(range(job.n)):
            drawn.append(one)
            bar.update()
    drawn.sort(key=lambda one: one.patient)
    return job.cohort(drawn, FIRST_ID)


def _parts(cohort: Cohort, name: str) -> dict[str, Any]:
    """The fields of a synthetic cohort."""
    return {
        "schema": replace(cohort.schema, name=name, source="synehrgy"),
        "stays": cohort.stays,
        "codes": cohort.codes,
        "measurements": cohort.measurements,
        "provenance": {"model": name},
    }
