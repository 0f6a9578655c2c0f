"""Figures of codes."""

from typing import TYPE_CHECKING, Any

import pandas as pd

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
from synehrgy.evaluation.report.style import CYCLE, FAINT, MUTED, ROW_COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn(
    "code_prevalence",
    "codes",
    "How common each code is",
    "Each dot is a code: the share of stays that have it in real train patients, and in synthetic "
    "(above) and held-out real patients (below). On the line both agree. Dots on the edges are "
    "codes that one side does not have. The narrower the cloud below, the less is chance.",
)
def _code_prevalence(tables: Tables) -> "Figure | None":
    needed = ["system", "band", "train", "measured"]
    table = rows_of(tables, "codes_prevalence", needed)
    if table is None:
        return None
    rows, systems = there(table, (SYNTHETIC, TEST)), in_order(table["system"])[:3]
    if not rows:
        return None
    figure = figure_of(min(4.2 * len(systems) + 0.4, WIDE), 3.7 * len(rows))
    axes = figure.subplots(len(rows), len(systems), squeeze=False, sharex="col", sharey="col")
    bands = in_order(sorted(table["band"].astype(str), key=_band_rank))
    for j, system in enumerate(systems):
        of_system = table[table["system"] == system]
        values = of_system[["train", "measured"]].to_numpy(float)
        floor = values[values > 0].min(initial=1.0) / 2
        for i, row in enumerate(rows):
            place = axes[i, j]
            mine = of_system[of_system["row"] == row]
            place.plot([floor, 1], [floor, 1], color=MUTED, linewidth=0.8, zorder=1)
            for colour, band in zip(CYCLE, bands, strict=False):
                part = mine[mine["band"].astype(str) == band]
                x, y = (part[c].clip(lower=floor) for c in ("train", "measured"))
                dots: dict[str, Any] = {"s": 11, "alpha": 0.55, "linewidths": 0, "rasterized": True}
                place.scatter(x, y, color=colour, label=name_of(band), **dots)
            place.set(xscale="log", yscale="log")
            place.set_title(f"{name_of(system)}: {ROW_NAMES[row].lower()}")
            if j == 0:
                place.set_ylabel(f"{ROW_NAMES[row]}, share of stays")
            if i == len(rows) - 1:
                place.set_xlabel("Real train patients, share of stays")
    legend_above(figure, axes[0, 0], len(bands))
    return figure


def _band_rank(band: str) -> tuple[int, str]:
    known = ("head", "torso", "tail")
    return (known.index(band), "") if band in known else (len(known), band)


@drawn(
    "codes_per_stay",
    "codes",
    "Codes per stay",
    "Share of stays with so many different codes.",
)
def _codes_per_stay(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "codes_per_stay", ["system", "n", "train", "measured"])
    if table is None:
        return None
    systems = in_order(table["system"])[:4]
    figure, axes = grid_of(len(systems), 4, WIDE / max(len(systems), 2), 2.8)
    for place, system in zip(axes, systems, strict=True):
        mine = table[table["system"] == system]
        real = mine.drop_duplicates("n").sort_values("n")
        place.fill_between(real["n"], real["train"], color=FAINT, alpha=0.7, label=TRAIN_NAME, lw=0)
        for row in there(mine, (TEST, SYNTHETIC)):
            part = mine[mine["row"] == row].sort_values("n")
            style: dict[str, Any] = {
                "color": ROW_COLOURS[row],
                "linewidth": 1.6,
                "label": ROW_NAMES[row],
            }
            place.plot(part["n"], part["measured"], **style)
        place.set(title=name_of(system), xlabel="codes", ylim=(0, None))
    axes[0].set_ylabel("share of stays")
    legend_above(figure, axes[0], 3)
    return figure


@drawn(
    "code_pairs",
    "codes",
    "Codes that go together",
    "Log2 of how often two frequent codes are in one stay, over how often chance would put them "
    "there: red together, blue apart, white as chance has it, grey too rare to tell.",
)
def _code_pairs(tables: Tables) -> "Figure | None":
    values = ("bond_train", "bond_measured")
    table = rows_of(tables, "codes_matrix", ["a", "b", *values], SYNTHETIC)
    if table is None:
        return None
    bare = [table[side].astype(str).str.split(":", n=1).str[-1] for side in ("a", "b")]
    # Without the system, if all can still be told apart.
    if pd.concat(bare).nunique() == pd.concat([table["a"], table["b"]]).nunique():
        table = table.assign(a=bare[0], b=bare[1])
    return beside(table, ("a", "b"), values, limit=2.0)
