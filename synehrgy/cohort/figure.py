"""A first look at a cohort: one picture."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synehrgy.cohort.describe import N_BINS, Description
from synehrgy.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Charts of covariates and of continuous series, at most.
MOST_COVARIATES, MOST_SERIES = 8, 24

# Bars of one chart, at most.
MOST_BARS = 30

_COLUMNS = 4
_COLOUR, _EDGE = "#2680c2", "#3e4c59"
_STYLE: Any = {
    "axes.grid": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 8,
}

Chart = tuple[str, Callable[["Axes"], None]]


def draw(about: Description, file: Path) -> Path:
    """Draw what is in a cohort: stays, covariates, labels, codes, and how series are distributed.

    Args:
        about: the cohort.
        file: the PNG file to write.

    Returns:
        ``file``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    charts = [*_counts(about), *_covariates(about), *_histograms(about)]
    lines = math.ceil(len(charts) / _COLUMNS)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.1 * _COLUMNS, 2.3 * lines + 0.4), layout="constrained")
        figure.suptitle(about.schema.name, x=0.01, ha="left", weight="bold", size=11)
        places = list(figure.subplots(lines, _COLUMNS, squeeze=False).flat)
        for place, (title, chart) in zip(places, charts, strict=False):
            place.set_title(_plain(title, 44))
            chart(place)
        for place in places[len(charts) :]:
            place.set_axis_off()
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
    write_bytes(file, content.getvalue())
    return file


def _counts(about: Description) -> list[Chart]:
    """Charts of how much there is of what."""
    stays, n = about.stays, len(about.stays)
    per_patient = stays.groupby("subject_id").size().clip(upper=10).value_counts().sort_index()
    names = [f"{k}" if k < 10 else "10 or more" for k in per_patient.index]
    charts: list[Chart] = [("Stays of a patient", _bars(names, per_patient, "patients"))]
    if stays["los_hours"].notna().any():
        charts.append(("Length of stay", _histogram(stays["los_hours"], "hours")))
    if about.schema.labels:
        share = stays[[label.column for label in about.schema.labels]].mean().sort_values()[::-1]
        charts.append(("Stays with each label", _bars(share.index, share, "share")))
    for system, row in about.codes.iterrows():
        pairs = [text.rsplit(" ", 1) for text in row["commonest"]]
        shares = [int(count) / n for _, count in pairs]
        charts.append((f"Commonest of {system}", _bars([c for c, _ in pairs], shares, "per stay")))
    if about.schema.variables:
        names = [variable.name for variable in about.schema.variables]
        share = (about.stays_of.reindex(names).fillna(0) / n).sort_values()[::-1]
        charts.append(("Stays with each series", _bars(share.index, share, "share")))
    return charts


def _covariates(about: Description) -> list[Chart]:
    charts: list[Chart] = []
    for covariate in about.schema.covariates[:MOST_COVARIATES]:
        values = about.stays[covariate.name]
        if covariate.kind == "continuous":
            charts.append((covariate.name, _histogram(values, covariate.unit or "")))
        else:
            counts = values.value_counts().reindex(covariate.levels).fillna(0)
            charts.append((covariate.name, _bars(counts.index, counts, "stays")))
    return charts


def _histograms(about: Description) -> list[Chart]:
    """The commonest continuous series, from their 1 % to their 99 %."""
    units = {variable.name: variable.unit or "" for variable in about.schema.variables}
    charts: list[Chart] = []
    for name, row in about.numbers.nlargest(MOST_SERIES, "n").sort_index().iterrows():
        mine = about.histograms[about.histograms["variable"] == name]
        counts = mine.set_index("bin")["n"].reindex(range(N_BINS)).fillna(0)
        edges = np.linspace(row["low"], row["high"], N_BINS + 1)
        if row["low"] < row["high"]:
            charts.append((str(name), _steps(counts.to_numpy(), edges, units[str(name)])))
    return charts


def _bars(
    names: Sequence[object] | pd.Index, values: Sequence[float] | pd.Series, unit: str
) -> Callable[["Axes"], None]:
    def chart(place: "Axes") -> None:
        shown = [_plain(name, 26) for name in names][:MOST_BARS]
        at = np.arange(len(shown))
        place.barh(at, list(values)[:MOST_BARS], color=_COLOUR, height=0.7)
        place.set_yticks(at, shown, fontsize=8 if len(shown) <= 10 else 5)
        # From top to bottom; few bars do not become blocks.
        place.set_ylim(max(len(shown), 4) - 0.4, -0.6)
        place.set_xlabel(unit)

    return chart


def _histogram(values: pd.Series, unit: str) -> Callable[["Axes"], None]:
    known = values.dropna()
    if not len(known):
        return lambda place: place.set_axis_off()
    low, high = known.quantile([0.005, 0.995])
    # All the same is a bin in the middle.
    counts, edges = np.histogram(known, bins=N_BINS, range=(low, high))
    return _steps(counts, edges, unit)


def _steps(counts: np.ndarray, edges: np.ndarray, unit: str) -> Callable[["Axes"], None]:
    def chart(place: "Axes") -> None:
        place.stairs(counts, edges, fill=True, color=_COLOUR, alpha=0.8)
        place.stairs(counts, edges, color=_EDGE, linewidth=0.6)
        place.set_xlabel(_plain(unit, 30))
        place.set_yticks([])
        place.spines["left"].set_visible(False)

    return chart


def _plain(text: object, width: int) -> str:
    """A text that matplotlib does not take for mathematics, cut to a width."""
    name = str(text).replace("$", r"\$")
    return name if len(name) <= width else f"{name[: width - 1]}…"
