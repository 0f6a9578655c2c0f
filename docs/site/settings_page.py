"""Writes the page of all settings from their dataclasses: ``python docs/site/settings_page.py``."""

import re
import sys
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
# A script sees its own folder, not the one that it is started from.
sys.path.insert(0, str(REPOSITORY))

from synehrgy.cli import CONFIG_DIR, GROUPS, program_of  # noqa: E402
from synehrgy.files import write_text  # noqa: E402
from synehrgy.settings import CONFIGS, walk  # noqa: E402

PAGE = REPOSITORY / "docs" / "reference" / "settings.md"

HEAD = (
    "# All settings\n\n"
    "<!-- Written by docs/site/settings_page.py from synehrgy/settings.py: change it there. -->\n\n"
    "Every key of every command, with its default, what it may be, and what it means; `--help` of "
    "a command prints the same. Keys are given as `key=value` on the command line. A misspelt key, "
    "a value of the wrong type or out of range is refused with the nearest valid name. Lists are "
    "written `'[a,b]'` and mappings `'{name: value}'`, in quotes because of the shell; `null` is "
    "nothing.\n\n"
    "How to use them: [training](../training.md), [generating](../generation.md), "
    "[tokens](../tokens.md), [evaluation](../evaluation.md), "
    "[other generators](../comparison.md).\n"
)

GROUP_TEXT = (
    "\n## Files of groups\n\n"
    "`data=<name>` and `model=<name>` choose a file in `configs/`, which sets several keys at "
    "once. What is given on the command line goes before it. A file of one's own beside them is "
    "found by its name.\n"
)


def page() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD]
    for command, config in CONFIGS.items():
        title, _, purpose = (config.__doc__ or "").partition(": ")
        parts.append(f"\n## {title}\n\n`python {program_of(command)}`: {purpose}\n\n")
        parts.append(_table(("key", "default", "may be", "meaning"), _rows(command)))
    parts.append(GROUP_TEXT)
    for group in sorted({name for names in GROUPS.values() for name in names}):
        parts.append(f"\n### {group}\n\n")
        parts.append(_table((f"`{group}=`", "sets"), _files(group)))
    return "".join(parts)


def _rows(command: str) -> list[tuple[str, ...]]:
    rows = []
    for group in GROUPS[command]:
        files = [file.stem for file in _yaml_files(group)]
        meaning = f"a file in `configs/{group}/`, which sets `{group}.*`; see below"
        rows.append((f"`{group}`", _code(_group_default(command, group)), _codes(files), meaning))
    for key, item in walk(CONFIGS[command]).items():
        rows.append(_row(key, item))
        entry = _entry(item)
        if entry is not None:
            rows += [_row(f"{key}.<name>.{part}", field) for part, field in walk(entry).items()]
    return rows


def _row(key: str, item: Field[Any]) -> tuple[str, ...]:
    alias = item.metadata["alias"]
    names = f"`{alias}`, `{key}`" if alias and alias != key else f"`{key}`"
    return names, _default(item), _allowed(item), _escaped(item.metadata["help"])


def _entry(item: Field[Any]) -> type | None:
    """The settings of each entry of a mapping, if it has some."""
    kinds = get_args(item.type)
    return kinds[1] if len(kinds) == 2 and is_dataclass(kinds[1]) else None


def _default(item: Field[Any]) -> str:
    if item.metadata["by_group"]:
        return "by the group"
    if callable(item.default_factory):
        default = item.default_factory()
        return _code(str(default)) if default else "empty"
    if item.default is NO_DEFAULT or item.default == "???":
        return "needed"
    if item.default is None:
        return _code("null")
    return _code(_in_repository(str(item.default)))


def _allowed(item: Field[Any]) -> str:
    limits = item.metadata
    if limits["choices"]:
        return _codes(limits["choices"])
    texts = {"minimum": "at least {:g}", "above": "above {:g}", "maximum": "at most {:g}"}
    bounds = [text.format(limits[key]) for key, text in texts.items() if limits[key] is not None]
    return ", ".join([_kind(item), *bounds])


def _kind(item: Field[Any]) -> str:
    text = item.type.__name__ if isinstance(item.type, type) else str(item.type)
    text = str(item.type) if get_args(item.type) else text
    words = {"dict": "mapping", "list": "list", "bool": "`True`, `False`", "int": "whole number"}
    words |= {"float": "number", "str": "path" if item.metadata["is_path"] else "text"}
    return next((word for part, word in words.items() if text.startswith(part)), "anything")


def _group_default(command: str, group: str) -> str:
    config = CONFIG_DIR / f"config{command.capitalize()}.yaml"
    defaults = yaml.safe_load(config.read_text(encoding="utf-8"))["defaults"]
    chosen = [
        entry[key]
        for entry in defaults
        if isinstance(entry, dict)
        for key in entry
        if key.split()[-1] == group
    ]
    return str(chosen[0]) if chosen and chosen[0] is not None else "null"


def _files(group: str) -> list[tuple[str, ...]]:
    rows = []
    for file in _yaml_files(group):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        # A file of its group's keys alone, or one that sets keys of several groups.
        whole = any(isinstance(value, dict) for value in content.values())
        flat = _flat(content, "" if whole else f"{group}.")
        texts = [_in_repository(f"{key}={value}") for key, value in flat]
        rows.append((_code(file.stem), _codes(texts)))
    return rows


def _flat(content: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found = []
    for key, value in content.items():
        nested = isinstance(value, dict)
        found += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return found


def _in_repository(text: str) -> str:
    """A text with paths as seen from the repository."""
    return re.sub(r"\$\{repo:(.*)\}", r"\1", text)


def _yaml_files(group: str) -> list[Path]:
    return sorted((CONFIG_DIR / group).glob("*.yaml"))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def _codes(texts: Any) -> str:
    return ", ".join(_code(str(text)) for text in texts)


def _escaped(text: str) -> str:
    """A text in which nothing is taken for Markdown, HTML or the end of a cell."""
    for mark in ("\\", "*", "|", "<", "["):
        text = text.replace(mark, "\\" + mark)
    return text


if __name__ == "__main__":
    write_text(PAGE, page())
    print(f"Wrote {PAGE.relative_to(REPOSITORY)}")
