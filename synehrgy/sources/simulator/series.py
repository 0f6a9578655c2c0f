"""The measured series: their distribution over patients, what moves them, how they wander.

A series is a standard normal number that is mapped to values. The number is the sum of the drivers
(``conditions.DRIVERS``) it follows, the patient's own level, a slow wandering of its own and the
noise of the measurement. ``values`` are the values at ``PROBABILITIES``; between them the map is
a straight line in normal quantiles (of the logarithm of the value for skewed series).
"""

from dataclasses import dataclass, field
from functools import partial

PROBABILITIES = (0.001, 0.025, 0.16, 0.5, 0.84, 0.975, 0.999)


@dataclass(frozen=True)
class Series:
    """One series.

    Attributes:
        values: at ``PROBABILITIES``, over all measurements.
        loads: weights on the drivers.
        own: standard deviation of the patient's own level.
        wander: standard deviation of the series' own wandering, and its correlation over an hour.
        noise: standard deviation of a measurement.
        log: whether values are interpolated as logarithms.
        limits: lowest and highest value.
    """

    values: tuple[float, float, float, float, float, float, float]
    loads: dict[str, float] = field(default_factory=dict)
    own: float = 0.5
    wander: tuple[float, float] = (0.4, 0.95)
    noise: float = 0.1
    log: bool = False
    limits: tuple[float, float] = (0.0, 1e9)


# Series that change by the hour, by the day, and hardly at all.
_vital = partial(Series, own=0.5, wander=(0.55, 0.85), noise=0.30)
_chemistry = partial(Series, own=0.45, wander=(0.45, 0.97), noise=0.15)
_slow = partial(Series, own=0.8, wander=(0.3, 0.985), noise=0.10)

