"""The parts of the report as HTML."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from synehrgy.evaluation.compare import Evaluation
from synehrgy.evaluation.metric import GROUPS, ROWS, SYNTHETIC, TRAIN, Metric, Scale
from synehrgy.evaluation.report.judgement import (
    LIGHTS,
    ROW_NAMES,
    Verdict,
    aim_in_words,
    beside,
    controls,
    count_lights,
    counted,
    interval,
    is_published,
    rows_of,
    short,
    thresholds_in_words,
)
from synehrgy.evaluation.report.strips import mark, strip

FIGURES_FOLDER, TABLES_FOLDER = "figures", "tables"

_GROUP_SAYS = {
    "validity": "Could these records exist? Rules that no patient should break, and how often "
    "real records break them too: charting has errors.",
    "fidelity": "Do they look like real patients? Every measure is taken of held-out real "
    "patients, too: no synthetic patients can be expected to do better than these.",
    "utility": "What is learned from them, does it hold for real patients?",
    "privacy": "Do they give away who is behind them? Attacks on the patients that the model was "
    "trained on, beside the same attacks on patients that it never saw.",
}
_SHAPES = {
    "good": '<circle cx="6" cy="6" r="5"/>',
    "fair": '<path d="M6 .8 11.6 11H.4z"/>',
    "poor": '<path d="M3.6 1h4.8L11 3.6v4.8L8.4 11H3.6L1 8.4V3.6z"/>',
}


def header(found: Evaluation, n_scores: int, made: str, facts: Mapping[str, str]) -> str:
    """What was compared: names, sizes, when, with what."""
    numbers = {
        "Real, train" if row == TRAIN else ROW_NAMES[row]: f"{n:,} patients"
        for row, n in found.patients.items()
        if row in ROW_NAMES and row != "marginals"
    }
    if "equal" in found.patients:
        numbers["Compared, of each"] = f"{found.patients['equal']:,} patients"
    numbers["Numbers in this report"] = f"{n_scores:,}"
    if made:
        numbers["Made"] = made
    items = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in numbers.items()
    )
    more = "".join(
        f"<tr><th scope='row'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts.items()
    )
    fold = _fold("Settings and versions", f'<div class="wide"><table>{more}</table></div>')
    return (
        '<header class="top"><p class="eyebrow">Evaluation of synthetic patients</p>'
        f"<h1>{escape(found.synthetic)}, judged beside {escape(found.real)}</h1>"
        '<p class="lead">Every number is also measured of real patients that no model was trained '
        "on, the best that can be expected, and of two warnings: independent columns, in which "
        "nothing hangs together, and a copy of the train split, which gives everybody away.</p>"
        f'<dl class="facts">{items}</dl>{fold if facts else ""}</header>'
    )


def summary(
    judgements: Sequence[Verdict], scores: pd.DataFrame, scales: Mapping[str, Scale]
) -> str:
    """What a reader in a hurry reads: each group with its lights and what is worst."""
    cards = "".join(_verdict(verdict, scales) for verdict in judgements)
    return (
        '<h2>Summary</h2><p class="lead">A group is as good as its worst light: nothing is '
        "averaged away. The bars count all of its lights.</p>"
        f'<div class="verdicts">{cards}</div>{_how_lights()}{_controls(scores)}'
    )


def _verdict(verdict: Verdict, scales: Mapping[str, Scale]) -> str:
    worst = "".join(
        f'<li>{_light(light)} <a href="#{_anchor(score)}">'
        f"<b>{escape(scales[score].title)}</b></a>: "
        f"{escape(beside(scales[score], value, aim))}. {escape(scales[score].meaning)}</li>"
        for score, value, aim, light in verdict.worst[
            ["score", "value", "aim", "light"]
        ].itertuples(index=False)
    )
    if verdict.light is None:
        return (
            f'<article class="verdict card"><h3>{escape(GROUPS[verdict.group])}</h3>'
            f'<p class="note">{escape(verdict.says)}</p></article>'
        )
    below = sum(verdict.counts[light] for light in LIGHTS[1:])
    more = below - len(verdict.worst)
    rest = f'<p class="counts">and {more} more below</p>' if more > 0 else ""
    return (
        f'<article class="verdict card {verdict.light}"><div>'
        f'<h3><a href="#{verdict.group}">{escape(GROUPS[verdict.group])}</a></h3>'
        f"{_light(verdict.light)}{_bar(verdict.counts)}"
        f'<p class="counts">{counted(verdict.counts)}</p></div>'
        f'<div><p class="says">{escape(verdict.says)}</p>'
        f'<ul class="worst">{worst}</ul>{rest}</div></article>'
    )


def _light(light: str | None) -> str:
    if light not in LIGHTS:
        return '<span class="light none">no light</span>'
    shape = f'<svg viewBox="0 0 12 12" aria-hidden="true">{_SHAPES[light]}</svg>'
    return f'<span class="light {light}">{shape}{light.capitalize()}</span>'


def _bar(counts: Mapping[str, int]) -> str:
    parts = "".join(
        f'<i class="{light}" style="flex:{counts[light]}"></i>' for light in LIGHTS if counts[light]
    )
    return f'<div class="bar" aria-hidden="true">{parts}</div>'


def _how_lights() -> str:
    words = {
        "good": "no further from the reference than chance and real patients make likely",
        "fair": "further, but small enough for many uses: look at it",
        "poor": "too far: understand it before the records are used",
    }
    items = "".join(f"<li>{_light(light)} {says}</li>" for light, says in words.items())
    return _fold(
        "How the lights are set",
        "<p class='note'>Each score has a reference: a number, such as 0.5 for an attack that only "
        "guesses, or the same score of held-out real patients. Its light says how far the "
        "synthetic patients are on the worse side of it. To be better than the reference costs "
        "nothing. The thresholds of every score are listed in its part of the report, and the "
        "documentation says why they are where they are. A score without a reference, or in a "
        f"published form, has no light.</p><ul class='legend'>{items}</ul>",
    )


def _controls(scores: pd.DataFrame) -> str:
    """Whether the evaluation sees what it must: the lights of the rows that are known."""
    found = controls(scores)
    rows = [row for row in ROW_NAMES if any(row == r for r, _ in found)]
    if len(rows) < 2:
        return ""
    body = ""
    for row in rows:
        cells = ""
        for group in GROUPS:
            counts = found.get((row, group))
            inside = "" if counts is None else f"{_bar(counts)}{counted(counts)}"
            cells += f'<td data-row="{brief(group)}">{inside}</td>'
        body += f'<tr><th scope="row">{_mark(row)}{escape(ROW_NAMES[row])}</th>{cells}</tr>'
    head = "".join(f'<th scope="col">{brief(group)}</th>' for group in GROUPS)
    return _fold(
        "Does this evaluation see? The same lights for patients that are known",
        "<p class='note'>Held-out real patients should be good nearly everywhere, independent "
        "columns should fail fidelity, and a copy of the train split should fail privacy. If they "
        "do not, these cohorts are too small or too plain to judge by.</p>"
        f'<div class="wide"><table class="plain"><caption>Lights of every row</caption>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>",
    )


def group_section(
    group: str,
    metrics: Sequence[Metric],
    scores: pd.DataFrame,
    figures: Mapping[str, Sequence[str]],
) -> str:
    """One part of the report; empty where it has neither scores nor figures.

    Args:
        group: its name.
        metrics: of the group, in order.
        scores: of ``judged``.
        figures: as HTML, by the name of the metric.
    """
    own = scores[scores["group"].eq(group) & ~scores["score"].map(is_published).astype(bool)]
    rows = rows_of(own)
    cards, contents = [], []
    for metric in metrics:
        mine = own[own["metric"] == metric.name]
        drawn = figures.get(metric.name, [])
        if mine.empty and not drawn:
            continue
        title = escape(metric.title)
        if len(mine):
            cards.append(
                f'<article class="metric card" id="metric-{metric.name}"><h3>{title}</h3>'
                f"{_score_table(mine, metric.scales, rows)}</article>"
            )
        else:
            cards.append(f'<div id="metric-{metric.name}"></div>')
        cards += drawn
        counts = count_lights(mine[mine["row"] == SYNTHETIC])
        told = _bar(counts) + f"<small>{counted(counts)}</small>" if any(counts.values()) else ""
        contents.append(f'<li><a href="#metric-{metric.name}">{title}</a>{told}</li>')
    if not cards:
        return ""
    scales = {name: scale for metric in metrics for name, scale in metric.scales.items()}
    return (
        f'<h2>{escape(GROUPS[group])}</h2><p class="lead">{_GROUP_SAYS[group]}</p>'
        f"{_contents(contents)}"
        f"{_legend(rows)}{_thresholds(own, scales)}{''.join(cards)}"
    )


def _contents(items: Sequence[str]) -> str:
    return f'<ul class="contents card">{"".join(items)}</ul>' if len(items) > 1 else ""


def _mark(row: str) -> str:
    return f'<svg class="mark row-{row}" viewBox="0 0 12 12" aria-hidden="true">{mark(row)}</svg>'


def _legend(rows: Sequence[str]) -> str:
    items = "".join(f"<li>{_mark(row)}{escape(ROWS.get(row, row))}</li>" for row in rows)
    return f'<ul class="legend">{items}</ul>' if rows else ""


def _thresholds(scores: pd.DataFrame, scales: Mapping[str, Scale]) -> str:
    body = ""
    for score in dict.fromkeys(scores["score"]):
        words = thresholds_in_words(scales[score])
        if words:
            cells = "".join(f"<td>{escape(words[light])}</td>" for light in LIGHTS)
            body += (
                f'<tr><th scope="row">{escape(scales[score].title)}</th>'
                f"<td>{escape(aim_in_words(scales[score]))}</td>{cells}</tr>"
            )
    if not body:
        return ""
    heads = "".join(f'<th scope="col">{_light(light)}</th>' for light in LIGHTS)
    return _fold(
        "Thresholds of these lights",
        '<div class="wide"><table><caption>How far from its reference each score may be, on the '
        "worse side</caption><thead><tr><th scope='col'>Score</th><th scope='col'>Reference</th>"
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>",
    )


def _score_table(scores: pd.DataFrame, scales: Mapping[str, Scale], rows: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{_mark(row)}{escape(ROW_NAMES[row])}</th>' for row in rows)
    body = "".join(
        _score_row(str(score), scales[str(score)], part, rows)
        for score, part in scores.groupby("score", sort=False)
    )
    return (
        '<table class="scores"><thead><tr><th scope="col" class="for-name">Score</th>'
        f'{heads}<th scope="col" class="for-strip">Dots and 95 % intervals</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _score_row(score: str, scale: Scale, part: pd.DataFrame, rows: Sequence[str]) -> str:
    by_row = part.set_index("row")
    cells = ""
    for row in rows:
        inside = ""
        if row in by_row.index:
            inside = _value(*by_row.loc[row, ["value", "low", "high"]].astype(float))
        cells += f'<td class="{row}" data-row="{escape(ROW_NAMES[row])}">{inside}</td>'
    light = by_row["light"].get(SYNTHETIC)
    return (
        f'<tr id="{_anchor(score)}"><th scope="row">'
        f'<span class="name">{escape(scale.title)}</span>'
        f'{_light(light if isinstance(light, str) else None)}<span class="meaning">'
        f"{escape(scale.meaning)}</span></th>{cells}"
        f'<td class="strip">{strip(scale, part)}</td></tr>'
    )


def _value(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "<small>not defined</small>"
    return f"{short(value)}<small>{interval(low, high)}</small>"


def _anchor(score: str) -> str:
    return "score-" + "".join(c if c.isalnum() else "-" for c in score)


def published(scores: pd.DataFrame, scales: Mapping[str, Scale]) -> str:
    """The scores in their published form; empty where there are none."""
    mine = scores[scores["score"].map(is_published).astype(bool)]
    if mine.empty:
        return ""
    rows = rows_of(mine)
    heads = "".join(f'<th scope="col" class="n">{escape(ROW_NAMES[row])}</th>' for row in rows)
    body = ""
    for score, part in mine.groupby("score", sort=False):
        by_row = part.set_index("row")["value"]
        cells = "".join(f'<td class="n">{short(float(by_row.get(r, np.nan)))}</td>' for r in rows)
        scale = scales[str(score)]
        body += (
            f'<tr><th scope="row">{escape(scale.title)}</th>{cells}'
            f'<td class="text">{escape(scale.meaning)}</td></tr>'
        )
    table = (
        '<div class="wide"><table class="plain"><caption>Scores in the form in which they were '
        f"published</caption><thead><tr><th scope='col'>Score</th>{heads}"
        f"<th scope='col'>What it says</th></tr></thead><tbody>{body}</tbody></table></div>"
    )
    fold = _fold(f"{mine['score'].nunique()} scores", table)
    return (
        '<h2>As published</h2><p class="lead">The same questions in the form in which the '
        "literature asks them, flaws included, to set them beside published numbers. They have no "
        f"lights and count nowhere above.</p>{fold}"
    )


def brief(group: str) -> str:
    """The name of a group in a word."""
    return GROUPS[group].split(" and ")[0]


def rest(
    found: Evaluation,
    titles: Mapping[str, str],
    files: Mapping[str, int],
    figures: Sequence[str],
) -> str:
    """What was left out and why, further figures, the files beside the page, and the time."""
    parts = ["<h2>Left out, and files</h2>", *figures]
    if found.skipped:
        items = "".join(
            f"<li><b>{escape(titles.get(name, name))}</b>: {escape(why)}.</li>"
            for name, why in found.skipped.items()
        )
        parts.append(f"<p>These could not be measured:</p><ul>{items}</ul>")
    else:
        parts.append('<p class="lead">Nothing that was asked for had to be left out.</p>')
    rows = "".join(
        f'<tr><th scope="row"><a href="{TABLES_FOLDER}/{escape(name)}">{escape(name)}</a></th>'
        f'<td class="n">{n:,}</td></tr>'
        for name, n in files.items()
    )
    parts.append(
        _fold(
            f"{len(files)} tables beside this page",
            '<div class="wide"><table><caption>CSV for spreadsheets and LaTeX for papers'
            "</caption><thead><tr><th scope='col'>File</th><th scope='col' class='n'>Rows</th>"
            f"</tr></thead><tbody>{rows}</tbody></table></div>",
        )
    )
    if found.seconds:
        rows = "".join(
            f'<tr><th scope="row">{escape(titles.get(name, name))}</th>'
            f'<td class="n">{s:.1f}</td></tr>'
            for name, s in sorted(found.seconds.items(), key=lambda item: -item[1])
        )
        total = sum(found.seconds.values())
        parts.append(
            _fold(
                f"Time: {total:.0f} s",
                '<div class="wide"><table><caption>Seconds that each metric took</caption>'
                "<thead><tr><th scope='col'>Metric</th><th scope='col' class='n'>Seconds</th></tr>"
                f"</thead><tbody>{rows}</tbody></table></div>",
            )
        )
    return "".join(parts)


def _fold(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary><div>{inside}</div></details>"
