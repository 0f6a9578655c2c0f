"""The tokenizer: fitted on a cohort's train split, kept as one readable JSON file."""

import itertools
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Cohort, Covariate, Schema
from synehrgy.errors import UserError, nearest
from synehrgy.files import read_json, write_text
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer.bins import Edges, fit_edges
from synehrgy.tokenizer.grammar import GAP, SPECIAL, START, Grammar, record_grammar

TOKENIZER_VERSION = 1

# A bin of a series and its neighbours up to this far share the target of soft labels.
SOFT_REACH = 3


def covariate_kind(name: str) -> str:
    """The kind of token that states a covariate."""
    return f"covariate:{name}"


def label_kind(column: str) -> str:
    """The kind of token that states a label."""
    return f"label:{column}"


def system_kind(name: str) -> str:
    """The kind of token that states a code of a system."""
    return f"code:{name}"


def variable_kind(name: str) -> str:
    """The kind of token that states a value of a variable."""
    return f"variable:{name}"


@dataclass(frozen=True)
class Tokenizer:
    """What is needed to turn records into tokens and back, and nothing else.

    Tokens of one kind are numbered without a break: token ``first[kind] + i`` is the i-th bin,
    level or code of its kind.

    Attributes:
        schema: the declared columns of the cohort it was fitted on.
        settings: how it was fitted.
        covariate_edges, variable_edges: bin edges by name, of the continuous ones that the train
            split has values of. Years, hours or the declared unit.
        codes: the codes kept, by system, in alphabetical order.
        nullable: covariates that may be missing; these have a token that says so.
    """

    schema: Schema
    settings: TokenSettings
    covariate_edges: dict[str, Edges]
    variable_edges: dict[str, Edges]
    codes: dict[str, list[str]]
    nullable: list[str] = field(default_factory=list)

    @classmethod
    def fit(cls, cohort: Cohort, settings: TokenSettings | None = None) -> "Tokenizer":
        """Learn vocabulary and bin edges from the train split.

        Whether a covariate may be missing is asked of the whole cohort, so that every stay can be
        encoded.

        Raises:
            UserError: no patient in the train split, or edges that do not ascend.
        """
        settings = settings or TokenSettings()
        schema = cohort.schema
        train = cohort.select(split="train")
        if not len(train.stays):
            raise UserError(f"Cohort {schema.name!r} has no stay in the train split to fit on.")
        _check_edges("gap_edges", settings.gap_edges)
        if settings.gap_edges[0] < 0:
            raise UserError(f"preprocess.gap_edges begin below 0: {settings.gap_edges}.")

        numbers = {c.name for c in schema.covariates if c.kind == "continuous"}
        # The default edges may name a covariate that this cohort lacks; others are a mistake.
        for name in settings.covariate_edges.keys() - TokenSettings().covariate_edges.keys():
            if name not in numbers:
                raise UserError(
                    f"preprocess.covariate_edges.{name}: the cohort has no continuous covariate "
                    f"of this name.{nearest(name, numbers)}"
                )

        def fitted(values: pd.Series) -> Edges:
            return fit_edges(
                values.dropna(), settings.bin_type, settings.n_bins, settings.outlier_rule
            )

        covariate_edges = {}
        for covariate in schema.covariates:
            if covariate.kind == "continuous":
                given = settings.covariate_edges.get(covariate.name)
                if given is not None:
                    _check_edges(f"covariate_edges.{covariate.name}", given)
                    covariate_edges[covariate.name] = np.array(given, dtype=np.float64)
                elif train.stays[covariate.name].notna().any():
                    covariate_edges[covariate.name] = fitted(train.stays[covariate.name])
        values = train.measurements.groupby("variable", observed=True)["value"]
        continuous = {v.name for v in schema.variables_of("continuous")}
        edges = {str(n): fitted(v) for n, v in values if n in continuous}
        # The order of the groups is that of the rows' categories, which the file must not show.
        variable_edges = dict(sorted(edges.items()))
        counts = train.codes.groupby(["system", "code"], observed=True).size()
        kept = counts[counts >= settings.min_code_count].index
        codes: dict[str, list[str]] = {system.name: [] for system in schema.code_systems}
        for system, code in kept:
            codes[system].append(code)
        nullable = [c.name for c in schema.covariates if cohort.stays[c.name].isna().any()]
        return cls(
            schema,
            settings,
            covariate_edges,
            variable_edges,
            {system: sorted(found) for system, found in codes.items()},
            nullable,
        )

    @cached_property
    def variables(self) -> list[str]:
        """Names of the series in the order of a timestep: categorical first, alphabetically."""
        ordered = sorted(self.schema.variables, key=lambda v: (v.kind == "continuous", v.name))
        return [v.name for v in ordered]

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Readable text of every token, by kind, in vocabulary order."""
        names: dict[str, list[str]] = {special: [special] for special in SPECIAL}
        for covariate in self.schema.covariates:
            texts = self._covariate_names(covariate)
            if covariate.name in self.nullable:
                texts = [*texts, "missing"]
            kind = covariate_kind(covariate.name)
            names[kind] = [f"{covariate.name}={text}" for text in texts]
        for label in self.schema.labels_of("outcome"):
            names[label_kind(label.column)] = [f"{label.column}={state}" for state in (0, 1)]
        for label in self.schema.labels_of("phenotype"):
            names[label_kind(label.column)] = [label.column]
        for system, codes in self.codes.items():
            names[system_kind(system)] = [f"{system}:{code}" for code in codes]
        levels = {v.name: v.levels for v in self.schema.variables_of("categorical")}
        for variable in self.variables:
            texts = levels.get(variable) or _intervals(self.variable_edges.get(variable))
            names[variable_kind(variable)] = [f"{variable}={text}" for text in texts]
        names[GAP] = [f"{GAP}={text} h" for text in _intervals(self.gap_edges)]
        return names

    def _covariate_names(self, covariate: Covariate) -> list[str]:
        return covariate.levels or _intervals(self.covariate_edges.get(covariate.name))

    @cached_property
    def gap_edges(self) -> Edges:
        """Edges of the time between two time points, in hours."""
        return np.array(self.settings.gap_edges, dtype=np.float64)

    @cached_property
    def grammar(self) -> Grammar:
        """The automaton of this tokenizer's records."""
        return record_grammar(
            [covariate_kind(c.name) for c in self.schema.covariates],
            [label_kind(label.column) for label in self.schema.labels_of("outcome")],
            [label_kind(label.column) for label in self.schema.labels_of("phenotype")],
            [system_kind(system) for system in self.codes],
            [variable_kind(variable) for variable in self.variables],
            empty=[kind for kind, names in self._names.items() if not names],
        )

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

    @property
    def shortest_record(self) -> int:
        """Tokens of the shortest valid record: one admission with nothing optional in it."""
        return 1 + int(self.grammar.distance[self.grammar.index(START)])

    def token(self, kind: str) -> int:
        """Number of the first token of a kind; of a special token, its number."""
        return int(self.first[self.grammar.index(kind)])

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer that holds every token."""
        return np.dtype(np.uint16 if len(self.vocabulary) <= 2**16 else np.uint32)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Tokens that may follow a token of each kind, shape [kind, vocabulary]."""
        return self.grammar.follows[:, self.kind_of]

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
        continuous = {variable_kind(name) for name in self.variable_edges}
        soft = np.array([kind in continuous for kind in self.grammar.kinds])[self.kind_of]
        tokens = np.arange(len(self.vocabulary))[:, None] + steps
        low = self.first[self.kind_of][:, None]
        high = low + self.size[self.kind_of][:, None]
        inside = (tokens >= low) & (tokens < high) & (soft[:, None] | (steps == 0))
        weights = np.where(inside, np.exp(-0.5 * steps**2.0), 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.where(inside, tokens, 0), weights.astype(np.float32)

    def to_json(self) -> str:
        """The whole tokenizer as text; the same tokenizer gives the same text."""
        content = {
            "tokenizer_version": TOKENIZER_VERSION,
            "schema": self.schema.to_dict(),
            "settings": asdict(self.settings),
            "covariate_edges": {k: v.tolist() for k, v in self.covariate_edges.items()},
            "variable_edges": {k: v.tolist() for k, v in self.variable_edges.items()},
            "codes": self.codes,
            "nullable": self.nullable,
            "vocabulary": self.vocabulary,
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON file in one step."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.

        Raises:
            UserError: a missing, damaged or edited file, or a version newer than this program's.
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
        try:
            tokenizer = cls(
                Schema.from_dict(content["schema"], str(path)),
                TokenSettings(**content["settings"]),
                {k: np.array(v, dtype=np.float64) for k, v in content["covariate_edges"].items()},
                {k: np.array(v, dtype=np.float64) for k, v in content["variable_edges"].items()},
                content["codes"],
                content["nullable"],
            )
            whole = tokenizer.vocabulary == content["vocabulary"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {error!r}. Run preprocess.py again.") from error
        if not whole:
            raise UserError(
                f"{path} is damaged: its vocabulary does not follow from its bins, codes and "
                "schema. Run preprocess.py again."
            )
        return tokenizer


def _intervals(edges: Edges | None) -> list[str]:
    if edges is None:
        return []
    return [f"({low:.6g}, {high:.6g}]" for low, high in itertools.pairwise(edges)]


def _check_edges(name: str, edges: list[float]) -> None:
    if len(edges) < 2 or not np.all(np.diff(edges) > 0) or not np.all(np.isfinite(edges)):
        raise UserError(f"preprocess.{name} must be at least two ascending numbers, got {edges}.")
