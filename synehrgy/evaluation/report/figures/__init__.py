"""The figures of a report. Each is made of tables alone, and left out where these are missing."""

from synehrgy.evaluation.report.figures import (  # noqa: F401 (each registers its figures)
    codes,
    patients,
    privacy,
    series,
    utility,
    validity,
)
from synehrgy.evaluation.report.figures.drawing import DRAWINGS, Drawing

__all__ = ["DRAWINGS", "Drawing"]
