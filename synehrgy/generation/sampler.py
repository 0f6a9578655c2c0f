"""Sampling under the grammar, with continuous batching: who is finished makes room for the next."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.draws import Stream, uniforms
from synehrgy.generation.constraint import Constraint, RecordState
from synehrgy.model import BLOCK, GPT, Cache, Prefix
from synehrgy.tokenizer import Records, Tokenizer
from synehrgy.tokenizer.encode import NO_SPLIT
from synehrgy.tokenizer.grammar import END, PAD, START
from synehrgy.tokenizer.segments import Cutter

# Tokens that are drawn before anyone looks which records have ended: those rows idle until then.
# On a GPU looking means waiting; on a CPU it costs little.
_BURST = {"cpu": 4, "cuda": 16}

# The cache of a GPU is read up to a multiple of this, so that few shapes occur.
_HORIZON = 128

# Random numbers of a patient's attempts are this far apart: more than there are patients.
ATTEMPT = 2**40


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: divides the logits.
        top_k: only the k likeliest tokens; 0 for all.
        top_p: only the likeliest tokens that together have this probability.
        repetition_penalty: logits of tokens that the record already has are divided by this if
            positive and multiplied if negative (CTRL, Keskar et al., 2019).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


def probabilities(logits: Tensor, allowed: Tensor, seen: Tensor | None, how: Sampling) -> Tensor:
    """Distribution of the next token.

    Args:
        logits: [batch, vocabulary].
        allowed: bool [batch, vocabulary]; at least one per row. Tokens outside have probability
            0, the others keep their proportions.
        seen: bool [batch, vocabulary], tokens that the record already has; needed only for a
            repetition penalty.
        how: temperature, top_k, top_p, penalty; these act on the allowed tokens.

    Returns:
        float32 [batch, vocabulary]; rows add up to 1.
    """
    logits = logits.float()
    if how.repetition_penalty != 1.0 and seen is not None:
        penalised = torch.where(
            logits > 0, logits / how.repetition_penalty, logits * how.repetition_penalty
        )
        logits = torch.where(seen, penalised, logits)
    logits = logits / how.temperature
    logits = logits.masked_fill(~allowed, -torch.inf)
    if 0 < how.top_k < logits.shape[1]:
        weakest = logits.topk(how.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < weakest, -torch.inf)
    result = logits.softmax(dim=1)
    if how.top_p < 1.0:
        ordered, order = result.sort(dim=1, descending=True)
        # A token stays if those likelier than it do not reach top_p already.
        dropped = ordered.cumsum(dim=1) - ordered >= how.top_p
        result = result.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), 0.0)
        result = result / result.sum(dim=1, keepdim=True)
    return result


def draw(distribution: Tensor, uniform: Tensor) -> Tensor:
    """Invert the cumulative distribution of each row.

    Args:
        distribution: [batch, vocabulary], not negative.
        uniform: [batch], in (0, 1).

    Returns:
        int64 [batch]; never a token of probability 0.
    """
    cumulative = distribution.cumsum(dim=1)
    total = cumulative[:, -1:]
    point = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    chosen = torch.searchsorted(cumulative, point, right=True).clamp(max=distribution.shape[1] - 1)
    # A parallel sum may fall by a rounding error, which would let an impossible token in.
    possible = distribution.gather(1, chosen) > 0
    return torch.where(possible, chosen, distribution.argmax(dim=1, keepdim=True)).squeeze(1)


@dataclass(frozen=True)
class Drawn:
    """The record of a patient.

    Attributes:
        patient: number of the patient.
        tokens: int64, from ``<s>`` to ``</s>``; what was given comes first.
        n_segments: contexts that it took.
        n_forced: tokens at which the length limit left fewer choices than the grammar.
        is_closed: whether the length limit closed it.
        n_attempts: records that were begun for it, this one included.
    """

    patient: int
    tokens: NDArray[np.int64]
    n_segments: int
    n_forced: int
    is_closed: bool
    n_attempts: int


def as_records(tokenizer: Tokenizer, drawn: Sequence[Drawn]) -> Records:
    """Records in the order given, each under the number of its patient."""
    lengths = [len(one.tokens) for one in drawn]
    return Records(
        np.concatenate([np.empty(0), *(one.tokens for one in drawn)]).astype(tokenizer.dtype),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        np.array([one.patient for one in drawn], dtype=np.int64),
        np.full(len(drawn), NO_SPLIT, dtype=np.int8),
    )


class TooRareError(Exception):
    """A patient's attempts were used up before one was accepted."""


