"""Links that work on GitHub and lead out of ``docs/``, where the site has nothing."""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s]*)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn a link to the README into one to the first page, and to any other file into its name."""
    here = posixpath.dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[2]))
        if not target.startswith("../"):
            return link[0]
        path = target.removeprefix("../").partition("#")[0]
        if path == "README.md":
            first = posixpath.relpath("index.md", here or ".")
            return f"[{link[1]}]({first})"
        return link[1] if path in link[1] else f"{link[1]} (`{path}`)"

    return _LINK.sub(inside, markdown)
