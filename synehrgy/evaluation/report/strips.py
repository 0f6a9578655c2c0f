"""A small chart beside each score: the rows as dots with intervals, over what is good and poor."""

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import Scale
from synehrgy.evaluation.report.judgement import ROW_NAMES, short

_WIDTH, _LANE, _MARGIN, _FOOT = 240.0, 10.0, 8.0, 13.0


def mark(row: str, x: float = 6.0, y: float = 6.0, r: float = 3.6) -> str:
    """The shape that stands for a row, as a part of an SVG."""
    if row == "test":
        return f'<circle class="hollow" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    if row == "oracle":
        top, low, half = y - r, y + 0.8 * r, r
        points = f"{x:.1f},{top:.1f} {x + half:.1f},{low:.1f} {x - half:.1f},{low:.1f}"
        return f'<polygon class="hollow" points="{points}"/>'
    if row == "marginals":
        side = 1.7 * r
        return (
            f'<rect class="hollow" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" '
            f'width="{side:.1f}" height="{side:.1f}"/>'
        )
    if row == "train":
        d = 0.8 * r
        return (
            f'<path class="stroke" d="M{x - d:.1f} {y - d:.1f}L{x + d:.1f} {y + d:.1f}'
            f'M{x + d:.1f} {y - d:.1f}L{x - d:.1f} {y + d:.1f}"/>'
        )
    return f'<circle class="solid" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'


def strip(scale: Scale, rows: pd.DataFrame) -> str:
    """The chart as SVG; empty where there is nothing to draw.

    Args:
        scale: of the score.
        rows: of ``judged``, of one score.
    """
    shown = rows[np.isfinite(rows["value"])].set_index("row")
    lanes = [row for row in ROW_NAMES if row in shown.index]
    if not lanes:
        return ""
    aims = rows["aim"].dropna()
    aim = float(aims.iloc[0]) if len(aims) else np.nan
    zones = _zones(scale, aim)
    ends = [edge for zone in zones for edge in zone[1:] if np.isfinite(edge)]
    points = np.array([*shown[["value", "low", "high"]].to_numpy(float).ravel(), aim, *ends])
    points = points[np.isfinite(points)]
    low, high = float(points.min()), float(points.max())
    pad = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    low, high = max(low - pad, scale.bounds[0]), min(high + pad, scale.bounds[1])
    if not low < high:
        low, high = low - pad, high + pad
    height = _LANE * len(lanes) + 2

    def at(x: float) -> float:
        share = (min(max(x, low), high) - low) / (high - low)
        return _MARGIN + share * (_WIDTH - 2 * _MARGIN)

    parts = []
    for name, start, stop in zones:
        left = 0.0 if start <= low else at(start)
        right = _WIDTH if stop >= high else at(stop)
        if right > left:
            parts.append(
                f'<rect class="zone-{name}" x="{left:.1f}" y="0" width="{right - left:.1f}" '
                f'height="{height:.0f}"/>'
            )
    if np.isfinite(aim):
        parts.append(
            f'<line class="aim" x1="{at(aim):.1f}" x2="{at(aim):.1f}" y1="0" y2="{height:.0f}"/>'
        )
    for i, row in enumerate(lanes):
        y = 1 + _LANE * (i + 0.5)
        value, least, most = (float(shown.loc[row, c]) for c in ("value", "low", "high"))
        line = ""
        if np.isfinite(least) and np.isfinite(most):
            line = (
                f'<line class="whisker" x1="{at(least):.1f}" x2="{at(most):.1f}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        parts.append(f'<g class="row-{row}">{line}{mark(row, at(value), y)}</g>')
    base = height + _FOOT - 3
    parts.append(
        f'<text class="ends" x="0" y="{base:.0f}">{short(low)}</text>'
        f'<text class="ends" x="{_WIDTH:.0f}" y="{base:.0f}" text-anchor="end">{short(high)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {height + _FOOT:.0f}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def _zones(scale: Scale, aim: float) -> list[tuple[str, float, float]]:
    """Name, from and to of what is good, fair and poor, over the whole line."""
    if scale.good is None or scale.poor is None or not np.isfinite(aim):
        return []
    good, poor, end = scale.good, scale.poor, np.inf
    above = [
        ("good", aim, aim + good),
        ("fair", aim + good, aim + poor),
        ("poor", aim + poor, end),
    ]
    below = [(name, 2 * aim - stop, 2 * aim - start) for name, start, stop in above]
    if scale.goal == "low":
        return [("good", -end, aim), *above]
    if scale.goal == "high":
        return [*below, ("good", aim, end)]
    return [*below, *above]
