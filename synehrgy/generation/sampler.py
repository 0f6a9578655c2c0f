"""Batched sampling with a key-value cache, under the grammar."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.draws import uniforms
from synehrgy.generation.constraint import Constraint
from synehrgy.model import GPT, Cache
from synehrgy.tokenizer import Records, Tokenizer
from synehrgy.tokenizer.encode import NO_SPLIT
from synehrgy.tokenizer.grammar import END, PAD, START

# Which use of the random numbers is meant, next to those of the decoder.
SAMPLE_STREAM = 0

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
        n_forced: tokens at which the length limit left fewer choices than the grammar.
        n_closed: records that the length limit closed.
    """

    records: Records
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
    progress: Callable[[int], object] | None = None,
) -> Iterator[Sampled]:
    """Sample records that are valid and complete, whatever the model.

    The random numbers belong to (seed, number of the patient, position), so a patient does not
    depend on the batch size. (Logits may differ in their last digits between batch sizes, as
    matrix products add up in another order.)

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        n: patients.
        batch_size: patients side by side.
        how: how tokens are drawn; default plain sampling.
        seed: of the patients.
        prompts: given numbers of patients, the first tokens of their records, ``<s>`` included;
            default ``<s>`` alone.
        progress: called with the number of patients that have just been finished.

    Yields:
        The records of patients ``0 ... batch_size - 1``, then of the next, and so on.

    Raises:
        ValueError: a context that no record fits in.
    """
    device = model.token_embedding.weight.device
    constraint = Constraint(tokenizer, model.config.n_ctx, device)
    if model.config.n_ctx < tokenizer.shortest_record:
        raise ValueError(
            f"The shortest record has {tokenizer.shortest_record} tokens, the context is "
            f"{model.config.n_ctx}."
        )
    for first in range(0, n, batch_size):
        patients = np.arange(first, min(n, first + batch_size))
        given = (
            prompts(patients) if prompts else [np.array([tokenizer.token(START)])] * len(patients)
        )
        yield _sample_batch(
            model, tokenizer, constraint, patients, given, how or Sampling(), seed, progress
        )


def _sample_batch(
    model: GPT,
    tokenizer: Tokenizer,
    constraint: Constraint,
    patients: NDArray[np.int64],
    prompts: Sequence[NDArray[np.int64]],
    how: Sampling,
    seed: int,
    progress: Callable[[int], object] | None,
) -> Sampled:
    weight = model.token_embedding.weight
    device, limit = weight.device, constraint.max_length
    end, pad = tokenizer.token(END), tokenizer.token(PAD)
    result = np.full((len(patients), limit), pad, dtype=np.int64)
    prompt_length = np.array([len(prompt) for prompt in prompts])
    for i, prompt in enumerate(prompts):
        result[i, : len(prompt)] = prompt
    shortest_prompt, longest_prompt = int(prompt_length.min()), int(prompt_length.max())

    rows = np.arange(len(patients))  # rows of the result that are still in the batch
    tokens = torch.from_numpy(result[:, :shortest_prompt]).to(device)
    cache = Cache(model.config, len(patients), device, weight.dtype)
    seen = torch.zeros(len(patients), weight.shape[0], dtype=torch.bool, device=device)
    forced = torch.zeros(len(patients), dtype=torch.int64, device=device)
    n_forced = n_closed = 0
    length, last, new = shortest_prompt, tokens[:, -1], tokens
    seen.scatter_(1, tokens, True)
    while length < limit and len(rows):
        hidden = model.hidden(new, cache)[:, -1]
        allowed = constraint.mask(last, length)
        distribution = probabilities(model.logits(hidden), allowed, seen, how)
        uniform = uniforms(seed, SAMPLE_STREAM, patients[rows], length)
        u = torch.from_numpy(uniform.astype(np.float32)).to(device).clamp(max=1 - 2**-24)
        chosen = draw(distribution, u)
        if length < longest_prompt:
            prompted = torch.from_numpy(prompt_length[rows] > length).to(device)
            given = torch.from_numpy(result[rows, length]).to(device)
            chosen = torch.where(prompted, given, chosen)
        if constraint.is_restricting(length):
            free = constraint.free(last)
            forced += (allowed.sum(1) < free.sum(1)).long()
        result[rows, length] = chosen.cpu().numpy()
        seen.scatter_(1, chosen[:, None], True)
        last, new, length = chosen, chosen[:, None], length + 1

        finished = result[rows, length - 1]
        over = (finished == pad) | (finished == end)
        if progress is not None:
            progress(int((finished == end).sum()))
        if over.mean() >= _COMPACT_SHARE or over.all() or length == limit:
            leaving = forced[torch.from_numpy(over).to(device)]
            n_forced, n_closed = n_forced + int(leaving.sum()), n_closed + int((leaving > 0).sum())
            staying = torch.from_numpy(np.flatnonzero(~over)).to(device)
            rows = rows[~over]
            cache.keep(staying)
            last, new, seen, forced = last[staying], new[staying], seen[staying], forced[staying]
    lengths = (result == end).argmax(axis=1) + 1
    kept = np.arange(limit) < lengths[:, None]
    return Sampled(
        Records(
            result[kept].astype(tokenizer.dtype),
            np.concatenate([[0], np.cumsum(lengths)]),
            patients,
            np.full(len(patients), NO_SPLIT, dtype=np.int8),
        ),
        n_forced,
        n_closed,
    )
