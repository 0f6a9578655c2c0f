"""The hierarchy of ICD codes, which are written without their point."""

# Characters of a category, by the beginning of a code system's name.
CATEGORY = {"icd9_diagnosis": 3, "icd9_procedure": 2, "icd10": 3}


def parents(system: str, code: str) -> list[str]:
    """The codes above a code, the nearest first: "42823" has "4282" and "428".

    A system is known by its name, ``icd9_diagnosis``, ``icd9_procedure`` or ``icd10...``; codes of
    any other have no parents.
    """
    for name, length in CATEGORY.items():
        if system.startswith(name):
            # The external causes of ICD-9 have categories of one character more.
            least = length + (name == "icd9_diagnosis" and code.startswith("E"))
            return [code[:end] for end in range(len(code) - 1, least - 1, -1)]
    return []
