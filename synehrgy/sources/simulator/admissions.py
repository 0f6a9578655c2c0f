"""Who comes to the hospital, how often, with which conditions, and who dies there."""

from dataclasses import dataclass

import numpy as np

from synehrgy.sources.simulator import population as p
from synehrgy.sources.simulator.chance import (
    Bools,
    Float,
    Ints,
    interpolate,
    lognormal,
    normal_quantile,
    ragged,
)
from synehrgy.sources.simulator.codebook import Codebook
from synehrgy.sources.simulator.conditions import FACTORS


@dataclass(frozen=True)
class Admissions:
    """Patients and their admissions, without dates.

    Attributes:
        male, young, newborn, age: of each patient; age in years at the first admission.
        patient: row of the patient of each admission.
        order: which admission of the patient it is, from 0 on.
        days: since the first admission, not counting the days spent in hospital.
        factors: shape [admission, factor].
        conditions: whether it has each condition, shape [admission, condition].
        ventilated, dies: facts of each admission.
    """

    male: Bools
    young: Bools
    newborn: Bools
    age: Float
    patient: Ints
    order: Ints
    days: Float
    factors: Float
    conditions: Bools
    ventilated: Bools
    dies: Bools


def draw_admissions(rng: np.random.Generator, n: int, codebook: Codebook) -> Admissions:
    """Draw ``n`` patients with all their admissions, in order of patient and time."""
    young = rng.random(n) < p.YOUNG_SHARE
    newborn = young & (rng.random(n) < p.NEWBORN_SHARE)
    male = rng.random(n) < p.MALE_SHARE
    age_z = rng.standard_normal(n) + np.where(male, -p.AGE_OF_WOMEN, p.AGE_OF_WOMEN)
    adult_age = interpolate(age_z, np.array(p.AGE_KNOTS), np.array(p.AGE_YEARS))
    child_age = np.where(newborn, 0.0, rng.uniform(1, 17, n))
    age = np.where(young, child_age, adult_age.clip(18, 103))

    own = rng.standard_normal((n, len(p.DRAWN_FACTORS)))
    chronic = own[:, : len(p.FRAILTY_FACTORS)].sum(axis=1) / np.sqrt(len(p.FRAILTY_FACTORS))
    frailty = rng.standard_normal(n) + p.FRAILTY_OF_FACTORS * chronic
    again = rng.poisson(np.exp(p.READMISSION_LOG_MEAN + p.READMISSION_FRAILTY * frailty))
    wanted = np.where(young, 1, 1 + np.minimum(again, p.MAX_ADMISSIONS - 1))
    patient, order = ragged(wanted)
    opening = (np.cumsum(wanted) - wanted)[patient]
    m = len(patient)
    apart = np.where(order == 0, 0.0, p.LEAST_DAYS_APART + lognormal(rng, p.READMISSION_DAYS, m))
    days = np.cumsum(apart) - np.cumsum(apart)[opening]

    age_then = age_z[patient] + days / p.DAYS_PER_AGE_SPREAD
    factors = _draw_factors(rng, own, patient, age_then, male)
    conditions = _draw_conditions(rng, factors, patient, n, codebook)
    conditions[young[patient]] = False
    ventilated = _draw_ventilated(rng, factors, conditions, codebook) & ~young[patient]
    dies = _draw_deaths(rng, factors, conditions, codebook)
    dies = np.where(young[patient], rng.random(m) < p.DEATH_YOUNG, dies).astype(bool)
    # Nobody comes back after death.
    deaths_before: Ints = np.cumsum(dies) - dies
    alive: Bools = deaths_before == deaths_before[opening]
    return Admissions(
        male,
        young,
        newborn,
        age,
        patient[alive],
        order[alive],
        days[alive],
        factors[alive],
        conditions[alive],
        ventilated[alive],
        dies[alive],
    )


def _draw_factors(
    rng: np.random.Generator, own: Float, patient: Ints, age: Float, male: Bools
) -> Float:
    """Factors of each admission, shape [admission, factor], standard normal."""
    m = len(patient)
    r = p.FACTOR_PERSISTENCE
    drawn = r * own[patient] + np.sqrt(1 - r**2) * rng.standard_normal((m, own.shape[1]))
    sex = np.where(male, 1.0, -1.0)[patient]
    return np.column_stack([age, sex, rng.standard_normal(m), drawn])


def _draw_conditions(
    rng: np.random.Generator, factors: Float, patient: Ints, n: int, codebook: Codebook
) -> Bools:
    """Which admission has which condition, shape [admission, condition]."""
    shape = (n, len(codebook.share))
    lasting = rng.standard_normal(shape)[patient]
    passing = rng.standard_normal((len(patient), shape[1]))
    chance = np.sqrt(codebook.chronic) * lasting + np.sqrt(1 - codebook.chronic) * passing
    rest = np.sqrt(1 - (codebook.loads**2).sum(axis=1))
    liability = factors @ codebook.loads.T + rest * chance
    return np.asarray(liability > normal_quantile(1 - codebook.share))


def _draw_ventilated(
    rng: np.random.Generator, factors: Float, conditions: Bools, codebook: Codebook
) -> Bools:
    need = p.VENTILATED_CHANCE * rng.standard_normal(len(factors))
    variance = p.VENTILATED_CHANCE**2
    for name, weight in p.VENTILATED_FACTORS.items():
        need += weight * factors[:, FACTORS.index(name)]
        variance += weight**2
    for category, weight in p.VENTILATED_CONDITIONS.items():
        row = codebook.row[category]
        need += weight * (conditions[:, row] - codebook.share[row])
        variance += weight**2 * codebook.share[row] * (1 - codebook.share[row])
    (threshold,) = normal_quantile(np.array([1 - p.VENTILATED_SHARE]))
    return np.asarray(need > np.sqrt(variance) * threshold)


def _draw_deaths(
    rng: np.random.Generator, factors: Float, conditions: Bools, codebook: Codebook
) -> Bools:
    logit = np.full(len(factors), p.DEATH_INTERCEPT)
    logit += p.DEATH_SEVERITY * factors[:, FACTORS.index("severity")]
    logit += p.DEATH_AGE * factors[:, FACTORS.index("age")]
    for category, weight in p.DEATH_CONDITIONS.items():
        logit += weight * conditions[:, codebook.row[category]]
    return np.asarray(rng.random(len(factors)) < 1 / (1 + np.exp(-logit)))
