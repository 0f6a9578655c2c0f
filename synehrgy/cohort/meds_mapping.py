"""The codes that a cohort's events have as a MEDS dataset, and how to read them again.

The mapping is what ``data=meds`` reads a dataset with; ``docs/meds.md`` explains its keys.
"""

import re
from collections.abc import Mapping
from typing import Any

from synehrgy.cohort.schema import CodeSystem, Covariate, Label, Schema, Variable
from synehrgy.errors import UserError

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
ADMISSION, DISCHARGE = "ICU_ADMISSION", "ICU_DISCHARGE"
UNKNOWN = "UNK"


def covariate_codes(covariate: Covariate) -> list[str]:
    """The code of a continuous covariate, or that of each level."""
    name = covariate.name.upper()
    if covariate.kind == "continuous":
        return [f"{name}//{covariate.unit or UNKNOWN}"]
    return [f"{name}//{level}" for level in covariate.levels]


def series_code(variable: Variable) -> str:
    """The code of a series."""
    return f"MEASUREMENT//{variable.name}//{variable.unit or UNKNOWN}"


def label_code(label: Label) -> str:
    """The code of a label."""
    return f"LABEL//{label.column}"


def system_prefix(system: str) -> str:
    """What the codes of a code system begin with: ICD's as in the public extraction of MIMIC-IV."""
    found = re.fullmatch(r"icd(9|10)_(diagnosis|procedure)", system)
    return f"{found[2].upper()}//ICD//{found[1]}//" if found else f"{system}//"


def mapping_of(schema: Schema, splits: Mapping[str, str]) -> dict[str, Any]:
    """The mapping with which an exported cohort is read again.

    Args:
        schema: of the cohort.
        splits: the dataset's name of each split; empty if no patient has one.

    Raises:
        UserError: names that would become the same code.
    """
    _check_codes(schema)
    return {
        "source": schema.source,
        "stays": {
            "begin": ADMISSION,
            "end": DISCHARGE,
            "id": "stay_id",
            "length": "hours",
            "admission": {"id": "hadm_id"},
            "events": "id",
        },
        "hours": "hours",
        "splits": {theirs: ours for ours, theirs in splits.items()},
        "covariates": [_covariate(covariate) for covariate in schema.covariates],
        "codes": {
            "position": "position",
            "systems": [_system(system) for system in schema.code_systems],
        },
        "labels": [_label(label) for label in schema.labels],
        "series": [_series(variable) for variable in schema.variables],
    }


def literal(code: str) -> str:
    """The template that means a code and no other."""
    return re.sub(r"[\[*{]", r"[\g<0>]", code)


def _covariate(covariate: Covariate) -> dict[str, Any]:
    continuous = covariate.kind == "continuous"
    name = literal(covariate.name.upper())
    code = literal(covariate_codes(covariate)[0]) if continuous else f"{name}//{{level}}"
    return {"name": covariate.name, **_kind(covariate), "code": code}


def _series(variable: Variable) -> dict[str, Any]:
    return {"name": variable.name, **_kind(variable), "codes": [literal(series_code(variable))]}


def _kind(item: Covariate | Variable) -> dict[str, Any]:
    found = {"kind": item.kind, "unit": item.unit, "levels": list(item.levels)}
    return {key: value for key, value in found.items() if value}


def _system(system: CodeSystem) -> dict[str, Any]:
    code = literal(system_prefix(system.name)) + "{code}"
    return {"name": system.name, "title": system.title, "code": code}


def _label(label: Label) -> dict[str, Any]:
    found = {"column": label.column, "title": label.title, "kind": label.kind}
    defined = {"codes": label.definition} if label.definition else {}
    return {**found, "code": literal(label_code(label)), **defined}


def _check_codes(schema: Schema) -> None:
    """Refuse names of which two become the same code, or one begins as all codes of a system do."""
    owners: dict[str, str] = {}
    codes = [
        *((code, "the events of a stay") for code in (BIRTH, DEATH, ADMISSION, DISCHARGE)),
        *((c, f"covariate {x.name!r}") for x in schema.covariates for c in covariate_codes(x)),
        *((series_code(x), f"series {x.name!r}") for x in schema.variables),
        *((label_code(x), f"label {x.column!r}") for x in schema.labels),
        *((system_prefix(x.name), f"code system {x.name!r}") for x in schema.code_systems),
    ]
    for code, owner in codes:
        if code in owners:
            raise UserError(
                f"{owners[code]} and {owner} would have the same code {code!r} in MEDS. Rename one."
            )
        owners[code] = owner
    for system in schema.code_systems:
        prefix = system_prefix(system.name)
        for code, owner in codes:
            if code.startswith(prefix) and owners[prefix] != owner:
                raise UserError(
                    f"{owner} has the code {code!r} in MEDS, as if it were of code system "
                    f"{system.name!r}. Rename one."
                )
