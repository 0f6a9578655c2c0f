"""A GPT decoder that reads from top to bottom.

Pre-norm transformer blocks with tied embeddings: as in GPT-2 (Radford et al., 2019) with the
defaults of the configuration, as in later decoders with its other choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synehrgy.model.attention import Packing, packed_attention
from synehrgy.model.cached import cached_attention

POSITIONS = ("learned", "rotary")
NORMS = ("layer", "rms")
MLPS = ("gelu", "relu2", "swiglu")


# Cosines and sines of rotary positions.
Turns = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model.

    Attributes:
        vocab_size, n_ctx: tokens it knows, and positions it has.
        n_layer, n_head, n_embd: blocks, attention heads, width of the residual stream.
        dropout: of what is added to the residual stream, in training.
        n_kv_head: heads of keys and values, each shared by as many heads of queries (grouped-query
            attention, Ainslie et al., 2023): sampling then reads a smaller cache. None: n_head.
        positions: ``learned`` embeddings, or ``rotary`` (Su et al., 2021).
        norm: ``layer`` or ``rms`` (Zhang and Sennrich, 2019).
        mlp: ``gelu``, ``relu2`` (So et al., 2021) or ``swiglu`` (Shazeer, 2020), of equal size.
        qk_norm: queries and keys are normalised, so that scores stay small (Henry et al., 2020).
        bias: linear layers and norms have biases.
        tied: the output layer shares the weights of the token embedding.
        n_next: tokens ahead that it learns to predict (multi-token prediction, Gloeckle et al.,
            2024); sampling uses the next one only.

    Raises:
        ValueError: numbers that do not fit together.
    """

    vocab_size: int
    n_ctx: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 384
    dropout: float = 0.1
    n_kv_head: int | None = None
    positions: str = "learned"
    norm: str = "layer"
    mlp: str = "gelu"
    qk_norm: bool = False
    bias: bool = True
    tied: bool = True
    n_next: int = 1

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}.")
        if self.n_head % self.key_heads:
            raise ValueError(
                f"n_head={self.n_head} is not a multiple of n_kv_head={self.n_kv_head}."
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need heads of even width, not {self.head_width}.")
        for key, choices in (("positions", POSITIONS), ("norm", NORMS), ("mlp", MLPS)):
            if getattr(self, key) not in choices:
                raise ValueError(f"{key}={getattr(self, key)} is not one of {', '.join(choices)}.")

    @property
    def head_width(self) -> int:
        """Width of an attention head."""
        return self.n_embd // self.n_head

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_head or self.n_head

    @property
    def mlp_width(self) -> int:
        """Width of the feed-forward networks."""
        if self.mlp == "swiglu":
            # A third matrix for the gate, so each has two thirds of the width.
            return round(4 * self.n_embd * 2 / 3 / 64) * 64 or 64
        return 4 * self.n_embd


# Prefixes are padded to a multiple of this, and batches of rows should be: matrix products of fewer
# rows take other kernels, which round otherwise.
BLOCK = 16

# Keys and values of each layer, [key heads, positions, width of a head].
Prefix = list[tuple[Tensor, Tensor]]


class Cache:
    """Keys and values of past positions, so that a new token costs one position of work.

    Each row of the batch has its own length and can begin anew at any time. It is allocated once.

    Args:
        config: of the model.
        rows: of the batch.
        device, dtype: of the model.
        capacity: positions of each row; default the context.

    Attributes:
        keys, values: of each layer, [rows, key heads, capacity, width of a head].
        lengths: int64 [rows]; positions filled.
        horizon: more than any of the lengths; a GPU looks no farther.
    """

    def __init__(
        self,
        config: GPTConfig,
        rows: int,
        device: torch.device,
        dtype: torch.dtype,
        capacity: int | None = None,
    ):
        self.horizon = capacity or config.n_ctx
        shape = (rows, config.key_heads, self.horizon, config.head_width)

        # Zeros, because a masked place still is a factor, and 0 times NaN is NaN.
        def zeros() -> list[Tensor]:
            return [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]

        self.keys, self.values = zeros(), zeros()
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)

    @staticmethod
    def bytes_per_row(config: GPTConfig, dtype: torch.dtype, capacity: int | None = None) -> int:
        """Memory of one row."""
        width = config.key_heads * config.head_width
        return 2 * config.n_layer * (capacity or config.n_ctx) * width * dtype.itemsize

    def begin(self, row: int, prefix: Prefix | None) -> None:
        """Let a row begin anew, after a prefix if there is one."""
        length = prefix[0][0].shape[1] if prefix else 0
        for layer, (keys, values) in enumerate(prefix or []):
            self.keys[layer][row, :, :length] = keys
            self.values[layer][row, :, :length] = values
        self.lengths[row] = length

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows (indices), in this order."""
        for parts in (self.keys, self.values):
            for layer, part in enumerate(parts):
                parts[layer] = part[rows]
        self.lengths = self.lengths[rows]


class Dropout(nn.Module):
    """Zeroes a share of the numbers in training and scales the others up.

    On a CPU that of PyTorch takes a tenth of a training step; this one compares 16 random bits per
    number, so that the share is exact to 1 in 65,536.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not self.training or self.share == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.share)
        dropped = round(self.share * 2**16)
        random = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), 2**63 - 1)
        is_kept = random.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * is_kept * (2**16 / (2**16 - dropped))


