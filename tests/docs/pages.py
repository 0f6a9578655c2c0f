"""The pages of the documentation, and what they tell people to type."""

import re
from typing import NamedTuple

from synehrgy.files import REPOSITORY

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")])
}

# A line of code that begins with one of these is something to type.
PROGRAMS = r"(?:python3?|torchrun|make|pip|git|source|cd|export|srun|sbatch|mkdocs|synehrgy-\w+)"
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_SHELL = {"", "bash", "console", "sh", "shell"}
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


class Typed(NamedTuple):
    """Something that a page tells people to type: a command, or lines of Python."""

    page: str
    kind: str
    text: str


def typed(page: str, text: str) -> list[Typed]:
    """All of it in a page, in its order."""
    found: dict[int, tuple[str, str]] = {}

    def fenced(match: re.Match[str]) -> str:
        language, body = match[2], match[3]
        if language == "python":
            found[match.start()] = ("python", body)
        elif language in _SHELL:
            found.update({match.start(3) + at: ("command", t) for at, t in _commands(body)})
        # The rest of the page keeps its places.
        return " " * len(match[0])

    rest = _FENCED.sub(fenced, text)
    for at, command in _commands(rest, indented=True):
        found[at] = ("command", command)
    for match in _INLINE.finditer(re.sub(r"(?m)^ {4}.*$", lambda m: " " * len(m[0]), rest)):
        command = " ".join(match[1].split())
        if re.match(rf"{PROGRAMS} ", command):
            found[match.start()] = ("command", command)
    return [Typed(page, *found[at]) for at in sorted(found)]


def _commands(text: str, indented: bool = False) -> list[tuple[int, str]]:
    text = text.replace("\\\n", "  ")
    indent = r"(?: {4,}|\t)" if indented else r"\s*"
    lines = re.finditer(rf"(?m)^{indent}(?:\$ )?({PROGRAMS} .+)$", text)
    return [(line.start(), re.sub(r" +#.*", "", line[1]).strip()) for line in lines]


TYPED = [item for page, text in PAGES.items() for item in typed(page, text)]
