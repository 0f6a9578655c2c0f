"""The procedures of simulated admissions: how common, and what they go with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Procedure:
    """One frequent ICD-9 procedure.

    Attributes:
        share: of the admissions of adults that have it.
        loads: its liability's weights on the factors of ``conditions.FACTORS`` and on conditions
            (by CCS category, centred on their share); the rest is chance.
    """

    share: float
    loads: dict[str, float]


PROCEDURES: dict[str, Procedure] = {
    "3893": Procedure(0.285, {"severity": 0.45, "infection": 0.2}),
    "9604": Procedure(0.155, {"severity": 0.45, "131": 0.9}),
    "966": Procedure(0.143, {"severity": 0.4, "neurologic": 0.15}),
    "9671": Procedure(0.150, {"severity": 0.35, "131": 0.7}),
    "9904": Procedure(0.143, {"hepatic": 0.2, "60": 0.7, "153": 0.7}),
    "3961": Procedure(0.135, {"cardiac": 0.5, "surgical": 0.6, "infection": -0.2}),
    "9672": Procedure(0.090, {"severity": 0.55, "131": 0.9}),
    "9955": Procedure(0.005, {}),
    "8856": Procedure(0.105, {"cardiac": 0.6, "100": 0.8}),
    "3891": Procedure(0.092, {"severity": 0.45}),
    "3615": Procedure(0.080, {"cardiac": 0.6, "surgical": 0.6}),
    "3612": Procedure(0.036, {"cardiac": 0.6, "surgical": 0.5}),
    "3613": Procedure(0.032, {"cardiac": 0.6, "surgical": 0.5}),
    "8872": Procedure(0.085, {"cardiac": 0.5}),
    "3722": Procedure(0.065, {"cardiac": 0.6, "100": 0.6}),
    "3723": Procedure(0.040, {"cardiac": 0.6}),
    "0066": Procedure(0.055, {"cardiac": 0.45, "100": 1.0}),
    "0040": Procedure(0.045, {"cardiac": 0.45, "100": 0.9}),
    "3607": Procedure(0.035, {"cardiac": 0.45, "100": 0.9}),
    "9920": Procedure(0.040, {"cardiac": 0.45, "100": 0.9}),
    "3995": Procedure(0.065, {"renal": 0.65, "158": 0.6}),
    "3895": Procedure(0.045, {"renal": 0.65}),
    "9907": Procedure(0.060, {"hepatic": 0.4, "62": 0.5}),
    "9905": Procedure(0.050, {"hepatic": 0.3, "oncology": 0.3, "62": 0.5}),
    "9915": Procedure(0.055, {"severity": 0.4}),
    "4513": Procedure(0.040, {"hepatic": 0.4, "153": 1.0}),
    "4516": Procedure(0.025, {"hepatic": 0.3, "153": 1.0}),
    "5491": Procedure(0.040, {"hepatic": 0.8}),
    "3324": Procedure(0.045, {"pulmonary": 0.4, "severity": 0.3, "122": 0.6}),
    "3491": Procedure(0.045, {"pulmonary": 0.35, "130": 0.9}),
    "3404": Procedure(0.045, {"pulmonary": 0.2, "trauma": 0.2, "130": 0.7}),
    "311": Procedure(0.035, {"severity": 0.5, "131": 0.6}),
    "4311": Procedure(0.035, {"severity": 0.4, "neurologic": 0.3}),
    "0331": Procedure(0.040, {"neurologic": 0.4, "infection": 0.2}),
    "8853": Procedure(0.035, {"cardiac": 0.5}),
    "3521": Procedure(0.030, {"cardiac": 0.4, "surgical": 0.5, "96": 0.8}),
    "3761": Procedure(0.025, {"cardiac": 0.5}),
    "8841": Procedure(0.030, {"neurologic": 0.6}),
    "9390": Procedure(0.030, {"pulmonary": 0.5}),
    "0139": Procedure(0.015, {"neurologic": 0.6, "trauma": 0.3}),
}

# The rest come in families by their first two digits: (first and last, weight, loads by which an
# admission's factors raise or lower the weight).
FAMILIES: tuple[tuple[int, int, float, dict[str, float]], ...] = (
    (1, 5, 0.8, {"neurologic": 1.0}),
    (6, 7, 0.2, {}),
    (8, 20, 0.3, {"trauma": 0.4}),
    (21, 29, 0.3, {"trauma": 0.3}),
    (30, 34, 1.3, {"pulmonary": 0.8}),
    (35, 37, 1.8, {"cardiac": 1.0, "surgical": 0.5}),
    (38, 39, 2.0, {"cardiac": 0.4, "renal": 0.3}),
    (40, 41, 0.3, {"oncology": 0.8}),
    (42, 54, 2.2, {"hepatic": 0.7, "surgical": 0.4}),
    (55, 59, 0.6, {"renal": 0.6}),
    (60, 64, 0.15, {"male": 0.5}),
    (65, 75, 0.2, {"male": -0.8}),
    (76, 84, 1.3, {"trauma": 1.0}),
    (85, 86, 0.6, {"infection": 0.5}),
    (87, 99, 2.5, {"severity": 0.2}),
)
# Mean and spread (of the logarithm) of how many of these an adult admission has.
TAIL_MEAN = 1.6
TAIL_SPREAD = 0.75
# Newborns and children: probability of each procedure, and mean number of further ones.
NEWBORN_PROCEDURES = {
    "9955": 0.62, "966": 0.25, "9604": 0.18, "9390": 0.20, "9671": 0.12, "9672": 0.12,
    "9915": 0.22, "3892": 0.22, "9983": 0.30, "640": 0.12,
}  # fmt: skip
NEWBORN_TAIL_MEAN = 0.5