class SquaredReLU(torch.autograd.Function):
    """max(x, 0) squared, in fewer passes over memory than operation by operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The same shape."""
        positive = x.clamp_min(0)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Gradient of x."""
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2)


def _norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.n_embd)
    return nn.LayerNorm(config.n_embd, bias=config.bias)


def rotations(positions: Tensor, width: int) -> Turns:
    """Cosines and sines of rotary positions [n]: both float32 [n, 1, width / 2]."""
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None, None] * 10_000.0 ** (-pairs / width)
    return angles.cos(), angles.sin()


class Rotate(torch.autograd.Function):
    """Turns heads [..., n, heads, width] by their positions; what turns back is the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """The same shape; cosines and sines as ``rotations`` gives them."""
        ctx.save_for_backward(cosine, sine)
        return Rotate._turned(x, cosine.to(x.dtype), sine.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of x."""
        cosine, sine = (part.to(gradient.dtype) for part in ctx.saved_tensors)
        return Rotate._turned(gradient, cosine, -sine), None, None

    @staticmethod
    def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat(
            [
                torch.addcmul(first * cosine, second, sine, value=-1),
                torch.addcmul(first * sine, second, cosine),
            ],
            dim=-1,
        )


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        n_heads = config.n_head + 2 * config.key_heads
        self.qkv = nn.Linear(config.n_embd, n_heads * config.head_width, bias=config.bias)
        self.out = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def _heads(self, x: Tensor, turns: Turns | None) -> tuple[Tensor, Tensor, Tensor]:
        """[..., width] to queries, keys and values [..., heads, width of a head]."""
        config = self.config
        heads = self.qkv(x).unflatten(-1, (-1, config.head_width))
        scored, v = heads.split([config.n_head + config.key_heads, config.key_heads], dim=-2)
        if config.qk_norm:
            # A layer norm, because its kernel is fused everywhere; that of an RMS norm is not.
            scored = F.layer_norm(scored, (config.head_width,)).to(v.dtype)
        if turns is not None:
            scored = Rotate.apply(scored, *turns)
        q, k = scored.split([config.n_head, config.key_heads], dim=-2)
        return q, k, v

    def forward(self, x: Tensor, turns: Turns | None, kept: Prefix | None = None) -> Tensor:
        """[batch, time, width] to the same shape; every row is a record.

        Keys and values of the first row are added to ``kept``.
        """
        q, k, v = (heads.transpose(1, 2) for heads in self._heads(x, turns))
        if kept is not None:
            kept.append((k[0], v[0]))
        y = F.scaled_dot_product_attention(
            *(q, k, v), is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def step(self, x: Tensor, turns: Turns | None, cache: Cache, layer: int) -> Tensor:
        """[rows, width] to the same shape; each row is the next token of one in the cache."""
        q, k, v = self._heads(x, turns)
        keys, values = cache.keys[layer], cache.values[layer]
        y = cached_attention(q, k, v, keys, values, cache.lengths, cache.horizon)
        return self.out(y.reshape(x.shape))

    def packed(self, x: Tensor, turns: Turns | None, packing: Packing) -> Tensor:
        """[n, width] to the same shape; records one after the other.

        Attention weights are not dropped: the fused kernels of GPUs cannot.
        """
        q, k, v = self._heads(x, turns)
        return self.out(packed_attention(q, k, v, packing).reshape(x.shape))


class MLP(nn.Module):
    """The feed-forward network of a block: about 8 n_embd² weights, whatever its kind."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.kind = config.mlp
        n_up = 2 if self.kind == "swiglu" else 1
        self.up = nn.Linear(config.n_embd, n_up * config.mlp_width, bias=config.bias)
        self.down = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape."""
        hidden = self.up(x)
        if self.kind == "gelu":
            hidden = F.gelu(hidden, approximate="tanh")
        elif self.kind == "relu2":
            hidden = SquaredReLU.apply(hidden)
        else:
            gate, hidden = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * hidden
        return cast(Tensor, self.down(hidden))


class Block(nn.Module):
    """Attention, then a feed-forward network, each on its residual."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm_attention = _norm(config)
        self.attention = Attention(config)
        self.norm_mlp = _norm(config)
        self.mlp = MLP(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """[..., width] to the same shape; ``attend`` is the attention of this block."""
        x = x + self.dropout(attend(self.norm_attention(x)))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class GPT(nn.Module):
    """Token ids to the logits of the next token."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.n_ctx, config.n_embd)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = _norm(config)
        if not config.tied:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        # What turns the last hidden state into that of a token further ahead.
        self.ahead = nn.ModuleList(
            nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
            for _ in range(config.n_next - 1)
        )
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
        """Number of weights; those that are shared count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def hidden(self, tokens: Tensor, kept: Prefix | None = None) -> Tensor:
        """Last hidden states.

        Args:
            tokens: int64 [batch, time].
            kept: a list that keys and values of the first row are added to.

        Returns:
            [batch, time, n_embd].

        Raises:
            ValueError: positions beyond the context.
        """
        time = tokens.shape[1]
        if time > self.config.n_ctx:
            raise ValueError(f"{time} positions in a context of {self.config.n_ctx}.")
        x, turns = self._embed(tokens, torch.arange(time, device=tokens.device))
        for block in self._blocks:
            x = block(x, partial(block.attention, turns=turns, kept=kept))
        return self.norm(x)

    def prefix(self, tokens: Tensor) -> Prefix:
        """What a cache keeps of the first tokens of a record, int64 [n]."""
        n = len(tokens)
        kept: Prefix = []
        # No token looks at the padding after it.
        padding = max(min(-n % BLOCK, self.config.n_ctx - n), 0)
        self.hidden(F.pad(tokens, (0, padding))[None], kept)
        return [(keys[:, :n], values[:, :n]) for keys, values in kept]

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Last hidden states of the next token of each row.

        Args:
            tokens: int64 [rows].
            cache: of the positions before these; it is extended by these. No row may be full.

        Returns:
            [rows, n_embd].
        """
        x, turns = self._embed(tokens, cache.lengths)
        for layer, block in enumerate(self._blocks):
            x = block(x, partial(block.attention.step, turns=turns, cache=cache, layer=layer))
        cache.lengths += 1
        return self.norm(x)

    def packed_hidden(self, tokens: Tensor, packing: Packing) -> Tensor:
        """Last hidden states of records packed one after the other.

        Each record has its own positions and sees only itself, so the states are those of
        ``hidden`` for each record by itself.

        Args:
            tokens: int64 [n].
            packing: of the n tokens into records.

        Returns:
            [n, n_embd].

        Raises:
            ValueError: a record longer than the context.
        """
        if packing.longest > self.config.n_ctx:
            raise ValueError(f"{packing.longest} positions in a context of {self.config.n_ctx}.")
        x, turns = self._embed(tokens, packing.positions)
        for block in self._blocks:
            x = block(x, partial(block.attention.packed, turns=turns, packing=packing))
        return self.norm(x)

    def _embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Turns | None]:
        """Embeddings of tokens at positions [n], and how these turn the heads if they do."""
        x, turns = self.token_embedding(tokens), None
        if self.config.positions == "learned":
            x = x + self.position_embedding(positions)
        else:
            turns = rotations(positions, self.config.head_width)
        return self.dropout(x), turns

    @property
    def output_weight(self) -> Tensor:
        """[vocab_size, n_embd]; its products with the last hidden states are the logits."""
        return self.token_embedding.weight if self.config.tied else self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., n_embd] to logits [..., vocab_size]."""
        return F.linear(hidden, self.output_weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [batch, time] to logits [batch, time, vocab_size]."""
        return self.logits(self.hidden(tokens))
