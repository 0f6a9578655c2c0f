"""Cohort to tokens, vectorised over many patients at once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import SPLITS, Cohort
from synehrgy.errors import UserError
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.clock import clock_tokens, gap_hours, to_minutes
from synehrgy.tokenizer.fitting import known_codes
from synehrgy.tokenizer.quantities import Bins
from synehrgy.tokenizer.tokenizer import (
    Tokenizer,
    label_kind,
    missing_kind,
    system_kind,
)

NO_SPLIT = -1

# Rows of measurements that are encoded at a time: bounds the memory, changes no result.
CHUNK_ROWS = 1_000_000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """Token sequences, one per patient.

    Attributes:
        tokens: all records one after the other.
        offsets: int64 [n + 1]; record i is ``tokens[offsets[i]:offsets[i + 1]]``.
        subject_ids: int64 [n].
        splits: int8 [n]; index into ``SPLITS``, -1 for none.
        dropped: rows of the cohort that have no token, by reason.
        changed: rows whose token says less than they did, by reason.
    """

    tokens: NDArray[np.unsignedinteger]
    offsets: Ints
    subject_ids: Ints
    splits: NDArray[np.int8]
    dropped: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.subject_ids)

    def __getitem__(self, i: int) -> NDArray[np.unsignedinteger]:
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> Ints:
        """Tokens of each record."""
        return np.diff(self.offsets)

    def part(self, start: int, stop: int) -> "Records":
        """Records ``start`` to ``stop - 1``; the tokens are a view."""
        low, high = self.offsets[start], self.offsets[stop]
        return replace(
            self,
            tokens=self.tokens[low:high],
            offsets=self.offsets[start : stop + 1] - low,
            subject_ids=self.subject_ids[start:stop],
            splits=self.splits[start:stop],
        )

    def chunks(self, n_tokens: int) -> Iterator[tuple[int, "Records"]]:
        """Parts of about ``n_tokens`` tokens, of at least one record, with their first number."""
        start = 0
        while start < len(self):
            full = int(np.searchsorted(self.offsets, self.offsets[start] + n_tokens, "right")) - 1
            stop = max(full, start + 1)
            yield start, self.part(start, stop)
            start = stop


def joined(parts: Sequence[Records]) -> Records:
    """Records of one tokenizer one after the other, in memory; counts are those of the first."""
    lengths = np.concatenate([part.lengths for part in parts])
    return replace(
        parts[0],
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        subject_ids=np.concatenate([part.subject_ids for part in parts]),
        splits=np.concatenate([part.splits for part in parts]),
    )


@dataclass
class Section:
    """A part of each admission: its tokens in record order, and the row of the stay of each."""

    stay: Ints
    tokens: Ints


@dataclass
class Counts:
    """What could not be written, or not exactly, by reason."""

    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)


def encode(tokenizer: Tokenizer, cohort: Cohort) -> Records:
    """Turn every patient of a cohort into tokens.

    The cohort may be another than the tokenizer was fitted on. What the vocabulary does not have
    (codes, series, levels, labels) has no token and is counted in ``Records.dropped``; what is
    written less exactly (numbers beyond the bins, codes as their parents) is counted in
    ``Records.changed``. No row changes its meaning.
    A timestep left without a value is skipped, and the next gap spans it.

    Raises:
        UserError: a covariate or label of the tokenizer that the cohort lacks or declares
            otherwise, or a covariate that is missing or unknown where the tokenizer has no token
            that could say so.
    """
    _check_schema(tokenizer, cohort)
    counts = Counts()
    known = {label.column for label in tokenizer.schema.labels}
    for label in cohort.schema.labels:
        if label.column not in known:
            reason = f"states of {label.column!r}, unknown to the tokenizer"
            counts.dropped[reason] += len(cohort.stays)
    chunks = [_encode(tokenizer, part, counts) for part in _chunks(cohort)]
    stays = cohort.stays
    first = stays["stay_index"].to_numpy() == 0
    lengths = [chunk[1] for chunk in chunks]
    split = pd.Categorical(stays["split"], categories=list(SPLITS)).codes[first]
    return Records(
        np.concatenate([np.empty(0, tokenizer.dtype), *(chunk[0] for chunk in chunks)]),
        np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]))]),
        stays["subject_id"].to_numpy()[first],
        split.astype(np.int8),
        dict(counts.dropped),
        dict(counts.changed),
    )


def _check_schema(tokenizer: Tokenizer, cohort: Cohort) -> None:
    """Refuse a cohort in which the same name means something else."""
    who = f"Cohort {cohort.schema.name!r}"
    by_name = {
        part: {item.name: item for item in getattr(cohort.schema, part)}
        for part in ("covariates", "variables")
    }
    for part, items in by_name.items():
        for mine in getattr(tokenizer.schema, part):
            theirs = items.get(mine.name)
            if theirs is None:
                if part == "covariates" and mine.name not in tokenizer.nullable:
                    raise UserError(
                        f"{who} has no covariate {mine.name!r}, and the tokenizer (fitted on "
                        f"{tokenizer.schema.name!r}) no token that says that it is missing."
                    )
            elif (mine.kind, mine.unit) != (theirs.kind, theirs.unit):
                raise UserError(
                    f"{who} declares {part[:-1]} {mine.name!r} as {theirs.kind} in {theirs.unit}, "
                    f"the tokenizer (fitted on {tokenizer.schema.name!r}) as {mine.kind} in "
                    f"{mine.unit}. Bring it to the same unit, or fit a tokenizer on this cohort."
                )
    kinds = {label.column: label.kind for label in cohort.schema.labels}
    for label in tokenizer.schema.labels:
        if kinds.get(label.column) != label.kind:
            raise UserError(
                f"{who} has no {label.kind} {label.column!r}, which the tokenizer (fitted on "
                f"{tokenizer.schema.name!r}) writes for every stay. Fit a tokenizer on this cohort."
            )


def _chunks(cohort: Cohort) -> Iterator[Cohort]:
    """Parts of whole patients with about ``CHUNK_ROWS`` measurements each, in order."""
    stays = cohort.stays
    ends: list[Ints] = []
    for table in (cohort.codes, cohort.measurements):
        rows = _stay_rows(stays, table)
        ends.append(np.cumsum(np.bincount(rows, minlength=len(stays))))
    first = np.flatnonzero(stays["stay_index"].to_numpy() == 0)
    patient_end = np.append(first[1:], len(stays)) - 1
    start = 0
    while start < len(stays):
        before = [int(end[start - 1]) if start else 0 for end in ends]
        fits = patient_end[patient_end >= start]
        last = int(fits[max(0, int(np.searchsorted(ends[1][fits], before[1] + CHUNK_ROWS)) - 1)])
        after = [int(end[last]) for end in ends]
        yield Cohort(
            cohort.schema,
            stays.iloc[start : last + 1].reset_index(drop=True),
            cohort.codes.iloc[before[0] : after[0]],
            cohort.measurements.iloc[before[1] : after[1]],
        )
        start = last + 1


def _stay_rows(stays: pd.DataFrame, table: pd.DataFrame) -> Ints:
    """Row of the stay of each row of a table whose rows stand stay by stay."""
    ids = table["stay_id"].to_numpy()
    if not len(ids):
        return np.empty(0, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ids)) + 1])
    rows = pd.Index(stays["stay_id"]).get_indexer(ids[starts])
    return np.repeat(rows, np.diff(np.append(starts, len(ids)))).astype(np.int64)


def _encode(
    tokenizer: Tokenizer, cohort: Cohort, counts: Counts
) -> tuple[NDArray[np.unsignedinteger], Ints]:
    """Tokens of whole patients, and the length of each record."""
    stays = cohort.stays
    n = len(stays)
    series, last_minute = _series(tokenizer, cohort, counts)
    sections = [
        _covariates(tokenizer, stays, counts),
        _labels(tokenizer, stays),
        _codes(tokenizer, cohort, counts),
        series,
        _lengths_of_stay(tokenizer, stays, last_minute, counts),
    ]
    closers = [g.END_COVARIATES, g.END_LABELS, g.END_CODES, g.END_SERIES, g.END_ADMISSION]

    sizes = [np.bincount(section.stay, minlength=n) for section in sections]
    new_patient = stays["stay_index"].to_numpy() == 0
    patient = np.cumsum(new_patient) - 1
    stay_length = np.sum(sizes, axis=0, dtype=np.int64) + len(sections)
    # Each record adds <s> before its first admission and </s> after its last.
    start = np.cumsum(stay_length) - stay_length + 2 * patient + 1
    lengths = np.bincount(patient, stay_length, minlength=int(new_patient.sum())).astype(np.int64)
    lengths += 2
    ends = np.cumsum(lengths)
    tokens = np.empty(int(ends[-1]) if len(ends) else 0, dtype=tokenizer.dtype)
    tokens[ends - lengths] = tokenizer.token(g.START)
    tokens[ends - 1] = tokenizer.token(g.END)
    for size, closer, section in zip(sizes, closers, sections, strict=True):
        # Tokens of a section stand stay by stay, so they move by the same step within a stay.
        shift = start - (np.cumsum(size) - size)
        tokens[np.arange(len(section.tokens)) + np.repeat(shift, size)] = section.tokens
        start = start + size
        tokens[start] = tokenizer.token(closer)
        start = start + 1
    return tokens, lengths


def _covariates(tokenizer: Tokenizer, stays: pd.DataFrame, counts: Counts) -> Section:
    tokens, used = [], []
    for covariate in tokenizer.schema.covariates:
        name = covariate.name
        column = stays[name] if name in stays else pd.Series([None] * len(stays), dtype=object)
        missing = column.isna().to_numpy()
        unknown = np.zeros(len(stays), dtype=bool)
        first = tokenizer.first_of_covariate(name)
        numbers = tokenizer.covariate_numbers.get(name)
        if covariate.kind == "categorical":
            found = pd.Index(covariate.levels, dtype=object).get_indexer(
                pd.Index(column, dtype=object)
            )
            unknown = (found < 0) & ~missing
        elif numbers is None:
            found = np.zeros(len(stays), dtype=np.int64)
            unknown = ~missing
        else:
            known = column.fillna(0.0).to_numpy(dtype=np.float64)
            counts.changed[_beyond(name, numbers)] += numbers.n_clipped(known[~missing])
            if isinstance(numbers, Bins):
                found = numbers.encode(known)
            else:
                found = numbers.scaled(known)
                rounded = f"{name}: rounded to {numbers.decimals} decimals"
                counts.changed[rounded] += numbers.n_rounded(known[~missing])
        absent = missing | unknown
        if absent.any() and name not in tokenizer.nullable:
            row = int(absent.argmax())
            what = f"is {column.iloc[row]!r}, unknown" if unknown[row] else "is empty"
            raise UserError(
                f"stays.{name} {what} in the row of stay {stays['stay_id'].iloc[row]}, but the "
                "tokenizer was fitted on a cohort where it never is. Fit it on this cohort."
            )
        counts.dropped[f"{name}: unseen in training, encoded as missing"] += int(unknown.sum())
        if isinstance(numbers, Bins) or numbers is None:
            mine, written = (first + found)[:, None], np.ones((len(stays), 1), dtype=bool)
        else:
            mine, written = numbers.encode(found)
            mine = mine + first
        if absent.any():
            mine = np.column_stack([mine, np.full(len(stays), tokenizer.token(missing_kind(name)))])
            written = np.column_stack([written & ~absent[:, None], absent])
        tokens.append(mine)
        used.append(written)
    return _stacked(tokens, used, len(stays))


def _stacked(tokens: list[Ints], used: list[NDArray[np.bool_]], n: int) -> Section:
    """The used tokens of each row, from left to right."""
    chosen = np.concatenate([np.empty((n, 0), dtype=bool), *used], axis=1)
    every = np.concatenate([np.empty((n, 0), dtype=np.int64), *tokens], axis=1)
    return Section(np.repeat(np.arange(n), chosen.sum(axis=1)), every[chosen])


def _labels(tokenizer: Tokenizer, stays: pd.DataFrame) -> Section:
    """Outcomes either way, then the phenotypes that are there."""
    tokens, used = [], []
    for kind in ("outcome", "phenotype"):
        for label in tokenizer.schema.labels_of(kind):
            # In int64: the labels' own int8 has no room for the numbers of tokens.
            state = stays[label.column].to_numpy(dtype=np.int64)
            token = tokenizer.token(label_kind(label.column))
            tokens.append((token + (state if kind == "outcome" else 0 * state))[:, None])
            used.append((state == state if kind == "outcome" else state == 1)[:, None])
    return _stacked(tokens, used, len(stays))


def _codes(tokenizer: Tokenizer, cohort: Cohort, counts: Counts) -> Section:
    codes = cohort.codes
    stay = _stay_rows(cohort.stays, codes)
    place = np.full(len(codes), -1, dtype=np.int64)
    first = np.zeros(len(codes), dtype=np.int64)
    rank = np.zeros(len(codes), dtype=np.int64)
    code, system = codes["code"].astype("category").cat, codes["system"].astype("category").cat
    to_parent = tokenizer.settings.rare_codes == "parent"
    for number, (name, kept) in enumerate(tokenizer.codes.items()):
        if name not in system.categories:
            continue
        mine = (system.codes == system.categories.get_loc(name)).to_numpy()
        used = np.unique(code.codes[mine])
        found = np.full(len(code.categories), -1, dtype=np.int64)
        found[used] = known_codes(name, code.categories[used], kept, to_parent)
        place[mine] = found[code.codes[mine]]
        first[mine] = tokenizer.token(system_kind(name))
        rank[mine] = number
    counts.dropped["codes not in the vocabulary"] += int((place == -1).sum())
    is_parent = place < -1
    counts.changed["codes written as their ICD parent"] += int(is_parent.sum())
    token = first + np.where(is_parent, -2 - place, place)
    # The sort is stable, so codes of a system stay in their order of listing.
    kept_rows = np.flatnonzero(place != -1)
    kept_rows = kept_rows[np.lexsort((rank[kept_rows], stay[kept_rows]))]
    stay, token = stay[kept_rows], token[kept_rows]
    _, once = np.unique(stay * len(tokenizer.vocabulary) + token, return_index=True)
    counts.dropped["codes repeated within a stay"] += len(token) - len(once)
    once = np.sort(once)
    return Section(stay[once], token[once])


def _lengths_of_stay(
    tokenizer: Tokenizer, stays: pd.DataFrame, last_minute: Ints, counts: Counts
) -> Section:
    """The time from the last time point to the end of each stay; the published form has none."""
    hours = stays["los_hours"].to_numpy(dtype=np.float64)
    known = np.flatnonzero(~np.isnan(hours))
    if not tokenizer.stay_word.kinds:
        counts.dropped["lengths of stay, which these records do not write"] += len(known)
        return Section(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    if len(known) < len(hours) and tokenizer.lengths_of_stay == "all":
        row = int(np.isnan(hours).argmax())
        raise UserError(
            f"stays.los_hours is empty in the row of stay {stays['stay_id'].iloc[row]}, but the "
            "tokenizer was fitted on a cohort where it never is. Fit it on this cohort."
        )
    remaining = to_minutes(hours[known]) - last_minute[known]
    counts.changed["stays that end before their last time point"] += int((remaining < 0).sum())
    tokens, n = clock_tokens(np.maximum(remaining, 0))
    return Section(np.repeat(known, n), tokens + tokenizer.first_of(tokenizer.stay_word))


def _series(tokenizer: Tokenizer, cohort: Cohort, counts: Counts) -> tuple[Section, Ints]:
    """Values and times in record order, and the minute of the last time point of each stay."""
    rows = cohort.measurements
    if tokenizer.no_series:
        counts.dropped["values, as these records have no series"] += len(rows)
        rows = rows[:0]
    n_stays = len(cohort.stays)
    last_minute = np.zeros(n_stays, dtype=np.int64)
    variable = rows["variable"].astype("category").cat
    known = pd.Index(tokenizer.variables).get_indexer(variable.categories)
    # In 16 bits, because sorting these is many times as fast.
    place = np.append(known, -1).astype(np.int16)[variable.codes.to_numpy()]
    for name, missing in zip(variable.categories, known, strict=True):
        if missing < 0 and (n := int((variable.codes == variable.categories.get_loc(name)).sum())):
            counts.dropped[f"values of {name!r}, unknown to the tokenizer"] += n
    token, width, digits = _value_tokens(tokenizer, rows, place, counts)

    kept = np.flatnonzero(width > 0)
    if not len(kept):
        return Section(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)), last_minute
    stay = _stay_rows(cohort.stays, rows)[kept]
    hours = rows["hours"].to_numpy()[kept]
    new_stay = np.concatenate([[True], np.diff(stay) != 0])
    new_point = new_stay | np.concatenate([[True], np.diff(hours) != 0])
    first_row = np.flatnonzero(new_point)
    order = kept[_categorical_first(tokenizer, place[kept], new_point, first_row)]

    starts = new_stay[first_row]
    point_stay = stay[first_row]
    if tokenizer.has_clock:
        minute = to_minutes(hours[first_row])
        last_minute[point_stay] = minute
        passed = np.where(starts, minute, np.diff(minute, prepend=0))
        time, n_time = clock_tokens(passed)
    else:
        passed_hours = gap_hours(starts, hours[first_row])
        time, n_time = tokenizer.gaps.encode(passed_hours), np.ones(len(first_row), dtype=np.int64)
        counts.changed["gaps beyond their bins"] += tokenizer.gaps.n_clipped(passed_hours)
    time = time + tokenizer.first_of(tokenizer.time_word)

    # Values move back by the times that stand before them, times by the values up to them.
    size = width[order]
    values_before = np.cumsum(size)
    time_before = np.cumsum(n_time) - n_time
    row_end = np.append(first_row[1:], len(kept)) - 1
    out = np.empty(int(values_before[-1]) + len(time), dtype=np.int64)
    at = values_before - size + np.repeat(time_before, np.diff(np.append(first_row, len(kept))))
    out[at] = token[order]
    for mine, tokens, used in digits:
        place_of_row = np.full(len(rows), -1, dtype=np.int64)
        place_of_row[order] = at
        # Columns that are not used stand to the left of those that are, or between sign and digit.
        column = np.cumsum(used, axis=1) - 1
        out[(place_of_row[mine][:, None] + column)[used]] = tokens[used]
    time_at = np.repeat(values_before[row_end], n_time) + np.arange(len(time))
    out[time_at] = time

    point_size = np.diff(values_before[row_end], prepend=0) + n_time
    return Section(np.repeat(point_stay, point_size), out), last_minute


def _categorical_first(
    tokenizer: Tokenizer, place: NDArray[np.int16], new_point: NDArray[np.bool_], first_row: Ints
) -> Ints:
    """Rows in record order: they stand alphabetically within their point, as the tables do."""
    n_categorical = len(tokenizer.schema.variables_of("categorical"))
    categorical = place < n_categorical
    before: Ints = np.cumsum(categorical, dtype=np.int64) - categorical
    point = np.cumsum(new_point) - 1
    rank: Ints = before - before[first_row][point]
    row = np.arange(len(place))
    in_point = np.add.reduceat(categorical, first_row, dtype=np.int64)
    to = np.where(categorical, first_row[point] + rank, in_point[point] + row - rank)
    order = np.empty_like(row)
    order[to] = row
    return order


def _value_tokens(
    tokenizer: Tokenizer, rows: pd.DataFrame, place: NDArray[np.int16], counts: Counts
) -> tuple[Ints, Ints, list[tuple[Ints, Ints, NDArray[np.bool_]]]]:
    """Token of each row of measurements, and how many it has: 0 where the vocabulary has none.

    Numbers written in digits are given apart: their rows, and the tokens of each with those that
    are used.
    """
    token = np.zeros(len(rows), dtype=np.int64)
    width = np.zeros(len(rows), dtype=np.int64)
    digits = []
    value = rows["value"].to_numpy()
    level = rows["level"].astype("category").cat
    levels = {v.name: v.levels for v in tokenizer.schema.variables_of("categorical")}
    # One sort, so that each variable's rows are a slice instead of a scan of all rows.
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(tokenizer.variables) + 1))
    for i, name in enumerate(tokenizer.variables):
        mine = order[starts[i] : starts[i + 1]]
        if not len(mine):
            continue
        first = tokenizer.first_of_variable(name)
        numbers = tokenizer.variable_numbers.get(name)
        if name in levels:
            index = np.append(pd.Index(levels[name]).get_indexer(level.categories), -1)
            found = index[level.codes.to_numpy()[mine]]
            token[mine], width[mine] = first + found, found >= 0
            counts.dropped[f"values of {name!r} at an unknown level"] += int((found < 0).sum())
        elif numbers is None:
            counts.dropped[f"values of {name!r}, unseen in training"] += len(mine)
        elif isinstance(numbers, Bins):
            token[mine], width[mine] = first + numbers.encode(value[mine]), 1
        else:
            scaled = numbers.scaled(value[mine])
            tokens, used = numbers.encode(scaled)
            digits.append((mine, tokens + first, used))
            rounded = f"values of {name!r} rounded to {numbers.decimals} decimals"
            counts.changed[rounded] += numbers.n_rounded(value[mine])
            width[mine] = numbers.widths(scaled)
        if numbers is not None:
            counts.changed[_beyond("series", numbers)] += numbers.n_clipped(value[mine])
    return token, width, digits


def _beyond(what: str, numbers: object) -> str:
    return f"{what}: beyond the {'bins' if isinstance(numbers, Bins) else 'digits'}"
