"""What figures have in common: how one is registered, and parts that several are made of."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import SYNTHETIC
from synehrgy.evaluation.report.judgement import ROW_NAMES
from synehrgy.evaluation.report.page import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tables = Mapping[str, pd.DataFrame]
Draw = Callable[[Tables], "Figure | None"]

WIDE = 11.0
TRAIN_NAME = "Real, train"
_DIVERGING, _SEQUENTIAL = "RdBu_r", "Blues"


@dataclass(frozen=True)
class Drawing:
    """A figure of the report.

    Attributes:
        name: of its files.
        metric: after whose scores it is shown.
        title: for people.
        says: how to read it.
        draw: makes it of the tables of an evaluation; None where they are missing.
    """

    name: str
    metric: str
    title: str
    says: str
    draw: Draw


DRAWINGS: list[Drawing] = []


def drawn(name: str, metric: str, title: str, says: str) -> Callable[[Draw], Draw]:
    """Register a function that draws; the arguments are those of ``Drawing``."""

    def register(draw: Draw) -> Draw:
        DRAWINGS.append(Drawing(name, metric, title, says, draw))
        return draw

    return register


def rows_of(tables: Tables, name: str, columns: Iterable[str], row: str | None = None) -> Any:
    """A table, or its part of one row; None where it has no rows or lacks a column."""
    table = tables.get(name)
    if table is None or not {"row", *columns} <= set(table.columns):
        return None
    if row is not None:
        table = table[table["row"] == row]
    return table if len(table) else None


def figure_of(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def in_order(names: Iterable[Any]) -> list[str]:
    """Different names, in the order in which they come first."""
    return [str(name) for name in dict.fromkeys(names)]


def there(table: pd.DataFrame, wanted: Sequence[str] = tuple(ROW_NAMES)) -> list[str]:
    """Which of the wanted rows of the comparison a table has."""
    have = set(table["row"])
    return [row for row in wanted if row in have]


def grid_of(n: int, columns: int, width: float, height: float) -> tuple["Figure", list["Axes"]]:
    """A figure of n small charts, of so many inches each."""
    columns = max(min(columns, n), 1)
    lines = math.ceil(n / columns)
    figure = figure_of(width * columns + 0.4, height * lines + 0.5)
    axes = figure.subplots(lines, columns, squeeze=False)
    for place in axes.flat[n:]:
        place.set_axis_off()
    return figure, list(axes.flat[:n])


def name_of(text: object, width: int = 28) -> str:
    """A name that fits: of a long one the middle is left out, as its end may tell it apart."""
    name = str(text).replace("_", " ")
    if len(name) > width:
        name = f"{name[: width // 2].rstrip()}…{name[width // 2 - width + 1 :].lstrip()}"
    return plain(name)


def legend_above(figure: "Figure", axes: "Axes", n: int) -> None:
    """A legend of one chart above all of a figure, with n columns."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=n)


def beside(
    table: pd.DataFrame | None,
    pair: Sequence[str],
    values: Sequence[str],
    limit: float = 1.0,
    from_zero: bool = False,
    is_symmetric: bool = True,
) -> "Figure | None":
    """Heat maps of pairs: real, synthetic, and their difference.

    Args:
        table: one row per pair; None: there is none.
        pair: the columns that name the line and the column of a pair.
        values: the columns of the real and of the synthetic patients.
        limit: where the colours end; half of it for the difference.
        from_zero: whether they begin with 0 rather than with minus ``limit``.
        is_symmetric: whether the table has each pair in one order only.
    """
    if table is None:
        return None
    names = in_order([*table[pair[0]], *table[pair[1]]])
    place_of = {item: i for i, item in enumerate(names)}
    i, j = (table[c].astype(str).map(place_of).to_numpy(int) for c in pair)
    real, found = (table[c].to_numpy(float) for c in values)
    shown = (
        (real, TRAIN_NAME, (0.0 if from_zero else -limit, limit)),
        (found, ROW_NAMES[SYNTHETIC], (0.0 if from_zero else -limit, limit)),
        (found - real, "Synthetic minus real", (-limit / 2, limit / 2)),
    )
    figure = figure_of(WIDE, min(max(0.085 * len(names) + 1.2, 2.6), 4.2) + 0.7)
    for place, (numbers, title, ends) in zip(
        figure.subplots(1, 3, sharey=True), shown, strict=True
    ):
        square = np.full((len(names),) * 2, np.nan)
        if is_symmetric:
            square[j, i] = numbers
        square[i, j] = numbers
        _heat_map(place, square, names, title, ends)
    return figure


def _heat_map(
    place: "Axes", square: np.ndarray, names: Sequence[str], title: str, ends: tuple[float, float]
) -> None:
    import matplotlib

    colours = matplotlib.colormaps[_SEQUENTIAL if ends[0] == 0 else _DIVERGING]
    colours = colours.with_extremes(bad="#e9ecef")
    shown = place.imshow(square, cmap=colours, vmin=ends[0], vmax=ends[1], interpolation="nearest")
    size = 7 if len(names) <= 20 else 5
    labels = [name_of(name, 24) for name in names]
    place.set_xticks(range(len(names)), labels, rotation=90, fontsize=size)
    place.set_yticks(range(len(names)), labels, fontsize=size)
    place.tick_params(length=0)
    place.grid(False)
    place.spines[:].set_visible(False)
    place.set_title(title)
    bar = place.figure.colorbar(shown, ax=place, shrink=0.6, aspect=30, location="bottom", pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)


def dots(
    place: "Axes", y: pd.Series, table: pd.DataFrame, value: str, label: str, colour: str
) -> None:
    """A column of a table as dots at heights y, with intervals from its ``low`` and ``high``."""
    spread = np.abs(table[["low", "high"]].to_numpy(float) - table[[value]].to_numpy(float)).T
    style: dict[str, Any] = {"color": colour, "markersize": 4, "linewidth": 1.1}
    place.errorbar(table[value], y, xerr=spread, fmt="o", label=label, **style)


def name_rows(place: "Axes", at: pd.Series, titles: pd.Series) -> None:
    """Titles beside the rows of a chart at these heights, the first one on top."""
    place.set_yticks(at, [name_of(title, 52) for title in titles])
    place.set_ylim(len(at) - 0.4, -0.6)
    place.grid(False, axis="y")
