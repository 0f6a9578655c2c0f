"""Which codes an admission is given, and in which order."""

from dataclasses import dataclass

import numpy as np

from synehrgy.sources.simulator import procedures as table
from synehrgy.sources.simulator.chance import Float, Ints, normal_quantile, ragged
from synehrgy.sources.simulator.codebook import Codebook
from synehrgy.sources.simulator.conditions import FACTORS, NEWBORN_CODES, NEWBORN_EXTRA
from synehrgy.sources.simulator.people import People

# The hospital's form has room for this many.
MAX_DIAGNOSES = 39
MAX_PROCEDURES = 40


@dataclass(frozen=True)
class Codes:
    """Codes of a block, in order: the row of the admission, place from one on, the code."""

    admission: Ints
    position: Ints
    code: list[str]


class _Listing:
    """Codes as they are found, each with a key that says how far up it is listed."""

    def __init__(self) -> None:
        self.admission: list[Ints] = []
        self.key: list[Float] = []
        self.code: list[str] = []

    def add(self, admission: Ints, key: Float, code: list[str]) -> None:
        self.admission.append(admission)
        self.key.append(key)
        self.code += code

    def sorted(self, most: int) -> Codes:
        """Without repetitions within an admission, at most so many of each."""
        admission = np.concatenate(self.admission)
        names, code = np.unique(np.array(self.code, dtype=object).astype(str), return_inverse=True)
        order = np.lexsort((np.concatenate(self.key), code, admission))
        # Of a code that was found twice the first is kept.
        pair = admission[order] * len(names) + code[order]
        order = order[np.concatenate([[True], np.diff(pair) != 0])] if len(order) else order
        order = order[np.lexsort((np.concatenate(self.key)[order], admission[order]))]
        admission, code = admission[order], code[order]
        _, rank = ragged(np.bincount(admission)) if len(admission) else (None, admission)
        kept = rank < most
        return Codes(admission[kept], rank[kept] + 1, names[code[kept]].tolist())


def _pick(rng: np.random.Generator, tail: tuple[list[str], Float], size: int) -> list[str]:
    codes, cumulated = tail
    return [codes[i] for i in np.searchsorted(cumulated, rng.random(size))]


def draw_diagnoses(rng: np.random.Generator, people: People, codebook: Codebook) -> Codes:
    """Diagnoses: those of the conditions that are present, acute ones rather first."""
    listing = _Listing()
    present = people.conditions
    names, row, share = codebook.heads
    given = present[:, row] & (rng.random((len(present), len(row))) < share)
    urgency = codebook.chronic + 0.15 * (codebook.share > 0.25)

    def add(admission: Ints, condition: Ints, codes: list[str]) -> None:
        listing.add(admission, urgency[condition] + 0.35 * rng.standard_normal(len(codes)), codes)

    admission, head = np.nonzero(given)
    add(admission, row[head], [names[i] for i in head])
    extra = np.array([c.extra for c in codebook.conditions])
    further = np.where(present, rng.poisson(np.broadcast_to(extra, present.shape)), 0)
    stated = np.zeros(present.shape, dtype=np.int64)
    np.add.at(stated, (admission, row[head]), 1)
    # A condition that is present is stated by one code at least.
    further = np.where(present & (stated == 0), np.maximum(further, 1), further)
    for condition in np.flatnonzero(further.sum(axis=0)):
        owner, _ = ragged(further[:, condition])
        tail = codebook.tails[condition]
        if len(tail[0]) == 0:
            tail = (list(codebook.conditions[condition].codes), np.ones(1))
        add(owner, np.full(len(owner), condition), _pick(rng, tail, len(owner)))
    _add_newborn(rng, listing, people, NEWBORN_CODES, codebook.newborn, NEWBORN_EXTRA)
    return listing.sorted(MAX_DIAGNOSES)


def draw_procedures(rng: np.random.Generator, people: People, codebook: Codebook) -> Codes:
    """Procedures: frequent ones by their liability, further ones by the admission's factors."""
    listing = _Listing()
    adult = np.flatnonzero(~people.young[people.patient])
    factors, present = people.factors[adult], people.conditions[adult]
    for code, procedure in table.PROCEDURES.items():
        liability = rng.standard_normal(len(adult))
        variance = 1.0
        for name, weight in procedure.loads.items():
            if name in FACTORS:
                liability = liability + weight * factors[:, FACTORS.index(name)]
                variance += weight**2
            else:
                share = codebook.share[codebook.row[name]]
                liability = liability + weight * (present[:, codebook.row[name]] - share)
                variance += weight**2 * share * (1 - share)
        (threshold,) = np.sqrt(variance) * normal_quantile(np.array([1 - procedure.share]))
        chosen = adult[liability > threshold]
        listing.add(chosen, rng.random(len(chosen)), [code] * len(chosen))
    severity = factors[:, FACTORS.index("severity")]
    spread = table.TAIL_SPREAD
    mean = table.TAIL_MEAN * np.exp(
        spread * (0.5 * severity + np.sqrt(0.75) * rng.standard_normal(len(adult))) - spread**2 / 2
    )
    owner, _ = ragged(rng.poisson(mean))
    weights = np.array([weight for _, _, weight, _ in table.FAMILIES])
    loads = np.array([[lo.get(n, 0.0) for n in FACTORS] for _, _, _, lo in table.FAMILIES])
    gumbel = -np.log(-np.log(rng.random((len(owner), len(weights)))))
    family = (factors[owner] @ loads.T + np.log(weights) + gumbel).argmax(axis=1)
    for i in range(len(weights)):
        mine = adult[owner[family == i]]
        picked = _pick(rng, codebook.families[i], len(mine))
        listing.add(mine, 0.3 + rng.random(len(mine)), picked)
    _add_newborn(
        rng,
        listing,
        people,
        table.NEWBORN_PROCEDURES,
        codebook.families[-1],
        table.NEWBORN_TAIL_MEAN,
    )
    return listing.sorted(MAX_PROCEDURES)


def _add_newborn(
    rng: np.random.Generator,
    listing: _Listing,
    people: People,
    shares: dict[str, float],
    tail: tuple[list[str], Float],
    extra: float,
) -> None:
    young = np.flatnonzero(people.young[people.patient])
    names = list(shares)
    given = rng.random((len(young), len(names))) < np.array(list(shares.values()))
    owner, head = np.nonzero(given)
    listing.add(young[owner], rng.random(len(owner)), [names[i] for i in head])
    further, _ = ragged(rng.poisson(extra, len(young)))
    listing.add(young[further], 0.5 + rng.random(len(further)), _pick(rng, tail, len(further)))
