"""The table of a comparison: generators by scores, with the ceiling, the oracle and the floor."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from synehrgy.baselines import STAYS
from synehrgy.comparison.generated import Generated
from synehrgy.comparison.headlines import HEADLINES, SECONDS, Headline, needs_of
from synehrgy.evaluation.metric import MARGINALS, ORACLE, ROWS, SYNTHETIC, TEST, TRAIN
from synehrgy.evaluation.report.latex import escaped

REFERENCES = {
    TEST: "Ceiling: held-out real patients",
    ORACLE: "Oracle: fresh patients",
    TRAIN: "Leak: a copy of the train split",
    MARGINALS: "Floor: independent columns",
}
NOT_COVERED, _DASH = "\u2013", "\u2013"
_NONE = (np.nan, np.nan, np.nan)


def table_of(scores: pd.DataFrame, made: Sequence[Generated]) -> pd.DataFrame:
    """One line per generator (or reference) and headline.

    Args:
        scores: of all generators: ``generator``, ``covers``, ``row``, ``score``, ``value``,
            ``low``, ``high``.
        made: the generators.

    Returns:
        ``generator``, ``title``, ``is_reference``, ``group``, ``score``, ``column``, ``goal``,
        ``value``, ``low``, ``high``, ``best`` (whether none of the generators is better).
        Without a value where the generator does not cover what is asked.
    """
    lines: list[tuple[object, ...]] = []
    for headline in HEADLINES:
        about = (headline.group, headline.score, headline.title, headline.goal)
        for one in made:
            mine = scores[(scores["generator"] == one.name) & (scores["row"] == SYNTHETIC)]
            numbers = _numbers(mine, headline) if headline.needs <= one.covers else _NONE
            lines.append((one.name, one.title, False, *about, *numbers))
        for row in (r for r in REFERENCES if r in ROWS):
            numbers = _numbers(reference_scores(scores, headline.score, row), headline)
            if not np.isnan(numbers[0]):
                lines.append((row, REFERENCES[row], True, *about, *numbers))
    for name, title in SECONDS.items():
        for one in made:
            about = ("Time", name, title, "low")
            numbers = (float(getattr(one, name)), np.nan, np.nan)
            lines.append((one.name, one.title, False, *about, *numbers))
    columns = [
        *("generator", "title", "is_reference", "group", "score", "column", "goal"),
        *("value", "low", "high"),
    ]
    table = pd.DataFrame(lines, columns=columns)
    table["best"] = False
    # Who is compared with first stays only has other patients to be like.
    rivals = [one.name for one in made if one.competes and STAYS in one.covers]
    for _, mine in table[~table["is_reference"] & table["generator"].isin(rivals)].groupby("score"):
        values = mine["value"] if mine["goal"].iloc[0] == "low" else -mine["value"]
        table.loc[values.index[values == values.min()], "best"] = True
    return table


def reference_scores(scores: pd.DataFrame, score: str, row: str) -> pd.DataFrame:
    """A score of a reference row, as it was measured beside a generator that covers what it needs.

    Of several such generators that which covers most counts: its reference patients are whole.
    """
    mine = scores[(scores["score"] == score) & (scores["row"] == row)]
    covers = [frozenset(str(names).split()) for names in mine["covers"].fillna("")]
    enough = np.array([needs_of(score) <= parts for parts in covers], dtype=bool)
    found = mine.assign(parts=[len(parts) for parts in covers])[enough]
    return found.sort_values("parts", ascending=False, kind="stable")


def _numbers(scores: pd.DataFrame, headline: Headline) -> tuple[float, float, float]:
    mine = scores[scores["score"] == headline.score]
    if not len(mine):
        return _NONE
    value, low, high = mine[["value", "low", "high"]].iloc[0].to_numpy(np.float64)
    return float(value), float(low), float(high)


def write_tables(folder: Path, table: pd.DataFrame) -> None:
    """``comparison.csv`` (all numbers), ``comparison.md`` and ``comparison.tex``."""
    table.to_csv(folder / "comparison.csv", index=False)
    (folder / "comparison.md").write_text(markdown(table), encoding="utf-8")
    (folder / "comparison.tex").write_text(latex(table), encoding="utf-8")


def wide(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """A line per generator, a column per headline of a group; texts, best ones between ``**``."""
    mine = table[table["group"] == group]
    cells = mine.assign(cell=[cell(*row) for row in _cells(mine)])
    order = list(dict.fromkeys(zip(mine["generator"], mine["title"], strict=True)))
    found = cells.pivot(index=["generator", "title"], columns="column", values="cell")
    found = found.reindex(index=order, columns=list(dict.fromkeys(mine["column"])))
    return found.droplevel("generator").fillna(NOT_COVERED)


def _cells(table: pd.DataFrame) -> list[tuple[float, float, float, bool, str]]:
    columns = ["value", "low", "high", "best", "group"]
    return list(table[columns].itertuples(index=False, name=None))


def cell(value: float, low: float, high: float, best: bool = False, group: str = "") -> str:
    """A number and its 95 % interval as text; that of the best one between ``**``."""
    if np.isnan(value):
        return NOT_COVERED
    if group == "Time":
        text = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    else:
        text = f"{value:.3f}"
    text = f"**{text}**" if best else text
    return text if np.isnan(low) else f"{text} ({low:.3f}{_DASH}{high:.3f})"


def markdown(table: pd.DataFrame) -> str:
    """A table for each group, as Markdown; in brackets 95 % confidence intervals."""
    parts = []
    for group in dict.fromkeys(table["group"]):
        mine = wide(table, group)
        goals = table[table["group"] == group].groupby("column")["goal"].first()
        heads = [f"{c} {'↓' if goals[c] == 'low' else '↑'}" for c in mine.columns]
        lines = [f"| {group} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        lines += [f"| {title} | {' | '.join(row)} |" for title, row in _rows(mine)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _rows(cells: pd.DataFrame) -> list[tuple[str, list[str]]]:
    return [
        (str(title), [str(cell) for cell in row])
        for title, row in zip(cells.index, cells.to_numpy(), strict=True)
    ]


def latex(table: pd.DataFrame) -> str:
    """The same as LaTeX with booktabs."""
    parts = ["% Needs \\usepackage{booktabs}. In brackets: 95 % confidence intervals."]
    for group in dict.fromkeys(table["group"]):
        mine = wide(table, group)
        lines = [
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{escaped(group)}}}",
            f"  \\label{{tab:comparison-{group.lower()}}}",
            f"  \\begin{{tabular}}{{l{'r' * len(mine.columns)}}}",
            "    \\toprule",
            f"    {' & '.join(['', *(escaped(c) for c in mine.columns)])} \\\\",
            "    \\midrule",
        ]
        for title, row in _rows(mine):
            cells = [_latex_cell(cell) for cell in row]
            lines.append(f"    {' & '.join([escaped(title), *cells])} \\\\")
        lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _latex_cell(cell: str) -> str:
    if cell.startswith("**"):
        _, number, rest = cell.split("**")
        return f"\\textbf{{{number}}}{rest}".replace(_DASH, "--")
    return cell.replace(_DASH, "--")
