"""Tables of scores for papers: LaTeX with booktabs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import Scale
from synehrgy.evaluation.report.judgement import MINUS, ROW_NAMES, short

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_table(
    scores: pd.DataFrame, scales: Mapping[str, Scale], rows: Sequence[str], caption: str, label: str
) -> str:
    """Scores as a table of LaTeX, one line each; the preamble needs the package booktabs.

    Args:
        scores: of ``judged``; those to show.
        scales: by the name of the score.
        rows: of the comparison, one column each.
        caption, label: of the table.
    """
    cells = {(s, r): v for s, r, *v in scores[["score", "row", "value", "low", "high"]].to_numpy()}
    lines = [
        "% Needs \\usepackage{booktabs}. In brackets: 95 % confidence intervals.",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escaped(caption)}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{l{'r' * len(rows)}}}",
        "    \\toprule",
        f"    {' & '.join(['Score', *(escaped(ROW_NAMES[row]) for row in rows)])} \\\\",
        "    \\midrule",
    ]
    for score in dict.fromkeys(scores["score"]):
        numbers = [_cell(*cells.get((score, row), (np.nan,) * 3)) for row in rows]
        lines.append(f"    {' & '.join([escaped(scales[score].title), *numbers])} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _cell(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "--"
    shown = _math(value)
    return shown if np.isnan(low) or np.isnan(high) else f"{shown} [{_math(low)}, {_math(high)}]"


def _math(x: float) -> str:
    return short(x).replace(MINUS, "$-$").replace("∞", r"$\infty$")