class Requests:
    """What is asked of each patient; of this one, nothing.

    Attributes:
        judges: whether ``verdict`` may refuse a record.
    """

    judges = False

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def prompt(self, patient: int, attempt: int) -> NDArray[np.int64]:
        """The first tokens of the record, ``<s>`` or what stands for it included."""
        return np.array([self.tokenizer.token(START)])

    def verdict(self, patient: int, tokens: NDArray[np.int64]) -> bool | None:
        """Whether a record so far will do: False begins another attempt, None asks to wait.

        Both True and False are final; a whole record that gets neither will do.
        """
        return None

    def stream(self, patient: int) -> int:
        """The number that the patient's random numbers belong to."""
        return patient

    def record(self, patient: int, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens so far in the order of a record, if they were asked for in another."""
        return tokens


@torch.inference_mode()
def sample(
    model: GPT,
    tokenizer: Tokenizer,
    patients: Iterable[int],
    *,
    batch_size: int = 256,
    how: Sampling | None = None,
    seed: int = 0,
    requests: Requests | None = None,
    max_attempts: int = 10_000,
    max_segments: int = 64,
    rule_out_contradictions: bool = False,
    compiled: bool = False,
) -> Iterator[Drawn]:
    """Sample records that are valid and complete, whatever the model.

    The random numbers belong to (seed, number of the patient, attempt, position), so a patient does
    not depend on the others, on their order or on the batch size; not even by rounding on a CPU,
    where no row's products depend on the other rows. Memory is that of the batch.

    A record that reaches the context goes on in another segment, as in training, if the tokenizer
    was fitted with ``long_records=continue``; the last segment allowed closes it.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        patients: their numbers, not negative.
        batch_size: patients side by side.
        how: how tokens are drawn; default plain sampling.
        seed: of the patients.
        requests: what is asked of each patient; default nothing.
        max_attempts: of a patient.
        max_segments: contexts that a record may take, at most.
        rule_out_contradictions: whether labels must agree with the codes that define them.
        compiled: whether the model is compiled, which takes a minute and pays on a GPU.

    Yields:
        Records as they are finished, not in order.

    Raises:
        ValueError: a context that no record fits in, a beginning beyond the context or one that
            is a whole record, or no batch.
        TooRareError: a patient whose attempts were all refused.
    """
    device = model.token_embedding.weight.device
    constraint = Constraint(tokenizer, model.config.n_ctx, device, rule_out_contradictions)
    if model.config.n_ctx < tokenizer.shortest_record:
        raise ValueError(
            f"The shortest record has {tokenizer.shortest_record} tokens, the context is "
            f"{model.config.n_ctx}."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least one patient at a time.")
    if not constraint.can_go_on:
        max_segments = 1
    rules = _Rules(how or Sampling(), seed, max_segments, max_attempts, compiled)
    batch = _Batch(model, constraint, rules, requests or Requests(tokenizer), batch_size)
    yield from batch.run(iter(patients))


class _Threads:
    """As many threads as are fastest on a CPU, which may have other work: tried now and then.

    Threads wait for each other after every product. On a busy machine one alone is then many times
    faster than all; on a free one with many cores it is not. The result is the same.
    """

    TRIES, HOLD = 3, 300

    def __init__(self) -> None:
        self.before = torch.get_num_threads()
        self.choices = sorted({1, max(1, self.before // 2), self.before})
        self.n_bursts = 0
        self.fastest = dict.fromkeys(self.choices, math.inf)

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Around a burst, which is done with the threads of its turn."""
        turn = self.n_bursts % (self.TRIES * len(self.choices) + self.HOLD)
        tried = self.choices[turn // self.TRIES :]
        if turn == 0:
            self.fastest = dict.fromkeys(self.choices, math.inf)
        n = tried[0] if tried else min(self.fastest, key=lambda n: self.fastest[n])
        if n != torch.get_num_threads():
            torch.set_num_threads(n)
        began = time.perf_counter()
        yield
        if tried:
            self.fastest[n] = min(self.fastest[n], time.perf_counter() - began)
        self.n_bursts += 1

    def restore(self) -> None:
        """As many as there were."""
        torch.set_num_threads(self.before)


@dataclass(frozen=True)
class _Rules:
    """What holds for every record; see ``sample``."""

    how: Sampling
    seed: int
    max_segments: int
    max_attempts: int
    compiled: bool


@dataclass
class _Row:
    """A record in the making.

    Attributes:
        patient, attempt: number of the patient, and of the attempt, from 0.
        given: what the record begins with.
        stream: number that its random numbers belong to.
        parts, n_tokens: the tokens so far, one after the other, and their number.
        length: tokens in the open context.
        segment: number of the open context, from 0.
        forced: forced tokens in the contexts before it.
        settled: whether the verdict is there.
    """

    patient: int
    attempt: int
    given: NDArray[np.int64]
    stream: int
    parts: list[NDArray[np.int64]] = field(default_factory=list)
    n_tokens: int = 0
    length: int = 0
    segment: int = 0
    forced: int = 0
    settled: bool = False

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The record so far."""
        if len(self.parts) > 1:
            self.parts = [np.concatenate(self.parts)]
        return self.parts[0]


class _Batch:
    """Rows side by side, each with a record of its own.

    What is asked for each token lies on the device; what happens between records is done on the
    host, after each burst.
    """

    def __init__(
        self,
        model: GPT,
        constraint: Constraint,
        rules: _Rules,
        requests: Requests,
        batch_size: int,
    ):
        self.model, self.constraint = model, constraint
        self.rules, self.requests = rules, requests
        self.tokenizer = constraint.tokenizer
        self.device, self.n_ctx = constraint.device, constraint.n_ctx
        self.end, self.pad = self.tokenizer.token(END), self.tokenizer.token(PAD)
        self.batch_size = batch_size
        self.burst = _BURST.get(self.device.type, 1)
        self._model_step = model.step
        if rules.compiled:
            # Not once for every number of rows and every horizon.
            self._model_step = torch.compile(model.step, dynamic=True)
        self._prefix: tuple[bytes, Prefix] | None = None

    def run(self, patients: Iterator[int]) -> Iterator[Drawn]:
        """Sample the records of these patients."""
        waiting = [self._new(patient) for patient in islice(patients, self.batch_size)]
        self._allocate(len(waiting))
        self._begin(list(enumerate(waiting)))
        threads = _Threads()
        try:
            yield from self._bursts(patients, threads)
        finally:
            threads.restore()

    def _bursts(self, patients: Iterator[int], threads: _Threads) -> Iterator[Drawn]:
        while any(row is not None for row in self.rows):
            with threads.burst():
                written = self._burst()
            begin: list[tuple[int, _Row]] = []
            for i, row in enumerate(self.rows):
                if row is None:
                    continue
                finished = self._extend(i, row, written[i])
                if finished is None:
                    continue
                if finished:
                    yield self._drawn(i, row)
                    following = next(patients, None)
                    self.rows[i] = None
                    if following is None:
                        continue
                    row = self._new(following)
                else:
                    row = self._new(row.patient, row.attempt + 1)
                begin.append((i, row))
            self._begin(begin)
            self._shrink()

    def _new(self, patient: int, attempt: int = 0) -> _Row:
        if attempt == self.rules.max_attempts:
            raise TooRareError
        given = self.requests.prompt(patient, attempt)
        if given[-1] == self.end or len(given) > self.n_ctx:
            raise ValueError(
                f"Patient {patient}: what the record begins with leaves no token to draw."
            )
        return _Row(patient, attempt, given, self.requests.stream(patient) + attempt * ATTEMPT)

    def _allocate(self, n: int) -> None:
        """Room for n records, all rows empty."""
        n_rows = -(-n // BLOCK) * BLOCK
        weight = self.model.token_embedding.weight

        def filled(value: int | bool, kind: torch.dtype = torch.int64) -> Tensor:
            return torch.full((n_rows,), value, dtype=kind, device=self.device)

        self.rows: list[_Row | None] = [None] * n_rows
        self.cache = Cache(self.model.config, n_rows, self.device, weight.dtype)
        self.state = RecordState(self.constraint, n_rows)
        self.newest, self.length = filled(self.pad), filled(0)
        self.forced, self.is_last = filled(0), filled(False, torch.bool)
        self.live = filled(False, torch.bool)
        n_seen = len(self.tokenizer.vocabulary) if self.rules.how.repetition_penalty != 1 else 0
        self.seen = torch.zeros(n_rows, n_seen, dtype=torch.bool, device=self.device)

    _PARTS = ("newest", "length", "forced", "is_last", "live", "seen")

    def _shrink(self) -> None:
        """Leave out rows that stay empty, once they are half of all."""
        used = [i for i, row in enumerate(self.rows) if row is not None]
        n_rows = -(-len(used) // BLOCK) * BLOCK
        if not used or 2 * n_rows > len(self.rows):
            return
        empty = [i for i, row in enumerate(self.rows) if row is None]
        kept = sorted(used + empty[: n_rows - len(used)])
        self.rows = [self.rows[i] for i in kept]
        index = torch.tensor(kept, device=self.device)
        self.cache.keep(index)
        self.state.keep(index)
        for name in self._PARTS:
            setattr(self, name, getattr(self, name)[index])

    def _begin(self, rows: list[tuple[int, _Row]]) -> None:
        """Put new records into rows."""
        if not rows:
            return
        places = torch.tensor([i for i, _ in rows], device=self.device)
        given = [row.given for _, row in rows]
        self.state.replace(places, RecordState.after(self.constraint, given))
        for i, row in rows:
            self.rows[i] = row
            row.parts, row.n_tokens = [row.given], len(row.given)
            if self.seen.shape[1]:
                self.seen[i] = False
                self.seen[i, torch.from_numpy(row.given).to(self.device)] = True
            self._open(i, row, row.given)

    def _open(self, i: int, row: _Row, context: NDArray[np.int64]) -> None:
        """Open a context that begins with these tokens, the last of which goes in next."""
        self.cache.begin(i, self._prefix_of(context[:-1]) if len(context) > 1 else None)
        self.newest[i] = int(context[-1])
        self.length[i] = row.length = len(context)
        self.forced[i] = 0
        self.is_last[i] = row.segment + 1 == self.rules.max_segments
        # One that fills the context goes on in the next.
        self.live[i] = len(context) < self.n_ctx

    def _prefix_of(self, tokens: NDArray[np.int64]) -> Prefix:
        """Keys and values of a prefix; patients that begin alike come one after the other."""
        key = tokens.tobytes()
        if self._prefix is None or self._prefix[0] != key:
            on_device = torch.from_numpy(tokens).to(self.device)
            self._prefix = key, self.model.prefix(on_device)
        return self._prefix[1]

    def _burst(self) -> NDArray[np.int64]:
        """Draw some tokens for every row, [rows, burst]; padding where a context has ended."""
        key = np.array([0 if row is None else row.stream for row in self.rows])
        place = np.array([0 if row is None else row.n_tokens for row in self.rows])
        longest = max(row.length for row in self.rows if row is not None) + self.burst
        self.cache.horizon = min(-(-longest // _HORIZON) * _HORIZON, self.n_ctx)
        steps = place[:, None] + np.arange(self.burst)
        u = self._uniforms(Stream.SAMPLE, key[:, None], steps)
        second = None
        if self.constraint.n_labels:
            second = self._uniforms(Stream.EXPLAIN, key[:, None], steps)
        written = torch.full((len(self.rows), self.burst), self.pad, device=self.device)
        for i in range(self.burst):
            written[:, i] = self._step(u[:, i], second[:, i] if second is not None else None)
        return written.cpu().numpy()

    def _uniforms(self, stream: int, key: NDArray[np.int64], place: NDArray[np.int64]) -> Tensor:
        """A number in (0, 1) for each record at each place in it, float32."""
        u = torch.from_numpy(uniforms(self.rules.seed, stream, key, place).astype(np.float32))
        return u.to(self.device).clamp(max=1 - 2**-24)

    def _step(self, u: Tensor, second: Tensor | None) -> Tensor:
        """Draw a token for every row that is live, [rows]."""
        state, constraint = self.state, self.constraint
        logits = self.model.logits(self._model_step(self.newest, self.cache))
        # A row that is full or has ended writes into its last place until it begins anew.
        self.cache.lengths.clamp_(max=self.n_ctx - 1)
        allowed, limited = constraint.mask(state, self.length, self.is_last)
        seen = self.seen if self.seen.shape[1] else None
        chosen = draw(probabilities(logits, allowed, seen, self.rules.how), u)
        if second is not None:
            chosen = self._explained(chosen, logits, allowed, second)
        live = self.live
        chosen = torch.where(live, chosen, self.pad)
        self.forced += limited & live
        state.advance(chosen, live)
        if seen is not None:
            column = chosen[:, None]
            seen.scatter_(1, column, seen.gather(1, column) | live[:, None])
        self.newest, self.length = chosen, self.length + live
        self.live = live & (chosen != self.end) & (self.length < self.n_ctx)
        return chosen

    def _explained(self, chosen: Tensor, logits: Tensor, allowed: Tensor, u: Tensor) -> Tensor:
        """What comes instead, where a label would be left without a code that explains it."""
        state, constraint = self.state, self.constraint
        returns = allowed.gather(1, state.waiting.clamp(min=0)[:, None])[:, 0]
        chosen = torch.where(returns & (state.waiting >= 0), state.waiting, chosen)
        instead = constraint.instead(state, chosen, allowed)
        due = instead.any(dim=1)
        state.waiting = torch.where(self.live, torch.where(due, chosen, -1), state.waiting)
        if not constraint.some(due):
            return chosen
        # Drawn by its probability among those that explain. top_k and top_p do not act, for they
        # may have left none of them.
        among = instead | ~due[:, None]
        plain = Sampling(temperature=self.rules.how.temperature)
        return torch.where(due, draw(probabilities(logits, among, None, plain), u), chosen)

    def _extend(self, i: int, row: _Row, written: NDArray[np.int64]) -> bool | None:
        """Add what was drawn to a record.

        Returns:
            Whether the record is finished (True) or refused (False); None if it goes on.
        """
        ends = np.flatnonzero(written == self.end)
        room = self.n_ctx - row.length
        has_ended = bool(len(ends)) and ends[0] < room
        n_new = int(ends[0]) + 1 if has_ended else min(len(written), room)
        row.parts.append(written[:n_new])
        row.length, row.n_tokens = row.length + n_new, row.n_tokens + n_new
        if self.requests.judges and not row.settled:
            verdict = self.requests.verdict(row.patient, row.tokens)
            if verdict is not None and not verdict:
                return False
            row.settled = verdict is not None
        if not has_ended and row.length == self.n_ctx:
            self._go_on(i, row)
        return True if has_ended else None

    def _go_on(self, i: int, row: _Row) -> None:
        """Open another context of the same record, with the time point that has been begun."""
        row.forced += int(self.forced[i])
        row.segment += 1
        record = self.requests.record(row.patient, row.tokens)
        cutter = Cutter(self.tokenizer, self.n_ctx)
        cut = int(cutter.cuts(record)[-1])
        self._open(i, row, np.concatenate([cutter.head(record, cut), record[cut:]]))

    def _drawn(self, i: int, row: _Row) -> Drawn:
        forced = int(self.forced[i])
        is_closed = forced > 0 and row.segment + 1 == self.rules.max_segments
        record = self.requests.record(row.patient, row.tokens)
        return Drawn(
            *(row.patient, record, row.segment + 1, row.forced + forced, is_closed),
            row.attempt + 1,
        )
