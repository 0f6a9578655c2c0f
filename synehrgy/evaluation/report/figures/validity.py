"""Figures of broken rules."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import SYNTHETIC, TEST
from synehrgy.evaluation.report.figures.drawing import (
    TRAIN_NAME,
    Tables,
    drawn,
    figure_of,
    in_order,
    legend_above,
    name_rows,
    rows_of,
    there,
)
from synehrgy.evaluation.report.judgement import ROW_NAMES
from synehrgy.evaluation.report.style import FAINT, ROW_COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn(
    "rules",
    "consistency",
    "Broken rules",
    "Of what each rule is about, the share that breaks it: the grey bar is that of real train "
    "patients, who break rules, too. Rules that nobody breaks are left out.",
)
def _rules(tables: Tables) -> "Figure | None":
    needed = ["rule", "title", "rate", "real_rate"]
    table = rows_of(tables, "consistency_rules", needed)
    if table is None:
        return None
    rows = there(table, (SYNTHETIC, TEST))
    shown = table[table["row"].isin(rows)]
    broken = shown[(shown[["rate", "real_rate"]] > 0).any(axis=1)]
    names = [rule for rule in in_order(shown["rule"]) if rule in set(broken["rule"])][:40]
    if not names:
        return None
    real = shown.drop_duplicates("rule").set_index("rule").loc[names]
    at = pd.Series(np.arange(len(names), dtype=float), index=names)
    positive = broken[["rate", "real_rate"]].to_numpy(float)
    floor = 10.0 ** np.floor(np.log10(positive[positive > 0].min()))
    figure = figure_of(8.6, 0.26 * len(names) + 1.1)
    place = figure.subplots()
    place.barh(at, real["real_rate"].clip(lower=floor), 0.7, color=FAINT, label=TRAIN_NAME)
    for shift, row in zip((-0.15, 0.15), rows, strict=False):
        mine = shown[(shown["row"] == row) & shown["rule"].isin(names) & (shown["rate"] > 0)]
        y = mine["rule"].map(at).astype(float) + shift
        style: dict[str, Any] = {"s": 20, "color": ROW_COLOURS[row], "zorder": 3, "clip_on": False}
        place.scatter(mine["rate"], y, label=ROW_NAMES[row], **style)
    place.set(xscale="log", xlim=(floor, 1), xlabel="share that breaks the rule")
    name_rows(place, at, real["title"])
    legend_above(figure, place, 3)
    return figure
