"""Cohort to tokens, vectorised over the whole cohort."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import SPLITS, Cohort
from synehrgy.errors import UserError
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.bins import find_bins, n_outside
from synehrgy.tokenizer.tokenizer import (
    Tokenizer,
    covariate_kind,
    label_kind,
    system_kind,
    variable_kind,
)

NO_SPLIT = -1


@dataclass(frozen=True)
class Records:
    """Token sequences, one per patient.

    Attributes:
        tokens: all records one after the other.
        offsets: int64 [n + 1]; record i is ``tokens[offsets[i]:offsets[i + 1]]``.
        subject_ids: int64 [n].
        splits: int8 [n]; index into ``SPLITS``, -1 for none.
        dropped: rows of the cohort that have no token, by reason.
        clipped: numbers outside the edges, which are now in the first or last bin, by what they
            are.
    """

    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    subject_ids: NDArray[np.int64]
    splits: NDArray[np.int8]
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.subject_ids)

    def __getitem__(self, i: int) -> NDArray[np.unsignedinteger]:
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each record."""
        return np.diff(self.offsets)


def encode(tokenizer: Tokenizer, cohort: Cohort) -> Records:
    """Turn every patient of a cohort into tokens.

    Codes that the vocabulary does not have, and values of series or covariates that the train
    split never saw, have no token; they are counted in ``Records.dropped``. A timestep left
    without a value is skipped, and the next gap spans it.

    Raises:
        UserError: a cohort whose schema is not the tokenizer's, or a missing covariate where the
            tokenizer was fitted on a cohort that has none missing.
    """
    _check_schema(tokenizer, cohort)
    stays = cohort.stays
    n = len(stays)
    clipped: dict[str, int] = {}
    covariates, dropped_covariates = _covariate_tokens(tokenizer, stays, clipped)
    outcomes = _outcome_tokens(tokenizer, stays)
    positive, phenotypes = _phenotype_tokens(tokenizer, stays)
    code_stay, code_tokens, dropped_codes = _code_tokens(tokenizer, cohort)
    series_stay, series_tokens, dropped_values = _series_tokens(tokenizer, cohort, clipped)

    n_codes = np.bincount(code_stay, minlength=n)
    n_series = np.bincount(series_stay, minlength=n)
    n_labels = outcomes.shape[1] + positive.sum(axis=1)
    sections = [
        np.full(n, covariates.shape[1]),
        n_labels,
        n_codes,
        n_series,
        np.zeros(n, dtype=np.int64),
    ]
    closers = [g.END_COVARIATES, g.END_LABELS, g.END_CODES, g.END_SERIES, g.END_ADMISSION]

    new_patient = np.ones(n, dtype=bool)
    new_patient[1:] = np.diff(stays["subject_id"]) != 0
    patient = np.cumsum(new_patient) - 1
    stay_length = np.sum(sections, axis=0, dtype=np.int64) + len(sections)
    # Each record adds <s> before its first admission and </s> after its last.
    stay_start = np.cumsum(stay_length) - stay_length + 2 * patient + 1
    n_patients = int(patient[-1]) + 1 if n else 0
    lengths = np.bincount(patient, stay_length, minlength=n_patients).astype(np.int64) + 2
    offsets = np.concatenate([[0], np.cumsum(lengths)])

    tokens = np.empty(int(offsets[-1]), dtype=tokenizer.dtype)
    tokens[offsets[:-1]] = tokenizer.token(g.START)
    tokens[offsets[1:] - 1] = tokenizer.token(g.END)
    start = stay_start
    contents = [
        (np.repeat(np.arange(n), covariates.shape[1]), covariates.reshape(-1)),
        _labels_in_order(outcomes, positive, phenotypes),
        (code_stay, code_tokens),
        (series_stay, series_tokens),
        (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)),
    ]
    for length, closer, (stay, section) in zip(sections, closers, contents, strict=True):
        rank = np.arange(len(stay)) - (np.cumsum(length) - length)[stay]
        tokens[start[stay] + rank] = section
        start = start + length
        tokens[start] = tokenizer.token(closer)
        start = start + 1

    split = pd.Categorical(stays["split"], categories=list(SPLITS)).codes[new_patient]
    return Records(
        tokens,
        offsets,
        stays["subject_id"].to_numpy()[new_patient],
        split.astype(np.int8),
        {
            "codes not in the vocabulary": dropped_codes,
            "values of series unseen in training": dropped_values,
            "covariates unseen in training (encoded as missing)": dropped_covariates,
        },
        clipped,
    )


