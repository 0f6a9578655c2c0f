"""What raw items and diagnosis categories mean, read from the YAML resources.

The series are the same for every database and stand in ``series_<profile>.yaml``; which raw items
make them up, each database says in ``items.yaml`` of its own resources.
"""

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from synehrgy.errors import UserError, nearest

PROFILES = ("paper", "clinical")
_SHARED = "synehrgy.sources.extraction"

# A raw item of a database: a number, or where it has none a name.
Item = int | str


@dataclass(frozen=True)
class Conversion:
    """Values of a series that are in another unit than it.

    Attributes:
        unit, to: the other unit, and that of the series.
        add, times, over: a value becomes ``(value + add) * times / over``.
        above, at_least, at_most: values in this range are in the other unit.
        stated: so are those of which the chart says so or, where it states no unit, the item.
        unless: not those whose stated unit has this text.
        endings: what a stated unit ends with, by unit.
    """

    unit: str
    to: str
    add: float = 0
    times: float = 1
    over: float = 1
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    stated: bool = False
    unless: str | None = None
    endings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ItemSet:
    """The raw items that make up one series, and how their text becomes its values.

    Attributes:
        name: name of the series.
        kind: ``continuous`` or ``categorical``.
        unit: unit of a continuous series.
        levels: spellings (lower case) of each level, by level in order.
        clean: rule by which raw text becomes a number; a level is its position in ``levels``.
        convert: which numbers are in another unit; the first that fits counts.
        duplicates: rule by which one of several values at the same time is kept.
        items: label of each raw item, by table and item.
        preferred: items whose values are kept alone at a time when any of them has one.
        units: items in another unit than the series, where the chart states none.
        range: lowest and highest possible value, both included.
    """

    name: str
    kind: str
    unit: str | None
    levels: dict[str, list[str]]
    clean: str
    convert: tuple[Conversion, ...]
    duplicates: str
    items: dict[str, dict[Item, str]]
    preferred: tuple[Item, ...]
    units: dict[Item, str]
    range: tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """The series to extract, sorted by name, and the raw texts that count as no value."""

    item_sets: list[ItemSet]
    empty: list[str]

    @property
    def tables(self) -> list[str]:
        """The raw tables that have an item of a series."""
        return sorted({table for item_set in self.item_sets for table in item_set.items})

    def items(self, table: str) -> list[Item]:
        """The items of the series in a raw table."""
        return [item for item_set in self.item_sets for item in item_set.items.get(table, ())]

    def numbers(self, table: str) -> dict[Item, int]:
        """The number of each of these items: its own, or where it is a name one given here."""
        first = sum(len(self.items(before)) for before in self.tables if before < table) + 1
        return {
            item: item if isinstance(item, int) else number
            for number, item in enumerate(self.items(table), start=first)
        }


@dataclass(frozen=True)
class LabelDefinition:
    """A label and the CCS category it stands for; None for the outcome."""

    column: str
    title: str
    ccs: int | None


def read_profile(package: str, name: str) -> Profile:
    """The profile of this name for the database whose ``items.yaml`` a package has.

    A series of which the database has no item is not in it.

    Raises:
        UserError: no such profile.
    """
    if name not in PROFILES:
        raise UserError(f"Unknown profile {name!r}.{nearest(str(name), PROFILES)}")
    content = _read(_SHARED, f"series_{name}.yaml")
    units = _read(_SHARED, "units.yaml")
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in _read(package, "items.yaml"):
        if entry.get("profile", name) == name:
            entries.setdefault(entry["series"], []).append(entry)
    item_sets = [
        _item_set(series, entries[series["name"]], units)
        for series in content["series"]
        if series["name"] in entries
    ]
    return Profile(sorted(item_sets, key=lambda item_set: item_set.name), content["empty"])


def _item_set(
    series: dict[str, Any], entries: list[dict[str, Any]], units: dict[str, Any]
) -> ItemSet:
    """A series with the items of its entries."""
    items: dict[str, dict[Item, str]] = {}
    spellings: dict[str, list[str]] = {}
    preferred: list[Item] = []
    item_units: dict[Item, str] = {}
    for entry in entries:
        for table, labels in entry["items"].items():
            # A list is of names, which say what they are.
            named = labels if isinstance(labels, dict) else dict(zip(labels, labels, strict=True))
            items.setdefault(table, {}).update(named)
        spellings.update(entry.get("levels", {}))
        preferred += entry.get("preferred", ()) if series.get("prefer") else ()
        item_units |= {item: unit for unit, of in entry.get("units", {}).items() for item in of}
    return ItemSet(
        name=series["name"],
        kind=series["kind"],
        unit=series.get("unit"),
        levels={level: spellings[level] for level in series.get("levels", ())},
        clean=series.get("clean", "level" if "levels" in series else "number"),
        convert=tuple(
            _conversion(series["unit"], entry, units) for entry in series.get("convert", ())
        ),
        duplicates=series["duplicates"],
        items=items,
        preferred=tuple(preferred),
        units=item_units,
        range=tuple(series.get("range", (-math.inf, math.inf))),
    )


def _conversion(to: str, entry: dict[str, Any], units: dict[str, Any]) -> Conversion:
    """The conversion that a series asks for, with the numbers from ``units.yaml``."""
    asked = dict(entry)
    unit = asked.pop("from")
    known = next(c for c in units["conversions"] if (c["from"], c["to"]) == (unit, to))
    numbers = {key: value for key, value in known.items() if key not in ("from", "to")}
    endings = tuple((name, units["endings"][name]) for name in (unit, to) if asked.get("stated"))
    return Conversion(unit=unit, to=to, endings=endings, **numbers, **asked)


def read_labels() -> list[LabelDefinition]:
    """The outcome and the phenotypes, in the order of their columns."""
    return [
        LabelDefinition(entry["column"], entry["title"], entry.get("ccs"))
        for entry in _read(_SHARED, "labels.yaml")
    ]


def read_icd10_categories() -> dict[int, list[str]]:
    """The beginnings of the ICD-10-CM codes of each CCS category that a label stands for."""
    return dict(_read(_SHARED, "ccs_icd10.yaml"))


@cache
def _read(package: str, name: str) -> Any:
    text = (files(package) / "resources" / name).read_text(encoding="utf-8")
    return yaml.safe_load(text)
