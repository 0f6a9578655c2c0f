"""From what is wanted of a cohort to what is asked of each of its patients."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.draws import Stream, uniforms
from synehrgy.errors import UserError, nearest
from synehrgy.generation.conditions import Condition, Wanted, wanted
from synehrgy.generation.openings import MOST_OPENINGS, Openings, model_openings
from synehrgy.generation.sampler import ATTEMPT, Drawn, Requests, Sampling
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import Word
from synehrgy.tokenizer.tokenizer import label_kind
from synehrgy.training.checkpoint import Run

_NO_PAIRS = (
    "condition.counterfactual needs covariates that the model states in a token each, and at most "
    f"{MOST_OPENINGS:,} combinations of them."
)

# A condition less likely than this is not worth waiting for.
_LEAST = 1e-9


@dataclass(frozen=True)
class Variant:
    """What is asked of a part of the patients.

    Attributes:
        wanted: the condition.
        openings: what the records begin with; None: ``<s>`` alone.
        share: of the patients.
    """

    wanted: Wanted
    openings: Openings | None
    share: float = 1.0


class Conditioned(Requests):
    """Patients who fulfil conditions, each the one of its variant.

    Args:
        tokenizer: the model's.
        variants: at least one.
        seed: of the patients.
        by_turns: patient i is of variant i modulo their number; else the shares decide, evenly
            spread.
        changed: the token that takes the place of another in the second of each pair of patients,
            who are alike but for this, by the token it replaces; None: there are no pairs.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        variants: Sequence[Variant],
        seed: int,
        *,
        by_turns: bool = False,
        changed: NDArray[np.int64] | None = None,
    ):
        super().__init__(tokenizer)
        self.variants, self.seed = [*variants], seed
        self.by_turns, self.changed = by_turns, changed
        self.judges = any(not variant.wanted.is_free for variant in variants)

    def variant(self, patient: int) -> int:
        """Number of the variant of a patient."""
        if self.by_turns:
            return patient % len(self.variants)
        if len(self.variants) == 1:
            return 0
        # Of two: as many of the first among any number of patients as its share says.
        share = self.variants[0].share
        return int(n_of_share(patient + 1, share) == n_of_share(patient, share))

    def stream(self, patient: int) -> int:
        """The number that the patient's random numbers belong to."""
        return patient if self.changed is None else patient // 2

    def prompt(self, patient: int, attempt: int) -> NDArray[np.int64]:
        """An opening of the patient's variant, or ``<s>``."""
        openings = self.variants[self.variant(patient)].openings
        if openings is None:
            return super().prompt(patient, attempt)
        number = self.stream(patient) + attempt * ATTEMPT
        opening = openings.draw(float(uniforms(self.seed, Stream.PROMPT, number, 0)))
        if self.changed is not None and patient % 2:
            opening = self.changed[opening]
        return opening

    def verdict(self, patient: int, tokens: NDArray[np.int64]) -> bool | None:
        """Whether a record so far fulfils the condition; None while that is open."""
        if self.changed is not None and patient % 2:
            # What was changed was part of the condition, perhaps.
            return True
        return self.variants[self.variant(patient)].wanted.verdict(tokens)


def n_of_share(n: int, share: float) -> int:
    """How many of n patients are a share of them, rounded down."""
    # 0.29 of 100 is a hair less than 29.
    return math.floor(n * share + 1e-9)


@dataclass
class Acceptance:
    """How many records were begun, and how many kept, by variant."""

    begun: Counter[int] = field(default_factory=Counter)
    kept: Counter[int] = field(default_factory=Counter)

    def add(self, variant: int, drawn: Drawn) -> None:
        """Count a patient."""
        self.begun[variant] += drawn.n_attempts
        self.kept[variant] += 1

    def rate(self, variant: int) -> float:
        """Share of the records begun that were kept."""
        return self.kept[variant] / self.begun[variant]


def chances(requests: Conditioned, acceptance: Acceptance) -> NDArray[np.float64]:
    """Probability of each variant: that of its openings, times the share of records kept."""
    return np.array(
        [
            (one.openings.total if one.openings else 1.0) * acceptance.rate(i)
            for i, one in enumerate(requests.variants)
        ]
    )


