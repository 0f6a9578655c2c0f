"""Attention of one new token per row over the keys and values of the tokens before it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, set_num_threads, types
from numba.core.config import NUMBA_NUM_THREADS
from numba.extending import intrinsic
from torch import Tensor
from torch.nn import functional as F


def cached_attention(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, horizon: int
) -> Tensor:
    """Add a token to the cache of each row, and let it look at all of its row so far.

    Sampling reads the whole cache for every token, so memory sets its speed. On a CPU one loop
    reads each key and value once and no farther than the row is filled, which the general kernels
    do not; what a row gets does not depend on the others.

    Args:
        q: [rows, heads, width].
        k, v: [rows, key heads, width]; each key head serves as many consecutive heads of queries.
        keys, values: [rows, key heads, capacity, width]; the new ones are written into them.
        lengths: int64 [rows]; positions that are filled, fewer than the capacity.
        horizon: more than any of the lengths.

    Returns:
        [rows, heads, width].
    """
    if q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16):
        return _on_cpu(q, k, v, keys, values, lengths)
    rows = torch.arange(len(lengths), device=q.device)
    keys[rows, :, lengths] = k
    values[rows, :, lengths] = v
    seen = torch.arange(horizon, device=q.device) <= lengths[:, None]
    return F.scaled_dot_product_attention(
        q[:, :, None],
        keys[:, :, :horizon],
        values[:, :, :horizon],
        attn_mask=seen[:, None, None],
        enable_gqa=q.shape[1] != k.shape[1],
    )[:, :, 0]


@torch.compiler.disable
def _on_cpu(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, at: Tensor) -> Tensor:
    y = torch.empty(q.shape)
    # With as many threads as PyTorch, which may have fewer than there are cores.
    set_num_threads(min(torch.get_num_threads(), NUMBA_NUM_THREADS))
    scaled = q.float() * q.shape[-1] ** -0.5
    _attend(*map(_numbers, (scaled, k, v, keys, values)), at.numpy(), y.numpy())
    return y.to(q.dtype)


def _numbers(x: Tensor) -> Any:
    """A tensor as NumPy's array; bfloat16, which NumPy does not know, as its 16 bits."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).contiguous().numpy()


@intrinsic
def _float(_: Any, x: Any) -> tuple[Any, Callable[..., Any]]:
    """A float32, or a bfloat16 as its 16 bits, as float32."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if x == types.float32:
            return arguments[0]
        # A bfloat16 is the first half of a float32.
        bits = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(x), build


@njit(parallel=True, fastmath=True, error_model="numpy", cache=True)
def _attend(q: Any, k: Any, v: Any, keys: Any, values: Any, lengths: Any, y: Any) -> None:
    rows, key_heads, _, width = keys.shape
    shared = q.shape[1] // key_heads
    for i in prange(rows * key_heads):
        row, head = i // key_heads, i % key_heads
        last = lengths[row]
        for w in range(width):
            keys[row, head, last, w] = k[row, head, w]
            values[row, head, last, w] = v[row, head, w]
        weights = np.empty(last + 1, np.float32)
        total = np.empty(width, np.float32)
        for query in range(head * shared, (head + 1) * shared):
            largest = np.float32(-3e38)
            for t in range(last + 1):
                score = np.float32(0)
                for w in range(width):
                    score += q[row, query, w] * _float(keys[row, head, t, w])
                weights[t] = score
                largest = max(largest, score)
            mass = np.float32(0)
            for t in range(last + 1):
                weights[t] = np.exp(weights[t] - largest)
                mass += weights[t]
            total[:] = 0
            for t in range(last + 1):
                for w in range(width):
                    total[w] += weights[t] * _float(values[row, head, t, w])
            for w in range(width):
                y[row, query, w] = total[w] / mass
