"""Figures of whole patients."""

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import MARGINALS, ORACLE, SYNTHETIC, TEST, TRAIN
from synehrgy.evaluation.report.figures.drawing import (
    TRAIN_NAME,
    WIDE,
    Tables,
    dots,
    drawn,
    figure_of,
    grid_of,
    in_order,
    legend_above,
    name_of,
    name_rows,
    rows_of,
    there,
)
from synehrgy.evaluation.report.judgement import ROW_NAMES
from synehrgy.evaluation.report.page import plain
from synehrgy.evaluation.report.style import FAINT, INK, MUTED, ROW_COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn(
    "map",
    "manifold",
    "Map of patients",
    "Each dot is a patient, placed by what was measured: near dots are alike. Dots should lie "
    "where the real ones (grey) do: none in empty places, and no place left empty.",
)
def _map(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "manifold_map", ["x", "y"])
    if table is None:
        return None
    rows = there(table, (SYNTHETIC, TEST, ORACLE, MARGINALS))
    # A few patients far out would press all others together.
    ends = {c: np.nanquantile(table[c].to_numpy(float), [0.002, 0.998]) for c in ("x", "y")}
    below = table[table["row"] == TRAIN]
    figure, axes = grid_of(len(rows), 4, WIDE / max(len(rows), 2), WIDE / 4)
    dots: dict[str, Any] = {"s": 5, "linewidths": 0, "rasterized": True}
    for place, row in zip(axes, rows, strict=True):
        mine = table[table["row"] == row]
        place.scatter(below["x"], below["y"], color=FAINT, alpha=0.7, **dots)
        place.scatter(mine["x"], mine["y"], color=ROW_COLOURS[row], alpha=0.6, **dots)
        place.set(title=ROW_NAMES[row], xticks=[], yticks=[], xlim=ends["x"], ylim=ends["y"])
        place.margins(0.05)
        place.spines[:].set_visible(False)
    return figure


@drawn(
    "examples",
    "examples",
    "Example patients",
    "Patients by chance: the first hours of the first stay, with the same series and scales for "
    "all. Real patients are shown only if they are simulated, or if asked for.",
)
def _examples(tables: Tables) -> "Figure | None":
    facts = rows_of(tables, "examples_facts", ["patient", "kind", "name", "value"])
    series = rows_of(tables, "examples_series", ["patient", "hours", "variable", "kind", "value"])
    if facts is None:
        return None
    people = [
        (row, patient)
        for row in there(facts, (SYNTHETIC, TEST))
        for patient in sorted(facts.loc[facts["row"] == row, "patient"].unique())
    ]
    shown: list[str] = []
    if series is not None:
        continuous = series[series["kind"] == "continuous"]
        # Those that most of these people have, and most values of.
        each = continuous.groupby(["variable", "row", "patient"]).size().groupby("variable")
        ranked = pd.DataFrame({"people": each.size(), "values": each.sum()}).reset_index()
        ranked = ranked.sort_values(
            ["people", "values", "variable"], ascending=[False, False, True]
        )
        shown = list(ranked["variable"].head(9))
    lines = len(shown) + 1
    figure = figure_of(WIDE, 2.3 + 0.82 * len(shown))
    ratios = [2.7] + [1.0] * len(shown)
    axes = figure.subplots(lines, len(people), squeeze=False, height_ratios=ratios)
    for j, (row, patient) in enumerate(people):
        mine = facts[(facts["row"] == row) & (facts["patient"] == patient)]
        place = axes[0, j]
        place.set_axis_off()
        whose = "Synthetic" if row == SYNTHETIC else "Real"
        place.set_title(f"{whose} patient {patient}", color=ROW_COLOURS[row])
        text = "\n".join(_told(mine))
        shown_text = place.text(0, 1, plain(text), va="top", fontsize=6.5, color=INK)
        shown_text.set_transform(place.transAxes)
        # Columns are as wide as each other, whatever there is to tell.
        shown_text.set_in_layout(False)
    for i, variable in enumerate(shown, start=1):
        of_series = series[series["variable"] == variable]
        low, high = float(of_series["value"].min()), float(of_series["value"].max())
        pad = 0.08 * (high - low) or 1.0
        for j, (row, patient) in enumerate(people):
            place = axes[i, j]
            mine = of_series[(of_series["row"] == row) & (of_series["patient"] == patient)]
            style: dict[str, Any] = {"color": ROW_COLOURS[row], "linewidth": 1, "markersize": 2}
            place.plot(mine["hours"], mine["value"], "o-", **style)
            place.set(xlim=(-1, max(float(series["hours"].max()), 1.0) + 1))
            place.set_ylim(low - pad, high + pad)
            place.locator_params(axis="y", nbins=3)
            place.tick_params(labelsize=6.5, labelleft=j == 0, labelbottom=i == lines - 1)
            if j == 0:
                place.set_title(name_of(variable, 34), fontsize=7.5, fontweight="normal")
            if i == lines - 1:
                place.set_xlabel("hours", fontsize=7.5)
    return figure


def _told(facts: pd.DataFrame) -> list[str]:
    """What is known about a patient besides the series, as lines."""
    of_kind = dict(iter(facts.groupby("kind")))
    told = []
    for kind in ("covariate", "stay"):
        if kind in of_kind:
            pairs = of_kind[kind][["name", "value"]].to_numpy()
            told.append(", ".join(f"{name} {value}" for name, value in pairs))
    for kind, most, separator in (("label", 6, "; "), ("code", 12, " ")):
        if kind not in of_kind:
            continue
        names = [str(name).split(":", 1)[-1] for name in of_kind[kind]["name"]]
        more = f" and {len(names) - most} more" if len(names) > most else ""
        told.append(separator.join(names[:most]) + more)
    return [line for text in told for line in textwrap.wrap(text, 30)][:14]


