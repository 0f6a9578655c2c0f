"""Causal attention over records that are packed one after the other, without padding."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

# Queries that are answered at once on a CPU: their scores fit into its cache.
_BLOCK = 256

# Longer records keep no attention weights for the way back (their memory grows with the square of
# the length), but compute them once more.
_KEEP = 4096


@dataclass(frozen=True)
class Packing:
    """Where each record begins and ends among the packed tokens.

    Attributes:
        lengths: tokens of each record.
        longest: the largest of them.
        positions: int64 [n]; place of each token in its record.
        offsets: int32 [records + 1]; where each record begins, and the end of the last.
    """

    lengths: list[int]
    longest: int
    positions: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, lengths: list[int], device: torch.device | str = "cpu") -> "Packing":
        """The packing of records of these lengths, on a device."""
        sizes = torch.tensor(lengths)
        ends = sizes.cumsum(0)
        positions = torch.arange(int(ends[-1])) - torch.repeat_interleave(ends - sizes, sizes)
        offsets = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)
        return cls(lengths, max(lengths), positions.to(device), offsets.to(device))


def packed_attention(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Causal attention inside each record; nothing is computed on padding.

    On a GPU this is the variable-length kernel of FlashAttention (Dao, 2023), in half precision.
    Everywhere else it is plain matrix products over blocks of queries: these run at the full speed
    of a CPU, which its fused attention kernels do not reach.

    Args:
        q: [n, heads, width].
        k, v: [n, key heads, width]; each key head serves as many consecutive heads of queries.
        packing: of the n tokens.

    Returns:
        [n, heads, width].
    """
    if _has_kernel(q):
        from torch.nn.attention.varlen import varlen_attn

        offsets, longest = packing.offsets, packing.longest
        causal = (-1, 0)
        shared = q.shape[1] != k.shape[1]
        found = varlen_attn(
            *(q, k, v, offsets, offsets, longest, longest), window_size=causal, enable_gqa=shared
        )
        return cast(Tensor, found)
    return _in_blocks(q, k, v, packing)


def _has_kernel(q: Tensor) -> bool:
    # FlashAttention knows half precision, newer cards, and heads of some widths only.
    return (
        q.is_cuda
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= 256
        and torch.cuda.get_device_capability(q.device)[0] >= 8
    )


@torch.compiler.disable
def _in_blocks(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    found: Tensor = _Blocks.apply(q, k, v, packing.lengths)
    return found


class _Blocks(torch.autograd.Function):
    """Softmax attention, a block of queries of a record at a time.

    Inside, heads come first, and the queries of the heads that share keys stand below each other:
    [key heads, heads per key head * queries, width].
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
        y = torch.empty_like(q)
        kept, is_wanted = [], any(ctx.needs_input_grad)
        for whole, block, seen in _blocks(lengths):
            weights = _weights(q, k, block, seen)
            y[block] = _heads_last(weights @ v[seen].transpose(0, 1), q)
            if is_wanted and _keeps(whole):
                kept.append(weights)
        ctx.save_for_backward(q, k, v, y, *kept)
        ctx.lengths = lengths
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, *kept = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        # What the softmax takes off, so that the weights still add up to 1.
        mean = (d_y * y).sum(dim=-1, keepdim=True, dtype=torch.float32).to(q.dtype)
        d_q = torch.empty_like(q)
        d_k, d_v = torch.zeros_like(k), torch.zeros_like(v)
        d_keys, d_values = d_k.transpose(0, 1), d_v.transpose(0, 1)
        known = iter(kept)
        for whole, block, seen in _blocks(ctx.lengths):
            weights = next(known) if _keeps(whole) else _weights(q, k, block, seen)
            d_out = _heads_first(d_y[block], k)
            d_scores = d_out @ v[seen].permute(1, 2, 0)
            d_scores.sub_(_heads_first(mean[block], k)).mul_(weights).mul_(scale)
            d_q[block] = _heads_last(d_scores @ k[seen].transpose(0, 1), q)
            d_keys[:, seen] += d_scores.transpose(1, 2) @ _heads_first(q[block], k)
            d_values[:, seen] += weights.transpose(1, 2) @ d_out
        return d_q, d_k, d_v, None


def _blocks(lengths: list[int]) -> list[tuple[int, slice, slice]]:
    """Length of the record, the queries, and the keys up to the last of them, block by block."""
    found = []
    start = 0
    for length in lengths:
        for first in range(start, start + length, _BLOCK):
            end = min(first + _BLOCK, start + length)
            found.append((length, slice(first, end), slice(start, end)))
        start += length
    return found


def _keeps(length: int) -> bool:
    return length <= _KEEP


def _heads_first(x: Tensor, k: Tensor) -> Tensor:
    """[queries, heads, width] to [key heads, heads per key head * queries, width]."""
    time, heads, width = x.shape
    if heads == k.shape[1]:
        return x.transpose(0, 1)
    return x.transpose(0, 1).reshape(k.shape[1], heads // k.shape[1] * time, width)


def _heads_last(x: Tensor, q: Tensor) -> Tensor:
    """[key heads, heads per key head * queries, width] to [queries, heads, width]."""
    return x.reshape(q.shape[1], -1, q.shape[2]).transpose(0, 1)


def _weights(q: Tensor, k: Tensor, block: slice, seen: slice) -> Tensor:
    """Attention weights of a block of queries on all keys of the record so far."""
    queries = _heads_first(q[block], k)
    scores = queries @ k[seen].permute(1, 2, 0)
    scores.mul_(q.shape[-1] ** -0.5)
    # The newest keys are those of the queries themselves, which must not look ahead.
    time = block.stop - block.start
    ahead = torch.full((time, time), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
    newest = scores.view(len(scores), -1, time, scores.shape[-1])[..., -time:]
    newest += ahead
    # Under autocast older GPUs would go on in float32.
    return torch.softmax(scores, dim=-1).to(q.dtype)