def _check_schema(tokenizer: Tokenizer, cohort: Cohort) -> None:
    for part in ("covariates", "labels", "variables", "code_systems"):
        mine, theirs = getattr(tokenizer.schema, part), getattr(cohort.schema, part)
        if mine != theirs:
            raise UserError(
                f"Cohort {cohort.schema.name!r} declares other {part.replace('_', ' ')} than the "
                f"tokenizer (fitted on {tokenizer.schema.name!r}). Fit a tokenizer on this cohort."
            )


def _covariate_tokens(
    tokenizer: Tokenizer, stays: pd.DataFrame, clipped: dict[str, int]
) -> tuple[NDArray[np.int64], int]:
    """Tokens, shape [stay, covariate], and how many values had to be encoded as missing."""
    columns = []
    unseen = 0
    for covariate in tokenizer.schema.covariates:
        column, missing = stays[covariate.name], stays[covariate.name].isna().to_numpy()
        kind = tokenizer.grammar.index(covariate_kind(covariate.name))
        if missing.any() and covariate.name not in tokenizer.nullable:
            raise UserError(
                f"stays.{covariate.name} is empty in row {int(missing.argmax())}, but the "
                "tokenizer was fitted on a cohort where it never is. Fit it on this cohort."
            )
        edges = tokenizer.covariate_edges.get(covariate.name)
        if covariate.kind == "categorical":
            found = pd.Categorical(column, categories=covariate.levels).codes.astype(np.int64)
        elif edges is None:
            found = np.zeros(len(stays), dtype=np.int64)
            unseen += int((~missing).sum())
            missing = np.ones(len(stays), dtype=bool)
        else:
            found = find_bins(column.fillna(edges[0]), edges)
            clipped[covariate.name] = n_outside(column, edges)
        # The token that says "missing" is the last of its kind.
        found = np.where(missing, tokenizer.size[kind] - 1, found)
        columns.append(tokenizer.first[kind] + found)
    return np.array(columns, dtype=np.int64).reshape(len(columns), len(stays)).T, unseen


def _outcome_tokens(tokenizer: Tokenizer, stays: pd.DataFrame) -> NDArray[np.int64]:
    """Shape [stay, outcome]."""
    labels = tokenizer.schema.labels_of("outcome")
    # In int64: the labels' own int8 has no room for the numbers of tokens.
    states = [stays[label.column].to_numpy(dtype=np.int64) for label in labels]
    columns = [
        tokenizer.token(label_kind(label.column)) + state
        for label, state in zip(labels, states, strict=True)
    ]
    return np.array(columns, dtype=np.int64).reshape(len(columns), len(stays)).T


