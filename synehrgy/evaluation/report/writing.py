"""An evaluation as a page to read, with its figures and tables as files beside it."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from synehrgy.evaluation.compare import Evaluation
from synehrgy.evaluation.metric import GROUPS, Metric, Scale
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.evaluation.report.figures import DRAWINGS, Drawing
from synehrgy.evaluation.report.judgement import is_published, judged, rows_of, verdicts
from synehrgy.evaluation.report.latex import latex_table
from synehrgy.evaluation.report.page import drawing, image, lay_out, png_file, svg_file, write_page
from synehrgy.evaluation.report.parts import (
    FIGURES_FOLDER,
    TABLES_FOLDER,
    brief,
    group_section,
    header,
    published,
    rest,
    summary,
)
from synehrgy.evaluation.report.style import REPORT
from synehrgy.files import write_bytes, write_text

REPORT_FILE = "report.html"


def write_report(
    folder: Path,
    found: Evaluation,
    metrics: Sequence[Metric] | None = None,
    *,
    made: str = "",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write ``report.html``, ``figures/`` (PNG and SVG) and ``tables/`` (CSV and LaTeX).

    The same arguments give the same bytes.

    Args:
        folder: to write into.
        found: the evaluation.
        metrics: that were measured, which say how to read the scores; None: all that there are.
        made: when, as text.
        facts: more about the comparison, such as the seed and versions; shown in a fold-out.
    """
    metrics = all_metrics() if metrics is None else metrics
    scales = {name: scale for metric in metrics for name, scale in metric.scales.items()}
    titles = {metric.name: metric.title for metric in metrics}
    scores = judged(found.scores, scales)
    judgements = verdicts(scores)
    figures = _figures(folder / FIGURES_FOLDER, found)
    files = _tables(folder / TABLES_FOLDER, found, scores, scales)
    sections = {"summary": ("Summary", summary(judgements, scores, scales))}
    for group in GROUPS:
        mine = [metric for metric in metrics if metric.group == group]
        drawn = {metric.name: figures.pop(metric.name, []) for metric in mine}
        sections[group] = (brief(group), group_section(group, mine, scores, drawn))
    loose = [figure for some in figures.values() for figure in some]
    sections["published"] = ("As published", published(scores, scales))
    sections["files"] = ("Files", rest(found, titles, files, loose))
    shown = {key: part for key, part in sections.items() if part[1]}
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, (name, _) in shown.items())
    body = [
        '<a class="skip" href="#summary">Skip to the summary</a>',
        header(found, len(scores), made, facts or {}),
        f'<nav aria-label="Parts of the report"><ul>{links}</ul></nav>',
        "<main>",
        *(f'<section id="{key}">{text}</section>' for key, (_, text) in shown.items()),
        "</main>",
        "<footer><p>Made with SynEHRgy. Everything that this page shows is in it: it opens without "
        "network. Intervals are 95 % confidence intervals.</p></footer>",
    ]
    title = f"{found.synthetic}: synthetic against real patients"
    write_page(folder / REPORT_FILE, title, body, REPORT)


def _figures(folder: Path, found: Evaluation) -> dict[str, list[str]]:
    """Draw what there are tables for; the parts of the page by metric."""
    parts: dict[str, list[str]] = {}
    with drawing():
        for one in DRAWINGS:
            figure = one.draw(found.tables)
            if figure is None:
                continue
            lay_out(figure)
            text = svg_file(figure, one.name)
            write_text(folder / f"{one.name}.svg", text)
            write_bytes(folder / f"{one.name}.png", png_file(figure))
            parts.setdefault(one.metric, []).append(_figure(one, text))
    return parts


def _figure(one: Drawing, text: str) -> str:
    files = " ".join(
        f'<a href="{FIGURES_FOLDER}/{one.name}.{kind}">{kind.upper()}</a>'
        for kind in ("svg", "png")
    )
    return (
        f'<figure class="card" id="figure-{one.name}"><h3>{escape(one.title)}</h3>'
        f'<figcaption>{escape(one.says)} <span class="files">{files}</span></figcaption>'
        f'<div class="wide" tabindex="0">{image(text, f"{one.title}. {one.says}")}</div></figure>'
    )


def _tables(
    folder: Path, found: Evaluation, scores: pd.DataFrame, scales: Mapping[str, Scale]
) -> dict[str, int]:
    """Write all tables; their rows by the name of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    every = {"scores": found.scores, **dict(sorted(found.tables.items()))}
    for name, table in every.items():
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        files[f"{name}.csv"] = len(table)
    published = scores["score"].map(is_published).astype(bool)
    parts = {group: scores[(scores["group"] == group) & ~published] for group in GROUPS}
    for name, part in (parts | {"published": scores[published]}).items():
        if len(part):
            caption = "Scores as published" if name == "published" else GROUPS[name]
            text = latex_table(part, scales, rows_of(part), caption, f"tab:{name}")
            write_text(folder / f"scores_{name}.tex", text)
            files[f"scores_{name}.tex"] = part["score"].nunique()
    return files
