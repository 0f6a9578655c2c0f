"""Bins of continuous values: fitting edges, finding the bin, drawing a value back.

Bin ``i`` of ``n`` is open on the left and closed on the right: ``(edges[i], edges[i + 1]]``. Values
outside the edges belong to the first or the last bin.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synehrgy.errors import UserError

Edges = NDArray[np.float64]


def fit_edges(values: ArrayLike, bin_type: str, n_bins: int, outlier_rule: bool) -> Edges:
    """Fit bin edges as published (SynEHRgy, arXiv 2411.13428).

    A tail that reaches more than three times as far beyond the 2.5 % or 97.5 % quantile as that
    quantile lies from the median is left out of the fit. There are as many bins as ``n_bins``
    and a fifth of the number of distinct values allow, and at least one.

    Args:
        values: finite numbers, at least one.
        bin_type: ``uniform`` (equal width) or ``quantile`` (equal counts, equal edges merged).
        n_bins: bins at most.
        outlier_rule: whether far tails are left out.

    Returns:
        Ascending edges, one more than there are bins; all values equal gives one bin of no width.

    Raises:
        UserError: an unknown bin type.
    """
    kept = np.asarray(values, dtype=np.float64)
    if outlier_rule:
        low, middle, high = np.quantile(kept, [0.025, 0.5, 0.975])
        top = high if kept.max() - high > 3 * (high - middle) else np.inf
        bottom = low if low - kept.min() > 3 * (middle - low) else -np.inf
        kept = kept[(kept >= bottom) & (kept <= top)]
    n = max(1, min(n_bins, len(np.unique(kept)) // 5))
    if bin_type == "uniform":
        edges = np.linspace(kept.min(), kept.max(), n + 1)
    elif bin_type == "quantile":
        edges = np.quantile(kept, np.linspace(0, 1, n + 1))
    else:
        raise UserError(f"Unknown bin_type {bin_type!r}; valid: uniform, quantile.")
    edges = np.unique(edges)
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def find_bins(values: ArrayLike, edges: Edges) -> NDArray[np.int64]:
    """Index of the bin that each value belongs to, in ``0 ... len(edges) - 2``."""
    found = np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="left") - 1
    return np.clip(found, 0, len(edges) - 2)


def n_outside(values: ArrayLike, edges: Edges) -> int:
    """How many values lie outside the edges; decoding can not bring these back."""
    numbers = np.asarray(values, dtype=np.float64)
    return int(((numbers < edges[0]) | (numbers > edges[-1])).sum())


def draw_values(
    bins: NDArray[np.int64], edges: Edges, uniform: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A value of each bin, uniform between its edges; ``find_bins`` gives the bin back.

    Args:
        bins: index of the bin of each value.
        edges: as fitted.
        uniform: draws in (0, 1), one per value.
    """
    low, high = edges[bins], edges[bins + 1]
    drawn = low + uniform * (high - low)
    # Rounding must not carry a value onto the open edge or beyond the closed one.
    return np.clip(drawn, np.minimum(np.nextafter(low, np.inf), high), high)
