"""The hierarchy of ICD codes, which are written without their point."""

import re

# Characters of a category, by the beginning of a code system's name.
CATEGORY = {"icd9_diagnosis": 3, "icd9_procedure": 2, "icd10": 3}


def family(system: str) -> str | None:
    """Which of ``CATEGORY`` a code system is: the one that its name begins with, if any.

    Case, blanks, hyphens and underscores do not count: "ICD-10-GM" is of ``icd10``.
    """
    found = (name for name in CATEGORY if _plain(system).startswith(_plain(name)))
    return next(found, None)


def is_icd(system: str) -> bool:
    """Whether the codes of a system have a hierarchy, and are written without their point."""
    return family(system) is not None


def parents(system: str, code: str) -> list[str]:
    """The codes above a code, the nearest first: "42823" has "4282" and "428".

    A system is known by its name, ``icd9_diagnosis``, ``icd9_procedure`` or ``icd10...``; codes of
    any other have no parents. No code ends with a point: "P07.3" has "P07".
    """
    name = family(system)
    if name is None:
        return []
    # The external causes of ICD-9 have categories of one character more.
    least = CATEGORY[name] + (name == "icd9_diagnosis" and code.startswith("E"))
    ends = range(len(code) - 1, least - 1, -1)
    return [code[:end] for end in ends if code[end - 1] != "."]


def _plain(system: str) -> str:
    return re.sub(r"[^a-z0-9]", "", system.lower())