@drawn(
    "labels",
    "structure",
    "How common each label is",
    "Share of stays with each label: bars end at the real train patients, dots with 95 % intervals "
    "are synthetic and held-out real patients.",
)
def _labels(tables: Tables) -> "Figure | None":
    needed = ["label", "title", "real", "here", "low", "high"]
    table = rows_of(tables, "structure_labels", needed)
    if table is None:
        return None
    real = table.drop_duplicates("label").sort_values("real", ascending=False, kind="stable")
    real = real.head(40)
    at = pd.Series(np.arange(len(real), dtype=float), index=real["label"])
    figure = figure_of(8.6, 0.27 * len(real) + 1.1)
    place = figure.subplots()
    place.barh(at, real["real"], 0.7, color=FAINT, alpha=0.7, label=TRAIN_NAME)
    for shift, row in zip((-0.17, 0.17), there(table, (SYNTHETIC, TEST)), strict=False):
        mine = table[(table["row"] == row) & table["label"].isin(at.index)]
        y = mine["label"].map(at).astype(float) + shift
        dots(place, y, mine, "here", ROW_NAMES[row], ROW_COLOURS[row])
    name_rows(place, at, real["title"])
    place.set(xlim=(0, None), xlabel="share of stays")
    legend_above(figure, place, 3)
    return figure


@drawn(
    "structure",
    "structure",
    "Patients and stays",
    "Filled: real train patients. Lines: synthetic and held-out real patients. The first and last "
    "bars hold all that is beyond.",
)
def _structure(tables: Tables) -> "Figure | None":
    needed = ["quantity", "level", "low", "high", "share_real", "share"]
    table = rows_of(tables, "structure_histograms", needed)
    if table is None:
        return None
    titles: dict[str, str] = {}
    about = rows_of(tables, "structure_quantities", ["quantity", "title", "unit"])
    if about is not None:
        for name, title, unit in about[["quantity", "title", "unit"]].astype(str).to_numpy():
            # Codes of a stay are counted in codes.
            known = unit in ("", "nan", "None") or unit.lower() in title.lower()
            titles[name] = title if known else f"{title}, {unit}"
    names = in_order(table["quantity"])[:16]
    figure, axes = grid_of(len(names), 4, WIDE / 4, 2.0)
    for place, name in zip(axes, names, strict=True):
        mine = table[table["quantity"].astype(str) == name]
        real = mine.drop_duplicates(["low", "high"]).sort_values("low")
        edges = np.append(real["low"].to_numpy(float), real["high"].to_numpy(float)[-1:])
        shares = real["share_real"].to_numpy(float)
        place.stairs(shares, edges, fill=True, color=FAINT, label=TRAIN_NAME)
        for row in there(mine, (TEST, SYNTHETIC)):
            part = mine[mine["row"] == row].sort_values("low")["share"].to_numpy(float)
            colour = ROW_COLOURS[row]
            place.stairs(part, edges, color=colour, linewidth=1.4, label=ROW_NAMES[row])
        levels = real["level"].dropna()
        if len(levels):
            middle = (edges[:-1] + edges[1:]) / 2
            place.set_xticks(middle, [name_of(level, 12) for level in levels], fontsize=7)
        place.set_title(name_of(titles.get(name, name), 36), fontsize=8.5)
        place.set_ylim(0, None)
        place.tick_params(labelsize=7)
    legend_above(figure, axes[0], 3)
    return figure


@drawn(
    "associations",
    "across",
    "Associations across types",
    "Each dot is a pair of facts of different types, such as a label and a series: their "
    "correlation in real train patients, and in synthetic or held-out real ones. On the line both "
    "agree; on the level line an association is lost.",
)
def _associations(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "across_associations", ["real", "here"])
    if table is None:
        return None
    rows = there(table, (SYNTHETIC, TEST, MARGINALS))
    figure, axes = grid_of(len(rows), 3, WIDE / 3, 3.3)
    for place, row in zip(axes, rows, strict=True):
        place.axhline(0, color=FAINT, linewidth=0.8)
        place.plot([-1, 1], [-1, 1], color=MUTED, linewidth=0.8)
        mine = table[table["row"] == row]
        dots: dict[str, Any] = {"s": 6, "alpha": 0.3, "linewidths": 0, "rasterized": True}
        place.scatter(mine["real"], mine["here"], color=ROW_COLOURS[row], **dots)
        place.set(title=ROW_NAMES[row], xlabel="Real train patients", xlim=(-1, 1), ylim=(-1, 1))
        place.locator_params(nbins=5)
    axes[0].set_ylabel("correlation")
    return figure


@drawn(
    "two_sample_features",
    "two_sample",
    "What gives synthetic patients away",
    "The facts by which a classifier tells them from real ones: the share of all that it learned "
    "that each fact gives.",
)
def _two_sample_features(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "two_sample_features", ["part", "feature", "gain"], SYNTHETIC)
    if table is None:
        return None
    parts = in_order(table["part"])[:4]
    most = 10
    figure, axes = grid_of(len(parts), 2, WIDE / 2, 0.2 * most + 0.7)
    for place, part in zip(axes, parts, strict=True):
        mine = table[table["part"].astype(str) == part].nlargest(most, "gain", keep="first")
        at = np.arange(len(mine))
        place.barh(at, mine["gain"], 0.65, color=ROW_COLOURS[SYNTHETIC])
        place.set_yticks(at, [name_of(feature, 40) for feature in mine["feature"]], fontsize=7)
        place.set_ylim(most - 0.4, -0.6)
        place.set(title="By everything" if part == "all" else f"By {name_of(part)}")
        place.grid(False, axis="y")
    return figure
