"""What is to be generated: patients or futures, and how their records become tables."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from numpy.typing import NDArray

from synehrgy.cohort import Cohort, is_cohort, read_cohort
from synehrgy.cohort.futures import (
    NEXT_VALUES_FILE,
    PREDICTIONS_FILE,
    QUESTIONS_FILE,
    label_predictions,
    value_predictions,
)
from synehrgy.errors import UserError
from synehrgy.generation.conditions import Condition
from synehrgy.generation.constraint import Constraint
from synehrgy.generation.futures import Futures
from synehrgy.generation.openings import Openings
from synehrgy.generation.requests import (
    Acceptance,
    Conditioned,
    Planner,
    chances,
    n_of_share,
    weights,
)
from synehrgy.generation.sampler import (
    Drawn,
    Requests,
    Sampling,
    TooRareError,
    as_records,
    sample,
)
from synehrgy.model import BLOCK, GPT, Cache
from synehrgy.settings import GenerateConfig
from synehrgy.tokenizer import Tokenizer, decode, encode, label_contradictions
from synehrgy.tokenizer.grammar import END_LABELS
from synehrgy.training.checkpoint import Run, trained_on

# Above every identifier of MIMIC-III, MIMIC-IV and eICU, so that a synthetic patient is never
# taken for a real one.
FIRST_ID = 1_000_000_000

WEIGHTS_FILE = "weights.parquet"
PAIRS_FILE = "pairs.parquet"

# The cache of keys and values may take this share of the memory that is free.
_CACHE_SHARE = 0.5

# Patients that are decoded, and kept on disk, together.
_PART = 256

_DEFAULT_N = 1000


@dataclass(frozen=True)
class Options:
    """How records are drawn and decoded; see the settings of generate.py."""

    how: Sampling = Sampling()
    seed: int = 0
    batch_size: int = 256
    max_segments: int = 64
    max_attempts: int = 10_000
    rule_out: bool = True
    value_decoding: str = "empirical"
    settle_values: bool = True
    compiled: bool = False

    @classmethod
    def of(cls, config: GenerateConfig, device: torch.device) -> "Options":
        """From settings, for a model on this device."""
        return cls(
            Sampling(config.temperature, config.top_k, config.top_p, config.repetition_penalty),
            config.seed,
            config.batch_size,
            config.max_segments,
            config.condition.max_attempts,
            config.label_contradictions == "rule_out",
            config.value_decoding,
            config.value_contradictions == "settle",
            device.type == "cuda" if config.compile == "auto" else config.compile == "True",
        )


class Job:
    """Patients numbered 0 to n - 1, with what is asked of each.

    Args:
        run: the model.
        requests: what is asked.
        n: number of patients.
        options: how they are drawn and decoded.

    Attributes:
        part_size: patients that belong together; parts are independent of each other.
        counts: of the records that ``cohort`` was given.
    """

    part_size = _PART

    def __init__(self, run: Run, requests: Requests, n: int, options: Options):
        self.run, self.requests, self.n, self.options = run, requests, n, options
        self.counts: Counter[str] = Counter()

    def draw(self, patients: Iterable[int]) -> Iterator[Drawn]:
        """Sample the records of some patients, as they are finished.

        Raises:
            UserError: a condition that none of a patient's attempts fulfilled.
        """
        model, options = self.run.model, self.options
        fitting = rows_that_fit(model)
        if fitting < options.batch_size:
            print(f"Sampling {fitting} patients side by side: more may not fit in memory.")
        try:
            yield from sample(
                model,
                self.run.tokenizer,
                patients,
                batch_size=min(options.batch_size, fitting),
                how=options.how,
                seed=options.seed,
                requests=self.requests,
                max_attempts=options.max_attempts,
                max_segments=options.max_segments,
                rule_out_contradictions=options.rule_out,
                compiled=options.compiled,
            )
        except TooRareError:
            raise UserError(
                f"None of {options.max_attempts:,} records that were begun for a patient fulfilled "
                "the condition: the model finds such patients rarer than that. Ask for less, or "
                "give more condition.max_attempts."
            ) from None

    def cohort(self, drawn: Sequence[Drawn], first_stay_id: int) -> Cohort:
        """The tables of patients, who are given in the order of their numbers."""
        tokenizer, options = self.run.tokenizer, self.options
        records = as_records(tokenizer, drawn)
        self.counts.update(
            records=len(drawn),
            tokens=len(records.tokens),
            segments=sum(one.n_segments for one in drawn),
            forced_tokens=sum(one.n_forced for one in drawn),
            records_closed_by_limit=sum(one.is_closed for one in drawn),
            records_begun=sum(one.n_attempts for one in drawn),
        )
        self.counts.update(label_contradictions(tokenizer, records))
        found = decode(
            tokenizer,
            replace(records, subject_ids=records.subject_ids + FIRST_ID),
            options.seed,
            np.array([self.requests.stream(one.patient) for one in drawn]),
            first_stay_id,
            options.value_decoding,
            independent=True,
            settle=options.settle_values,
        )
        return self._completed(drawn, found)

    def _completed(self, drawn: Sequence[Drawn], cohort: Cohort) -> Cohort:
        return cohort

    def tables(self) -> dict[str, pd.DataFrame]:
        """What belongs beside the cohort, by file name."""
        return {}

    def report(self) -> dict[str, Any]:
        """What was counted."""
        counts = self.counts
        rate = counts["records"] / counts["records_begun"] if counts["records_begun"] else None
        return {**counts, "acceptance_rate": rate}


class PatientsJob(Job):
    """Synthetic patients, on conditions or on none."""

    def __init__(self, run: Run, requests: Conditioned, n: int, options: Options):
        super().__init__(run, requests, n, options)
        self.conditioned = requests
        self.acceptance = Acceptance()

    @property
    def _balanced(self) -> bool:
        return len(self.conditioned.variants) == 2 and not self.conditioned.by_turns

    def _completed(self, drawn: Sequence[Drawn], cohort: Cohort) -> Cohort:
        for one in drawn:
            self.acceptance.add(self.conditioned.variant(one.patient), one)
        return cohort

    def tables(self) -> dict[str, pd.DataFrame]:
        """Weights of a balanced cohort, or who belongs to whom among pairs."""
        patients = np.arange(self.n)
        if self._balanced:
            found = weights(self.conditioned, self.acceptance, patients)
            found.insert(0, "subject_id", patients + FIRST_ID)
            return {WEIGHTS_FILE: found}
        if self.conditioned.changed is not None:
            first = patients[: self.n // 2 * 2 : 2] + FIRST_ID
            return {PAIRS_FILE: pd.DataFrame({"subject_id": first, "counterfactual_id": first + 1})}
        return {}

    def report(self) -> dict[str, Any]:
        """What was counted, and how likely the model finds what was asked for."""
        requests, found = self.conditioned, super().report()
        if requests.by_turns or not requests.judges or requests.changed is not None:
            return found
        chance = chances(requests, self.acceptance)
        if self._balanced:
            return found | {"share_without_balance": float(chance[0] / chance.sum())}
        return found | {"probability": float(chance[0])}


class FuturesJob(Job):
    """Futures of real stays."""

    def __init__(self, run: Run, requests: Futures, real: Cohort, options: Options):
        super().__init__(run, requests, len(requests), options)
        self.futures, self.real = requests, real
        self.part_size = max(1, round(_PART / requests.n_each)) * requests.n_each
        self._tables: dict[str, list[pd.DataFrame]] = {}
        self._n_stays = 0

    def _completed(self, drawn: Sequence[Drawn], cohort: Cohort) -> Cohort:
        patients = np.array([one.patient for one in drawn])
        cohort = self.futures.unknown_part(cohort, patients)
        questions = self.futures.questions(self.real, patients)
        questions["subject_id"] += FIRST_ID
        found = {
            QUESTIONS_FILE: questions,
            PREDICTIONS_FILE: label_predictions(cohort, questions),
            NEXT_VALUES_FILE: value_predictions(cohort, questions),
        }
        for name, rows in found.items():
            self._tables.setdefault(name, []).append(rows)
        self._n_stays += len(cohort.stays)
        return cohort

    def report(self) -> dict[str, Any]:
        """What was counted: the stays of the futures, all else with what was known of them."""
        return super().report() | {"stays": self._n_stays}

    def tables(self) -> dict[str, pd.DataFrame]:
        """What each future continues, and what they predict."""
        return {name: pd.concat(rows, ignore_index=True) for name, rows in self._tables.items()}


def patients_job(
    run: Run,
    options: Options,
    n: int | None = None,
    condition: Condition | None = None,
    *,
    table: pd.DataFrame | None = None,
    table_name: str = "table",
    balance: str | None = None,
    share: float = 0.5,
    counterfactual: Mapping[str, Any] | None = None,
    real: Cohort | None = None,
) -> PatientsJob:
    """Synthetic patients.

    Args:
        run: the model.
        options: how they are drawn and decoded.
        n: patients; default 1,000, or one for each row of the table.
        condition: what all fulfil.
        table: what each is to be, besides: columns are covariates and labels. With more patients
            than rows it is begun anew.
        table_name: what to call it in errors.
        balance: a label or code that a share of them has in the first stay.
        share: of these.
        counterfactual: what is different in the second of each pair; the patients are then pairs.
        real: real patients whose covariates and labels of the first stay they begin with.

    Raises:
        UserError: a condition that cannot be met, or parts that do not go together.
    """
    if _is_forecaster(run):
        raise UserError(
            f"{run.path.name!r} was trained to forecast (mode=fcast), not to make whole patients: "
            "give mode=forecast, or train a run with mode=generate."
        )
    given = {
        "condition.table": table is not None,
        "condition.balance": balance is not None,
        "condition.counterfactual": bool(counterfactual),
    }
    several = [name for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise UserError(f"{' and '.join(several)} do not go together.")
    openings = real_openings(run, real) if real is not None else None
    planner = Planner(
        *(run, options.how, options.seed, options.rule_out, options.max_segments, openings)
    )
    condition = condition or Condition()
    if table is not None:
        requests = planner.by_row(condition, table, table_name)
        n = n or len(table)
    elif balance is not None:
        n = n or _DEFAULT_N
        if not 1 <= n_of_share(n, share) < n:
            raise UserError(
                f"n_samples={n} with condition.share={share:g}: both kinds of patients must occur."
            )
        requests = planner.balanced(condition, balance, share)
    elif counterfactual:
        requests = planner.pairs(condition, counterfactual)
        if n is not None and n % 2:
            raise UserError(f"n_samples={n}: counterfactual patients come in pairs.")
    else:
        requests = planner.alike(condition)
    return PatientsJob(run, requests, n or _DEFAULT_N, options)


def futures_job(
    run: Run,
    options: Options,
    real: Cohort,
    hours: float,
    n_resample: int,
    n_stays: int | None = None,
) -> FuturesJob:
    """Futures of real stays.

    Args:
        run: the model; one that was trained with ``mode=fcast``, or any for ``hours=0``.
        options: how they are drawn and decoded.
        real: the patients whose stays are asked about.
        hours: that are known of each stay.
        n_resample: futures of each stay.
        n_stays: stays at most, evenly spread over all; default all.

    Raises:
        UserError: a model that cannot be asked so, or no stay to ask about.
    """
    forecaster = _is_forecaster(run)
    if hours > 0 and not forecaster:
        raise UserError(
            f"{run.path.name!r} was trained to make whole patients, and can forecast only from the "
            "end of earlier admissions (condition.hours=0). Train a run with mode=fcast."
        )
    if hours > 0 and not run.tokenizer.has_clock:
        raise UserError(
            f"{run.path.name!r} writes time in bins (preprocess.time=gap), which do not say what "
            "was known after so many hours. Give condition.hours=0, or train with "
            "preprocess.time=clock."
        )
    records = encode(run.tokenizer, real)
    requests = Futures(
        *(run.tokenizer, records, hours, n_resample, run.model.config.n_ctx, forecaster, n_stays)
    )
    return FuturesJob(run, requests, real, options)


def _is_forecaster(run: Run) -> bool:
    return run.config.get("mode") == "fcast"


def real_openings(run: Run, cohort: Cohort) -> Openings:
    """What the records of real patients state up to the labels of the first admission.

    Raises:
        UserError: none of them leaves room for a record in the model's context.
    """
    tokenizer, n_ctx = run.tokenizer, run.model.config.n_ctx
    grammar = tokenizer.grammar
    constraint = Constraint(tokenizer, n_ctx, torch.device("cpu"))
    room = n_ctx - int(grammar.distance[grammar.index(END_LABELS)])
    if constraint.can_go_on:
        room = constraint.longest_opening
    every = first_openings(tokenizer, cohort)
    fitting = [opening for opening in every if len(opening) <= room]
    if not fitting:
        raise UserError(
            f"fix_covars=True: no real patient's covariates and labels leave room for a record in "
            f"the model's context of {n_ctx} tokens."
        )
    return Openings(fitting, np.full(len(fitting), 1 / len(fitting)))


def first_openings(tokenizer: Tokenizer, cohort: Cohort) -> list[NDArray[np.int64]]:
    """The tokens of each patient from ``<s>`` to the labels of the first admission."""
    first = cohort.stays[cohort.stays["stay_index"] == 0].reset_index(drop=True)
    empty = replace(
        cohort, stays=first, codes=cohort.codes[:0], measurements=cohort.measurements[:0]
    )
    records = encode(tokenizer, empty)
    end = tokenizer.token(END_LABELS)
    openings = []
    for i in range(len(records)):
        record = records[i].astype(np.int64)
        openings.append(record[: int(np.flatnonzero(record == end)[0]) + 1])
    return openings


def real_cohort(run: Run, path: str | None, split: str) -> tuple[Path, Cohort]:
    """Real patients of a split, by default of the cohort that the model was trained on.

    A model's folder holds no patient's data, so they are read from where they were.

    Raises:
        UserError: no cohort there, or nobody in the split.
    """
    folder = Path(path or run.config["data"]["path"])
    if path and not is_cohort(folder):
        raise UserError(f"{folder} holds no cohort.")
    if not path and trained_on(run.path, run.config) is None:
        raise UserError(
            f"{folder} does not hold the cohort that the model was trained on (any more). Give "
            "data.path=<cohort>."
        )
    cohort = read_cohort(folder)
    # A cohort of one's own need not have splits: then all are asked about.
    if cohort.stays["split"].notna().any():
        cohort = cohort.select(split=split)
    if not len(cohort.stays):
        raise UserError(f"{folder} has no patient in the split {split!r}: give condition.split.")
    return folder, cohort


def rows_that_fit(model: GPT) -> int:
    """How many records a part of the free memory holds side by side."""
    weight = model.token_embedding.weight
    free = psutil.virtual_memory().available
    if weight.is_cuda:
        free = torch.cuda.mem_get_info(weight.device)[0]
    else:
        # Of torchrun: its processes share the memory.
        free //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    per_row = Cache.bytes_per_row(model.config, weight.dtype)
    return max(BLOCK, int(_CACHE_SHARE * free / per_row) // BLOCK * BLOCK)