def _phenotype_tokens(
    tokenizer: Tokenizer, stays: pd.DataFrame
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which stays have which phenotype, shape [stay, phenotype], and the token of each."""
    columns = [label.column for label in tokenizer.schema.labels_of("phenotype")]
    tokens = np.array([tokenizer.token(label_kind(c)) for c in columns], dtype=np.int64)
    return stays[columns].to_numpy(dtype=bool), tokens


def _labels_in_order(
    outcomes: NDArray[np.int64], positive: NDArray[np.bool_], phenotypes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    said = np.concatenate([np.ones(outcomes.shape, dtype=bool), positive], axis=1)
    every = np.concatenate([outcomes, np.broadcast_to(phenotypes, positive.shape)], axis=1)
    return np.nonzero(said)[0], every[said]


def _code_tokens(
    tokenizer: Tokenizer, cohort: Cohort
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Row of the stay and token of each code, in record order, and how many have none."""
    codes = cohort.codes
    stay = pd.Index(cohort.stays["stay_id"]).get_indexer(codes["stay_id"])
    token = np.full(len(codes), -1, dtype=np.int64)
    system_rank = np.zeros(len(codes), dtype=np.int64)
    category = codes["code"].astype("category").cat
    for rank, (system, kept) in enumerate(tokenizer.codes.items()):
        mine = (codes["system"] == system).to_numpy()
        found = pd.Index(kept).get_indexer(category.categories)
        found = np.where(found < 0, -1, found + tokenizer.token(system_kind(system)))
        token[mine] = found[category.codes.to_numpy()[mine]]
        system_rank[mine] = rank
    kept_rows = np.flatnonzero(token >= 0)
    # The sort is stable, so codes of a system stay in their order of listing.
    order = np.lexsort((system_rank[kept_rows], stay[kept_rows]))
    kept_rows = kept_rows[order]
    return stay[kept_rows], token[kept_rows], len(codes) - len(kept_rows)


def _series_tokens(
    tokenizer: Tokenizer, cohort: Cohort, clipped: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Row of the stay and token of each value and gap, in record order, and values with none."""
    rows = cohort.measurements
    variable = rows["variable"].astype("category").cat
    place = pd.Index(tokenizer.variables).get_indexer(variable.categories)
    place = np.append(place, -1)[variable.codes.to_numpy()]
    token = _value_tokens(tokenizer, rows, place, clipped)

    kept = np.flatnonzero(token >= 0)
    dropped = len(rows) - len(kept)
    if not len(kept):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), dropped
    token, place = token[kept], place[kept]
    stay = pd.Index(cohort.stays["stay_id"]).get_indexer(rows["stay_id"])[kept]
    hours = rows["hours"].to_numpy()[kept]

    new_stay = np.ones(len(kept), dtype=bool)
    new_stay[1:] = np.diff(stay) != 0
    new_point = new_stay.copy()
    new_point[1:] |= np.diff(hours) != 0
    point = np.cumsum(new_point) - 1
    within = np.argsort(point * len(tokenizer.variables) + place, kind="stable")
    token = token[within]

    first_row = np.flatnonzero(new_point)
    since = np.where(new_stay[first_row], 0.0, np.roll(hours[first_row], 1))
    elapsed = hours[first_row] - since
    gap = tokenizer.token(g.GAP) + find_bins(elapsed, tokenizer.gap_edges)
    clipped["gaps"] = n_outside(elapsed, tokenizer.gap_edges)

    # Values move back by one place for each gap that stands before them.
    out_token = np.empty(len(kept) + len(first_row), dtype=np.int64)
    out_stay = np.empty_like(out_token)
    value_at = np.arange(len(kept)) + point
    gap_at = np.append(first_row[1:], len(kept)) + np.arange(len(first_row))
    out_token[value_at], out_stay[value_at] = token, stay
    out_token[gap_at], out_stay[gap_at] = gap, stay[first_row]
    return out_stay, out_token, dropped


def _value_tokens(
    tokenizer: Tokenizer, rows: pd.DataFrame, place: NDArray[np.int64], clipped: dict[str, int]
) -> NDArray[np.int64]:
    """Token of each row of measurements, -1 where the vocabulary has none."""
    token = np.full(len(rows), -1, dtype=np.int64)
    value = rows["value"].to_numpy()
    level = rows["level"].astype("category").cat
    levels = {v.name: v.levels for v in tokenizer.schema.variables_of("categorical")}
    # One sort, so that each variable's rows are a slice instead of a scan of all rows.
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(tokenizer.variables) + 1))
    for i, name in enumerate(tokenizer.variables):
        mine = order[starts[i] : starts[i + 1]]
        first = tokenizer.token(variable_kind(name))
        if name in levels:
            index = pd.Index(levels[name]).get_indexer(level.categories)
            token[mine] = first + index[level.codes.to_numpy()[mine]]
        elif name in tokenizer.variable_edges:
            edges = tokenizer.variable_edges[name]
            token[mine] = first + find_bins(value[mine], edges)
            clipped["values"] = clipped.get("values", 0) + n_outside(value[mine], edges)
    return token
