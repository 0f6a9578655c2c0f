"""Results as pages of HTML that open without network, and as files for papers."""

from synehrgy.evaluation.report.page import (
    html_table,
    number,
    plain,
    section,
    svg,
    write_page,
)
from synehrgy.evaluation.report.parts import FIGURES_FOLDER, TABLES_FOLDER
from synehrgy.evaluation.report.style import REAL, SYNTHETIC
from synehrgy.evaluation.report.writing import REPORT_FILE, write_report

__all__ = [
    "FIGURES_FOLDER",
    "REAL",
    "REPORT_FILE",
    "SYNTHETIC",
    "TABLES_FOLDER",
    "html_table",
    "number",
    "plain",
    "section",
    "svg",
    "write_page",
    "write_report",
]
