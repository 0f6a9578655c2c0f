"""What GitHub makes of the pages and the site would not: called for each page as it is built."""

import posixpath
import re
from typing import Any

_FENCED = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s]*)\)")
# A line of text with a list or a table right below it, which Python's Markdown takes for more text.
_NO_BLANK = re.compile(r"^(?![ ]{4}|[-|>#]|\d+\. )(.*\S.*)\n(?=- |1\. |\| )", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page as Python's Markdown needs it; code stays as it is."""
    parts = _FENCED.split(markdown)
    parts[::2] = [_links(_NO_BLANK.sub(r"\1\n\n", part), page) for part in parts[::2]]
    return "".join(parts)


def _links(text: str, page: Any) -> str:
    """Turn a link to the README into one to the first page, and to any other file into its name.

    GitHub has every file of the repository, the site those of ``docs/``.
    """
    here = posixpath.dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[2]))
        if not target.startswith("../"):
            return link[0]
        path = target.removeprefix("../").partition("#")[0]
        if path == "README.md":
            return f"[{link[1]}]({posixpath.relpath('index.md', here or '.')})"
        return link[1] if path in link[1] else f"{link[1]} (`{path}`)"

    return _LINK.sub(inside, text)
