"""The network of PromptEHR: an encoder and a decoder with demographic prompts in front of each."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Tokens = NDArray[np.int64]
Keys = tuple[Tensor, Tensor]

PAD, MASK, VISIT, END = range(4)
_N_SPECIAL = 4


class Grammar:
    """Tokens of visits, and which of them may follow.

    A visit is ``<v>``, then for each code system in declared order its span (``<system>``, codes,
    ``</system>``), then ``</v>``.

    Attributes:
        n_codes: of each system; their tokens follow one another.
        most: codes of each system that a visit may have.
        first: token of the first code of each system.
        first_code: the first token that is a code, as are all after it.
        n_tokens: of all kinds.
        longest: tokens of the longest visit.
    """

    def __init__(self, n_codes: Sequence[int], most: Sequence[int]) -> None:
        self.n_codes, self.most = list(n_codes), list(most)
        n_systems = len(self.n_codes)
        before = np.cumsum([0, *self.n_codes])
        self.first_code = _N_SPECIAL + 2 * n_systems
        self.first = [int(n) + self.first_code for n in before[:-1]]
        self.n_tokens = int(before[-1]) + self.first_code
        self.longest = sum(self.most) + 2 * n_systems + 2
        # States are told by the last token: 0 a visit is over, 1 it begins, 2 + 2 s within the
        # span of system s, 3 + 2 s after it.
        state = torch.zeros(self.n_tokens, dtype=torch.long)
        follows = torch.zeros(2 + 2 * n_systems, self.n_tokens, dtype=torch.bool)
        state[VISIT] = 1
        follows[0, PAD] = True
        for s, (first, n) in enumerate(zip(self.first, self.n_codes, strict=True)):
            opening, closing = self.span(s)
            state[opening], state[closing] = 2 + 2 * s, 3 + 2 * s
            state[first : first + n] = 2 + 2 * s
            follows[1 + 2 * s, opening] = True
            follows[2 + 2 * s, closing] = True
            follows[2 + 2 * s, first : first + n] = True
        follows[1 + 2 * n_systems, END] = True
        self._state, self._follows = state, follows
        self._most = torch.tensor([0, 0] + [n for most in self.most for n in (most, 0)])
        self.is_code = torch.arange(self.n_tokens) >= self.first_code

    def span(self, system: int) -> tuple[int, int]:
        """The tokens that open and close the span of a system."""
        return _N_SPECIAL + 2 * system, _N_SPECIAL + 2 * system + 1

    def visit(self, spans: Sequence[Tokens]) -> Tokens:
        """A whole visit of the codes of each system."""
        parts: list[Tokens | list[int]] = [[VISIT]]
        for s, codes in enumerate(spans):
            opening, closing = self.span(s)
            parts += [[opening], codes, [closing]]
        return np.concatenate([*parts, [END]]).astype(np.int64)

    def allowed(self, last: Tensor, used: Tensor) -> Tensor:
        """Which tokens may follow.

        Args:
            last: token of each visit [visits].
            used: codes that it has already [visits, tokens]; none is listed twice.

        Returns:
            Of each visit at least one [visits, tokens].
        """
        state = self._state[last]
        follows = self._follows[state]
        full = (follows & used).sum(1) >= self._most[state]
        return follows & ~used & ~(full[:, None] & self.is_code)


class Prompts(nn.Module):
    """Demographics as vectors, one for each covariate, by way of a narrower space."""

    def __init__(self, levels: Sequence[int], hidden: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(levels), hidden) * 0.1)
        self.level = nn.Embedding(sum(levels), hidden)
        self.project = nn.Linear(hidden, width, bias=False)
        starts = torch.tensor(np.cumsum([0, *levels])[:-1], dtype=torch.long)
        self.register_buffer("starts", starts, persistent=False)
        self.starts: Tensor

    def forward(self, values: Tensor, levels: Tensor) -> Tensor:
        """[patients, covariates] numbers and levels to [patients, covariates, width]."""
        found: Tensor = self.project(
            self.level(levels + self.starts) + self.weight * values[..., None]
        )
        return found


class Attention(nn.Module):
    """Heads of attention, keys and values apart from queries so that they can be kept."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys(self, x: Tensor) -> Keys:
        """Keys and values [patients, heads, tokens, width of a head]."""
        keys, values = self.key_value(x).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def forward(
        self, x: Tensor, keys: Keys, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """What each token finds [patients, tokens, width]."""
        query = self._split(self.query(x))
        found = F.scaled_dot_product_attention(query, *keys, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


def _feed_forward(width: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )


class EncoderLayer(nn.Module):
    """Attention to all tokens."""

    def __init__(self, width: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, n_head)
        self.feed_forward = _feed_forward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[patients, tokens, width] to the same."""
        normed = self.norm(x)
        x = x + self.dropout(self.attention(normed, self.attention.keys(normed), mask))
        out: Tensor = x + self.dropout(self.feed_forward(x))
        return out


class DecoderLayer(nn.Module):
    """Attention to earlier tokens, then to what the encoder made."""

    def __init__(self, width: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.cross = Attention(width, n_head), Attention(width, n_head)
        self.feed_forward = _feed_forward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: Keys | None, memory: Keys, mask: Tensor
    ) -> tuple[Tensor, Keys]:
        """All tokens at once, or the next one; the keys of all so far come with it."""
        normed = self.norm(x)
        keys = self.attention.keys(normed)
        if past is not None:
            keys = torch.cat([past[0], keys[0]], 2), torch.cat([past[1], keys[1]], 2)
        x = x + self.dropout(self.attention(normed, keys, causal=past is None))
        x = x + self.dropout(self.cross(self.cross_norm(x), memory, mask))
        return x + self.dropout(self.feed_forward(x)), keys


class PromptedTransformer(nn.Module):
    """From earlier visits and a corrupted one, with demographics, to the whole one.

    Args:
        grammar: of the tokens.
        levels: of each covariate.
        n_ctx: tokens that the encoder reads.
        width: of the vectors.
        n_layer: of the encoder, and of the decoder.
        n_head: of attention.
        dropout: chance of each unit to be left out.
    """

    def __init__(
        self,
        grammar: Grammar,
        levels: Sequence[int],
        n_ctx: int,
        width: int,
        n_layer: int,
        n_head: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.grammar = grammar
        self.token = nn.Embedding(grammar.n_tokens, width)
        self.source_place = nn.Embedding(n_ctx, width)
        self.target_place = nn.Embedding(grammar.longest, width)
        for embedding in (self.token, self.source_place, self.target_place):
            # Long enough that a code in the input can be copied to the output, whose weights
            # these are, too.
            nn.init.normal_(embedding.weight, std=width**-0.5)
        self.source_prompts = Prompts(levels, width // 2, width)
        self.target_prompts = Prompts(levels, width // 2, width)
        self.encoder = nn.ModuleList(EncoderLayer(width, n_head, dropout) for _ in range(n_layer))
        self.decoder = nn.ModuleList(DecoderLayer(width, n_head, dropout) for _ in range(n_layer))
        # As in BART, so that what attention adds does not drown which token it is.
        self.source_start, self.target_start = nn.LayerNorm(width), nn.LayerNorm(width)
        self.source_norm, self.target_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(grammar.n_tokens))
        self.dropout = nn.Dropout(dropout)

    def encode(self, source: Tensor, values: Tensor, levels: Tensor) -> tuple[list[Keys], Tensor]:
        """Read prompts and tokens.

        Args:
            source: [patients, tokens], padded.
            values, levels: of covariates [patients, covariates].

        Returns:
            What each layer of the decoder attends to, and a mask of what is no padding.
        """
        prompts = self.source_prompts(values, levels)
        tokens = self.token(source) + self.source_place.weight[: source.shape[1]]
        there = torch.cat([torch.ones_like(levels, dtype=torch.bool), source != PAD], dim=1)
        mask = there[:, None, None]
        x = self.dropout(self.source_start(torch.cat([prompts, tokens], dim=1)))
        for layer in self.encoder:
            x = layer(x, mask)
        x = self.source_norm(x)
        return [cast(DecoderLayer, layer).cross.keys(x) for layer in self.decoder], mask

    def decode(
        self,
        tokens: Tensor,
        place: int,
        memory: list[Keys],
        mask: Tensor,
        prompts: Tensor | None = None,
        past: list[Keys] | None = None,
    ) -> tuple[Tensor, list[Keys]]:
        """Read the beginning of a visit after its prompts, or one more token after ``past``.

        Args:
            tokens: [patients, tokens].
            place: of the first of them in the visit.
            memory, mask: of ``encode``.
            prompts: ``target_prompts`` with the first tokens.
            past: what was kept of all that came before.

        Returns:
            From what the next token is told [patients, tokens, width], and what to keep.
        """
        n = tokens.shape[1]
        x = self.token(tokens) + self.target_place.weight[place : place + n]
        if prompts is not None:
            x = torch.cat([prompts, x], dim=1)
        x, kept = self.dropout(self.target_start(x)), []
        for i, layer in enumerate(self.decoder):
            x, keys = layer(x, past[i] if past else None, memory[i], mask)
            kept.append(keys)
        return self.target_norm(x[:, -n:]), kept

    def logits(self, x: Tensor) -> Tensor:
        """Of the next token [..., tokens]; the weights are those of the input."""
        return F.linear(x, self.token.weight, self.bias)

    def loss(self, source: Tensor, target: Tensor, values: Tensor, levels: Tensor) -> Tensor:
        """Mean negative log-likelihood of the tokens of whole visits ``target`` (padded)."""
        memory, mask = self.encode(source, values, levels)
        prompts = self.target_prompts(values, levels)
        x, _ = self.decode(target[:, :-1], 0, memory, mask, prompts)
        wanted = target[:, 1:]
        there = wanted != PAD
        return F.cross_entropy(self.logits(x[there]), wanted[there])

    @torch.no_grad()
    def generate(
        self, rng: torch.Generator, source: Tensor, values: Tensor, levels: Tensor
    ) -> Tensor:
        """Draw a visit of each patient.

        Returns:
            Whole visits [patients, tokens] on the CPU, padded.
        """
        device, n = source.device, len(source)
        memory, mask = self.encode(source, values, levels)
        prompts: Tensor | None = self.target_prompts(values, levels)
        past: list[Keys] | None = None
        last = torch.full((n,), VISIT)
        drawn = [last]
        used = torch.zeros(n, self.grammar.n_tokens, dtype=torch.bool)
        while not bool(((last == END) | (last == PAD)).all()):
            place, tokens = len(drawn) - 1, last[:, None].to(device)
            x, past = self.decode(tokens, place, memory, mask, prompts, past)
            prompts = None
            logits = self.logits(x[:, -1]).cpu()
            logits = logits.masked_fill(~self.grammar.allowed(last, used), float("-inf"))
            last = torch.multinomial(logits.softmax(-1), 1, generator=rng)[:, 0]
            used[torch.arange(n), last] = self.grammar.is_code[last]
            drawn.append(last)
        return torch.stack(drawn, dim=1)
