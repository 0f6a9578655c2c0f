"""The raw items of every database fit the series and its tables."""

import math

import pytest

from synehrgy.sources.eicu import EICU
from synehrgy.sources.extraction.cleaning import cleaned
from synehrgy.sources.extraction.resources import PROFILES, Conversion
from synehrgy.sources.mimic3 import MIMIC3
from synehrgy.sources.mimic4 import MIMIC4

HOSPITALS = {hospital.name: hospital for hospital in (MIMIC3, MIMIC4, EICU)}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", [*HOSPITALS])
def test_item_sets_are_consistent(name: str, profile: str) -> None:
    hospital = HOSPITALS[name]
    seen: set[tuple[str, int | str]] = set()
    for item_set in hospital.profile(profile).item_sets:
        items = {(table, item) for table, of in item_set.items.items() for item in of}
        assert items, item_set.name
        assert not items & seen, item_set.name
        seen |= items
        assert {*item_set.preferred, *item_set.units} <= {item for _, item in items}
        assert (item_set.kind == "categorical") == bool(item_set.levels)
        spellings = [text for texts in item_set.levels.values() for text in texts]
        assert len(set(spellings)) == len(spellings)
        assert spellings == [text.strip().lower() for text in spellings]
        low, high = item_set.range
        assert low < high
        if profile == "clinical" and item_set.kind == "continuous":
            assert math.isfinite(low)
            assert math.isfinite(high)
        assert {c.to for c in item_set.convert} <= {item_set.unit}
        if profile == "clinical":
            # What items say of their unit can be made use of.
            assert {*item_set.units.values()} <= {c.unit for c in item_set.convert if c.stated}


@pytest.mark.parametrize("name", [*HOSPITALS])
def test_every_table_is_declared(name: str) -> None:
    hospital = HOSPITALS[name]
    tables = {table for profile in PROFILES for table in hospital.profile(profile).tables}
    assert tables == set(hospital.events)
    assert tables | {*hospital.stay_tables} == set(hospital.release.columns)
    assert {name.lower() for name in hospital.release.columns} == set(hospital.release.columns)


def test_items_of_monitors_are_columns() -> None:
    for name in PROFILES:
        for item_set in EICU.profile(name).item_sets:
            for table in ("vitalperiodic", "vitalaperiodic"):
                assert set(item_set.items.get(table, ())) <= set(EICU.release.columns[table])


def test_the_series_of_all_databases_are_the_same() -> None:
    for name in PROFILES:
        known = {s.name: s for s in MIMIC3.profile(name).item_sets}
        for hospital in (MIMIC4, EICU):
            for s in hospital.profile(name).item_sets:
                one = known[s.name]
                assert (s.kind, s.unit, [*s.levels]) == (one.kind, one.unit, [*one.levels])
                assert (s.range, s.duplicates, cleaned(s)) == (
                    one.range,
                    one.duplicates,
                    cleaned(one),
                )


def test_conversions_are_declared() -> None:
    (temperature,) = [s for s in EICU.profile("clinical").item_sets if s.name == "Temperature"]
    assert temperature.convert == (
        Conversion(
            unit="°F",
            to="°C",
            add=-32,
            times=5,
            over=9,
            at_least=79,
            stated=True,
            endings=(("°F", "f"), ("°C", "c")),
        ),
    )
    assert temperature.units == {"Temperature|Temperature (F)": "°F"}
