"""Figures of series."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from synehrgy.evaluation.metric import SYNTHETIC, TEST
from synehrgy.evaluation.report.figures.drawing import (
    TRAIN_NAME,
    WIDE,
    Tables,
    beside,
    drawn,
    figure_of,
    grid_of,
    in_order,
    legend_above,
    name_of,
    rows_of,
    there,
)
from synehrgy.evaluation.report.judgement import ROW_NAMES
from synehrgy.evaluation.report.style import FAINT, MUTED, ROW_COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Of fewer pairs of values a correlation is hardly more than noise; as published.
_FEWEST_PAIRS = 100


@drawn(
    "series_histograms",
    "series",
    "Values of each series",
    "Filled: real train patients. Line: synthetic patients. Where there are many series, those "
    "with the most values are shown.",
)
def _series_histograms(tables: Tables) -> "Figure | None":
    needed = ["series", "left", "right", "real", "found"]
    table = rows_of(tables, "series_histograms", needed, SYNTHETIC)
    if table is None:
        return None
    units: dict[str, str] = {}
    summary = rows_of(tables, "series_summary", ["series", "unit"], SYNTHETIC)
    if summary is not None:
        units = dict(zip(summary["series"], summary["unit"].fillna(""), strict=True))
    names = in_order(table["series"])[:48]
    figure, axes = grid_of(len(names), 6, WIDE / 6, 1.45)
    for place, name in zip(axes, names, strict=True):
        mine = table[table["series"] == name].sort_values("left")
        edges = np.append(mine["left"].to_numpy(float), mine["right"].to_numpy(float)[-1:])
        real, found = (mine[c].to_numpy(float) for c in ("real", "found"))
        place.stairs(real, edges, fill=True, color=FAINT, label=TRAIN_NAME)
        colour = ROW_COLOURS[SYNTHETIC]
        place.stairs(found, edges, color=colour, linewidth=1.3, label=ROW_NAMES[SYNTHETIC])
        unit = units.get(name, "")
        place.set_title(name_of(f"{name}, {unit}" if unit else name, 27), fontsize=7.5)
        place.set_yticks([])
        place.spines["left"].set_visible(False)
        place.grid(False)
        place.tick_params(labelsize=6.5)
        place.locator_params(axis="x", nbins=4)
    legend_above(figure, axes[0], 2)
    return figure


@drawn(
    "series_levels",
    "series",
    "Levels of categorical series",
    "Share of the values that have each level.",
)
def _series_levels(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "series_levels", ["series", "level", "real", "found"], SYNTHETIC)
    if table is None:
        return None
    names = in_order(table["series"])[:12]
    most = int(table.groupby("series", sort=False).size().clip(upper=20).max())
    figure, axes = grid_of(len(names), 3, WIDE / 3, 0.19 * most + 0.75)
    for place, name in zip(axes, names, strict=True):
        mine = table[table["series"] == name].head(20)
        at = np.arange(len(mine))
        place.barh(at - 0.2, mine["real"], 0.4, color=FAINT, label=TRAIN_NAME)
        colour = ROW_COLOURS[SYNTHETIC]
        place.barh(at + 0.2, mine["found"], 0.4, color=colour, label=ROW_NAMES[SYNTHETIC])
        place.set_yticks(at, [name_of(level, 24) for level in mine["level"]], fontsize=7)
        place.invert_yaxis()
        place.set_title(name_of(name, 44), fontsize=8.5)
        place.grid(False, axis="y")
    legend_above(figure, axes[0], 2)
    return figure


@drawn(
    "series_missing",
    "series",
    "How often each series is measured",
    "Share of time points without a value of the series. On the line both agree.",
)
def _series_missing(tables: Tables) -> "Figure | None":
    needed = ["series", "missing_real", "missing_found"]
    table = rows_of(tables, "series_summary", needed)
    if table is None:
        return None
    rows = there(table, (SYNTHETIC, TEST))
    figure, axes = grid_of(len(rows), 2, 4.2, 3.6)
    for place, row in zip(axes, rows, strict=True):
        mine = table[table["row"] == row].dropna(subset=needed[1:])
        place.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
        place.scatter(mine[needed[1]], mine[needed[2]], s=16, color=ROW_COLOURS[row], alpha=0.8)
        gaps = (mine[needed[2]] - mine[needed[1]]).abs().sort_values(ascending=False)
        for at in gaps[gaps > 0.03].index[:4]:
            spot = mine.loc[at, needed[1:]].to_numpy(float)
            text: dict[str, Any] = {"xytext": (4, -8), "textcoords": "offset points", "fontsize": 7}
            place.annotate(name_of(mine.loc[at, "series"]), spot, color=MUTED, **text)
        place.set(title=ROW_NAMES[row], xlabel="Real train patients", ylabel=ROW_NAMES[row])
    return figure


@drawn(
    "co_observation",
    "co_observation",
    "Series measured together",
    "Of the time points with a value of one series (line), the share at which another (column) has "
    "one, too.",
)
def _co_observation(tables: Tables) -> "Figure | None":
    pair, values = ("series_a", "series_b"), ("conditional_real", "conditional_found")
    table = rows_of(tables, "co_observation_matrix", [*pair, *values], SYNTHETIC)
    return beside(table, pair, values, from_zero=True, is_symmetric=False)


@drawn(
    "correlation",
    "correlation",
    "Correlations of series",
    "Of two series at the same time points of a patient, after the patient's own means: red rise "
    "together, blue one rises as the other falls, grey too few values to tell.",
)
def _correlation(tables: Tables) -> "Figure | None":
    pair, values, pairs = ("series_b", "series_a"), ["real", "found"], ["pairs_real", "pairs_found"]
    table = rows_of(tables, "correlation_matrix", ["kind", *pair, *values, *pairs], SYNTHETIC)
    if table is None:
        return None
    # The form of the corrected score, if it is there.
    kinds = in_order(table["kind"])
    kind = "within" if "within" in kinds else kinds[0]
    table = table[table["kind"] == kind].copy()
    table[values] = table[values].where(table[pairs].to_numpy(float) >= _FEWEST_PAIRS)
    return beside(table, pair, values)


@drawn(
    "autocorrelation",
    "dynamics",
    "Memory of each series",
    "How alike two values of a series are that lie so many hours apart: 1 the same, 0 unrelated.",
)
def _autocorrelation(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "dynamics_autocorrelation", ["series", "lag", "real", "found"])
    if table is None:
        return None
    names = in_order(table.dropna(subset=["real"])["series"])[:48]
    if not names:
        return None
    lags = list(dict.fromkeys(table["lag"]))
    lags.sort(key=lambda lag: float(_bare(lag) or 0))
    figure, axes = grid_of(len(names), 8, WIDE / 8, 1.3)
    for i, (place, name) in enumerate(zip(axes, names, strict=True)):
        mine = table[table["series"].astype(str) == name]
        for row in there(mine, (TEST, SYNTHETIC)):
            part = mine[mine["row"] == row].set_index("lag")["found"].reindex(lags)
            place.plot(part.to_numpy(), color=ROW_COLOURS[row], label=ROW_NAMES[row])
        real = mine.drop_duplicates("lag").set_index("lag")["real"].reindex(lags)
        place.plot(real.to_numpy(), "o", color=MUTED, markersize=2.5, label=TRAIN_NAME)
        place.set_title(name_of(name, 20), fontsize=7)
        place.set_ylim(-0.5, 1.05)
        place.set_xticks(range(len(lags)), [_bare(lag) for lag in lags])
        place.tick_params(labelsize=6, labelleft=i % 8 == 0)
    figure.supxlabel("hours apart", fontsize=8)
    legend_above(figure, axes[0], 3)
    return figure


def _bare(lag: object) -> str:
    """The number in a name such as "about 2 h"."""
    found = re.search(r"\d+(\.\d+)?", str(lag))
    return found[0] if found else ""


@drawn(
    "gaps",
    "dynamics",
    "Time between measurements",
    "Quantiles of the hours between one time point and the next: synthetic against real train "
    "patients. On the line both agree.",
)
def _gaps(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "dynamics_gaps", ["share", "real", "found"])
    if table is None or not (table[["real", "found"]] > 0).all(axis=1).any():
        return None
    figure = figure_of(4.6, 3.8)
    place = figure.subplots()
    shown = table[(table[["real", "found"]] > 0).all(axis=1)]
    ends = [shown[["real", "found"]].min().min(), shown[["real", "found"]].max().max()]
    place.plot(ends, ends, color=MUTED, linewidth=0.8)
    for row in there(shown, (TEST, SYNTHETIC)):
        mine = shown[shown["row"] == row].sort_values("share")
        style: dict[str, Any] = {"color": ROW_COLOURS[row], "markersize": 3, "linewidth": 1}
        place.plot(mine["real"], mine["found"], "o-", label=ROW_NAMES[row], **style)
    place.set(xscale="log", yscale="log", xlabel="Real train patients, hours", ylabel="Hours")
    place.legend()
    return figure
