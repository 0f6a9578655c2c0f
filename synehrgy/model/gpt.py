"""A GPT decoder that reads from top to bottom.

Pre-norm transformer blocks with learned positions and tied embeddings, after GPT-2 (Radford et
al., 2019).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model.

    Raises:
        ValueError: a width that the heads do not divide.
    """

    vocab_size: int
    n_ctx: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 384
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}.")


class Cache:
    """Keys and values of past positions, so that a new token costs one position of work.

    All rows of the batch are at the same position. The cache grows in blocks, because few records
    are as long as the context and a full-length cache of a large batch would not fit in memory.

    Attributes:
        length: positions filled.
    """

    BLOCK = 128

    def __init__(self, config: GPTConfig, batch: int, device: torch.device, dtype: torch.dtype):
        shape = (2, batch, config.n_head, 0, config.n_embd // config.n_head)
        self.n_ctx = config.n_ctx
        self.length = 0
        # Keys (0) and values (1) of each layer, a tensor per layer: growing then needs room for
        # one layer more, not for twice the cache.
        self._layers = [torch.empty(shape, device=device, dtype=dtype)] * config.n_layer

    @staticmethod
    def bytes_per_row(config: GPTConfig, dtype: torch.dtype) -> int:
        """Memory of one row of the batch at full context."""
        return 2 * config.n_layer * config.n_ctx * config.n_embd * dtype.itemsize

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values [batch, head, new, width] of a layer; returns all so far."""
        end = self.length + keys.shape[2]
        if end > self._layers[layer].shape[3]:
            self._grow(layer, end)
        data = self._layers[layer]
        data[0, :, :, self.length : end] = keys
        data[1, :, :, self.length : end] = values
        return data[0, :, :, :end], data[1, :, :, :end]

    def _grow(self, layer: int, needed: int) -> None:
        old = self._layers[layer]
        shape = list(old.shape)
        shape[3] = min(-(-needed // self.BLOCK) * self.BLOCK, self.n_ctx)
        grown = old.new_empty(shape)
        grown[..., : self.length, :] = old[..., : self.length, :]
        self._layers[layer] = grown

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch (indices), in this order."""
        for i, data in enumerate(self._layers):
            self._layers[i] = data[:, rows]


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: Cache | None, layer: int) -> Tensor:
        """[batch, time, width] to the same shape; every row is a record, or goes on with one."""
        batch, time, width = x.shape
        q, k, v = (
            part.view(batch, time, self.n_head, -1).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=2)
        )
        if cache is not None:
            k, v = cache.append(layer, k, v)
        # A single new token may look at all that is cached. Attention weights are not dropped:
        # the fused kernels on CPUs cannot, and without them a step takes twice as long.
        y = F.scaled_dot_product_attention(q, k, v, is_causal=time > 1)
        return self.out(y.transpose(1, 2).reshape(batch, time, width))

    def packed(self, x: Tensor, lengths: list[int]) -> Tensor:
        """[tokens, width] to the same shape; records one after the other, of these lengths.

        A call per record: nothing is computed on padding, and none looks into another.
        """
        # [3, head, tokens, width of a head]
        parts = self.qkv(x).view(len(x), 3, self.n_head, -1).permute(1, 2, 0, 3)
        y = []
        for record in parts.split(lengths, dim=2):
            q, k, v = record.unsqueeze(1)
            y.append(F.scaled_dot_product_attention(q, k, v, is_causal=True)[0])
        return self.out(torch.cat(y, dim=1).transpose(0, 1).reshape(x.shape))


class Block(nn.Module):
    """Attention, then a feed-forward network of four times the width, each on its residual."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.norm_mlp = nn.LayerNorm(config.n_embd)
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """[..., width] to the same shape; ``attend`` is the attention of this block."""
        x = x + self.dropout(attend(self.norm_attention(x)))
        hidden = F.gelu(self.up(self.norm_mlp(x)), approximate="tanh")
        return x + self.dropout(self.down(hidden))


class GPT(nn.Module):
    """Token ids to the logits of the next token."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.n_ctx, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)
        self.apply(self._init)
        for name, parameter in self.named_parameters():
            # GPT-2 scales the projections into the residual stream by depth, so that its
            # variance does not grow with the number of layers.
            if name.endswith(("attention.out.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * config.n_layer) ** 0.5)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def _blocks(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]

    @property
    def n_parameters(self) -> int:
        """Number of weights; the output layer shares those of the token embedding."""
        return sum(parameter.numel() for parameter in self.parameters())

    def hidden(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Last hidden states.

        Args:
            tokens: int64 [batch, time].
            cache: of the positions before these; it is extended by these. A cache that already
                holds positions takes one token at a time.

        Returns:
            [batch, time, n_embd].

        Raises:
            ValueError: positions beyond the context, or several tokens after cached ones.
        """
        time = tokens.shape[1]
        past = cache.length if cache is not None else 0
        if past + time > self.config.n_ctx:
            raise ValueError(f"{past + time} positions in a context of {self.config.n_ctx}.")
        if past and time > 1:
            raise ValueError(f"{time} tokens at once after {past} cached positions.")
        positions = torch.arange(past, past + time, device=tokens.device)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for layer, block in enumerate(self._blocks):
            x = block(x, partial(block.attention, cache=cache, layer=layer))
        if cache is not None:
            cache.length += time
        return self.norm(x)

    def packed_hidden(self, tokens: Tensor, lengths: list[int]) -> Tensor:
        """Last hidden states of records packed one after the other.

        Each record has its own positions and sees only itself, so the states are those of
        ``hidden`` for each record by itself.

        Args:
            tokens: int64 [n].
            lengths: of the records; they add up to n.

        Returns:
            [n, n_embd].

        Raises:
            ValueError: a record longer than the context.
        """
        if max(lengths) > self.config.n_ctx:
            raise ValueError(f"{max(lengths)} positions in a context of {self.config.n_ctx}.")
        every = torch.arange(max(lengths), device=tokens.device)
        positions = torch.cat([every[:length] for length in lengths])
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for block in self._blocks:
            x = block(x, partial(block.attention.packed, lengths=lengths))
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., n_embd] to logits [..., vocab_size]."""
        return F.linear(hidden, self.token_embedding.weight)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids [batch, time] to logits [batch, time, vocab_size]."""
        return self.logits(self.hidden(tokens, cache))
