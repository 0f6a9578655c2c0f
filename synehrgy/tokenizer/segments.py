"""Long records as several segments that fit a context, without losing a token.

A record longer than the context is cut where nothing is left half said: after a time point or
after a code. Each further segment begins with ``<history>`` and the standing facts of the open
admission, and goes on exactly where the last one ended:

    <history> covariates </covar> labels </label>                            | further codes ...
    <history> covariates </covar> labels </label> </code> values elapsed=... | further times ...

The values are the last ones of all series in this admission, so that a stay goes on from where it
was, and not from where stays are on average. The head is given, never predicted, so all segments of
a record together predict each of its tokens once. Training cuts records so, and generation does the
same when it reaches the context.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synehrgy.errors import UserError
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.bins import find_bins
from synehrgy.tokenizer.clock import clock_minutes, clock_tokens
from synehrgy.tokenizer.encode import Records
from synehrgy.tokenizer.quantities import Digits
from synehrgy.tokenizer.tokenizer import ELAPSED, ELAPSED_EDGES, Tokenizer

Ints = NDArray[np.int64]

NO_ELAPSED = -1

# Last values take at most one part in so many of the context.
VALUES_SHARE = 4

# Tokens that lose their series at a time: bounds the memory.
CHUNK_TOKENS = 1_000_000


@dataclass(frozen=True)
class Pieces:
    """What segments are put together from: ranges of their records, and single tokens between.

    Attributes:
        record: int64 [n]; number of the record of each segment.
        start, stop: int64 [n, k]; ranges of the record; empty where a piece is absent.
        token: int64 [n, k]; a single token instead of a range, -1 for none.
        given: int64 [n]; leading tokens of each segment that are never predicted.
    """

    record: Ints
    start: Ints
    stop: Ints
    token: Ints
    given: Ints

    @classmethod
    def of(cls, record: Ints, columns: list[tuple[Any, Any, Any]], n_given: int) -> "Pieces":
        """From (start, stop, token) of each column; the first ``n_given`` columns are given."""
        shape = (len(record), len(columns))
        start, stop, token = (np.empty(shape, dtype=np.int64) for _ in range(3))
        for i, column in enumerate(columns):
            for array, value in zip((start, stop, token), column, strict=True):
                array[:, i] = value
        sizes = np.where(token >= 0, 1, stop - start)
        return cls(record, start, stop, token, sizes[:, :n_given].sum(axis=1))

    @property
    def sizes(self) -> Ints:
        """Tokens of each piece, shape [n, k]."""
        return np.where(self.token >= 0, 1, self.stop - self.start)

    def take(self, rows: Any) -> "Pieces":
        """Pieces of some of the segments."""
        return Pieces(*(getattr(self, field.name)[rows] for field in fields(self)))

    def widened(self, k: int) -> "Pieces":
        """The same with empty pieces at the end, ``k`` in all."""
        more = ((0, 0), (0, k - self.start.shape[1]))
        start, stop = np.pad(self.start, more), np.pad(self.stop, more)
        return replace(
            self, start=start, stop=stop, token=np.pad(self.token, more, constant_values=-1)
        )

    def assemble(self, records: Records) -> tuple[Ints, Ints, Ints]:
        """The tokens of all segments, one after the other.

        Returns:
            Tokens, the record of each, and its place in the record (-1 for single tokens), all
            int64 [tokens].
        """
        sizes = self.sizes
        flat = sizes.ravel()
        begin = np.cumsum(flat) - flat
        n = int(flat.sum())
        place = np.repeat(self.start.ravel() - begin, flat) + np.arange(n)
        record = np.repeat(self.record, sizes.sum(axis=1))
        single = begin[self.token.ravel() >= 0]
        place[single] = 0
        tokens = records.tokens[records.offsets[record] + place].astype(np.int64)
        tokens[single] = self.token[self.token >= 0]
        place[single] = -1
        return tokens, record, place


@dataclass(frozen=True)
class Segments:
    """Parts of records that together hold every token that is trained on.

    Attributes:
        record: int64 [n]; number of the record.
        start, stop: int64 [n]; the segment's tokens are those from start to stop of its record.
        facts_start, facts_stop: int64 [n]; the standing facts, within the record; equal for the
            first segment of a record, which needs none.
        values_start, values_stop: int64 [n, series]; the last value of each series, within the
            record; equal where there is none.
        elapsed: int64 [n]; token that says how long the admission has run, -1 in the first segment
            and where its codes go on.
    """

    record: Ints
    start: Ints
    stop: Ints
    facts_start: Ints
    facts_stop: Ints
    values_start: Ints
    values_stop: Ints
    elapsed: Ints

    def __len__(self) -> int:
        return len(self.record)

    @property
    def head_lengths(self) -> Ints:
        """Tokens of the head of each: ``<history>``, facts, ``</code>``, values, elapsed time."""
        facts = self.facts_stop - self.facts_start
        values = (self.values_stop - self.values_start).sum(axis=1)
        return np.where(facts > 0, 1 + facts + values + 2 * (self.elapsed != NO_ELAPSED), 0)

    @property
    def lengths(self) -> Ints:
        """Tokens of each segment, with its head."""
        return self.head_lengths + self.stop - self.start

    def pieces(self, tokenizer: Tokenizer, rows: Ints, epoch: int = 0) -> Pieces:
        """What some of the segments are put together from; the same in every epoch."""
        chosen = self.take(rows)
        has_head, absent = chosen.facts_stop > chosen.facts_start, NO_ELAPSED
        values = zip(chosen.values_start.T, chosen.values_stop.T, strict=True)
        at_series = has_head & (chosen.elapsed != NO_ELAPSED)
        columns = [
            (0, 0, np.where(has_head, tokenizer.token(g.HISTORY), absent)),
            (chosen.facts_start, chosen.facts_stop, absent),
            (0, 0, np.where(at_series, tokenizer.token(g.END_CODES), absent)),
            *((*value, absent) for value in values),
            (0, 0, np.where(at_series, chosen.elapsed, absent)),
            (chosen.start, chosen.stop, absent),
        ]
        return Pieces.of(chosen.record, columns, n_given=len(columns) - 1)

    def take(self, rows: Ints) -> "Segments":
        """Some of the segments, in the order asked for."""
        return Segments(*(getattr(self, field.name)[rows] for field in fields(self)))


class State(NamedTuple):
    """What a segment that goes on with a record is told; the attributes of ``Segments``."""

    facts_start: int
    facts_stop: int
    values_start: Ints
    values_stop: Ints
    elapsed: int

    @property
    def head_length(self) -> int:
        """Tokens of the head; 0 where there is nothing to tell."""
        if self.facts_start == self.facts_stop:
            return 0
        values = int((self.values_stop - self.values_start).sum())
        return 1 + self.facts_stop - self.facts_start + values + 2 * (self.elapsed != NO_ELAPSED)


def cut_records(tokenizer: Tokenizer, records: Records, rows: Ints, n_ctx: int) -> Segments:
    """Cut records into segments of at most ``n_ctx`` tokens, heads included.

    With ``long_records=truncate`` each record gives one segment, and the rest of it is lost.

    Args:
        tokenizer: whose settings say what becomes of long records.
        records: of all splits.
        rows: numbers of the records to cut, in any order.
        n_ctx: of the model.

    Returns:
        Segments in the order of rows; those of a record stand together, in order.

    Raises:
        UserError: a context too short to hold a head and one time point of a record.
    """
    if tokenizer.settings.long_records == "truncate":
        return _whole(tokenizer, rows, np.minimum(records.lengths[rows], n_ctx))
    is_long = records.lengths[rows] > n_ctx
    cutter = Cutter(tokenizer, n_ctx)
    parts = [_whole(tokenizer, rows[~is_long], records.lengths[rows[~is_long]])]
    for row in rows[is_long]:
        try:
            parts.append(cutter.cut(int(row), records[row]))
        except _TooShortError:
            least = max(cutter.least_context(records[row]) for row in rows)
            raise UserError(
                f"n_ctx={n_ctx} is too short to go on with the record of patient "
                f"{records.subject_ids[row]}: parts of it belong together. {least} is enough for "
                "all. Take a longer context (hparams.n_ctx), or preprocess.long_records=truncate."
            ) from None
    columns = (
        np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Segments)
    )
    segments = Segments(*columns)
    place = np.empty(len(records), dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return segments.take(np.argsort(place[segments.record], kind="stable"))


def _whole(tokenizer: Tokenizer, rows: Ints, lengths: Ints) -> Segments:
    zero = np.zeros(len(rows), dtype=np.int64)
    none = np.zeros((len(rows), len(tokenizer.variables)), dtype=np.int64)
    return Segments(rows, zero, lengths, zero, zero, none, none, np.full(len(rows), NO_ELAPSED))


class _TooShortError(Exception):
    """What belongs together in a record does not fit the context."""


class Cutter:
    """Finds where a record may be cut, and what stands at the head of what follows.

    Args:
        tokenizer: with ``long_records=continue``.
        n_ctx: tokens of a segment, at most.
    """

    def __init__(self, tokenizer: Tokenizer, n_ctx: int):
        grammar = tokenizer.grammar
        self.n_ctx = n_ctx
        self.kind_of = tokenizer.kind_of
        self.is_time, self.is_code = grammar.is_time, grammar.is_code
        self.begins = [grammar.index(g.START), grammar.index(g.END_ADMISSION)]
        self.end_labels = grammar.index(g.END_LABELS)
        self.hours_of = tokenizer.hours_of
        self.history = tokenizer.token(g.HISTORY)
        self.end_codes = tokenizer.token(g.END_CODES)
        self.first_elapsed = tokenizer.token(ELAPSED)
        self.variable_of = grammar.variable[tokenizer.kind_of]
        self.no_values = np.zeros(len(tokenizer.variables), dtype=np.int64)
        self.longest_facts, self.longest_values = _longest(tokenizer)

    def cuts(self, tokens: Ints) -> Ints:
        """Positions before which a record (or its beginning) may be cut, ascending.

        After a code it may be cut at once; after a time, as soon as the next token shows that the
        time is complete.
        """
        kind = self.kind_of[tokens]
        after_time = self.is_time[kind] & np.append(~self.is_time[kind[1:]], False)
        return np.flatnonzero(after_time | self.is_code[kind]) + 1

    def state(self, tokens: Ints, cut: int) -> "State":
        """What a segment that goes on with a record from a cut must be told."""
        kind = self.kind_of[tokens[:cut]]
        start = int(np.flatnonzero(np.isin(kind, self.begins))[-1]) + 1
        stop = int(np.flatnonzero(kind == self.end_labels)[-1]) + 1
        if self.is_code[kind[-1]]:
            return State(start, stop, self.no_values, self.no_values, NO_ELAPSED)
        hours = self.hours_of[tokens[stop:cut]].sum()
        elapsed = self.first_elapsed + int(find_bins(hours, ELAPSED_EDGES))
        return State(start, stop, *self._last_values(tokens, stop, cut), elapsed)

    def _last_values(self, tokens: Ints, start: int, cut: int) -> tuple[Ints, Ints]:
        """Where the last value of each series begins and ends, both int64 [series].

        The latest ones only, if all of them take more than their share of the context.
        """
        variable = np.concatenate([[-1], self.variable_of[tokens[start:cut]], [-1]])
        # A value may have several tokens; two values of a series never touch.
        edge = np.flatnonzero(np.diff(variable)) + 1
        begins, ends = edge[:-1], edge[1:]
        of = variable[begins]
        at = np.stack([self.no_values, self.no_values])
        is_value = of >= 0
        # Of a series that occurs several times the last assignment counts.
        at[:, of[is_value]] = start - 1 + np.stack([begins[is_value], ends[is_value]])
        latest = np.argsort(-at[1], kind="stable")
        sizes = np.diff(at, axis=0)[0][latest]
        at[:, latest[np.cumsum(sizes) > self.n_ctx // VALUES_SHARE]] = 0
        return at[0], at[1]

    def head(self, tokens: Ints, cut: int) -> Ints:
        """The head of the segment that goes on with a record from a cut."""
        state = self.state(tokens, cut)
        closing: list[int] = []
        if state.elapsed != NO_ELAPSED:
            ranges = zip(state.values_start, state.values_stop, strict=True)
            values = (token for start, stop in ranges for token in tokens[start:stop])
            closing = [self.end_codes, *values, state.elapsed]
        facts = tokens[state.facts_start : state.facts_stop]
        return np.array([self.history, *facts, *closing], dtype=np.int64)

    def _settled(self, tokens: Ints) -> tuple[Ints, Ints]:
        """Cuts, and what must be in the context before each is settled."""
        cuts = self.cuts(tokens)
        return cuts, cuts + self.is_time[self.kind_of[tokens[cuts - 1]]]

    def least_context(self, record: NDArray[np.unsignedinteger]) -> int:
        """A context that a record can be cut for, though perhaps not the shortest."""
        tokens = record.astype(np.int64)
        cuts, settled = self._settled(tokens)
        together = np.append(settled, len(tokens)) - np.concatenate([[0], cuts])
        needed = int(together.max()) + self.longest_facts
        # Values take what they need, or their share.
        return min(needed + self.longest_values, -(-needed * VALUES_SHARE // (VALUES_SHARE - 1)))

    def cut(self, row: int, record: NDArray[np.unsignedinteger]) -> Segments:
        """Cut one record, each time as late as the context allows.

        Raises:
            _TooShortError: no place to cut within the context.
        """
        tokens = record.astype(np.int64)
        cuts, settled = self._settled(tokens)
        state, start = State(0, 0, self.no_values, self.no_values, NO_ELAPSED), 0
        found: list[tuple[Any, ...]] = []
        while True:
            limit = start + self.n_ctx - state.head_length
            if len(tokens) <= limit:
                break
            place = int(np.searchsorted(settled, limit, side="right")) - 1
            if place < 0 or cuts[place] <= start:
                raise _TooShortError
            cut = int(cuts[place])
            found.append((row, start, cut, *state))
            start, state = cut, self.state(tokens, cut)
        found.append((row, start, len(tokens), *state))
        return Segments(*(np.array(column, dtype=np.int64) for column in zip(*found, strict=True)))


def longest_head(tokenizer: Tokenizer, n_ctx: int) -> int:
    """Tokens of the longest head of a segment that the grammar allows."""
    facts, values = _longest(tokenizer)
    return facts + min(values, n_ctx // VALUES_SHARE)


def _longest(tokenizer: Tokenizer) -> tuple[int, int]:
    """Tokens of the longest head but for its values, and of a value of each series."""

    def longest(numbers: object) -> int:
        return numbers.places + 1 if isinstance(numbers, Digits) else 1

    covariates = sum(
        longest(tokenizer.covariate_numbers.get(covariate.name))
        for covariate in tokenizer.schema.covariates
    )
    values = sum(longest(tokenizer.variable_numbers.get(name)) for name in tokenizer.variables)
    # <history>, </covar>, </label>, </code> and the elapsed time.
    return covariates + len(tokenizer.schema.labels) + 5, values


def without_series(tokenizer: Tokenizer, records: Records) -> Records:
    """The same records without their time points; stays last as long as before."""
    parts = [_without_series(tokenizer, part) for _, part in records.chunks(CHUNK_TOKENS)]
    lengths = [np.empty(0, dtype=np.int64), *(part.lengths for part in parts)]
    return replace(
        records,
        tokens=np.concatenate([np.empty(0, tokenizer.dtype), *(part.tokens for part in parts)]),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
    )


def _without_series(tokenizer: Tokenizer, records: Records) -> Records:
    grammar, word = tokenizer.grammar, tokenizer.stay_word
    tokens = np.asarray(records.tokens).astype(np.int64)
    kind = tokenizer.kind_of[tokens]
    stay_kinds = [grammar.index(name) for name in word.kinds]
    is_stay = np.isin(kind, stay_kinds)
    kept = ~(is_stay | grammar.is_time[kind] | (grammar.variable[kind] >= 0))
    offsets = np.concatenate([[0], np.cumsum(kept)])[records.offsets]
    shorter = tokens[kept]
    if word.kinds:
        # A stay goes on from its last time point, and without those from its admission.
        ends = kind == grammar.index(g.END_ADMISSION)
        admission = np.cumsum(ends) - ends
        stated = np.unique(admission[is_stay])
        minutes = np.round(60 * tokenizer.hours_of[tokens])
        minutes[is_stay] = clock_minutes()[tokens[is_stay] - tokenizer.first_of(word)]
        total = np.bincount(admission, minutes, int(ends.sum()) + 1)[stated]
        stay, counts = clock_tokens(total.astype(np.int64))
        at = np.flatnonzero(shorter == tokenizer.token(g.END_ADMISSION))[stated]
        shorter = np.insert(shorter, np.repeat(at, counts), stay + tokenizer.first_of(word))
        offsets += np.concatenate([[0], np.cumsum(counts)])[np.searchsorted(at, offsets)]
    return replace(records, tokens=shorter.astype(tokenizer.dtype), offsets=offsets)
