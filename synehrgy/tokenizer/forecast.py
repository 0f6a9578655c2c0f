"""Records as questions about the future: what is known of a stay first, then what is asked.

In a record the labels and codes of a stay, which sum it up, stand before its series. Who forecasts
knows neither: the series of the first hours must come first, and all else follows from them:

    <s> earlier admissions covariates </covar> <forecast> first hours </forecast>
        | labels </label> codes </code> later hours </ts> ... </s>

What stands before the bar is given, what follows is predicted. An earlier admission that has no
room in the context is left out as a whole, and the record then begins with ``<history>``; of a
window that has none, the earliest hours are, and a token says how many.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from synehrgy.draws import Stream, uniforms
from synehrgy.errors import UserError
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.bins import find_bins
from synehrgy.tokenizer.encode import Records
from synehrgy.tokenizer.segments import CHUNK_TOKENS, Pieces, Segments, cut_records
from synehrgy.tokenizer.tokenizer import ELAPSED, ELAPSED_EDGES, Tokenizer

Ints = NDArray[np.int64]

# Hours since admission that may be known; 0: nothing of the stay but its covariates.
WINDOWS = (0, 12, 24, 36, 48)

# What is known takes at most this share of the context.
PROMPT_SHARE = 0.75

# Tokens of a question besides what is known: <s> or <history>, <forecast>, </forecast> and the
# hours that are left out.
_MARKS = 4

# Far more hours than any stay has.
_FAR = 1e6


@dataclass(frozen=True)
class Forecasts:
    """Questions about stays.

    Attributes:
        record: int64 [n]; number of the record of each stay.
        begin, covariates_end, codes_end: int64 [n]; where the stay, its labels and its series
            begin in the record.
        record_end: int64 [n]; tokens of the record.
        step_stay: int64 [steps]; the stay of each time point, ascending.
        step_end: int64 [steps]; where it ends in its record.
        step_hours: float64 [steps]; its hours since admission.
    """

    record: Ints
    begin: Ints
    covariates_end: Ints
    codes_end: Ints
    record_end: Ints
    step_stay: Ints
    step_end: Ints
    step_hours: NDArray[np.float64]

    @classmethod
    def of(cls, tokenizer: Tokenizer, records: Records, rows: Ints) -> "Forecasts":
        """All stays of some records; the stays of a record stand together, in order."""
        parts = [cls._of(tokenizer, part, first) for first, part in records.chunks(CHUNK_TOKENS)]
        shift = np.cumsum([0, *(len(part) for part in parts)])
        parts = [
            replace(part, step_stay=part.step_stay + n)
            for part, n in zip(parts, shift, strict=False)
        ]
        whole = cls(
            *(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(cls))
        )
        chosen = np.isin(whole.record, rows)
        steps = chosen[whole.step_stay]
        of_stays = {name: getattr(whole, name)[chosen] for name in _OF_STAY}
        return cls(
            **of_stays,
            step_stay=(np.cumsum(chosen) - 1)[whole.step_stay[steps]],
            step_end=whole.step_end[steps],
            step_hours=whole.step_hours[steps],
        )

    @classmethod
    def _of(cls, tokenizer: Tokenizer, records: Records, first: int) -> "Forecasts":
        tokens = np.asarray(records.tokens).astype(np.int64)
        kind = tokenizer.kind_of[tokens]
        grammar = tokenizer.grammar

        def ends(*names: str) -> Ints:
            return np.flatnonzero(np.isin(kind, [grammar.index(name) for name in names])) + 1

        # Each stay has one of each mark, so the n-th of each belongs to the n-th stay.
        opened = ends(g.START, g.END_ADMISSION)
        begin = opened[~np.isin(opened, ends(g.END) - 1)]
        covariates_end, codes_end, closed = (
            ends(name) for name in (g.END_COVARIATES, g.END_CODES, g.END_ADMISSION)
        )
        record = np.searchsorted(records.offsets, begin, side="right") - 1
        start = records.offsets[record]
        is_time = grammar.is_time[kind]
        step_end = np.flatnonzero(is_time & ~np.append(is_time[1:], False)) + 1
        stay = np.searchsorted(closed, step_end)
        passed = np.concatenate([[0], np.cumsum(tokenizer.hours_of[tokens])])
        hours = passed[step_end] - passed[codes_end[stay]]
        return cls(
            *(record + first, begin - start, covariates_end - start, codes_end - start),
            *(records.lengths[record], stay, step_end - start[stay], hours),
        )

    def __len__(self) -> int:
        return len(self.record)

    def _steps_until(self, stays: Ints, hours: NDArray[np.float64]) -> Ints:
        """Number of time points, counted over all stays, up to these hours of each stay."""
        keys = self.step_stay * _FAR + self.step_hours
        # Sums of hours are rounded: a minute's hair belongs to the window.
        return np.searchsorted(keys, stays * _FAR + hours + 1e-6, side="right")

    def known_steps(self, stays: Ints, hours: NDArray[np.float64]) -> tuple[Ints, Ints]:
        """Numbers of the first time point of stays, and of the first that is not known any more."""
        first = self._steps_until(stays, np.full(len(stays), -1.0))
        # Of no hours not even what is measured at admission is known.
        return first, self._steps_until(stays, np.where(hours > 0, hours, -1.0))

    def goes_on(self, stays: Ints, hours: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether stays have a time point after the hours that are known."""
        _, until = self.known_steps(stays, hours)
        return until < self._steps_until(stays, np.full(len(stays), _FAR / 2))

    def window_end(self, stays: Ints, hours: NDArray[np.float64]) -> Ints:
        """Where what is known of the series of stays ends in their records."""
        first, until = self.known_steps(stays, hours)
        return np.where(until > first, self._end_of(until - 1), self.codes_end[stays])

    def draw_windows(self, stays: Ints, seed: int, epoch: int) -> NDArray[np.float64]:
        """Hours that are known of each stay: one of ``WINDOWS`` that the series goes beyond."""
        last = self._steps_until(stays, np.full(len(stays), _FAR / 2)) - 1
        beyond = np.zeros(len(stays))
        has_series = (last >= 0) & (self.step_stay[last] == stays) if len(self.step_stay) else None
        if has_series is not None:
            beyond = np.where(has_series, self.step_hours[last], 0.0)
        n_fit = np.maximum((np.array(WINDOWS) < beyond[:, None]).sum(axis=1), 1)
        u = uniforms(seed, Stream.WINDOW, stays, epoch)
        return np.array(WINDOWS, dtype=np.float64)[(u * n_fit).astype(np.int64)]

    def pieces(
        self, tokenizer: Tokenizer, stays: Ints, hours: NDArray[np.float64], n_ctx: int
    ) -> Pieces:
        """What questions are put together from.

        Args:
            tokenizer: of the records.
            stays: int64 [n]; numbers of the stays.
            hours: [n]; hours of each stay that are known.
            n_ctx: tokens of a question with its answer, at most; the end of a long answer is left
                off.
        """
        own = self.covariates_end[stays] - self.begin[stays]
        window_start = self.codes_end[stays].copy()
        before, until = self.known_steps(stays, hours)
        window_end = self.window_end(stays, hours)
        room = np.maximum(int(PROMPT_SHARE * n_ctx) - _MARKS - own, 0)
        is_long = window_end - window_start > room
        elapsed = np.full(len(stays), -1)
        for i in np.flatnonzero(is_long):
            steps = np.arange(before[i], until[i])
            cut = steps[self.step_end[steps] >= window_end[i] - room[i]][0]
            window_start[i] = self.step_end[cut]
            if tokenizer.settings.long_records == "continue":
                bin_ = int(find_bins(self.step_hours[cut], ELAPSED_EDGES))
                elapsed[i] = tokenizer.token(ELAPSED) + bin_
        room -= window_end - window_start
        # The earliest stay from which on all have room.
        place = self._place
        earliest = np.searchsorted(place, place[stays] - np.maximum(room, 0))
        first = np.searchsorted(self.record, self.record[stays])
        earliest = np.clip(earliest, first, stays)
        is_whole = earliest == first
        opener = np.where(is_whole, tokenizer.token(g.START), tokenizer.token(g.HISTORY))
        prompt = [
            (0, 0, opener),
            (self.begin[earliest], self.covariates_end[stays], -1),
            (0, 0, tokenizer.token(g.FORECAST)),
            (0, 0, elapsed),
            (window_start, window_end, -1),
            (0, 0, tokenizer.token(g.END_FORECAST)),
        ]
        left = n_ctx - Pieces.of(self.record[stays], prompt, len(prompt)).given
        codes_end = np.minimum(self.codes_end[stays], self.covariates_end[stays] + left)
        left -= codes_end - self.covariates_end[stays]
        end = np.minimum(self.record_end[stays], window_end + left)
        answer = [(self.covariates_end[stays], codes_end, -1), (window_end, end, -1)]
        return Pieces.of(self.record[stays], [*prompt, *answer], len(prompt))

    def _end_of(self, steps: Ints) -> Ints:
        return self.step_end[np.maximum(steps, 0)] if len(self.step_end) else np.zeros_like(steps)

    @cached_property
    def _place(self) -> Ints:
        """Where each stay begins if all records stood one after the other, far apart."""
        far = int(self.record_end.max(initial=0)) * 2 + 2
        return self.record * far + self.begin


