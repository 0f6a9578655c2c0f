"""What is wanted of synthetic patients: of their first stay, and of how many stays they have.

A condition is exact. What a record states first (covariates, then outcomes) is drawn from the
model's own distribution given the condition, which is known for every such opening, and begins the
record as a prompt. What comes later (phenotypes, codes, further stays) is resampled: a record is
begun anew, opening included, as soon as it says that the condition does not hold.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synehrgy.cohort import is_icd
from synehrgy.errors import UserError, nearest
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import (
    END,
    END_ADMISSION,
    END_CODES,
    END_COVARIATES,
    END_LABELS,
)
from synehrgy.tokenizer.quantities import Digits
from synehrgy.tokenizer.tokenizer import label_kind, system_kind

Flags = NDArray[np.bool_]

_RANGE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)?\s*")


@dataclass(frozen=True)
class Condition:
    """What is wanted; all of it at once. Empty parts are free.

    Attributes:
        covariates: by name: a level or a list of levels; a number, which stands for the bin that
            holds it; or a range such as ``70-80``, or ``70-`` for 70 and more.
        labels, not_labels: columns of labels that the first stay has, or does not have.
        codes_any: codes of which the first stay has one at least; ``428*`` means all that begin
            so, ``icd9_procedure:3893`` names the system. ICD codes may have their point or not.
        codes_all, codes_none: codes that it has, or does not have.
        min_stays, max_stays: of the patient.
    """

    covariates: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] = ()
    not_labels: Sequence[str] = ()
    codes_any: Sequence[str] = ()
    codes_all: Sequence[str] = ()
    codes_none: Sequence[str] = ()
    min_stays: int | None = None
    max_stays: int | None = None

    @classmethod
    def of(cls, schema_covariates: Iterable[str], **parts: Any) -> "Condition":
        """A condition in one mapping, in which covariates stand by their names.

        Raises:
            UserError: a name that is neither a covariate nor a part of a condition.
        """
        names = [item.name for item in fields(cls)]
        known = [*schema_covariates]
        found: dict[str, Any] = {"covariates": dict(parts.pop("covariates", {}))}
        for name, value in parts.items():
            if value is None and name not in known:
                continue
            if name in known:
                found["covariates"][name] = value
            elif name.endswith("_stays") and name in names:
                found[name] = value
            elif name in names:
                found[name] = [value] if isinstance(value, (str, int)) else [*value]
            else:
                raise UserError(
                    f"{name!r} is neither a covariate nor a part of a condition."
                    f"{nearest(name, [*known, *names[1:]])}"
                )
        return cls(**found)

    def and_also(self, **more: Sequence[str]) -> "Condition":
        """With more labels or codes asked for or excluded."""
        longer: dict[str, Any] = {name: [*getattr(self, name), *new] for name, new in more.items()}
        return replace(self, **longer)


@dataclass(frozen=True)
class Wanted:
    """A condition in tokens, all about the first stay but for the number of stays.

    Attributes:
        tokenizer: whose tokens they are.
        forbidden: bool [vocabulary]; tokens that covariates, labels and codes may not have.
        labels, codes: sets of tokens, bool [vocabulary] each, of which one must be among the
            labels, or the codes.
        numbers: covariates that are written in digits, by name, and the range asked for.
        min_stays, max_stays: of the patient.
    """

    tokenizer: Tokenizer
    forbidden: Flags
    labels: list[Flags]
    codes: list[Flags]
    numbers: dict[str, tuple[float, float]]
    min_stays: int
    max_stays: float

    @property
    def is_free(self) -> bool:
        """Whether any record will do."""
        parts = (self.labels, self.codes, self.numbers)
        any_stays = self.min_stays <= 1 and math.isinf(self.max_stays)
        return any_stays and not self.forbidden.any() and not any(parts)

    def verdict(self, tokens: NDArray[np.int64]) -> bool | None:
        """Whether a record so far fulfils it; None while that is open."""
        codes_end = np.flatnonzero(tokens == self.tokenizer.token(END_CODES))
        first = tokens[: codes_end[0]] if len(codes_end) else tokens
        if self.forbidden[first].any():
            return False
        if self.tokenizer.token(END_COVARIATES) in first and not all(
            low <= self._number(name, first) <= high for name, (low, high) in self.numbers.items()
        ):
            return False
        if self.tokenizer.token(END_LABELS) in first and not _have(first, self.labels):
            return False
        if not len(codes_end):
            return None
        if not _have(first, self.codes):
            return False
        return self._enough_stays(tokens)

    def _enough_stays(self, tokens: NDArray[np.int64]) -> bool | None:
        end, end_admission = self.tokenizer.token(END), self.tokenizer.token(END_ADMISSION)
        begun = int((tokens == end_admission).sum()) + int(tokens[-1] not in (end, end_admission))
        if begun > self.max_stays:
            return False
        enough = begun >= self.min_stays
        if tokens[-1] == end:
            return enough
        # What has begun will be completed.
        return True if enough and math.isinf(self.max_stays) else None

    def _number(self, name: str, stay: NDArray[np.int64]) -> float:
        """The value of a covariate in digits; NaN where it is missing."""
        digits = self.tokenizer.covariate_numbers[name]
        assert isinstance(digits, Digits)
        index = stay - self.tokenizer.first_of_covariate(name)
        index = index[(index >= 0) & (index < len(digits.amounts))]
        if not len(index):
            return math.nan
        value = float(digits.amounts[index].sum()) / 10.0**digits.decimals
        return -value if digits.negative and 0 in index else value


def _have(tokens: NDArray[np.int64], sets: list[Flags]) -> bool:
    return all(one[tokens].any() for one in sets)


def wanted(tokenizer: Tokenizer, condition: Condition, rule_out: bool = False) -> Wanted:
    """A condition in the tokens of a model.

    Args:
        tokenizer: the model's.
        condition: what is wanted.
        rule_out: whether labels must agree with the codes that define them.

    Raises:
        UserError: a name or a value that the model does not know, or parts that exclude each other.
    """
    return _Translator(tokenizer, condition, rule_out).run()


class _Translator:
    def __init__(self, tokenizer: Tokenizer, condition: Condition, rule_out: bool):
        self.tokenizer, self.condition, self.rule_out = tokenizer, condition, rule_out
        self.forbidden = self._flags()
        self.numbers: dict[str, tuple[float, float]] = {}

    def run(self) -> Wanted:
        condition = self.condition
        for name, value in condition.covariates.items():
            self._covariate(name, value)
        labels = [self._label("labels", name, True) for name in condition.labels]
        for name in condition.not_labels:
            self.forbidden |= self._label("not_labels", name, True)
        codes = [self._codes("codes_all", [code]) for code in condition.codes_all]
        if condition.codes_any:
            codes.append(self._codes("codes_any", condition.codes_any))
        for code in condition.codes_none:
            self.forbidden |= self._codes("codes_none", [code])
        self._check_exclusion(labels, [*condition.labels])
        self._check_exclusion(codes, [*condition.codes_all, "codes_any"])
        # An outcome is stated either way, so what is not asked for is ruled out at once.
        for name in condition.labels:
            self.forbidden |= self._label("labels", name, False)
        self._check_definitions(labels, codes)
        least, most = condition.min_stays or 1, condition.max_stays or math.inf
        if condition.max_stays is not None and condition.max_stays < least:
            raise UserError(
                f"condition.min_stays={least} and condition.max_stays={condition.max_stays} "
                "exclude each other."
            )
        return Wanted(self.tokenizer, self.forbidden, labels, codes, self.numbers, least, most)

    def _flags(self, tokens: Any = ()) -> Flags:
        flags = np.zeros(len(self.tokenizer.vocabulary), dtype=bool)
        flags[np.asarray(tokens, dtype=np.int64)] = True
        return flags

    def _covariate(self, name: str, value: Any) -> None:
        covariates = {c.name: c for c in self.tokenizer.schema.covariates}
        if name not in covariates:
            raise UserError(
                f"condition.{name}: the model knows no covariate {name!r}."
                f"{nearest(name, [*covariates, *(item.name for item in fields(Condition))])}"
            )
        covariate = covariates[name]
        word = self.tokenizer.covariate_word(name)
        first, n = self.tokenizer.first_of(word), self.tokenizer.n_of(word)
        if covariate.kind == "categorical":
            asked = [_level(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
            for level in asked:
                if level not in covariate.levels:
                    raise UserError(
                        f"condition.{name}={level}: {name} is one of "
                        f"{', '.join(covariate.levels)}.{nearest(level, covariate.levels)}"
                    )
            fitting = [first + covariate.levels.index(level) for level in asked]
        else:
            low, high = _range(name, value)
            numbers = self.tokenizer.covariate_numbers.get(name)
            if numbers is None:
                raise UserError(f"condition.{name}: the model was trained without any {name}.")
            if isinstance(numbers, Digits):
                self.numbers[name] = (low, high)
                # What is missing is no number.
                n_stating = n - (name in self.tokenizer.nullable)
                self.forbidden |= self._flags(range(first + n_stating, first + n))
                return
            fitting = [first + i for i in _bins(name, numbers, low, high)]
        self.forbidden |= self._flags(range(first, first + n)) & ~self._flags(fitting)

    def _label(self, part: str, column: str, present: bool) -> Flags:
        """The token that says that the first stay has a label, or that it has not."""
        labels = {label.column: label for label in self.tokenizer.schema.labels}
        if column not in labels:
            raise UserError(
                f"condition.{part}: the model knows no label {column!r}."
                f"{nearest(column, [*labels])}"
            )
        token = self.tokenizer.token(label_kind(column))
        if labels[column].kind == "outcome":
            return self._flags([token + present])
        return self._flags([token] if present else [])

    def _codes(self, part: str, codes: Sequence[str]) -> Flags:
        """The tokens of codes that a part of the condition names."""
        flags = self._flags()
        for text in codes:
            prefix, _, code = str(text).rpartition(":")
            found = [
                self.tokenizer.token(system_kind(system)) + i
                for system, kept in self.tokenizer.codes.items()
                if prefix in ("", system)
                for i, one in enumerate(kept)
                if _is_meant(one, code, system)
            ]
            if not found:
                every = [one for kept in self.tokenizer.codes.values() for one in kept]
                raise UserError(
                    f"condition.{part}: the model knows no code {str(text)!r}: the train patients "
                    f"had none, or fewer than it learns (preprocess.min_code_count)."
                    f"{nearest(code, every)} '428*' stands for all that begin with 428."
                )
            flags[found] = True
        return flags

    def _check_exclusion(self, sets: list[Flags], names: Sequence[str]) -> None:
        for one, name in zip(sets, names, strict=False):
            if not (one & ~self.forbidden).any():
                raise UserError(f"The condition asks for {name} and excludes it.")

    def _check_definitions(self, wanted_labels: list[Flags], codes: list[Flags]) -> None:
        """Refuse a code without the label that it defines, where these must agree."""
        if not self.rule_out:
            return
        defined = self.tokenizer.defined_labels
        labels = zip(
            *(defined.tokens, defined.implied_by, defined.supported_by, defined.explained),
            strict=True,
        )
        for token, implied, supported, is_explained in labels:
            name = self.tokenizer.vocabulary[token]
            if self.forbidden[token]:
                for one in codes:
                    possible = one & ~self.forbidden
                    if not (possible & ~implied).any():
                        code = self.tokenizer.vocabulary[int(np.flatnonzero(possible)[0])]
                        raise UserError(
                            f"The condition excludes the label {name!r}, which follows from the "
                            f"code {code} that it asks for."
                        )
                continue
            asked = any(one[token] for one in wanted_labels)
            if asked and is_explained and not (supported & ~self.forbidden).any():
                raise UserError(
                    f"The condition asks for the label {name!r} and excludes every code that it "
                    "follows from."
                )


def _is_meant(code: str, text: str, system: str) -> bool:
    """Whether a text names a code, or is what it begins with and a star.

    ICD codes may be named with their point, which they are written without.
    """
    texts = {text, text.replace(".", "")} if is_icd(system) else {text}
    return any(code.startswith(t[:-1]) if t.endswith("*") else code == t for t in texts)


def _level(value: Any) -> str:
    """The name of a level, which may look like a number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _range(name: str, value: Any) -> tuple[float, float]:
    """Lowest and highest number asked for; of a single number, twice that."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value), float(value)
    match = _RANGE.fullmatch(str(value))
    if match is None:
        try:
            return float(value), float(value)
        except (TypeError, ValueError):
            raise UserError(
                f"condition.{name}={value}: give a number, or a range such as 70-80 or 70-."
            ) from None
    low, high = match.groups()
    bounds = float(low), float(high or math.inf)
    if bounds[0] > bounds[1]:
        raise UserError(f"condition.{name}={value}: the range is empty.")
    return bounds


def _bins(name: str, numbers: Any, low: float, high: float) -> list[int]:
    """The bins that make up a range, or the one that holds a number."""
    edges = numbers.edges
    # Edges are shown with six digits, and so may be given.
    low, high = (_snapped(bound, edges) for bound in (low, high))
    if low == high:
        if not edges[0] <= low <= edges[-1]:
            raise UserError(
                f"condition.{name}={low:g}: the model knows {name} from {edges[0]:g} to "
                f"{edges[-1]:g}."
            )
        return numbers.encode([low]).tolist()
    inside = np.flatnonzero((edges[:-1] >= low) & (edges[1:] <= high)).tolist()
    covered = (edges[inside[0]], edges[inside[-1] + 1]) if inside else (math.inf, -math.inf)
    if max(low, edges[0]) != covered[0] or min(high, edges[-1]) != covered[1]:
        raise UserError(
            f"condition.{name}={low:g}-{high:g} is not made of whole bins of the model, which are "
            f"bounded by {', '.join(f'{edge:g}' for edge in edges)}."
        )
    return inside


def _snapped(bound: float, edges: NDArray[np.float64]) -> float:
    nearest_edge = float(edges[np.abs(edges - bound).argmin()])
    return nearest_edge if math.isclose(nearest_edge, bound, rel_tol=1e-5) else bound
