"""What MIMIC-III's item numbers and diagnosis categories mean, read from the YAML resources."""

import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from synehrgy.errors import UserError, nearest

PROFILES = ("paper", "clinical")


@dataclass(frozen=True)
class ItemSet:
    """The raw items that make up one series, and how their text becomes its values.

    Attributes:
        name: name of the series.
        kind: ``continuous`` or ``categorical``.
        unit: unit of a continuous series.
        levels: spellings (lower case) of each level, by level in order.
        clean: rule by which raw text becomes a number; a level is its position in ``levels``.
        duplicates: rule by which one of several values at the same time is kept.
        items: label of each raw item, by table and item id.
        preferred: items whose values are kept alone at a time when any of them has one.
        fahrenheit: items in Fahrenheit where the chart states no unit.
        range: lowest and highest possible value, both included.
    """

    name: str
    kind: str
    unit: str | None
    levels: dict[str, list[str]]
    clean: str
    duplicates: str
    items: dict[str, dict[int, str]]
    preferred: tuple[int, ...]
    fahrenheit: tuple[int, ...]
    range: tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """The series to extract, sorted by name, and the raw texts that count as no value."""

    item_sets: list[ItemSet]
    empty: list[str]


@dataclass(frozen=True)
class LabelDefinition:
    """A label and the CCS category it stands for; None for the outcome."""

    column: str
    title: str
    ccs: int | None


def read_profile(name: str) -> Profile:
    """The profile of this name.

    Raises:
        UserError: no such profile.
    """
    if name not in PROFILES:
        raise UserError(f"Unknown profile {name!r}.{nearest(str(name), PROFILES)}")
    content = _read(f"variables_{name}.yaml")
    item_sets = [
        ItemSet(
            name=entry["name"],
            kind=entry["kind"],
            unit=entry.get("unit"),
            levels=entry.get("levels", {}),
            clean=entry.get("clean", "level" if "levels" in entry else "number"),
            duplicates=entry["duplicates"],
            items=entry["items"],
            preferred=tuple(entry.get("preferred", ())),
            fahrenheit=tuple(entry.get("fahrenheit", ())),
            range=tuple(entry.get("range", (-math.inf, math.inf))),
        )
        for entry in content["variables"]
    ]
    return Profile(sorted(item_sets, key=lambda item_set: item_set.name), content["empty"])


def read_labels() -> list[LabelDefinition]:
    """The outcome and the phenotypes, in the order of their columns."""
    return [
        LabelDefinition(entry["column"], entry["title"], entry.get("ccs"))
        for entry in _read("labels.yaml")
    ]


def _read(name: str) -> Any:
    text = (files(__package__) / "resources" / name).read_text(encoding="utf-8")
    return yaml.safe_load(text)
