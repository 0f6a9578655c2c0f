"""The scores of forecasts as text for a terminal and as one HTML file."""

import html
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from synehrgy.evaluation.forecast import FORECASTERS, FUTURES, LIGHTGBM, ForecastScores
from synehrgy.evaluation.report import (
    REAL,
    SYNTHETIC,
    number,
    plain,
    section,
    svg,
    write_page,
)
from synehrgy.evaluation.scores import N_BINS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {FUTURES: SYNTHETIC, LIGHTGBM: REAL}
_COLUMNS = 5
_TITLE = 32
_SHORT = ["title", "forecaster", "n", "prevalence", "auroc", "auprc", "brier", "ece"]
_UNDEFINED = "not defined"


def forecast_summary(found: ForecastScores) -> str:
    """The scores as text for a terminal."""
    labels, values = found.tables["labels"], found.tables["next_values"]
    parts = [_heading(found), _text(found.tables["questions"])]
    parts += [_text(labels[_SHORT])] if len(labels) else ["No labels to forecast."]
    if len(values):
        shown = values.columns.intersection(["variable", "n", "crps", "carry_forward", "skill"])
        coverage = [column for column in values if str(column).startswith("coverage")]
        parts += [_text(values[[*shown, *coverage]])]
    else:
        parts += ["No continuous series to forecast."]
    parts += ["\n".join(f"{name} = {_metric(x)}" for name, x in found.metrics.items())]
    return "\n\n".join(parts)


def write_forecast_report(path: Path, found: ForecastScores) -> None:
    """Write the report in one step.

    Args:
        path: the HTML file.
        found: the scores.
    """
    tables = found.tables
    metrics = pd.DataFrame(
        {"metric": list(found.metrics), "value": [_metric(x) for x in found.metrics.values()]}
    )
    parts = [
        f"<h1>{html.escape(found.synthetic)}</h1>",
        f'<p class="note">{html.escape(_heading(found))}</p>',
        section("Questions", "What was asked, and what was answered.", tables["questions"]),
        section(
            "Summary",
            "Scores of labels are means over the labels for which they are defined for both "
            "forecasters. Errors of next values are in standard deviations of each series in the "
            "train split; skill is 1 - CRPS / error of carrying the last value forward.",
            metrics,
        ),
        "<h2>Calibration</h2>",
        '<p class="note">Of the stays that were given a probability, the share to which it '
        f"happened, in {N_BINS} bins of equal count; equal predictions share a bin. On the line "
        "both agree. Expected calibration error: the mean distance from it, weighted by stays.</p>",
        svg(_reliability(tables["calibration"])) if len(tables["calibration"]) else "",
        section(
            "Labels",
            "Futures: the probability is the share of a stay's futures with the label. LightGBM: "
            "default parameters, one classifier per label, on summaries of the same first hours. "
            "Low and high: 95 % bootstrap intervals over stays. By chance: the calibration error "
            "to expect of so many stays and futures if the probabilities were true. Few futures "
            "alone make it, the calibration error (and its low end) and the Brier score larger. "
            "Where a score is not defined the cell says so, and the note why.",
            _in_words(tables["labels"].drop(columns=["label", "kind"])),
        ),
        section(
            "Next values",
            "The first value of each series after the window. CRPS: continuous ranked probability "
            "score of the futures that measure it again, unbiased in their number (Ferro 2014). "
            "Carry forward: absolute error of the last known value on the same n stays. Coverage: "
            "share of the values inside the futures' central 50 % and 90 %; where fewer than 19 "
            "futures measure a series, their range is narrower than 90 %. The other columns count "
            "stays that are left out.",
            _in_words(tables["next_values"]),
        ),
    ]
    write_page(path, f"{found.synthetic}: forecasts against what happened", parts)


def _heading(found: ForecastScores) -> str:
    return (
        f"{found.synthetic}: futures of stays of {found.real}, {found.split}, after "
        f"{found.hours:g} hours, against what happened"
    )


def _metric(value: float | None) -> str:
    return _UNDEFINED if value is None else number(value)


def _text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format=number, na_rep=_UNDEFINED)


def _in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as text, with words for those that are not defined."""
    columns = table.select_dtypes("number").columns
    shown = {c: [_UNDEFINED if pd.isna(x) else number(x) for x in table[c]] for c in columns}
    return table.assign(**shown)


def _reliability(calibration: pd.DataFrame) -> "Figure":
    from matplotlib.figure import Figure

    labels = calibration.drop_duplicates("label")
    n_columns = min(_COLUMNS, len(labels))
    n_rows = math.ceil(len(labels) / n_columns)
    figure = Figure(figsize=(2.4 * n_columns + 0.6, 2.4 * n_rows + 0.6), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for place in axes.flat[len(labels) :]:
        place.set_axis_off()
    for place, (label, title) in zip(
        axes.flat, labels[["label", "title"]].itertuples(index=False), strict=False
    ):
        place.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=1)
        for forecaster in FORECASTERS:
            mine = (calibration["label"] == label) & (calibration["forecaster"] == forecaster)
            rows = calibration[mine]
            place.plot(
                *(rows["predicted"], rows["observed"], "o-"),
                color=_COLOURS[forecaster],
                markersize=3,
                linewidth=1,
                label=forecaster,
            )
        place.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        place.set_title(plain(textwrap.shorten(str(title), _TITLE, placeholder=" …")), fontsize=8)
        place.tick_params(labelsize=7)
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("observed", fontsize=9)
    axes[0, 0].legend(frameon=False, fontsize=7)
    return figure