SERIES: dict[str, Series] = {
    "Heart Rate": Series(
        (41, 55, 68, 85, 105, 126, 155),
        {"rate": 0.6, "shock": 0.35, "inflammation": 0.35, "respiratory": 0.15, "anaemia": 0.15},
        own=0.45, wander=(0.4, 0.92), noise=0.2, limits=(0, 250),
    ),
    "Systolic blood pressure": _vital(
        (58, 83, 99.5, 120, 146.5, 174, 208),
        {"shock": -0.6, "pressure": 0.6, "coma": 0.15, "hepatic": -0.15},
        limits=(20, 290),
    ),
    "Diastolic blood pressure": _vital(
        (22, 36, 47.5, 59, 75, 94, 118),
        {"shock": -0.5, "pressure": 0.4, "renal": -0.15, "anaemia": -0.15},
        limits=(8, 190),
    ),
    "Respiratory rate": Series(
        (4, 9, 14.2, 19.7, 26, 34, 44),
        {"respiratory": 0.45, "shock": 0.2, "inflammation": 0.3, "coma": -0.1},
        own=0.4, wander=(0.45, 0.85), noise=0.5, limits=(0, 70),
    ),
    "Oxygen saturation": Series(
        (80, 89.5, 94.6, 97.9, 100.2, 102, 104),
        {"respiratory": -0.55, "shock": -0.15}, own=0.45, wander=(0.4, 0.9), noise=0.4,
        limits=(30, 100),
    ),
    "Temperature": Series(
        (34.2, 35.45, 36.25, 37.0, 37.8, 38.7, 39.9),
        {"inflammation": 0.7, "shock": -0.15, "hepatic": -0.1}, own=0.35, wander=(0.5, 0.93),
        noise=0.35, limits=(30, 42.5),
    ),
    "Fraction inspired oxygen": _chemistry(
        (0.25, 0.35, 0.38, 0.41, 0.58, 1.08, 1.5),
        {"respiratory": 0.6, "shock": 0.25}, log=True, limits=(0.21, 1.0),
    ),
    "Glucose": Series(
        (43, 72, 98, 129, 182, 290, 520),
        {"glycaemia": 0.75, "shock": 0.1, "inflammation": 0.1}, own=0.35, wander=(0.45, 0.85),
        noise=0.3, log=True, limits=(10, 1200),
    ),
    "Creatinine": Series(
        (0.24, 0.4, 0.62, 1.0, 2.3, 5.9, 13), {"renal": 0.9, "shock": 0.1}, own=0.35,
        wander=(0.2, 0.985), noise=0.05, log=True, limits=(0.1, 30),
    ),
    "Blood urea nitrogen": Series(
        (2.8, 6, 11.6, 23, 52, 101, 170), {"renal": 0.85, "shock": 0.1, "anaemia": 0.1}, own=0.4,
        wander=(0.2, 0.985), noise=0.05, log=True, limits=(1, 280),
    ),
    "Potassium": _chemistry(
        (2.65, 3.1, 3.54, 4.0, 4.61, 5.6, 7.0), {"renal": 0.45, "shock": 0.1},
        limits=(1.5, 12),
    ),
    "Chloride": _chemistry(
        (84, 92, 99, 105, 111, 118, 127), {"respiratory": -0.3, "shock": 0.15},
        limits=(60, 150),
    ),
    "Bicarbonate": _chemistry(
        (7.8, 15, 20.2, 25, 29.7, 36, 45), {"renal": -0.35, "shock": -0.5, "respiratory": 0.35},
        limits=(2, 60),
    ),
    "Anion gap": _chemistry(
        (4.8, 8, 10.2, 13, 17.2, 23, 32), {"renal": 0.45, "shock": 0.45, "glycaemia": 0.1},
        limits=(1, 60),
    ),
    "Calcium": _chemistry(
        (5.9, 6.8, 7.6, 8.3, 9.02, 10.0, 11.2), {"shock": -0.3, "inflammation": -0.3},
        limits=(3, 18),
    ),
    "Phosphate": _chemistry(
        (0.9, 1.6, 2.41, 3.3, 4.7, 7.2, 12), {"renal": 0.6, "shock": 0.15}, log=True,
        limits=(0.3, 20),
    ),
    "Hematocrit": Series(
        (17, 21.7, 25.6, 29.7, 35, 41, 48), {"anaemia": -0.6, "renal": -0.1}, own=0.5,
        wander=(0.4, 0.97), noise=0.1, limits=(8, 65),
    ),
    "Mean corpuscular volume": _slow(
        (68, 78, 84.3, 89.2, 95.4, 103, 116), {"hepatic": 0.3}, limits=(50, 135)
    ),
    "Platelets": _slow(
        (9, 34, 94, 190, 325, 554, 1040), {"hepatic": -0.4, "shock": -0.2, "inflammation": 0.2},
        log=True, limits=(5, 2000),
    ),
    "White blood cell count": Series(
        (0.8, 2.9, 6.5, 10.7, 17, 28.6, 58), {"inflammation": 0.65, "shock": 0.15}, own=0.5,
        wander=(0.35, 0.98), noise=0.1, log=True, limits=(0.1, 400),
    ),
    "Neutrophils": _chemistry(
        (3, 21, 67, 82, 90.4, 95.2, 98), {"inflammation": 0.55}, limits=(0, 100)
    ),
    "Lymphocytes": _chemistry(
        (0.5, 1.0, 3.6, 9, 18.5, 39.7, 90), {"inflammation": -0.55}, log=True,
        limits=(0, 100),
    ),
    "Monocytes": _chemistry(
        (0, 0.2, 1.8, 4, 7.1, 13.9, 25), {}, limits=(0, 60)
    ),
    "Basophils": _chemistry(
        (0, 0, 0.04, 0.13, 0.48, 0.94, 2.2), {}, limits=(0, 20)
    ),
    "Prothrombin time": _slow(
        (10.6, 11.5, 12.7, 14.1, 18.6, 37, 80), {"hepatic": 0.5, "shock": 0.2}, log=True,
        limits=(9, 150),
    ),
    "Alanine aminotransferase": _slow(
        (3, 8, 18, 43, 225, 2255, 9000), {"hepatic": 0.4, "shock": 0.3}, log=True,
        limits=(1, 22000),
    ),
    "Asparate aminotransferase": _slow(
        (6, 13, 26.7, 56, 227, 2850, 12000), {"hepatic": 0.45, "shock": 0.35}, log=True,
        limits=(3, 26000),
    ),
    "Alkaline phosphate": _slow(
        (22, 37, 57, 97, 210, 552, 1800), {"hepatic": 0.45}, log=True, limits=(7, 3000)
    ),
    "Bilirubin": _slow(
        (0.1, 0.2, 0.44, 1.0, 5.6, 27.5, 52), {"hepatic": 0.75, "shock": 0.1}, log=True,
        limits=(0.1, 80),
    ),
    "Albumin": _slow(
        (1.2, 1.6, 2.2, 2.8, 3.55, 4.2, 5.0), {"hepatic": -0.3, "inflammation": -0.4},
        limits=(0.9, 6.5),
    ),
    "Lactate": _chemistry(
        (0.4, 0.7, 1.12, 1.8, 4.05, 10.6, 22), {"shock": 0.75, "hepatic": 0.2},
        log=True, limits=(0.2, 30),
    ),
    "Partial pressure of carbon dioxide": _chemistry(
        (16, 26, 33.3, 41, 50.3, 69, 105), {"respiratory": 0.5, "shock": -0.2},
        limits=(8, 180),
    ),
    "pH": _chemistry(
        (6.95, 7.20, 7.32, 7.395, 7.455, 7.525, 7.6),
        {"shock": -0.55, "respiratory": -0.3, "renal": -0.2}, limits=(6.6, 7.8),
    ),
    # Depth of consciousness: the Glasgow components are cut from it.
    "Consciousness": Series(
        (-3, -2, -1, 0, 1, 2, 3), {"coma": -0.8, "shock": -0.3, "respiratory": -0.15}, own=0.4,
        wander=(0.35, 0.95), noise=0.2, limits=(-9, 9),
    ),
    "Capillary refill rate": Series(
        (-3, -2, -1, 0, 1, 2, 3), {"shock": 0.6}, limits=(-9, 9)
    ),
    "Weight": Series((38, 48, 62, 79, 100, 138, 190), {}, own=1.0, wander=(0.05, 0.99), noise=0.02,
                     limits=(25, 300)),
    "Height": Series((140, 150, 160, 169, 180, 191, 201), {}, own=1.0, wander=(0.0, 0.0), noise=0.0,
                     limits=(120, 215)),
    # Millilitres an hour.
    "Urine": Series((0, 5, 30, 75, 170, 420, 900), {"renal": -0.5, "shock": -0.3}, own=0.4,
                    wander=(0.5, 0.8), noise=0.5, limits=(0, 2000)),
}  # fmt: skip

# Newborns and small children: shift of the standard normal number.
YOUNG_SHIFT = {
    "Heart Rate": 2.6,
    "Systolic blood pressure": -2.2,
    "Diastolic blood pressure": -1.4,
    "Respiratory rate": 3.0,
    "Creatinine": -1.0,
    "Hematocrit": 1.5,
    "Bilirubin": 1.0,
}
# Measurements whose correlation is more than the drivers explain: (follower, leader, weight).
COUPLINGS = (
    ("Diastolic blood pressure", "Systolic blood pressure", 0.55),
    ("Blood urea nitrogen", "Creatinine", 0.35),
    ("Asparate aminotransferase", "Alanine aminotransferase", 0.8),
    ("Alkaline phosphate", "Bilirubin", 0.4),
    ("Neutrophils", "White blood cell count", 0.25),
    ("Lymphocytes", "Neutrophils", -0.8),
    ("Monocytes", "Neutrophils", -0.4),
    ("pH", "Bicarbonate", 0.55),
    ("pH", "Partial pressure of carbon dioxide", -0.6),
    ("Bicarbonate", "Partial pressure of carbon dioxide", 0.35),
    ("Anion gap", "Bicarbonate", -0.35),
    ("Chloride", "Bicarbonate", -0.35),
)
