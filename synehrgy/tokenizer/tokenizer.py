"""The tokenizer: fitted on a cohort's train split, kept as one readable JSON file."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synehrgy.cohort import Cohort, Covariate, Schema
from synehrgy.errors import UserError
from synehrgy.files import read_json, write_text
from synehrgy.settings import TokenSettings, VariableSettings
from synehrgy.tokenizer.changes import Changes, fit_changes
from synehrgy.tokenizer.clock import clock_minutes, clock_texts, clock_word
from synehrgy.tokenizer.fitting import (
    check_settings,
    fit_codes,
    fit_covariates,
    fit_explained,
    fit_gaps,
    fit_lengths_of_stay,
    fit_nullable,
    fit_rules,
    fit_seconds,
    fit_stands_for,
    fit_variables,
)
from synehrgy.tokenizer.grammar import (
    NOTHING,
    SPECIAL,
    START,
    Grammar,
    Word,
    record_grammar,
)
from synehrgy.tokenizer.quantities import Bins, Digits, quantity_from_json
from synehrgy.tokenizer.relations import Relations

TOKENIZER_VERSION = 4

_REMEDY = "Run preprocess.py again for the file of a cohort, train.py for that of a model."

# A bin of a series and its neighbours up to this far share the target of soft labels.
SOFT_REACH = 3

# Kinds of the tokens of time: between time points, and from the last one to the end of the stay.
GAP, STAY = "gap", "stay"
# How long the open admission has run, in hours: at the head of a segment that goes on with it.
ELAPSED = "elapsed"
ELAPSED_EDGES = np.array(
    [0, 1, 2, 4, 8, 12, 24, 36, 48, 72, 96, 144, 192, 240, 336, 504, 720, 1440], dtype=np.float64
)

# Parts of a record, by which a loss is reported.
PARTS = ("covariates", "labels", "codes", "series", "time", "structure")

# What may come in any order, once a model has been trained so.
FREE_LABELS, FREE_SERIES = "labels", "series"


def covariate_kind(name: str) -> str:
    """The kind of token that states a covariate, or a part of it."""
    return f"covariate:{name}"


def missing_kind(name: str) -> str:
    """The kind of token that says that a covariate is missing."""
    return f"missing:{name}"


def label_kind(column: str) -> str:
    """The kind of token that states a label."""
    return f"label:{column}"


def system_kind(name: str) -> str:
    """The kind of token that states a code of a system."""
    return f"code:{name}"


def variable_kind(name: str) -> str:
    """The kind of token that states a value of a variable, or a part of it."""
    return f"variable:{name}"


@dataclass(frozen=True)
class DefinedLabels:
    """Labels that follow from the codes, as tokens.

    Attributes:
        tokens: int64 [label]; the token that says that the label is there.
        implied_by: bool [label, vocabulary]; codes that a stay without the label can not have.
        supported_by: bool [label, vocabulary]; codes of which a stay with the label has one.
        explained: bool [label]; whether the vocabulary has enough of them to ask for one.
    """

    tokens: NDArray[np.int64]
    implied_by: NDArray[np.bool_]
    supported_by: NDArray[np.bool_]
    explained: NDArray[np.bool_]


@dataclass(frozen=True)
class Tokenizer:
    """What is needed to turn records into tokens and back, and nothing else.

    Tokens of one kind are numbered without a break, and so are the kinds of one fact: a series
    written in bins has one kind, and token ``first[kind] + i`` is its i-th bin.

    Attributes:
        schema: the declared columns of the cohort it was fitted on.
        settings: how it was fitted.
        covariate_numbers, variable_numbers: how the continuous ones are written, by name, of those
            that the train split has values of. Years, hours or the declared unit.
        gaps: hours between time points, for ``time=gap``.
        seconds: seconds within the minute of a time point, for ``time=clock``.
        codes: the codes kept, by system, in alphabetical order.
        nullable: covariates that may be missing; these have a token that says so.
        lengths_of_stay: whether ``all``, ``some`` or ``none`` of the stays have a known length.
        stands_for: rare codes that a kept one stands for, by system.
        explained: labels that are asked to have a code that explains them.
        rules: covariates that are ``rising`` or ``constant`` over a patient's admissions.
        changes: of continuous covariates written in bins, from a stay to the next.
        relations: what the values of one time point have in common.
        free_order: sections whose facts may come in any order: ``labels``, ``series``.
        no_series: whether records have no time points, though the vocabulary could say them.
    """

    schema: Schema
    settings: TokenSettings
    covariate_numbers: dict[str, Bins | Digits]
    variable_numbers: dict[str, Bins | Digits]
    gaps: Bins
    seconds: Bins
    codes: dict[str, list[str]]
    nullable: list[str] = field(default_factory=list)
    lengths_of_stay: str = "some"
    stands_for: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    explained: list[str] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Changes] = field(default_factory=dict)
    relations: Relations = field(default_factory=Relations)
    free_order: list[str] = field(default_factory=list)
    no_series: bool = False

    @classmethod
    def fit(cls, cohort: Cohort, settings: TokenSettings | None = None) -> "Tokenizer":
        """Learn vocabulary, bins and distributions from the train split.

        What makes a record valid (whether a covariate may be missing, whether age ever falls) is
        asked of the whole cohort, so that every stay can be encoded.

        Raises:
            UserError: no patient in the train split, or settings that do not fit the cohort.
        """
        settings = settings or TokenSettings()
        train = cohort.select(split="train")
        if not len(train.stays):
            raise UserError(
                f"Cohort {cohort.schema.name!r} has no stay in the train split to fit on."
            )
        check_settings(cohort.schema, settings)
        covariate_numbers = fit_covariates(train, settings)
        codes = fit_codes(cohort, train, settings)
        stands_for = fit_stands_for(cohort, codes, settings.rare_codes == "parent")
        return cls(
            cohort.schema,
            settings,
            covariate_numbers,
            fit_variables(train, settings),
            fit_gaps(train, settings),
            fit_seconds(train),
            codes,
            fit_nullable(cohort),
            fit_lengths_of_stay(cohort),
            stands_for,
            fit_explained(train, codes, stands_for),
            fit_rules(cohort, settings.within_patient, covariate_numbers),
            fit_changes(train, [n for n, q in covariate_numbers.items() if isinstance(q, Bins)]),
            Relations.fit(train),
        )

    def as_trained(self, free_order: Sequence[str] = (), no_series: bool = False) -> "Tokenizer":
        """The same vocabulary, for a model that was trained on records of another form."""
        return replace(self, free_order=[*free_order], no_series=no_series)

    def without_values(self) -> "Tokenizer":
        """The same tokens, without the quantiles of real values inside the bins."""

        def plain(numbers: dict[str, Bins | Digits]) -> dict[str, Bins | Digits]:
            return {
                name: one.without_quantiles() if isinstance(one, Bins) else one
                for name, one in numbers.items()
            }

        return replace(
            self,
            covariate_numbers=plain(self.covariate_numbers),
            variable_numbers=plain(self.variable_numbers),
            changes={},
            gaps=self.gaps.without_quantiles(),
            seconds=self.seconds.without_quantiles(),
        )

    @cached_property
    def variables(self) -> list[str]:
        """Names of the series in the order of a timestep: categorical first, alphabetically."""
        ordered = sorted(self.schema.variables, key=lambda v: (v.kind == "continuous", v.name))
        return [v.name for v in ordered]

    @property
    def has_clock(self) -> bool:
        """Whether time is written to the minute, and the length of stay with it."""
        return self.settings.time == "clock"

    @property
    def time_word(self) -> Word:
        """The automaton of the time that ends a timestep."""
        return clock_word(GAP) if self.has_clock else Word.of(GAP)

    @property
    def stay_word(self) -> Word:
        """The automaton of the time from the last timestep to the end of the stay."""
        known = self.has_clock and self.lengths_of_stay != "none"
        return clock_word(STAY) if known else NOTHING

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Readable text of every token, by kind; a fact's kinds stand in the order of its word."""
        names: dict[str, list[str]] = {special: [special] for special in SPECIAL}

        def add(name: str, texts: dict[str, list[str]]) -> None:
            names.update({kind: [f"{name}={text}" for text in t] for kind, t in texts.items()})

        for covariate in self.schema.covariates:
            add(covariate.name, self._covariate_texts(covariate))
        for label in self.schema.labels_of("outcome"):
            names[label_kind(label.column)] = [f"{label.column}={state}" for state in (0, 1)]
        for label in self.schema.labels_of("phenotype"):
            names[label_kind(label.column)] = [label.column]
        for system, codes in self.codes.items():
            names[system_kind(system)] = [f"{system}:{code}" for code in codes]
        levels = {v.name: v.levels for v in self.schema.variables_of("categorical")}
        for variable in self.variables:
            kind, numbers = variable_kind(variable), self.variable_numbers.get(variable)
            add(variable, numbers.texts(kind) if numbers else {kind: levels.get(variable, [])})
        if self.has_clock:
            names |= clock_texts(GAP, "+")
            names |= clock_texts(STAY, "discharge +") if self.stay_word.kinds else {}
        else:
            names[GAP] = [f"{GAP}={text} h" for text in self.gaps.texts(GAP)[GAP]]
        if self.settings.long_records == "continue":
            bounds = itertools.pairwise(ELAPSED_EDGES)
            names[ELAPSED] = [f"{ELAPSED}=({low:g}, {high:g}] h" for low, high in bounds]
        return names

    def _covariate_texts(self, covariate: Covariate) -> dict[str, list[str]]:
        kind, numbers = covariate_kind(covariate.name), self.covariate_numbers.get(covariate.name)
        texts = numbers.texts(kind) if numbers else {kind: covariate.levels}
        if covariate.name in self.nullable:
            texts = texts | {missing_kind(covariate.name): ["missing"]}
        return texts

    def covariate_word(self, name: str) -> Word:
        """The automaton of a covariate."""
        kind, numbers = covariate_kind(name), self.covariate_numbers.get(name)
        word = numbers.word(kind) if numbers else Word.of(kind)
        if name not in self.nullable:
            return word
        more = (missing_kind(name),)
        return Word(word.kinds + more, word.entries + more, word.exits + more, word.arcs)

    def variable_word(self, name: str) -> Word:
        """The automaton of a value of a series."""
        kind, numbers = variable_kind(name), self.variable_numbers.get(name)
        return numbers.word(kind) if numbers else Word.of(kind)

    @cached_property
    def grammar(self) -> Grammar:
        """The automaton of this tokenizer's records."""
        return record_grammar(
            [self.covariate_word(c.name) for c in self.schema.covariates],
            [label_kind(label.column) for label in self.schema.labels_of("outcome")],
            [label_kind(label.column) for label in self.schema.labels_of("phenotype")],
            [system_kind(system) for system in self.codes],
            [self.variable_word(variable) for variable in self.variables],
            self.time_word,
            self.stay_word,
            [ELAPSED] if ELAPSED in self._names else [],
            stay_optional=self.lengths_of_stay != "all",
            free_labels=FREE_LABELS in self.free_order,
            free_series=FREE_SERIES in self.free_order,
            empty=self._impossible_kinds(),
        )

    def _impossible_kinds(self) -> list[str]:
        words = [self.variable_word(name) for name in self.variables] if self.no_series else []
        empty = [kind for kind, names in self._names.items() if not names]
        return [*empty, *(kind for word in words for kind in word.kinds)]

    @cached_property
    def vocabulary(self) -> list[str]:
        """Readable text of every token; the position is the token's number."""
        return [name for kind in self.grammar.kinds for name in self._names[kind]]

    @cached_property
    def size(self) -> NDArray[np.int64]:
        """Number of tokens of each kind, in the order of ``grammar.kinds``."""
        return np.array([len(self._names[kind]) for kind in self.grammar.kinds])

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Number of the first token of each kind."""
        return np.concatenate([[0], np.cumsum(self.size)[:-1]])

    @cached_property
    def kind_of(self) -> NDArray[np.int64]:
        """Kind of each token: index into ``grammar.kinds``, shape [vocabulary]."""
        return np.repeat(np.arange(len(self.size)), self.size)

    @cached_property
    def part_of(self) -> NDArray[np.int64]:
        """Part of a record that each token belongs to: index into ``PARTS``, shape [vocabulary]."""
        time = {*self.time_word.kinds, *self.stay_word.kinds, ELAPSED}
        values = {k for name in self.variables for k in self.variable_word(name).kinds}
        facts = {k for c in self.schema.covariates for k in self.covariate_word(c.name).kinds}
        groups = {"time": time, "series": values, "covariates": facts}
        groups["labels"] = {label_kind(label.column) for label in self.schema.labels}
        groups["codes"] = {system_kind(system) for system in self.codes}
        part = {kind: PARTS.index(name) for name, kinds in groups.items() for kind in kinds}
        structure = PARTS.index("structure")
        return np.array([part.get(kind, structure) for kind in self.grammar.kinds])[self.kind_of]

    @property
    def shortest_record(self) -> int:
        """Tokens of the shortest valid record: one admission with nothing optional in it."""
        return 1 + int(self.grammar.distance[self.grammar.index(START)])

    def token(self, kind: str) -> int:
        """Number of the first token of a kind; of a special token, its number."""
        return int(self.first[self.grammar.index(kind)])

    def first_of(self, word: Word) -> int:
        """Number of the first token of a fact, whatever it is written in."""
        return self.token(word.kinds[0])

    def n_of(self, word: Word) -> int:
        """How many tokens there are to state a fact."""
        return int(sum(self.size[self.grammar.index(kind)] for kind in word.kinds))

    def first_of_variable(self, name: str) -> int:
        """Number of the first token of a series."""
        return self.first_of(self.variable_word(name))

    def first_of_covariate(self, name: str) -> int:
        """Number of the first token of a covariate."""
        return self.first_of(self.covariate_word(name))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer that holds every token."""
        return np.dtype(np.uint16 if len(self.vocabulary) <= 2**16 else np.uint32)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Tokens that may follow a token of each kind, shape [kind, vocabulary]."""
        return self.grammar.follows[:, self.kind_of]

    @cached_property
    def hours_of(self) -> NDArray[np.float64]:
        """Hours that a token lets pass, shape [vocabulary]: those of a time, 0 for any other."""
        hours = np.zeros(len(self.vocabulary))
        passing = clock_minutes() / 60 if self.has_clock else self.gaps.middles
        start = self.first_of(self.time_word)
        hours[start : start + len(passing)] = passing
        return hours

    @cached_property
    def defined_labels(self) -> DefinedLabels:
        """Labels that follow from the codes, of those with such a code in the vocabulary."""
        labels = []
        tokens, implied, supported = [], [], []
        for label in self.schema.labels:
            implied_by, supported_by = np.zeros((2, len(self.vocabulary)), dtype=bool)
            for system, codes in label.definition.items():
                start, kept = self.token(system_kind(system)), self.codes[system]
                rare, defining = self.stands_for.get(system, {}), set(codes)
                # All codes that a token may mean, and whether they define the label.
                meant = [[code in defining for code in (c, *rare.get(c, []))] for c in kept]
                implied_by[start : start + len(kept)] = [all(defines) for defines in meant]
                supported_by[start : start + len(kept)] = [any(defines) for defines in meant]
            if supported_by.any():
                labels.append(label.column)
                tokens.append(self.token(label_kind(label.column)) + (label.kind == "outcome"))
                implied.append(implied_by)
                supported.append(supported_by)
        shape = (len(tokens), len(self.vocabulary))
        return DefinedLabels(
            np.array(tokens, dtype=np.int64),
            np.array(implied, dtype=bool).reshape(shape),
            np.array(supported, dtype=bool).reshape(shape),
            np.isin(labels, self.explained),
        )

    def soft_targets(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Targets of soft labels as a band around the diagonal, instead of a dense matrix.

        The target of a bin of a continuous variable is a Gaussian (standard deviation of one bin)
        over the bins up to three away, cut at the variable's first and last bin and renormalised.
        Every other token is its own target.

        Returns:
            (tokens, weights), both [vocabulary, 7]; the weights of a row add up to 1, entries
            outside the variable have weight 0.
        """
        steps = np.arange(-SOFT_REACH, SOFT_REACH + 1)
        binned = {variable_kind(n) for n, q in self.variable_numbers.items() if isinstance(q, Bins)}
        soft = np.array([kind in binned for kind in self.grammar.kinds])[self.kind_of]
        tokens = np.arange(len(self.vocabulary))[:, None] + steps
        low = self.first[self.kind_of][:, None]
        high = low + self.size[self.kind_of][:, None]
        inside = (tokens >= low) & (tokens < high) & (soft[:, None] | (steps == 0))
        weights = np.where(inside, np.exp(-0.5 * steps**2.0), 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.where(inside, tokens, 0), weights.astype(np.float32)

    def to_json(self) -> str:
        """The whole tokenizer as text; the same tokenizer gives the same text."""
        content: dict[str, Any] = {
            "tokenizer_version": TOKENIZER_VERSION,
            "schema": self.schema.to_dict(),
            "settings": asdict(self.settings),
            "covariate_numbers": {k: v.to_json() for k, v in self.covariate_numbers.items()},
            "variable_numbers": {k: v.to_json() for k, v in self.variable_numbers.items()},
            "gaps": self.gaps.to_json(),
            "seconds": self.seconds.to_json(),
            "codes": self.codes,
            "nullable": self.nullable,
            "lengths_of_stay": self.lengths_of_stay,
            "stands_for": self.stands_for,
            "explained": self.explained,
            "rules": self.rules,
            "changes": {name: found.quantiles for name, found in self.changes.items()},
            "relations": self.relations.to_json(),
            "free_order": self.free_order,
            "no_series": self.no_series,
            "vocabulary": self.vocabulary,
        }
        return _pretty(content | {"checksum": _checksum(content)}) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON file in one step."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.

        Raises:
            UserError: a missing, damaged or edited file, or one of another version.
        """
        content = read_json(path)
        version = content.get("tokenizer_version") if isinstance(content, dict) else None
        if not isinstance(version, int):
            raise UserError(f"{path} is not a tokenizer.")
        if version > TOKENIZER_VERSION:
            raise UserError(
                f"{path} has tokenizer version {version}, this program knows up to "
                f"{TOKENIZER_VERSION}. Update synehrgy."
            )
        if version < TOKENIZER_VERSION:
            raise UserError(
                f"{path} has tokenizer version {version}, which this program ({TOKENIZER_VERSION}) "
                "does not read any more. Run preprocess.py again, and train.py for a model of it."
            )
        if content.pop("checksum", None) != _checksum(content):
            raise UserError(f"{path} is damaged: its content is not what was written. {_REMEDY}")
        try:
            tokenizer = cls._from_json(content, path)
            whole = tokenizer.vocabulary == content["vocabulary"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {error!r}. {_REMEDY}") from error
        if not whole:
            raise UserError(
                f"{path} is damaged: its vocabulary does not follow from its bins, codes and "
                f"schema. {_REMEDY}"
            )
        return tokenizer

    @classmethod
    def _from_json(cls, content: dict[str, Any], path: Path) -> "Tokenizer":
        settings = TokenSettings(**content["settings"])
        settings.variables = {
            k: VariableSettings(**v) for k, v in content["settings"]["variables"].items()
        }
        return cls(
            Schema.from_dict(content["schema"], str(path)),
            settings,
            {k: quantity_from_json(v) for k, v in content["covariate_numbers"].items()},
            {k: quantity_from_json(v) for k, v in content["variable_numbers"].items()},
            Bins.from_json(content["gaps"]),
            Bins.from_json(content["seconds"]),
            content["codes"],
            content["nullable"],
            content["lengths_of_stay"],
            content["stands_for"],
            content["explained"],
            content["rules"],
            {name: Changes(found) for name, found in content["changes"].items()},
            Relations.from_json(content["relations"]),
            content["free_order"],
            content["no_series"],
        )


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with a line per entry, in which a list of numbers takes one line."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        parts = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {_pretty(item, inner)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (str, list, dict)) for item in value):
        return "[\n" + ",\n".join(inner + _pretty(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
