"""Parts of a page of HTML: tables, figures, and the page around them."""

import base64
import html
import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from synehrgy.evaluation.report.style import FIGURES, PAGE
from synehrgy.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of text in drawings: what the page around them has, too.
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def write_page(path: Path, title: str, parts: Sequence[str], style: str = PAGE) -> None:
    """Write a page of the given parts of HTML in one step.

    Args:
        path: of the file.
        title: as text.
        parts: of the body, as HTML.
        style: as CSS.
    """
    body = "\n".join(parts)
    write_text(
        path,
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        f"<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
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
    return f'<div class="wide" tabindex="0">{text}</div>'


def plain(name: str) -> str:
    """A name as Matplotlib shows it: between two dollar signs it would read a formula."""
    return name.replace("$", r"\$")


def drawing() -> AbstractContextManager[Any]:
    """The style of figures, for as long as one is made; others' settings come back after it."""
    import matplotlib

    return matplotlib.rc_context(FIGURES)


def lay_out(figure: "Figure") -> None:
    """Put everything in its place, once for all files.

    The last digits of what the solver of the layout finds depend on where things lie in memory.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, low, width, height = (round(x, 5) for x in axes.get_position(original=True).bounds)
        axes.set_position((left, low, width, height))


def svg(figure: "Figure", salt: str = "synehrgy") -> str:
    """A figure as SVG, as a part of a page; the same figure gives the same text.

    Args:
        figure: to draw.
        salt: names inside the drawing come from it, and so differ between the figures of a page.
    """
    return _svg(figure, salt).split("?>", 1)[-1].split(">", 1)[-1]


def svg_file(figure: "Figure", name: str) -> str:
    """A figure as the text of an SVG file of its own."""
    return _svg(figure, name)


def png_file(figure: "Figure") -> bytes:
    """A figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()


def _svg(figure: "Figure", salt: str) -> str:
    import matplotlib

    text = io.StringIO()
    # Names inside the drawing are random otherwise, and the same results give other files.
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    return re.sub(r"'DejaVu Sans'(, [^;\"]*?)?sans-serif", _FONTS, text.getvalue())


def image(text: str, alt: str) -> str:
    """The text of an SVG file as an image of a page, apart from the names and styles around it."""
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    width, height = (round(float(x) * 4 / 3) for x in size.groups()) if size else (0, 0)
    content = base64.b64encode(text.encode()).decode()
    wide = ' class="broad"' if width > 560 else ""
    return (
        f'<img{wide} alt="{html.escape(alt)}" width="{width}" height="{height}" '
        f'src="data:image/svg+xml;base64,{content}">'
    )
