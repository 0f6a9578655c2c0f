"""A YAML file into dataclasses of settings, with errors that name the key."""

import math
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING

from synehrgy.errors import UserError, nearest

T = TypeVar("T")


class _Texts(yaml.BaseLoader):
    """Reads every scalar as the text that stands there: YAML would make "no" false, 0377 255."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; unlike YAML's it refuses a key that stands there twice."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key {key.value!r} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_texts(file: Path) -> Any:
    """The content of a YAML file, with every scalar as text; ``""`` where nothing stands.

    Raises:
        UserError: a file that is missing or no YAML; names the line.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8-sig"), _Texts)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text in UTF-8. Save it as such.") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: this is no YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: this is no YAML: {error}.") from None


def parse(kind: type[T], content: Any, where: str = "") -> T:
    """An instance of a dataclass of settings from what ``read_texts`` returned.

    Args:
        kind: its fields are declared with ``settings.setting``.
        content: a mapping of its keys; nothing at all where every key has a default.
        where: the key that it stands at.

    Raises:
        UserError: an unknown key, with the nearest valid one; one that is missing, or a value that
            does not fit.
    """
    if content in ("", None):
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{_at(where)} must have keys such as {_example(kind)}, has {content!r}.")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            raise UserError(f"{_at(where)} has no key {key!r}.{nearest(key, known)}")
    hints = get_type_hints(kind)
    values = {}
    for key, field in known.items():
        at = f"{where}.{key}" if where else key
        if key in content and not (content[key] == "" and field.default is None):
            values[key] = _value(hints[key], content[key], at)
            _check_choices(values[key], field.metadata.get("choices"), at)
        elif field.default == MISSING:
            raise UserError(f"{at} is needed: {field.metadata['help']}.")
    return kind(**values)


def _value(hint: Any, content: Any, where: str) -> Any:
    """A value of the type that a field is annotated with."""
    if get_origin(hint) is UnionType:
        hint = next(option for option in get_args(hint) if option is not NoneType)
    if is_dataclass(hint):
        return parse(hint, content, where)  # type: ignore[arg-type]
    if hint is str:
        if not isinstance(content, str) or not content:
            raise UserError(f"{where} must be one text, is {content!r}.")
        return content
    if get_origin(hint) is dict:
        if content == "":
            return {}
        _, of = get_args(hint)
        if of == list[str]:
            return _levels(content, where)
        if not isinstance(content, dict):
            raise UserError(f"{where} must be names with what they mean, is {content!r}.")
        return {name: _value(of, entry, f"{where}.{name}") for name, entry in content.items()}
    (of,) = get_args(hint)
    entries = content if isinstance(content, list) else [] if content == "" else [content]
    if is_dataclass(of):
        numbered = len(entries) > 1
        return [
            parse(of, entry, f"{where}[{i}]" if numbered else where)  # type: ignore[arg-type]
            for i, entry in enumerate(entries, start=1)
        ]
    if not all(isinstance(entry, str) for entry in entries):
        raise UserError(f"{where} must be a list of texts, is {content!r}.")
    return _range(entries, where) if of is float else entries


def _levels(content: Any, where: str) -> dict[str, list[str]]:
    """Levels with their spellings, of a list of levels or of a mapping to other spellings."""
    if isinstance(content, str):
        content = [content]
    if isinstance(content, list):
        again = next((x for i, x in enumerate(content) if x in content[:i]), None)
        if again is not None:
            raise UserError(f"{where}: {again!r} stands there twice.")
        content = {level: [] for level in content} if _are_texts(content) else None
    if not isinstance(content, dict) or not all(content):
        raise UserError(f"{where} must be a list such as [F, M], or {{F: [f, female], M: [m]}}.")
    found = {}
    for level, spellings in content.items():
        others = [spellings] if isinstance(spellings, str) else spellings
        if not _are_texts(others):
            raise UserError(f"{where}.{level} must be a list of spellings, is {spellings!r}.")
        found[level] = list(dict.fromkeys([level, *filter(None, others)]))
    return found


def _are_texts(entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, str) for entry in entries)


def _range(entries: list[str], where: str) -> list[float]:
    try:
        low, high = (float(entry.replace(".inf", "inf")) for entry in entries)
    except ValueError:
        low = high = math.nan
    if not low <= high:
        raise UserError(f"{where} must be the lowest and the highest number, such as [0, 350].")
    return [low, high]


def _check_choices(value: Any, choices: Any, where: str) -> None:
    for one in value if isinstance(value, list) else [value]:
        if choices is not None and one not in choices:
            hint = nearest(str(one), choices)
            raise UserError(
                f"{where}: {one!r} is not one of {', '.join(choices)}."
                + (hint if hint.startswith(" Did") else "")
            )


def _at(where: str) -> str:
    return where or "the file"


def _example(kind: Any) -> str:
    return ", ".join([f.name for f in fields(kind)][:3])
