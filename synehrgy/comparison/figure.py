"""The table of a comparison as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import MARGINALS, ORACLE, TEST
from synehrgy.evaluation.report.figures.drawing import dots, figure_of, name_rows
from synehrgy.evaluation.report.style import FIGURES, ROW_COLOURS, SYNTHETIC

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_ARROWS = {"low": "←  better", "high": "better  →"}


def draw(folder: Path, table: pd.DataFrame) -> None:
    """``comparison.png`` and ``.svg``: a chart per score, a line per generator.

    A band marks the interval of the oracle, or of held-out real patients where there is none; the
    dotted line the floor.
    """
    from matplotlib import rc_context

    measured = table.groupby("score")["value"].transform("count") > 0
    shown = table[(table["group"] != "Time") & measured]
    if shown.empty:
        return
    groups = list(dict.fromkeys(shown["group"]))
    generators = list(dict.fromkeys(shown.loc[~shown["is_reference"], "title"]))
    with rc_context(FIGURES):
        figure = figure_of(3.0 * _COLUMNS + 1.5, (0.24 * len(generators) + 0.95) * len(groups))
        axes = figure.subplots(len(groups), _COLUMNS, squeeze=False, sharey=True)
        for line, group in zip(axes, groups, strict=True):
            scores = list(dict.fromkeys(shown.loc[shown["group"] == group, "score"]))
            for place, score in zip(line, scores, strict=False):
                _chart(place, shown[shown["score"] == score], generators)
                place.set_title(f"{group}: {shown.loc[shown['score'] == score, 'column'].iloc[0]}")
            for place in line[len(scores) :]:
                place.set_axis_off()
        figure.savefig(folder / "comparison.png", dpi=150)
        figure.savefig(folder / "comparison.svg")


def _chart(place: "Axes", table: pd.DataFrame, generators: list[str]) -> None:
    references = table[table["is_reference"]].set_index("generator")
    numbers = {
        str(name): row
        for name, row in zip(
            references.index, references[["value", "low", "high"]].to_numpy(np.float64), strict=True
        )
    }
    best = ORACLE if ORACLE in numbers else TEST
    if best in numbers:
        value, low, high = numbers[best]
        if not np.isnan(low):
            place.axvspan(low, high, color=ROW_COLOURS[best], alpha=0.18, linewidth=0)
        place.axvline(value, color=ROW_COLOURS[best], linewidth=1.1)
    if MARGINALS in numbers:
        place.axvline(numbers[MARGINALS][0], color=ROW_COLOURS[MARGINALS], linestyle=":")
    mine = table[~table["is_reference"]].set_index("title").reindex(generators).reset_index()
    at = pd.Series(range(len(mine)))
    there = mine["value"].notna()
    dots(place, at[there], mine[there], "value", "generators", SYNTHETIC)
    name_rows(place, at, mine["title"])
    place.set_xlabel(_ARROWS[str(table["goal"].iloc[0])], fontsize=8)
