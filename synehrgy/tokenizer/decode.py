"""Tokens to cohort tables, vectorised over all records."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import SPLITS, Cohort
from synehrgy.draws import uniforms
from synehrgy.errors import UserError
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.bins import draw_values
from synehrgy.tokenizer.encode import Records
from synehrgy.tokenizer.tokenizer import (
    Tokenizer,
    covariate_kind,
    label_kind,
    system_kind,
    variable_kind,
)

# Which use of the random numbers is meant, next to those of the sampler.
VALUE_STREAM = 1
COVARIATE_STREAM = 3


@dataclass(frozen=True)
class Fault:
    """Where and why a token sequence is not a record.

    Attributes:
        record: index of the record.
        position: index of the first wrong token within it.
        reason: in words.
    """

    record: int
    position: int
    reason: str


def find_faults(tokenizer: Tokenizer, records: Records) -> list[Fault]:
    """The first fault of each record that the grammar does not accept; empty if all are valid."""
    vocabulary, grammar = tokenizer.vocabulary, tokenizer.grammar
    tokens, offsets = records.tokens.astype(np.int64), records.offsets
    faults: dict[int, Fault] = {}

    def add(record: int, position: int, reason: str) -> None:
        if record not in faults or position < faults[record].position:
            faults[record] = Fault(record, position, reason)

    unknown = np.flatnonzero(tokens >= len(vocabulary))
    owner = np.repeat(np.arange(len(records)), records.lengths)
    for at in unknown:
        add(int(owner[at]), int(at - offsets[owner[at]]), f"token {tokens[at]} does not exist")
    kind = tokenizer.kind_of[np.where(tokens < len(vocabulary), tokens, 0)]
    for empty in np.flatnonzero(records.lengths == 0):
        add(int(empty), 0, "it has no tokens")
    filled = np.flatnonzero(records.lengths > 0)
    begins, ends = offsets[:-1][filled], offsets[1:][filled] - 1
    for i in np.flatnonzero(kind[begins] != grammar.index(g.START)):
        add(int(filled[i]), 0, f"it begins with {vocabulary[tokens[begins[i]]]!r}")
    for i in np.flatnonzero(kind[ends] != grammar.index(g.END)):
        last = vocabulary[tokens[ends[i]]] if tokens[ends[i]] < len(vocabulary) else "?"
        add(int(filled[i]), int(ends[i] - begins[i]), f"it ends with {last!r}, not {g.END!r}")
    broken = ~grammar.follows[kind[:-1], kind[1:]] & (np.diff(owner) == 0)
    for at in np.flatnonzero(broken):
        this, then = (vocabulary[t] if t < len(vocabulary) else "?" for t in tokens[at : at + 2])
        record = int(owner[at])
        add(record, int(at + 1 - offsets[record]), f"{then!r} cannot follow {this!r}")
    return [faults[record] for record in sorted(faults)]


def decode(
    tokenizer: Tokenizer,
    records: Records,
    seed: int = 0,
    first_record: int = 0,
    first_stay_id: int = 1,
) -> Cohort:
    """Turn records back into tables.

    Values, covariates and gaps are drawn uniformly inside their bins; the draws belong to (seed,
    number of the record, position in it), those of a covariate to (seed, number of the record,
    covariate). Times are the sums of the gaps. The length of a stay is
    its last time point, because a record states no other; it is empty for a stay without series.

    Args:
        tokenizer: the one that the records were made with.
        records: valid records.
        seed: of the draws.
        first_record: number of the first record, for the draws.
        first_stay_id: stays are numbered from here.

    Returns:
        A cohort with the records' subjects and splits, ``hadm_id`` empty.

    Raises:
        UserError: a record that the grammar does not accept.
    """
    faults = find_faults(tokenizer, records)
    if faults:
        raise UserError(
            f"{len(faults)} of {len(records)} token sequences are no records; number "
            f"{faults[0].record}, token {faults[0].position}: {faults[0].reason}."
        )
    grammar, schema = tokenizer.grammar, tokenizer.schema
    tokens = records.tokens.astype(np.int64)
    kind = tokenizer.kind_of[tokens]
    index = tokens - tokenizer.first[kind]
    record = np.repeat(np.arange(len(records)), records.lengths)
    position = np.arange(len(tokens)) - records.offsets[record]
    admission_end = kind == grammar.index(g.END_ADMISSION)
    # The stay that each token belongs to; <s> and </s> stand between stays and do not matter.
    stay = np.cumsum(admission_end) - admission_end
    n_stays = int(admission_end.sum())

    def of_kind(name: str) -> NDArray[np.int64]:
        return np.flatnonzero(kind == grammar.index(name))

    def drawn(
        at: NDArray[np.int64], edges: NDArray[np.float64], margin: float = 0.0
    ) -> NDArray[np.float64]:
        u = uniforms(seed, VALUE_STREAM, record[at] + first_record, position[at])
        return draw_values(index[at], edges, margin + u * (1 - 2 * margin))

    stay_id = first_stay_id + np.arange(n_stays)
    stay_record = record[admission_end]
    split = np.array([*SPLITS, None], dtype=object)[records.splits[stay_record]]
    columns: dict[str, object] = {
        "subject_id": records.subject_ids[stay_record],
        "stay_id": stay_id,
        "hadm_id": pd.array([None] * n_stays, dtype="Int64"),
        "stay_index": pd.Series(stay_record).groupby(stay_record).cumcount().astype("int32"),
        "split": pd.Series(split, dtype="object"),
    }
    for number, covariate in enumerate(schema.covariates):
        at = of_kind(covariate_kind(covariate.name))
        edges = tokenizer.covariate_edges.get(covariate.name)
        if covariate.kind == "categorical":
            names = np.array([*covariate.levels, None], dtype=object)
            columns[covariate.name] = pd.Series(names[index[at]], dtype="object")
        else:
            value = np.full(n_stays, np.nan)
            if edges is not None:
                present = index[at] < len(edges) - 1
                # One draw for all stays of a patient, so that age does not fall within its bin.
                who = record[at[present]] + first_record
                u = uniforms(seed, COVARIATE_STREAM, who, number)
                value[present] = draw_values(index[at[present]], edges, u)
            columns[covariate.name] = value
    for label in schema.labels:
        at = of_kind(label_kind(label.column))
        state = np.zeros(n_stays, dtype=np.int8)
        state[stay[at]] = index[at] if label.kind == "outcome" else 1
        columns[label.column] = state

    rank = {system_kind(system): codes for system, codes in tokenizer.codes.items()}
    at = np.flatnonzero(np.isin(kind, [grammar.index(name) for name in rank]))
    all_codes = np.array([c for codes in rank.values() for c in codes], dtype=object)
    systems = np.repeat(np.array(list(tokenizer.codes), dtype=object), [*map(len, rank.values())])
    first_code = tokenizer.token(next(iter(rank))) if rank else 0
    code = tokens[at] - first_code
    codes_frame = pd.DataFrame(
        {
            "stay_id": stay_id[stay[at]],
            "position": pd.Series(stay[at]).groupby(stay[at]).cumcount().astype("int32"),
            "system": pd.Categorical(systems[code]),
            "code": pd.Categorical(all_codes[code]),
        }
    )

    gaps = of_kind(g.GAP)
    gap_stay = stay[gaps]
    # The margin keeps a difference of two sums inside the bin that the gap was drawn from.
    gap_hours = drawn(gaps, tokenizer.gap_edges, margin=1e-4)
    elapsed = pd.Series(gap_hours).groupby(gap_stay).cumsum().to_numpy()
    last_gap = np.flatnonzero(np.append(np.diff(gap_stay) != 0, True)) if len(gaps) else gaps
    los = np.full(n_stays, np.nan)
    los[gap_stay[last_gap]] = elapsed[last_gap]
    columns["los_hours"] = los

    measurements = _measurements(tokenizer, kind, index, drawn)
    at = measurements["at"].to_numpy()
    measurements["stay_id"] = stay_id[stay[at]]
    # A timestep ends with its gap: the values take the time of the next gap.
    measurements["hours"] = elapsed[np.searchsorted(gaps, at)] if len(at) else np.empty(0)
    by = (measurements["variable"].cat.codes, measurements["hours"], measurements["stay_id"])
    measurements = measurements.take(np.lexsort(by)).reset_index(drop=True)
    return Cohort(
        schema,
        pd.DataFrame(columns),
        codes_frame,
        measurements[["stay_id", "hours", "variable", "value", "level"]],
    )


def _measurements(
    tokenizer: Tokenizer,
    kind: NDArray[np.int64],
    index: NDArray[np.int64],
    drawn: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]],
) -> pd.DataFrame:
    """Columns ``at`` (position among all tokens), ``variable``, ``value`` and ``level``."""
    grammar = tokenizer.grammar
    names = sorted(tokenizer.variables)
    levels = {v.name: v.levels for v in tokenizer.schema.variables_of("categorical")}
    all_levels = sorted({level for found in levels.values() for level in found})
    # Alphabetical place of each kind of token among the variables, -1 for other kinds.
    place = np.full(len(grammar.kinds), -1, dtype=np.int64)
    for i, name in enumerate(names):
        place[grammar.index(variable_kind(name))] = i
    at = np.flatnonzero(place[kind] >= 0)
    variable = place[kind[at]]
    value = np.full(len(at), np.nan)
    level = np.full(len(at), -1, dtype=np.int64)
    order = np.argsort(variable, kind="stable")
    starts = np.searchsorted(variable[order], np.arange(len(names) + 1))
    for i, name in enumerate(names):
        mine = order[starts[i] : starts[i + 1]]
        if name in levels:
            level[mine] = pd.Index(all_levels).get_indexer(pd.Index(levels[name]))[index[at[mine]]]
        elif name in tokenizer.variable_edges:
            value[mine] = drawn(at[mine], tokenizer.variable_edges[name])
    return pd.DataFrame(
        {
            "at": at,
            "variable": pd.Categorical.from_codes(variable, categories=pd.Index(names)),
            "value": value,
            "level": pd.Categorical.from_codes(level, categories=pd.Index(all_levels)),
        }
    )