_OF_STAY = ("record", "begin", "covariates_end", "codes_end", "record_end")


@dataclass(frozen=True)
class Questions:
    """What a model that forecasts is trained on: a question for each stay, and how records go on.

    Attributes:
        forecasts: the stays.
        going_on: the later segments of long records, so that it can answer beyond its context.
        n_ctx, seed: of the model; the windows of a stay are drawn anew in each epoch.
    """

    forecasts: Forecasts
    going_on: Segments
    n_ctx: int
    seed: int

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, records: Records, rows: Ints, n_ctx: int, seed: int
    ) -> "Questions":
        """Of some records."""
        segments = cut_records(tokenizer, records, rows, n_ctx)
        later = np.flatnonzero(segments.head_lengths)
        forecasts = Forecasts.of(tokenizer, records, rows)
        longest = int((forecasts.covariates_end - forecasts.begin).max(initial=0)) + _MARKS
        if longest > PROMPT_SHARE * n_ctx:
            raise UserError(
                f"n_ctx={n_ctx} is too short to forecast: the covariates of a stay alone take "
                f"{longest} tokens. Take hparams.n_ctx={math.ceil(longest / PROMPT_SHARE)} or more."
            )
        return cls(forecasts, segments.take(later), n_ctx, seed)

    def __len__(self) -> int:
        return len(self.forecasts) + len(self.going_on)

    def pieces(self, tokenizer: Tokenizer, rows: Ints, epoch: int = 0) -> Pieces:
        """What some of them are put together from, in this epoch."""
        n = len(self.forecasts)
        stays, later = rows[rows < n], rows[rows >= n] - n
        hours = self.forecasts.draw_windows(stays, self.seed, epoch)
        questions = self.forecasts.pieces(tokenizer, stays, hours, self.n_ctx)
        going_on = self.going_on.pieces(tokenizer, later)
        width = max(questions.start.shape[1], going_on.start.shape[1])
        parts = (questions.widened(width), going_on.widened(width))
        both = Pieces(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(Pieces)
            )
        )
        order = np.concatenate([np.flatnonzero(rows < n), np.flatnonzero(rows >= n)])
        return both.take(np.argsort(order))
