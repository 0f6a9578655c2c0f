"""Batched sampling with a key-value cache, under the grammar."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.draws import Stream, uniforms
from synehrgy.generation.constraint import Constraint, RecordState
from synehrgy.model import GPT, Cache
from synehrgy.tokenizer import Records, Tokenizer
from synehrgy.tokenizer.encode import NO_SPLIT
from synehrgy.tokenizer.grammar import END, PAD, START
from synehrgy.tokenizer.segments import Cutter

# Finished rows leave the batch once they are this share of it: each time costs a copy of the cache.
_COMPACT_SHARE = 0.125


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
class Sampled:
    """Records of one batch.

    Attributes:
        records: in the order of the patients' numbers; subject ids are these numbers.
        n_segments: contexts that the records took.
        n_forced: tokens at which the length limit left fewer choices than the grammar.
        n_closed: records that the length limit closed.
    """

    records: Records
    n_segments: int
    n_forced: int
    n_closed: int


@torch.inference_mode()
def sample(
    model: GPT,
    tokenizer: Tokenizer,
    n: int,
    *,
    batch_size: int = 256,
    how: Sampling | None = None,
    seed: int = 0,
    prompts: Callable[[NDArray[np.int64]], Sequence[NDArray[np.int64]]] | None = None,
    max_segments: int = 64,
    rule_out_contradictions: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Sampled]:
    """Sample records that are valid and complete, whatever the model.

    The random numbers belong to (seed, number of the patient, position), so a patient does not
    depend on the batch size. (Logits may differ in their last digits between batch sizes, as
    matrix products add up in another order.)

    A record that reaches the context goes on in another segment, as in training, if the tokenizer
    was fitted with ``long_records=continue``; the last segment allowed closes it.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        n: patients.
        batch_size: patients side by side.
        how: how tokens are drawn; default plain sampling.
        seed: of the patients.
        prompts: given numbers of patients, the first tokens of their records, ``<s>`` included;
            default ``<s>`` alone.
        max_segments: contexts that a record may take, at most.
        rule_out_contradictions: whether labels must agree with the codes that define them.
        progress: called with the number of patients that have just been finished.

    Yields:
        The records of patients ``0 ... batch_size - 1``, then of the next, and so on.

    Raises:
        ValueError: a context that no record fits in.
    """
    device = model.token_embedding.weight.device
    constraint = Constraint(tokenizer, model.config.n_ctx, device, rule_out_contradictions)
    if model.config.n_ctx < tokenizer.shortest_record:
        raise ValueError(
            f"The shortest record has {tokenizer.shortest_record} tokens, the context is "
            f"{model.config.n_ctx}."
        )
    if tokenizer.settings.long_records == "truncate" or constraint.longest_opening < 1:
        max_segments = 1
    for first in range(0, n, batch_size):
        patients = np.arange(first, min(n, first + batch_size))
        given = (
            prompts(patients) if prompts else [np.array([tokenizer.token(START)])] * len(patients)
        )
        batch = _Batch(model, constraint, patients, how or Sampling(), seed, progress)
        yield batch.run(given, max_segments)


class _Batch:
    """Samples the records of some patients side by side, context after context."""

    def __init__(
        self,
        model: GPT,
        constraint: Constraint,
        patients: NDArray[np.int64],
        how: Sampling,
        seed: int,
        progress: Callable[[int], object] | None,
    ):
        self.model, self.constraint, self.tokenizer = model, constraint, constraint.tokenizer
        self.patients, self.how, self.seed, self.progress = patients, how, seed, progress
        self.end, self.pad = self.tokenizer.token(END), self.tokenizer.token(PAD)
        self.device = model.token_embedding.weight.device
        self.n_forced = self.n_closed = self.n_segments = 0
        # The tokens of each record, context after context, heads left out.
        self.pieces: list[list[NDArray[np.int64]]] = [[] for _ in patients]

    def run(self, prompts: Sequence[NDArray[np.int64]], max_segments: int) -> Sampled:
        """Sample until every record has ended.

        Args:
            prompts: first tokens of each record.
            max_segments: contexts that a record may take, at most.
        """
        rows = np.arange(len(self.patients))
        state = RecordState(self.constraint, len(rows))
        vocabulary = len(self.tokenizer.vocabulary)
        self.seen = torch.zeros(len(rows), vocabulary, dtype=torch.bool, device=self.device)
        heads = np.zeros(len(rows), dtype=np.int64)
        given = [*prompts]
        for segment in range(max_segments):
            last = segment + 1 == max_segments
            self.n_segments += len(rows)
            texts, open_ = self._context(rows, given, state, segment == 0, last)
            for row, head, text in zip(rows, heads, texts, strict=True):
                self.pieces[row].append(text[head:])
            rows = rows[open_]
            if not len(rows):
                break
            heads, given = self._resume(rows)
        records = [np.concatenate(pieces) for pieces in self.pieces]
        return Sampled(
            Records(
                np.concatenate(records).astype(self.tokenizer.dtype),
                np.concatenate([[0], np.cumsum([*map(len, records)])]),
                self.patients,
                np.full(len(self.patients), NO_SPLIT, dtype=np.int8),
            ),
            self.n_segments,
            self.n_forced,
            self.n_closed,
        )

    def _resume(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
        """Head and unfinished time point that the next context of each record begins with."""
        cutter = Cutter(self.tokenizer)
        heads, given = [], []
        for row in rows:
            record = np.concatenate(self.pieces[row])
            self.pieces[row] = [record]
            cut = int(cutter.cuts(record)[-1])
            begun = record[cut:]
            given.append(np.concatenate([cutter.head(record, cut), begun]))
            heads.append(len(given[-1]))
        return np.array(heads), given

    def _context(
        self,
        rows: NDArray[np.int64],
        given: Sequence[NDArray[np.int64]],
        state: RecordState,
        is_first: bool,
        is_last: bool,
    ) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
        """Fill one context of each record.

        Args:
            rows: records that are still open.
            given: what the context of each begins with.
            state: of these records; those that stay open are left in it.
            is_first: whether what is given is the beginning of the records.
            is_last: whether every record must end within this context.

        Returns:
            The tokens of each context, and which records are still open.
        """
        model, limit = self.model, self.constraint.n_ctx
        result = np.full((len(rows), limit), self.pad, dtype=np.int64)
        n_given = np.array([len(tokens) for tokens in given])
        for i, tokens in enumerate(given):
            result[i, : len(tokens)] = tokens
        # Where in its record the first token that is drawn here stands.
        begins = np.array([sum(map(len, self.pieces[row])) for row in rows]) * (not is_first)
        position = begins + n_given * is_first - n_given
        at = np.arange(len(rows))  # rows of the result that are still in the batch
        length = int(n_given.min())
        new = torch.from_numpy(result[:, :length]).to(self.device)
        weight = model.token_embedding.weight
        cache = Cache(model.config, len(rows), self.device, weight.dtype)
        forced = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        everyone = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        if is_first:
            for column in range(length):
                self._see(state, new[:, column], everyone)
        while length < limit and len(at):
            hidden = model.hidden(new, cache)[:, -1]
            allowed, limited = self.constraint.mask(state, length, is_last)
            logits = model.logits(hidden)
            distribution = probabilities(logits, allowed, self.seen, self.how)
            place = position[at] + length
            chosen = draw(distribution, self._uniform(Stream.SAMPLE, rows[at], place))
            is_free = torch.from_numpy(n_given[at] <= length).to(self.device)
            if self.constraint.n_labels:
                returns = allowed.gather(1, state.waiting.clamp(min=0)[:, None])[:, 0]
                chosen = torch.where(returns & (state.waiting >= 0), state.waiting, chosen)
                instead = self.constraint.instead(state, chosen, allowed) & is_free[:, None]
                due = instead.any(dim=1)
                waiting = torch.where(due, chosen, -1)
                state.waiting = torch.where(is_free, waiting, state.waiting)
                if bool(due.any()):
                    u = self._uniform(Stream.EXPLAIN, rows[at], place)
                    chosen = torch.where(due, self._explaining(instead, logits, u), chosen)
            if length < n_given.max():
                fixed = torch.from_numpy(result[at, length]).to(self.device)
                chosen = torch.where(is_free, chosen, fixed)
            forced += (limited & is_free).long()
            self._see(state, chosen, is_free | is_first)
            result[at, length] = chosen.cpu().numpy()
            new, length = chosen[:, None], length + 1

            finished = result[at, length - 1]
            over = (finished == self.pad) | (finished == self.end)
            if self.progress is not None:
                self.progress(int((finished == self.end).sum()))
            if over.mean() >= _COMPACT_SHARE or over.all() or length == limit:
                leaving = forced[torch.from_numpy(over).to(self.device)]
                self.n_forced += int(leaving.sum())
                self.n_closed += int((leaving > 0).sum()) * is_last
                staying = torch.from_numpy(np.flatnonzero(~over)).to(self.device)
                at = at[~over]
                cache.keep(staying)
                state.keep(staying)
                new, self.seen, forced = new[staying], self.seen[staying], forced[staying]
        self.n_forced += int(forced.sum())
        is_open = np.zeros(len(rows), dtype=bool)
        is_open[at] = True
        lengths = np.where(is_open, limit, (result == self.end).argmax(axis=1) + 1)
        return [row[:n] for row, n in zip(result, lengths, strict=True)], is_open

    def _uniform(self, stream: int, rows: NDArray[np.int64], place: NDArray[np.int64]) -> Tensor:
        """A number in (0, 1) for each record at a place in it, float32."""
        u = uniforms(self.seed, stream, self.patients[rows], place).astype(np.float32)
        return torch.from_numpy(u).to(self.device).clamp(max=1 - 2**-24)

    def _explaining(self, instead: Tensor, logits: Tensor, u: Tensor) -> Tensor:
        """A code that explains a label, drawn by its probability among those that do.

        top_k and top_p do not act, for they may have left none of them.
        """
        among = instead | ~instead.any(dim=1, keepdim=True)
        plain = Sampling(temperature=self.how.temperature)
        return draw(probabilities(logits, among, None, plain), u)

    def _see(self, state: RecordState, tokens: Tensor, moving: Tensor) -> None:
        """Add a token to what the records have said."""
        state.advance(tokens, moving)
        column = tokens[:, None]
        self.seen.scatter_(1, column, self.seen.gather(1, column) | moving[:, None])
