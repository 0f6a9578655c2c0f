"""The results as one HTML file that opens without network."""

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from synehrgy.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from synehrgy.evaluation.evaluate import Evaluation

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.note { color: #52606d; max-width: 46rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e4e7eb; }
th { border-bottom: 2px solid #9aa5b1; } td:first-child, th:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
"""
REAL, SYNTHETIC = "#3e4c59", "#2680c2"
_SHOWN_CODES = 30


def write_report(path: Path, found: "Evaluation") -> None:
    """Write the report in one step.

    Args:
        path: the HTML file.
        found: tables and metrics.
    """
    tables = found.tables
    r = found.metrics["code_prevalence_r/union"]
    parts = [
        f"<h1>{html.escape(found.synthetic)}</h1>",
        f'<p class="note">Synthetic patients beside real ones: {html.escape(found.real)}, '
        f"{html.escape(found.split)} split.</p>",
        section("Size", "Totals, and what a stay and a patient have on average.", tables["counts"]),
        section(
            "Covariates and labels",
            "Mean age, and the share of stays with each fact.",
            tables["labels"],
        ),
        "<h2>Codes</h2>",
        '<p class="note">Share of stays that have each code. The correlation over all codes of '
        f"either cohort is {'not defined' if r is None else f'{r:.3f}'}. "
        f"Below: the {_SHOWN_CODES} most frequent.</p>",
        svg(_prevalence_figure(tables["codes"])),
        html_table(tables["codes"].head(_SHOWN_CODES)),
        "<h2>Series</h2>",
        '<p class="note">Missing: share of time points without a value of the series.</p>',
        svg(_series_figure(tables["series"])),
        html_table(tables["series"]),
        section("Levels", "Share of each level among the values.", tables["levels"]),
        section(
            "Validity",
            "Share of stays that break a rule. Real records break some too. A synthetic stay ends "
            "with its last value, so that nothing can come after it.",
            tables["validity"],
        ),
    ]
    write_page(path, f"{found.synthetic}: synthetic against real", parts)


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of the given parts of HTML in one step."""
    body = "\n".join(parts)
    write_text(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n",
    )


def section(title: str, note: str, table: pd.DataFrame) -> str:
    """A table with its heading and what it says; ``title`` and ``note`` are HTML."""
    return f'<h2>{title}</h2><p class="note">{note}</p>{html_table(table)}'


def number(x: float) -> str:
    """Four digits, but all of a large number: 23,468 patients are not 2.347e+04."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def html_table(table: pd.DataFrame) -> str:
    """A table that scrolls where it is too wide; missing values are empty cells."""
    text = table.to_html(index=False, border=0, na_rep="", float_format=number)
    return f'<div class="wide">{text}</div>'


def _prevalence_figure(codes: pd.DataFrame) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    # Codes that one cohort lacks have no place on logarithmic axes: they lie on the edge.
    positive = codes[["real", "synthetic"]].to_numpy()
    floor = positive[positive > 0].min() / 2 if (positive > 0).any() else 1e-3
    axes.plot([floor, 1], [floor, 1], color="#9aa5b1", linewidth=1)
    for system, rows in codes.groupby("system", observed=True):
        shown = rows[["real", "synthetic"]].clip(lower=floor)
        axes.scatter(shown["real"], shown["synthetic"], s=10, alpha=0.5, label=plain(str(system)))
    axes.set(xscale="log", yscale="log", xlabel="real", ylabel="synthetic")
    axes.set_title("Prevalence of codes")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def _series_figure(series: pd.DataFrame) -> "Figure":
    from matplotlib.figure import Figure

    rows = series.iloc[::-1]
    names = [plain(name) for name in rows["variable"]]
    figure = Figure(figsize=(9, 1.5 + 0.22 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    # The mean and spread of the synthetic values in units of the real ones.
    scale = rows["sd, real"].replace(0.0, float("nan"))
    shift = (rows["mean, synthetic"] - rows["mean, real"]) / scale
    left.axvspan(-1, 1, color="#f0f4f8")
    left.axvline(0, color=REAL, linewidth=1)
    spread = rows["sd, synthetic"] / scale
    left.errorbar(shift, names, xerr=spread, fmt="o", color=SYNTHETIC, markersize=4)
    left.set(title="Mean ± sd", xlabel="in standard deviations of the real values")
    for cohort, colour in (("real", REAL), ("synthetic", SYNTHETIC)):
        right.plot(rows[f"missing, {cohort}"], names, "o", color=colour, label=cohort)
    right.set(title="Missing rate", xlim=(-0.03, 1.03))
    right.legend(frameon=False)
    return figure


def plain(name: str) -> str:
    """A name as Matplotlib shows it: between two dollar signs it would read a formula."""
    return name.replace("$", r"\$")


def svg(figure: "Figure") -> str:
    """A figure as a part of a page; the same figure gives the same text."""
    import matplotlib

    text = io.StringIO()
    # Names inside the drawing are random otherwise, and the same results give other files.
    with matplotlib.rc_context({"svg.hashsalt": "synehrgy"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().split("?>", 1)[-1].split(">", 1)[-1]
