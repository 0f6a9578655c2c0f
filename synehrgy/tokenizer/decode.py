"""Tokens to cohort tables, vectorised over many records at once."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import SPLITS, Cohort
from synehrgy.draws import Stream, uniforms
from synehrgy.errors import UserError
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.clock import clock_minutes
from synehrgy.tokenizer.encode import Records
from synehrgy.tokenizer.quantities import Bins, Digits
from synehrgy.tokenizer.tokenizer import (
    Tokenizer,
    label_kind,
    system_kind,
)
from synehrgy.tokenizer.validate import find_faults

# Tokens that are decoded at a time: bounds the memory.
CHUNK_TOKENS = 1_000_000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def decode(
    tokenizer: Tokenizer,
    records: Records,
    seed: int = 0,
    numbers: Ints | None = None,
    first_stay_id: int = 1,
    value_decoding: str = "empirical",
    independent: bool = False,
    settle: bool = False,
) -> Cohort:
    """Turn records back into tables.

    Levels, codes, labels, the minutes of ``time=clock`` and numbers written in digits come back as
    they were. A number written as a bin is drawn inside it; the draws belong to (seed, number of
    the record, position in it), those of a covariate to (seed, number of the record, covariate).

    Args:
        tokenizer: the one that the records were made with.
        records: sequences of the right form.
        seed: of the draws.
        numbers: int64 [records]; numbers of the records, for the draws; default 0, 1, ...
        first_stay_id: stays are numbered from here.
        value_decoding: ``empirical``, ``uniform`` or ``center``; see ``Bins.decode``.
        independent: draw each number by itself, so that a patient does not depend on the others.
            By default the draws of a bin are spread evenly over about a million tokens at a time
            (stratified), which gives the distribution back without the noise of sampling.
        settle: put values of one time point right that contradict each other, as those of models
            may; see ``Relations``.

    Returns:
        A cohort with the records' subjects and splits, ``hadm_id`` empty. With ``time=gap`` the
        length of a stay is its last time point, because the record states no other.

    Raises:
        UserError: a sequence that is no record.
    """
    faults = find_faults(tokenizer, records, rules=False)
    if faults:
        raise UserError(
            f"{len(faults)} of {len(records)} token sequences are no records; number "
            f"{faults[0].record}, token {faults[0].position}: {faults[0].reason}."
        )
    numbers = np.arange(len(records)) if numbers is None else numbers
    chunks = records.chunks(CHUNK_TOKENS) if len(records) else [(0, records)]
    parts = []
    for start, part in chunks:
        decoder = _Decoder(
            *(tokenizer, part, seed, numbers[start : start + len(part)], first_stay_id),
            *(value_decoding, independent, settle),
        )
        parts.append(decoder.run())
        first_stay_id += decoder.n_stays
    tables = [pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True)]
    return Cohort(tokenizer.schema, *tables)


class _Decoder:
    """Decodes the records of a chunk."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        records: Records,
        seed: int,
        numbers: Ints,
        first_stay_id: int,
        how: str,
        independent: bool,
        settle: bool,
    ):
        self.tokenizer, self.records = tokenizer, records
        self.seed, self.numbers = seed, numbers
        self.how, self.independent, self.settle = how, independent, settle
        grammar = tokenizer.grammar
        self.tokens = records.tokens.astype(np.int64)
        self.kind = tokenizer.kind_of.astype(np.int32)[self.tokens]
        ends = self.kind == grammar.index(g.END_ADMISSION)
        # The stay of each token; <s> and </s> stand between stays and do not matter.
        self.stay = np.cumsum(ends) - ends
        self.n_stays = int(ends.sum())
        self.stay_record = np.searchsorted(records.offsets, np.flatnonzero(ends), "right") - 1
        self.stay_id = first_stay_id + np.arange(self.n_stays)
        self.stay_index = _rank_within(self.stay_record)

    def run(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        columns = self._identity() | self._covariates() | self._labels()
        codes = self._codes()
        columns["los_hours"], measurements = self._series()
        return pd.DataFrame(columns), codes, measurements

    def _of(self, first: int, n: int) -> tuple[Ints, Ints]:
        """Positions of the tokens ``first`` to ``first + n - 1``, and which of them each is."""
        at = np.flatnonzero((self.tokens >= first) & (self.tokens < first + n))
        return at, self.tokens[at] - first

    def _identity(self) -> dict[str, object]:
        split = np.array([*SPLITS, None], dtype=object)[self.records.splits[self.stay_record]]
        return {
            "subject_id": self.records.subject_ids[self.stay_record],
            "stay_id": self.stay_id,
            "hadm_id": pd.array([None] * self.n_stays, dtype="Int64"),
            "stay_index": self.stay_index.astype(np.int32),
            "split": pd.Series(split, dtype="object"),
        }

    def _covariates(self) -> dict[str, object]:
        columns: dict[str, object] = {}
        for number, covariate in enumerate(self.tokenizer.schema.covariates):
            word = self.tokenizer.covariate_word(covariate.name)
            # The token that says that it is missing is the last.
            n_stating = self.tokenizer.n_of(word) - (covariate.name in self.tokenizer.nullable)
            at, index = self._of(self.tokenizer.first_of(word), n_stating)
            numbers = self.tokenizer.covariate_numbers.get(covariate.name)
            if covariate.kind == "categorical":
                level = np.full(self.n_stays, None, dtype=object)
                level[self.stay[at]] = np.array(covariate.levels, dtype=object)[index]
                columns[covariate.name] = pd.Series(level, dtype="object")
                continue
            value = np.full(self.n_stays, np.nan)
            if isinstance(numbers, Digits):
                amount, negative = numbers.amounts[index], numbers.negative & (index == 0)
                total = np.bincount(self.stay[at], amount, minlength=self.n_stays)
                below = np.bincount(self.stay[at], negative, minlength=self.n_stays) > 0
                stated = np.unique(self.stay[at])
                signed = np.where(below, -total, total) / 10.0**numbers.decimals
                value[stated] = signed[stated]
            elif numbers is not None:
                u = self._covariate_draws(number, self.stay[at], index)
                value[self.stay[at]] = numbers.decode(index, u, self.how)
                if self.how == "empirical" and covariate.name in self.tokenizer.changes:
                    self._follow(covariate.name, numbers, self.stay[at], index, value)
            columns[covariate.name] = value
        return columns

    def _follow(self, name: str, numbers: Bins, stay: Ints, bins: Ints, value: Floats) -> None:
        """Draw the values of later stays anew, by their change from the stay before, in place."""
        place = self.stay_index[stay]
        u = uniforms(self.seed, Stream.CHANGE, self.numbers[self.stay_record[stay]], place)
        rises = self.tokenizer.rules.get(name) == "rising"
        for index in range(1, int(place.max(initial=0)) + 1):
            here = np.flatnonzero(place == index)
            before, plain = value[stay[here] - 1], value[stay[here]]
            low, high = numbers.bounds(bins[here])
            if rises:
                low = np.minimum(np.fmax(low, before), high)
            drawn = self.tokenizer.changes[name].draw(before, low, high, u[here])
            drawn = np.where(np.isnan(drawn), plain, np.round(drawn, numbers.decimals))
            value[stay[here]] = np.clip(drawn, low, high)

    def _covariate_draws(self, covariate: int, stay: Ints, bins: Ints) -> Floats:
        """One draw for all stays of a patient, so that age does not fall within its bin."""
        record = self.stay_record[stay]
        known, first = np.unique(record, return_index=True)
        u = uniforms(self.seed, Stream.COVARIATE, self.numbers[known], covariate)
        if not self.independent:
            u = stratified(u, bins[first])
        of_record = np.zeros(len(self.records))
        of_record[known] = u
        return of_record[record]

    def _labels(self) -> dict[str, object]:
        columns: dict[str, object] = {}
        for label in self.tokenizer.schema.labels:
            is_outcome = label.kind == "outcome"
            at, index = self._of(self.tokenizer.token(label_kind(label.column)), 1 + is_outcome)
            state = np.zeros(self.n_stays, dtype=np.int8)
            state[self.stay[at]] = index if is_outcome else 1
            columns[label.column] = state
        return columns

    def _codes(self) -> pd.DataFrame:
        systems = self.tokenizer.codes
        names = pd.Index([*systems], dtype=object)
        texts = pd.Index(sorted({code for codes in systems.values() for code in codes}))
        text = np.zeros(len(self.tokenizer.vocabulary), dtype=np.int64)
        system = np.zeros_like(text)
        for i, (name, codes) in enumerate(systems.items()):
            mine = slice(start := self.tokenizer.token(system_kind(name)), start + len(codes))
            text[mine], system[mine] = texts.get_indexer(pd.Index(codes, dtype=object)), i
        at = np.flatnonzero(self.tokenizer.grammar.is_code[self.kind])
        stay, token = self.stay[at], self.tokens[at]
        return pd.DataFrame(
            {
                "stay_id": self.stay_id[stay],
                "position": _rank_within(stay).astype(np.int32),
                "system": pd.Categorical.from_codes(system[token], categories=names),
                "code": pd.Categorical.from_codes(text[token], categories=texts),
            }
        )

    def _series(self) -> tuple[Floats, pd.DataFrame]:
        """Length of each stay, and the measurements."""
        grammar = self.tokenizer.grammar
        is_time = grammar.is_time[self.kind]
        # A timestep ends where its time does.
        closes = is_time & ~np.append(is_time[1:], False)
        closing = np.flatnonzero(closes)
        point_stay = self.stay[closing]
        timing = self._clock_hours if self.tokenizer.has_clock else self._gap_hours
        point_hours, los = timing(np.flatnonzero(is_time), closing)

        variable = grammar.variable[self.kind]
        begins = (variable >= 0) & np.concatenate([[True], variable[1:] != variable[:-1]])
        at = np.flatnonzero(begins)
        point = (np.cumsum(closes) - closes)[at]
        names = self.tokenizer.variables
        ordered = sorted(names)
        alphabetical = pd.Index(ordered, dtype=object).get_indexer(pd.Index(names, dtype=object))
        variable = variable[at]
        value, level, levels = self._values(at, variable)
        if self.settle:
            relations = self.tokenizer.relations
            value, level = relations.settle(names, [*levels], point, variable, value, level)
        place = alphabetical[variable] if len(names) else variable
        order = np.argsort(point * max(len(names), 1) + place, kind="stable")
        point, place = point[order], place[order]
        return los, pd.DataFrame(
            {
                "stay_id": self.stay_id[point_stay[point]],
                "hours": point_hours[point],
                "variable": pd.Categorical.from_codes(
                    place, categories=pd.Index(ordered, dtype=object)
                ),
                "value": value[order],
                "level": pd.Categorical.from_codes(level[order], categories=levels),
            }
        )

    def _values(self, at: Ints, variable: Ints) -> tuple[Floats, Ints, "pd.Index[str]"]:
        """Value and level of each variable token that begins a value; the names of the levels."""
        known = {v.name: v.levels for v in self.tokenizer.schema.variables_of("categorical")}
        levels = pd.Index(sorted({x for found in known.values() for x in found}), dtype=object)
        value = np.full(len(at), np.nan)
        level = np.full(len(at), -1, dtype=np.int64)
        u = self._draws(at)
        order = np.argsort(variable.astype(np.int16), kind="stable")
        names = self.tokenizer.variables
        starts = np.searchsorted(variable[order], np.arange(len(names) + 1))
        for i, name in enumerate(names):
            mine = order[starts[i] : starts[i + 1]]
            if not len(mine):
                continue
            first = self.tokenizer.first_of_variable(name)
            numbers = self.tokenizer.variable_numbers.get(name)
            index = self.tokens[at[mine]] - first
            if name in known:
                level[mine] = levels.get_indexer(pd.Index(known[name], dtype=object))[index]
            elif isinstance(numbers, Bins):
                mine_u = u[mine] if self.independent else stratified(u[mine], index)
                value[mine] = numbers.decode(index, mine_u, self.how)
            elif isinstance(numbers, Digits):
                value[mine] = self._digits(numbers, at[mine], first)
        return value, level, levels

    def _digits(self, numbers: Digits, at: Ints, first: int) -> Floats:
        """Numbers that begin at these positions and go on to the next token of another kind."""
        negative = numbers.negative & (self.tokens[at] == first)
        size = len(numbers.amounts)
        total = np.zeros(len(at), dtype=np.int64)
        open_ = np.ones(len(at), dtype=bool)
        for step in range(numbers.places + 1):
            index = self.tokens[np.minimum(at + step, len(self.tokens) - 1)] - first
            open_ &= (index >= 0) & (index < size)
            total += np.where(open_, numbers.amounts[np.clip(index, 0, size - 1)], 0)
        return np.where(negative, -total, total) / 10.0**numbers.decimals

    def _draws(self, at: Ints) -> Floats:
        """A uniform number for each of these positions."""
        record = np.searchsorted(self.records.offsets, at, side="right") - 1
        position = at - self.records.offsets[record]
        return uniforms(self.seed, Stream.VALUE, self.numbers[record], position)

    def _gap_hours(self, time: Ints, closing: Ints) -> tuple[Floats, Floats]:
        """Hours of each time point as the sum of its gaps, and of the last one of each stay."""
        bins = self.tokens[time] - self.tokenizer.first_of(self.tokenizer.time_word)
        u = self._draws(time) if self.independent else stratified(self._draws(time), bins)
        # The margin keeps a difference of two sums inside the bin that the gap was drawn from.
        gaps = self.tokenizer.gaps.decode(bins, 1e-4 + u * (1 - 2e-4), self.how)
        stay = self.stay[closing]
        # Only the first time point may be that of admission; the others come one after the other.
        least = min(1 / 60, float(self.tokenizer.gaps.edges[1]))
        gaps = np.where(_rank_within(stay) > 0, np.maximum(gaps, least), gaps)
        hours = _sum_within(gaps, stay)
        los = np.full(self.n_stays, np.nan)
        los[stay] = hours
        return hours, los

    def _clock_hours(self, time: Ints, closing: Ints) -> tuple[Floats, Floats]:
        """Hours of each time point, and of the end of each stay, in the minutes that they state.

        The seconds within the minute are one draw per stay, as a chart in whole minutes has the
        same seconds since admission all through a stay. Time points of the same minute share it
        evenly.
        """
        minutes_of = clock_minutes()
        first = self.tokenizer.first_of(self.tokenizer.time_word)
        passed = np.bincount(
            np.searchsorted(closing, time), minutes_of[self.tokens[time] - first], len(closing)
        )
        stay = self.stay[closing]
        minute = _sum_within(passed.astype(np.float64), stay)
        u = uniforms(self.seed, Stream.SECONDS, self.numbers[self.stay_record], self.stay_index)
        seconds = self.tokenizer.seconds.decode(
            np.zeros(self.n_stays, dtype=np.int64), u, "empirical"
        )
        n_points = len(minute)
        starts = np.concatenate([[True], (np.diff(minute) != 0) | (np.diff(stay) != 0)])[:n_points]
        group = np.cumsum(starts) - 1
        n_within = np.bincount(group)[group] if n_points else group
        rank = np.arange(n_points) - np.flatnonzero(starts)[group] if n_points else group
        offset = (rank + seconds[stay] / 60) / np.maximum(n_within, 1)
        # Short of the next minute by more than what the encoder takes for rounding.
        hours = (minute + np.minimum(offset, 1 - 1e-5)) / 60

        los = np.full(self.n_stays, np.nan)
        word = self.tokenizer.stay_word
        if not word.kinds:
            return hours, los
        at, index = self._of(self.tokenizer.first_of(word), len(minutes_of))
        stated = np.unique(self.stay[at])
        after = np.bincount(self.stay[at], minutes_of[index], self.n_stays)
        last = np.zeros(self.n_stays)
        last[stay] = minute
        los[stated] = (last + after)[stated] / 60
        # A stay that ends in the minute of its last time point ends at it.
        latest = np.zeros(self.n_stays)
        latest[stay] = hours
        return hours, np.where(np.isnan(los), los, np.maximum(los, latest))


def _sum_within(amounts: Floats, group: Ints) -> Floats:
    """Running sums that begin anew with each group; groups stand together."""
    if not len(amounts):
        return np.empty(0)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(group) != 0]))
    counts = np.diff(np.append(starts, len(group)))
    padded = np.concatenate([[0.0], np.cumsum(amounts)])
    return padded[1:] - np.repeat(padded[starts], counts)


def _rank_within(group: Ints) -> Ints:
    """0, 1, ... within each group; groups stand together."""
    row = np.arange(len(group))
    new = np.concatenate([[True], np.diff(group) != 0])[: len(group)]
    return row - np.maximum.accumulate(np.where(new, row, 0))


def stratified(u: Floats, group: Ints) -> Floats:
    """Uniform draws in (0, 1) spread evenly over each group: one in each of n equal parts.

    Args:
        u: independent draws; their order within the group decides which part each gets.
        group: not negative.
    """
    order = np.argsort(group + u, kind="stable")
    counts = np.bincount(group) if len(group) else group
    starts = (np.cumsum(counts) - counts)[group[order]]
    spread = np.empty_like(u)
    spread[order] = (np.arange(len(u)) - starts + u[order]) / counts[group[order]]
    # The half step keeps rounding from reaching either end.
    return np.clip(spread, 2.0**-53, 1 - 2.0**-53)
