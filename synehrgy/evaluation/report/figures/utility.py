"""Figures of models that learn from the patients."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import SYNTHETIC, TEST, TRAIN
from synehrgy.evaluation.report.figures.drawing import (
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
)
from synehrgy.evaluation.report.style import MUTED, ROW_COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SHARES_OF_REAL = {"real alone": TEST, "synthetic and real": SYNTHETIC}
# What stands in the column of labels, but is no label.
_MEANS = ("macro", "micro")
_SETTINGS = {"TRTR": TRAIN, "TSTR": SYNTHETIC}
_SETTING_NAMES = {"TRTR": "Learned from real", "TSTR": "Learned from synthetic"}


def _of_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The part about testing on real patients after learning from synthetic or real ones."""
    right = [(SYNTHETIC, "TSTR"), (TRAIN, "TRTR")]
    pairs = pd.Series(list(zip(table["row"], table["setting"], strict=True)), index=table.index)
    return table[pairs.isin(right)]


@drawn(
    "utility_labels",
    "utility",
    "Learning from synthetic instead of real patients",
    "AUROC of each label for held-out real patients: how often one with the label is ranked before "
    "one without it. The closer the two dots, the more of what is learned carries over.",
)
def _utility_labels(tables: Tables) -> "Figure | None":
    return _by_label(tables, "utility_scores")


@drawn(
    "sequence_labels",
    "sequence_utility",
    "Learning from synthetic instead of real patients, in time order",
    "AUROC of each label for held-out real patients, by a model that reads the series in order. "
    "The closer the two dots, the more of what is learned carries over.",
)
def _sequence_labels(tables: Tables) -> "Figure | None":
    return _by_label(tables, "sequence_utility_scores")


def _by_label(tables: Tables, name: str) -> "Figure | None":
    needed = ["label", "title", "setting", "share", "score", "value", "low", "high"]
    table = rows_of(tables, name, needed)
    if table is None:
        return None
    each = table["score"].eq("auroc") & ~table["label"].isin(_MEANS)
    shown = _of_settings(table[each])
    if shown.empty:
        return None
    of_real = shown[shown["setting"] == "TRTR"]
    order = (of_real if len(of_real) else shown).drop_duplicates("label")
    order = order.sort_values("value", ascending=False, kind="stable").head(40)
    at = pd.Series(np.arange(len(order), dtype=float), index=order["label"])
    figure = figure_of(8.6, 0.27 * len(order) + 1.1)
    place = figure.subplots()
    place.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
    for shift, (setting, row) in zip((-0.14, 0.14), _SETTINGS.items(), strict=True):
        mine = shown[(shown["setting"] == setting) & shown["label"].isin(at.index)]
        mine = mine.drop_duplicates("label")
        colour = ROW_COLOURS[SYNTHETIC if row == SYNTHETIC else TEST]
        y = mine["label"].map(at).astype(float) + shift
        dots(place, y, mine, "value", _SETTING_NAMES[setting], colour)
    name_rows(place, at, order["title"])
    place.set(xlabel="AUROC; on the dotted line by chance")
    legend_above(figure, place, 2)
    return figure


@drawn(
    "calibration",
    "utility",
    "Calibration",
    "Of the held-out real stays that were given a probability, the share to which it happened. On "
    "the line both agree.",
)
def _calibration(tables: Tables) -> "Figure | None":
    needed = ["kind", "label", "title", "setting", "predicted", "observed"]
    table = rows_of(tables, "utility_calibration", needed)
    shown = None if table is None else _of_settings(table)
    if shown is None or shown.empty:
        return None
    tasks = shown.drop_duplicates(["kind", "label"]).head(8)
    figure, axes = grid_of(len(tasks), 4, min(WIDE / min(len(tasks), 4), 4.2), 3.1)
    for place, task in zip(axes, tasks.itertuples(), strict=True):
        place.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
        of_task = shown[(shown["kind"] == task.kind) & (shown["label"] == task.label)]
        for setting, row in _SETTINGS.items():
            mine = of_task[of_task["setting"] == setting].sort_values("predicted")
            colour = ROW_COLOURS[SYNTHETIC if row == SYNTHETIC else TEST]
            style: dict[str, Any] = {"color": colour, "markersize": 3.5, "linewidth": 1.2}
            name = _SETTING_NAMES[setting]
            place.plot(mine["predicted"], mine["observed"], "o-", label=name, **style)
        place.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted")
        place.set_title(name_of(task.title, 32))
    axes[0].set_ylabel("observed")
    legend_above(figure, axes[0], 2)
    return figure


@drawn(
    "augmentation",
    "utility",
    "Synthetic patients beside few real ones",
    "Mean AUROC over labels for held-out real patients, after learning from a share of the real "
    "patients alone, and from the same ones with all synthetic patients beside them.",
)
def _augmentation(tables: Tables) -> "Figure | None":
    needed = ["kind", "label", "setting", "share", "score", "value", "low", "high"]
    table = rows_of(tables, "utility_scores", needed, SYNTHETIC)
    if table is None:
        return None
    shown = table[table["score"].eq("auroc") & table["label"].eq("macro")]
    shown = shown[shown["setting"].isin(_SHARES_OF_REAL)]
    kinds = in_order(shown["kind"])
    if not kinds:
        return None
    figure, axes = grid_of(len(kinds), 2, 4.4, 3.0)
    for place, kind in zip(axes, kinds, strict=True):
        for setting, row in _SHARES_OF_REAL.items():
            mine = shown[(shown["kind"] == kind) & (shown["setting"] == setting)]
            mine = mine.sort_values("share")
            spread = np.abs(mine[["low", "high"]].to_numpy(float) - mine[["value"]].to_numpy(float))
            style: dict[str, Any] = {"color": ROW_COLOURS[row], "markersize": 4, "linewidth": 1.2}
            at = 100 * mine["share"].to_numpy(float)
            label = name_of(setting).capitalize()
            place.errorbar(at, mine["value"], yerr=spread.T, fmt="o-", label=label, **style)
        place.set(title=name_of(kind).capitalize(), xlabel="share of the real patients, %")
    axes[0].set_ylabel("AUROC")
    legend_above(figure, axes[0], 2)
    return figure
