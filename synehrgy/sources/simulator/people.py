"""Patients, admissions and stays with their dates: when they come, how long and where they stay."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from synehrgy.sources.simulator import population as p
from synehrgy.sources.simulator.activities import CAREVUE, METAVISION
from synehrgy.sources.simulator.admissions import Admissions, draw_admissions
from synehrgy.sources.simulator.chance import (
    BLOCK,
    Bools,
    Float,
    Ints,
    interpolate,
    lognormal,
    ragged,
)
from synehrgy.sources.simulator.codebook import Codebook
from synehrgy.sources.simulator.conditions import FACTORS

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEAR = 365.2425 * DAY
UNITS = (*p.ADULT_UNITS, "NICU")
# Room for the stays of one admission in their identifiers.
_STAYS_PER_ADMISSION = 4


@dataclass(frozen=True)
class People:
    """Patients, admissions and stays of one block, as columns.

    Times are seconds since 1970; those that are absent are negative.

    Attributes:
        subject, male, young, born, died: of each patient.
        patient, hadm, admitted, discharged, death, kind, factors, conditions: of each admission;
            ``patient`` is a row, ``kind`` a place in ``population.ADMISSION_KINDS``.
        admission, icustay, source, unit, last_unit, ward, last_ward, intime, outtime, ventilated,
            dies_in_unit: of each stay; ``admission`` is a row, units are places in ``UNITS``.
    """

    subject: Ints
    male: Bools
    young: Bools
    born: Ints
    died: Ints
    patient: Ints
    hadm: Ints
    admitted: Ints
    discharged: Ints
    death: Ints
    kind: Ints
    factors: Float
    conditions: Bools
    admission: Ints
    icustay: Ints
    source: Ints
    unit: Ints
    last_unit: Ints
    ward: Ints
    last_ward: Ints
    intime: Ints
    outtime: Ints
    ventilated: Bools
    dies_in_unit: Bools


@dataclass(frozen=True)
class _Timeline:
    """Hours of each stay and each admission, from the admission on; row of each stay's admission
    and which of its stays it is."""

    admission: Ints
    rank: Ints
    start: Float
    hours: Float
    whole: Float
    dies_in_unit: Bools


def draw_people(rng: np.random.Generator, block: int, n: int, codebook: Codebook) -> People:
    """Draw the patients of a block with all their admissions and stays."""
    drawn = draw_admissions(rng, n, codebook)
    line = _draw_timeline(rng, drawn)
    patient, admission = drawn.patient, line.admission
    index = block * BLOCK + np.arange(n)
    years = rng.uniform(*p.CALENDAR, n) - 1970
    first = (years * YEAR).astype(np.int64) // MINUTE * MINUTE
    # A readmission never begins before the discharge.
    spent = np.concatenate([[0.0], np.cumsum(line.whole)])[:-1]
    spent -= spent[drawn.order == 0][patient]
    later = (drawn.days * DAY + spent * HOUR).astype(np.int64) // MINUTE * MINUTE
    admitted = first[patient] + later
    intime = admitted[admission] + (line.start * HOUR).astype(np.int64)
    outtime = intime + (line.hours * HOUR).astype(np.int64)
    discharged = admitted + (line.whole * HOUR).astype(np.int64) // MINUTE * MINUTE
    outtime = np.minimum(outtime, discharged[admission])

    young_stay = drawn.young[patient[admission]]
    carevue = (rng.random(n) < p.CAREVUE_SHARE)[patient[admission]] | young_stay
    unit, ward = _draw_units(rng, drawn.factors[admission], young_stay)
    other_unit, other_ward = _draw_units(rng, drawn.factors[admission], young_stay)
    transfer = rng.random(len(admission)) < p.TRANSFER_SHARE
    place = index[patient] * p.MAX_ADMISSIONS + drawn.order
    adult_kind = rng.choice(len(p.KIND_SHARES), len(patient), p=p.KIND_SHARES)
    return People(
        subject=index + p.FIRST_SUBJECT,
        male=drawn.male,
        young=drawn.young,
        born=_births(rng, first, drawn.age, drawn.newborn),
        died=_dates_of_death(rng, n, patient, discharged, drawn.dies),
        patient=patient,
        hadm=p.FIRST_HADM + place,
        admitted=admitted,
        discharged=discharged,
        death=np.where(drawn.dies, discharged, -1),
        kind=np.where(drawn.young[patient], p.ADMISSION_KINDS.index("NEWBORN"), adult_kind),
        factors=drawn.factors,
        conditions=drawn.conditions,
        admission=admission,
        icustay=p.FIRST_ICUSTAY + place[admission] * _STAYS_PER_ADMISSION + line.rank,
        source=np.where(carevue, CAREVUE, METAVISION),
        unit=unit,
        last_unit=np.where(transfer, other_unit, unit),
        ward=ward,
        last_ward=np.where(transfer, other_ward, ward),
        intime=intime,
        outtime=outtime,
        ventilated=drawn.ventilated[admission],
        dies_in_unit=line.dies_in_unit,
    )


def _draw_timeline(rng: np.random.Generator, drawn: Admissions) -> _Timeline:
    m = len(drawn.patient)
    young = drawn.young[drawn.patient]
    further = (rng.random(m) < p.FURTHER_STAY_SHARE) & ~young
    stays = 1 + further + (further & (rng.random(m) < p.THIRD_STAY_SHARE))
    admission, rank = ragged(stays)
    opening, closing = np.cumsum(stays) - stays, np.cumsum(stays) - 1
    k = len(admission)

    severity = drawn.factors[:, FACTORS.index("severity")]
    known = p.STAY_SEVERITY * severity + p.STAY_VENTILATED * (drawn.ventilated - p.VENTILATED_SHARE)
    rest = (
        1
        - p.STAY_SEVERITY**2
        - p.STAY_VENTILATED**2 * p.VENTILATED_SHARE * (1 - p.VENTILATED_SHARE)
    )
    z = known[admission] + np.sqrt(rest) * rng.standard_normal(k)
    hours = np.exp(interpolate(z, np.array(p.STAY_KNOTS), np.log(p.STAY_HOURS)))
    of_young = lognormal(rng, p.NEWBORN_STAY_HOURS, k)
    hours = np.where(young[admission], of_young, hours).clip(*p.STAY_LIMITS)

    direct = (rng.random(m) < p.DIRECT_SHARE) | young
    before = np.where(direct, rng.integers(0, 3, m) / 60, lognormal(rng, p.BEFORE_HOURS, m))
    between = p.LEAST_GAP_HOURS + lognormal(rng, p.FURTHER_STAY_GAP_HOURS, k)
    gap = np.where(rank == 0, before[admission], between)
    end = np.cumsum(gap + hours)
    end -= (end - gap - hours)[opening][admission]
    in_unit = drawn.dies & (rng.random(m) < p.DEATH_IN_UNIT)
    after = p.LEAST_AFTER_HOURS + lognormal(rng, p.AFTER_HOURS, m)
    whole = end[closing] + np.where(in_unit, 0.0, after)
    dies_in_unit = np.zeros(k, dtype=bool)
    dies_in_unit[closing] = in_unit
    return _Timeline(admission, rank, end - hours, hours, whole, dies_in_unit)


@cache
def _unit_table() -> tuple[Float, Float]:
    """Loads of the units of adults on the factors, shape [unit, factor], and their base weights."""
    loads = [[p.UNIT_LOADS[unit].get(name, 0.0) for name in FACTORS] for unit in p.ADULT_UNITS]
    return np.array(loads), np.array([p.UNIT_BASE[unit] for unit in p.ADULT_UNITS])


def _draw_units(rng: np.random.Generator, factors: Float, young: Bools) -> tuple[Ints, Ints]:
    """Unit, as a place in ``UNITS``, and ward of each stay."""
    loads, base = _unit_table()
    gumbel = -np.log(-np.log(rng.random((len(factors), len(base)))))
    unit = np.where(young, len(base), (factors @ loads.T + base + gumbel).argmax(axis=1))
    most = max(len(wards) for wards in p.WARDS.values())
    wards = np.array([np.resize(p.WARDS[name], most) for name in UNITS])
    number = np.array([len(p.WARDS[name]) for name in UNITS])
    return unit, wards[unit, (rng.random(len(unit)) * number[unit]).astype(np.int64)]


def _births(rng: np.random.Generator, first: Ints, age: Float, newborn: Bools) -> Ints:
    """Dates of birth; those of the very old lie 300 years before the first admission."""
    exact = age + np.where(newborn, 0.0, rng.random(len(age)))
    shown = np.where(exact > p.HIDDEN_AGE, p.SHIFTED_YEARS, exact)
    return (first - (shown * YEAR).astype(np.int64)) // DAY * DAY


def _dates_of_death(
    rng: np.random.Generator, n: int, patient: Ints, discharged: Ints, dies: Bools
) -> Ints:
    last = np.full(n, -1, dtype=np.int64)
    last[patient] = discharged
    in_hospital = np.zeros(n, dtype=bool)
    in_hospital[patient[dies]] = True
    days = 1 + lognormal(rng, p.LATER_DEATH_DAYS, n)
    later = np.where(rng.random(n) < p.LATER_DEATH_SHARE, last + (days * DAY).astype(np.int64), -1)
    died = np.where(in_hospital, last, later)
    return np.where(died >= 0, died // DAY * DAY, -1)
