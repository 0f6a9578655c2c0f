"""Templates of codes, and which codes of a dataset they mean.

A template is a code in which ``*`` stands for anything and ``{name}`` for anything that is then
known by that name: ``LAB//{item}//{unit}``. ``[*]`` and ``[{]`` are the characters themselves.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from synehrgy.errors import UserError

_PARTS = re.compile(r"\[([\[*{])\]|(\*)|\{(\w*)\}|(.)", re.DOTALL)


@dataclass(frozen=True)
class Template:
    """A template of codes.

    Raises:
        UserError: a name that stands in it twice, or is none.
    """

    text: str

    def __post_init__(self) -> None:
        names = [part[2] for part in _PARTS.findall(self.text) if not any((*part[:2], part[3]))]
        if not self.text or len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
            raise UserError(
                f"{self.text!r} is no template of codes: * stands for anything, {{name}} for "
                "anything that gets that name, each name once, [*] for the character itself."
            )

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The regular expression that matches the whole of the codes it means."""
        parts = []
        for literal, star, name, character in _PARTS.findall(self.text):
            if star:
                parts.append(".*")
            elif name:
                # An item is a number, as the numbers of MIMIC's dictionaries are.
                parts.append(rf"(?P<{name}>\d+)" if name == "item" else f"(?P<{name}>.*)")
            else:
                parts.append(re.escape(literal or character))
        return re.compile("".join(parts), re.DOTALL)

    @property
    def names(self) -> set[str]:
        """The names in it."""
        return set(self.pattern.groupindex)

    def match(self, code: str) -> dict[str, str] | None:
        """What the names stand for in a code; None for another code."""
        found = self.pattern.fullmatch(code)
        return None if found is None else found.groupdict()


def first_match(
    templates: Sequence[Template], codes: Sequence[str]
) -> dict[str, tuple[int, dict[str, str]]]:
    """The first template that means a code, by its position, and what its names stand for.

    Codes that no template means are left out.
    """
    # Most codes are told apart by how they begin, which is faster than to match each template.
    beginnings: dict[str, list[tuple[int, Template]]] = {}
    for place, template in enumerate(templates):
        beginnings.setdefault(_beginning(template), []).append((place, template))
    found = {}
    for code in codes:
        candidates = [
            entry for length in range(len(code) + 1) for entry in beginnings.get(code[:length], ())
        ]
        for place, template in sorted(candidates, key=lambda entry: entry[0]):
            names = template.match(code)
            if names is not None:
                found[code] = place, names
                break
    return found


def _beginning(template: Template) -> str:
    """The characters that all codes of a template begin with."""
    characters = []
    for literal, _, _, character in _PARTS.findall(template.text):
        if not (literal or character):
            break
        characters.append(literal or character)
    return "".join(characters)
