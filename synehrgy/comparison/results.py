"""A finished comparison, to look into from a notebook."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from synehrgy.comparison.compare import COMPARISON_FILE, SCORES_FILE
from synehrgy.comparison.headlines import needs_of
from synehrgy.comparison.table import REFERENCES, cell, reference_scores
from synehrgy.errors import UserError, nearest
from synehrgy.evaluation.metric import SYNTHETIC
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.evaluation.report.figures import DRAWINGS
from synehrgy.evaluation.report.style import FIGURES
from synehrgy.files import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Results:
    """What ``python -m synehrgy.comparison`` wrote.

    Args:
        folder: such as ``Results/comparison``.

    Raises:
        UserError: no comparison there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / COMPARISON_FILE).exists():
            raise UserError(
                f"{self.folder} holds no comparison. Run first: python -m synehrgy.comparison"
            )
        self.made: dict[str, Any] = read_json(self.folder / COMPARISON_FILE)

    @property
    def generators(self) -> dict[str, str]:
        """Titles by name, in order."""
        return {one["name"]: one["title"] for one in self.made["generators"]}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every score of every generator: generator, covers, row, score, value, low, high."""
        return pd.read_csv(self.folder / SCORES_FILE)

    def table(self, columns: Mapping[str, str]) -> pd.DataFrame:
        """Scores side by side, with 95 % intervals; references below.

        Args:
            columns: what to call each score, by its name.

        Returns:
            Texts; a line per generator and reference that has any of the scores.

        Raises:
            UserError: an unknown score.
        """
        known = dict.fromkeys(self.scores["score"])
        known |= dict.fromkeys(name for metric in all_metrics() for name in metric.scales)
        for score in columns:
            if score not in known:
                raise UserError(f"There is no score {score!r}.{nearest(score, known)}")
        lines: dict[str, dict[str, str]] = {}
        synthetic = self.scores[self.scores["row"] == SYNTHETIC]
        for one in self.made["generators"]:
            mine = synthetic[synthetic["generator"] == one["name"]]
            asked = [score for score in columns if needs_of(score) <= set(one["covers"])]
            parts = {score: mine[mine["score"] == score] for score in asked}
            lines[one["title"]] = _cells(parts, columns)
        for row, title in REFERENCES.items():
            parts = {score: reference_scores(self.scores, score, row) for score in columns}
            lines[title] = _cells(parts, columns)
        found = pd.DataFrame.from_dict(lines, orient="index", columns=list(columns.values()))
        return found.dropna(how="all").fillna("")

    def tables(self, generator: str) -> dict[str, pd.DataFrame]:
        """What lies behind the scores of a generator, by name.

        Raises:
            UserError: an unknown generator.
        """
        if generator not in self.generators:
            raise UserError(
                f"{self.folder} has no generator {generator!r}."
                f"{nearest(generator, self.generators)}"
            )
        files = sorted((self.folder / generator).glob("*.parquet"))
        return {file.stem: pd.read_parquet(file) for file in files}

    def figure(self, name: str, generator: str) -> "Figure | None":
        """A figure of the report of one generator; None where it does not cover it.

        Raises:
            UserError: an unknown figure or generator.
        """
        from matplotlib import rc_context

        drawings = {drawing.name: drawing for drawing in DRAWINGS}
        if name not in drawings:
            raise UserError(f"There is no figure {name!r}.{nearest(name, list(drawings))}")
        with rc_context(FIGURES):
            return drawings[name].draw(self.tables(generator))


def _cells(parts: Mapping[str, pd.DataFrame], columns: Mapping[str, str]) -> dict[str, str]:
    """The first of each, as text."""
    filled = {score: part.iloc[0] for score, part in parts.items() if len(part)}
    return {
        columns[score]: cell(float(line["value"]), float(line["low"]), float(line["high"]))
        for score, line in filled.items()
    }
