"""Clinical knowledge about columns of a cohort, read from a YAML resource; none of it is needed."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from synehrgy.cohort import Schema, Variable


@cache
def knowledge() -> dict[str, Any]:
    """The content of ``resources/consistency.yaml``, which says what each part means."""
    text = files("synehrgy.evaluation").joinpath("resources/consistency.yaml")
    content: dict[str, Any] = yaml.safe_load(text.read_text(encoding="utf-8"))
    return content


def plain(name: str) -> str:
    """A name without regard to case, hyphens and underscores."""
    return re.sub(r"[\s_-]+", " ", str(name)).strip().casefold()


def age_of(schema: Schema) -> str | None:
    """The covariate that is the age in years; None if there is none."""
    names = knowledge()["age"]
    ages = (c.name for c in schema.covariates if c.kind == "continuous" and plain(c.name) in names)
    return next(ages, None)


def sex_of(schema: Schema) -> tuple[str, dict[str, str]] | None:
    """The covariate that is the sex, and which of its levels is ``female`` or ``male``."""
    known = knowledge()
    for covariate in schema.covariates:
        if covariate.kind == "categorical" and plain(covariate.name) in known["sex"]:
            means = {
                level: sex
                for level in covariate.levels
                for sex in ("female", "male")
                if plain(level) in known[sex]
            }
            if means:
                return covariate.name, means
    return None


def death_of(schema: Schema) -> str | None:
    """The label of a death after which a patient has no further stays; None if there is none."""
    names = knowledge()["death"]
    return next((la.column for la in schema.labels if plain(la.column) in names), None)


def limits_of(variable: Variable) -> list[tuple[float, float]] | None:
    """Ranges of which one has each value of a living person; None for a series or unit unknown."""
    if variable.kind != "continuous":
        return None
    for name, by_unit in knowledge()["ranges"].items():
        if plain(name) == plain(variable.name):
            found = (
                ends for unit, ends in by_unit.items() if plain(unit) == plain(variable.unit or "")
            )
            return next(([(low, high) for low, high in ends] for ends in found), None)
    return None


def known_limits(schema: Schema) -> dict[str, list[tuple[float, float]]]:
    """``limits_of`` the series of a cohort that have any, by name."""
    found = {variable.name: limits_of(variable) for variable in schema.variables}
    return {name: limits for name, limits in found.items() if limits is not None}