def weights(
    requests: Conditioned, acceptance: Acceptance, patients: NDArray[np.int64]
) -> pd.DataFrame:
    """What each patient counts for, so that weighted figures are those of the population.

    A weight is the probability of the patient's variant over its share of the cohort.

    Args:
        requests: with two variants, of which one excludes the other.
        acceptance: of both.
        patients: int64 [n]; numbers of the patients.

    Returns:
        One row per patient: has (whether the patient is of the first variant) and weight; weights
        add up to n.
    """
    variant = np.array([requests.variant(patient) for patient in patients])
    chance = chances(requests, acceptance)
    drawn = np.bincount(variant, minlength=2) / len(variant)
    return pd.DataFrame({"has": variant == 0, "weight": (chance / chance.sum() / drawn)[variant]})


class Planner:
    """Makes the requests of a cohort of conditioned patients.

    Args:
        run: the model.
        how: how tokens are drawn.
        seed: of the patients.
        rule_out: whether labels must agree with the codes that define them.
        max_segments: contexts that a record may take.
        real: openings of real patients, to draw from instead of the model's own.
    """

    def __init__(
        self,
        run: Run,
        how: Sampling,
        seed: int,
        rule_out: bool,
        max_segments: int = 64,
        real: Openings | None = None,
    ):
        self.run, self.how, self.seed, self.rule_out = run, how, seed, rule_out
        self.max_segments = max_segments
        self.real = real

    def alike(self, condition: Condition) -> Conditioned:
        """All patients fulfil the same condition."""
        return Conditioned(self.run.tokenizer, [self._variant(condition)], self.seed)

    def by_row(self, condition: Condition, table: pd.DataFrame, file: str) -> Conditioned:
        """Each patient is wanted by a row of a table, besides the condition.

        Args:
            condition: of all.
            table: columns are covariates and labels (0 or 1), empty cells are free.
            file: what to call the table in errors.
        """
        names = [c.name for c in self.run.tokenizer.schema.covariates]
        labels = [label.column for label in self.run.tokenizer.schema.labels]
        unknown = [column for column in table if column not in (*names, *labels)]
        if unknown or not len(table):
            raise UserError(
                f"{file}: column {unknown[0]!r} is neither a covariate nor a label of the model."
                if unknown
                else f"{file} has no row, so there is no patient to generate."
            )
        known: dict[tuple[Any, ...], Variant] = {}
        variants = []
        for number, row in enumerate(table.itertuples(index=False), start=1):
            key = tuple(None if pd.isna(value) else value for value in row)
            if key not in known:
                cells = {str(c): v for c, v in zip(table, key, strict=True) if v is not None}
                try:
                    known[key] = self._variant(_of_row(condition, cells, names))
                except UserError as error:
                    raise UserError(f"{file}, row {number}: {error}") from None
            variants.append(known[key])
        return Conditioned(self.run.tokenizer, variants, self.seed, by_turns=True)

    def balanced(self, condition: Condition, by: str, share: float) -> Conditioned:
        """A share of the patients has a label or code in the first stay, the others have not.

        Args:
            condition: of all.
            by: the label's column, or the code.
            share: of the patients who have it, in (0, 1).
        """
        labels = [label.column for label in self.run.tokenizer.schema.labels]
        with_, without = ("labels", "not_labels") if by in labels else ("codes_all", "codes_none")
        if by not in labels:
            try:
                wanted(self.run.tokenizer, Condition(codes_all=[by]))
            except UserError:
                hint = nearest(by, labels)
                raise UserError(
                    f"condition.balance={by}: the model knows no such label or code."
                    + (hint if hint.startswith(" Did") else f" Labels: {', '.join(labels)}.")
                ) from None
        variants = [
            self._variant(condition.and_also(**{with_: [by]}), share),
            self._variant(condition.and_also(**{without: [by]}), 1 - share),
        ]
        return Conditioned(self.run.tokenizer, variants, self.seed)

    def pairs(self, condition: Condition, change: Mapping[str, Any]) -> Conditioned:
        """Pairs of patients that share their random numbers; the second begins with a change.

        Args:
            condition: of the first of each pair.
            change: single values of covariates or outcomes (0 or 1), by name.
        """
        tokenizer = self.run.tokenizer
        changed = np.arange(len(tokenizer.vocabulary))
        facts: list[tuple[int, int]] = []
        outcomes = [label.column for label in tokenizer.schema.labels_of("outcome")]
        phenotypes = [label.column for label in tokenizer.schema.labels_of("phenotype")]
        for name, value in change.items():
            if name in phenotypes:
                raise UserError(
                    f"condition.counterfactual: {name} is stated after the beginning, in which "
                    "pairs differ. Covariates and outcomes can be changed."
                )
            if name in outcomes:
                if value not in (0, 1):
                    raise UserError(f"condition.counterfactual: {name}={value} must be 0 or 1.")
                part = Condition(labels=[name]) if value else Condition(not_labels=[name])
                word = Word.of(label_kind(name))
                forbidden = wanted(tokenizer, part).forbidden
            else:
                forbidden = wanted(tokenizer, Condition(covariates={name: value})).forbidden
                word = tokenizer.covariate_word(name)
            first, n = tokenizer.first_of(word), tokenizer.n_of(word)
            left = [t for t in range(first, first + n) if not forbidden[t]]
            if len(left) != 1:
                raise UserError(
                    f"condition.counterfactual: {name}={value} must be a single value of the model."
                )
            changed[first : first + n] = left[0]
            facts.append((first, n))
        later = [condition.codes_any, condition.codes_all, condition.codes_none]
        labels = {*condition.labels, *condition.not_labels} - {*outcomes}
        stays = (condition.min_stays, condition.max_stays)
        if any(later) or stays != (None, None) or (labels and self.real is None):
            raise UserError(
                "condition.counterfactual needs pairs that begin alike, so the other conditions "
                "can only be on covariates and outcomes (with fix_covars=True, on all labels)."
            )
        variant = self._variant(condition, openings_needed=True)
        for tokens in variant.openings.tokens if variant.openings else []:
            if not all(((tokens >= first) & (tokens < first + n)).any() for first, n in facts):
                raise UserError(_NO_PAIRS)
        return Conditioned(tokenizer, [variant], self.seed, changed=changed)

    def _variant(
        self, condition: Condition, share: float = 1.0, openings_needed: bool = False
    ) -> Variant:
        asked = wanted(self.run.tokenizer, condition, self.rule_out)
        openings = self.real
        if openings is None and (openings_needed or asked.forbidden.any()):
            openings = self._openings
        if openings is None:
            if openings_needed:
                raise UserError(_NO_PAIRS)
            return Variant(asked, None, share)
        fitting = openings.among([asked.verdict(tokens) is not False for tokens in openings.tokens])
        if not len(fitting) or fitting.total < _LEAST:
            raise UserError(
                "No real patient begins as the condition asks for."
                if self.real is not None
                else f"The condition has a probability of {fitting.total:.1e} under the model: it "
                "has never seen such a patient."
            )
        if self.real is None and not openings_needed and len(fitting) == len(openings):
            # The condition is on nothing that they state.
            return Variant(asked, None, share)
        return Variant(asked, fitting, share)

    @cached_property
    def _openings(self) -> Openings | None:
        return model_openings(self.run.model, self.run.tokenizer, self.how, self.max_segments)


def _of_row(condition: Condition, cells: Mapping[str, Any], covariates: list[str]) -> Condition:
    states = {name: value for name, value in cells.items() if name not in covariates}
    for name, value in states.items():
        if value not in (0, 1):
            raise UserError(f"{name}={value}: a label is 0 or 1, or empty where it is free.")
    facts = {name: value for name, value in cells.items() if name in covariates}
    merged = replace(condition, covariates={**condition.covariates, **facts})
    return merged.and_also(
        labels=[name for name, value in states.items() if value],
        not_labels=[name for name, value in states.items() if not value],
    )
