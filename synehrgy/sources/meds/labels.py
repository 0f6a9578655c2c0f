"""The diagnoses of a dataset that a category of HCUP's CCS stands for."""

from synehrgy.errors import UserError
from synehrgy.sources.extraction.resources import read_icd10_categories
from synehrgy.sources.extraction.stays import categories
from synehrgy.sources.meds.dataset import CODES, Dataset
from synehrgy.sources.meds.mapping import Mapping
from synehrgy.sources.meds.templates import first_match


def defining_codes(mapping: Mapping, dataset: Dataset) -> dict[str, dict[str, list[str]]]:
    """The codes that make a label 1, by its column and the code system.

    Those of a category are the diagnoses in ``metadata/codes.parquet`` that belong to it: in
    MIMIC, as in the benchmarks, only those of ICD-9 that have a description.

    Raises:
        UserError: a code system, or a category of it, that is not known.
    """
    found = {
        rule.label.column: {
            system: [mapping.codes.plain(system, code) for code in codes]
            for system, codes in rule.codes.items()
        }
        for rule in mapping.labels
        if rule.codes and rule.code is None
    }
    grouped = [rule for rule in mapping.labels if rule.ccs is not None]
    if not grouped:
        return found
    listed = dataset.codes()
    with_description = [code for code, text in listed.items() if text]
    if not with_description:
        raise UserError(
            f"{dataset.folder / CODES} describes no code, so that nothing is known of the "
            "categories that define labels. Write descriptions, or name the codes: codes: [...]."
        )
    matched = first_match([rule.code for rule in mapping.codes.systems], with_description)
    systems = [rule.system.name for rule in mapping.codes.systems]
    known: dict[str, dict[str, int | None]] = {}
    for name in {system for rule in grouped for system in rule.systems}:
        if name not in ("icd9_diagnosis", "icd10_diagnosis"):
            raise UserError(
                f"labels: the categories of code system {name!r} are not known: a ccs is one of "
                "icd9_diagnosis and icd10_diagnosis."
            )
        place = systems.index(name)
        plain = mapping.codes.plain
        codes = sorted({plain(name, n["code"]) for at, n in matched.values() if at == place})
        known[name] = dict(zip(codes, categories(name, codes), strict=True))
    for rule in grouped:
        if "icd10_diagnosis" in rule.systems and int(rule.ccs or 0) not in read_icd10_categories():
            raise UserError(
                f"label {rule.label.column!r}: category {rule.ccs} of ICD-10 is not at hand, only "
                "those of the phenotypes of the benchmarks. Name its codes: codes: [...]."
            )
        found[rule.label.column] = {
            system: [
                code for code, category in known[system].items() if category == int(rule.ccs or 0)
            ]
            for system in rule.systems
        }
    return found
