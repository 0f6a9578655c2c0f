"""Numbers of the simulated population; times in hours or days as the name says."""

from synehrgy.sources.simulator.conditions import FACTORS

# Newborns and children are a part of the patients of MIMIC-III.
YOUNG_SHARE = 0.172
NEWBORN_SHARE = 0.985  # of the young
MALE_SHARE = 0.562
CAREVUE_SHARE = 0.60

# Age at the first admission, in years, at normal quantiles; women are a little older.
AGE_KNOTS = (-3.0, -2.0, -1.0, 0.0, 1.0, 1.6, 2.0, 3.0)
AGE_YEARS = (17.0, 21.0, 44.5, 64.5, 79.5, 88.5, 92.0, 101.0)
AGE_OF_WOMEN = 0.18
# Above this age dates of birth are shifted by about 300 years.
HIDDEN_AGE = 89.0
SHIFTED_YEARS = 300.0

# Correlation of an admission's factors with those of the patient.
FACTOR_PERSISTENCE = 0.8
DRAWN_FACTORS = FACTORS[3:]

# Further admissions of an adult: Poisson with a mean that grows with frailty.
READMISSION_LOG_MEAN = -1.58
READMISSION_FRAILTY = 0.95
FRAILTY_FACTORS = ("cardiac", "renal", "pulmonary")  # the first of those drawn
FRAILTY_OF_FACTORS = 0.35
LEAST_DAYS_APART = 3.0
DAYS_PER_AGE_SPREAD = 15 * 365.0
MAX_ADMISSIONS = 16
READMISSION_DAYS = (140.0, 1.5)  # median, spread of the logarithm
FIRST_SUBJECT, FIRST_HADM, FIRST_ICUSTAY = 2, 100_000, 200_000
ADMISSION_KINDS = ("EMERGENCY", "ELECTIVE", "URGENT", "NEWBORN")
KIND_SHARES = (0.80, 0.16, 0.04)  # of adults
CALENDAR = (2100.0, 2195.0)  # years of first admissions

# Length of stay in intensive care in hours, at normal quantiles.
STAY_KNOTS = (-3.0, -2.05, -1.28, -0.67, -0.13, 0.25, 0.52, 0.84, 1.28, 1.645, 2.05, 2.58, 3.5)
STAY_HOURS = (4.0, 11.5, 22.0, 30.0, 44.5, 61.0, 79.0, 116.0, 203.0, 314.0, 490.0, 800.0, 1800.0)
STAY_SEVERITY = 0.40
STAY_VENTILATED = 0.55
STAY_LIMITS = (1.5, 4200.0)
NEWBORN_STAY_HOURS = (60.0, 1.6)  # median, spread of the logarithm
# Before and after intensive care, in the same admission.
DIRECT_SHARE = 0.62
BEFORE_HOURS = (30.0, 1.2)
AFTER_HOURS = (80.0, 0.9)
LEAST_AFTER_HOURS = 2.0
# Several stays in one admission, and stays that change unit or ward.
FURTHER_STAY_SHARE = 0.062
THIRD_STAY_SHARE = 0.15  # of those with a second
FURTHER_STAY_GAP_HOURS = (40.0, 0.8)
LEAST_GAP_HOURS = 6.0
TRANSFER_SHARE = 0.095

# Death in hospital: a logistic risk. Severity is known to the body, frailty and chance are not.
DEATH_INTERCEPT = -2.92
DEATH_SEVERITY = 0.95
DEATH_AGE = 0.45
DEATH_CONDITIONS = {"249": 0.6, "42": 0.9, "107": 1.2, "85": 0.7, "109": 0.6, "2": 0.3, "131": 0.4}
DEATH_IN_UNIT = 0.75
DEATH_YOUNG = 0.012
# After discharge: share of patients with a later date of death, and days until it.
LATER_DEATH_SHARE = 0.33
LATER_DEATH_DAYS = (400.0, 1.4)

# How a stay goes. Drivers fall back towards normal by a share of their distance, with a time
# constant; before a death in the unit they rise.
DRIVER_SEVERITY = {"shock": 0.55, "inflammation": 0.35, "renal": 0.3, "respiratory": 0.4,
                   "hepatic": 0.2, "coma": 0.5, "anaemia": 0.2, "glycaemia": 0.15, "rate": 0.3,
                   "pressure": -0.1}  # fmt: skip
DRIVER_AGE = {"renal": 0.25, "rate": -0.25, "anaemia": 0.1, "pressure": 0.1, "coma": 0.05,
              "hepatic": -0.1}  # fmt: skip
DRIVER_MALE = {"anaemia": -0.2, "renal": 0.15}
DRIVER_OWN = 0.45
DRIVER_WANDER = (0.35, 0.97)
RECOVERY_SHARE = {"survivor": (0.40, 0.25), "death": (0.0, 0.30)}
RECOVERY_HOURS = (30.0, 0.6)
DYING = {"shock": 1.5, "respiratory": 0.8, "coma": 1.1, "renal": 0.5, "rate": 0.5}
DYING_HOURS = 20.0
# Treatments: (driver, level from which it is given, probability an hour, effect in standard
# deviations, hours until it works).
TREATMENTS = (
    ("shock", 1.2, 0.05, -0.6, 4.0),
    ("inflammation", 1.3, 0.03, -0.6, 24.0),
    ("respiratory", 1.4, 0.03, -0.4, 8.0),
    ("anaemia", 1.4, 0.06, -0.9, 3.0),
    ("glycaemia", 1.5, 0.08, -0.8, 5.0),
    ("rate", 1.6, 0.05, -0.7, 2.0),
)
VENTILATED_FACTORS = {"severity": 0.45, "surgical": 0.35, "neurologic": 0.2}
VENTILATED_CONDITIONS = {"131": 1.0}
VENTILATED_CHANCE = 0.6
VENTILATED_SHARE = 0.40

WARDS = {"MICU": (50, 52, 23), "SICU": (33, 57), "CCU": (7,), "CSRU": (14, 12), "TSICU": (15,),
         "NICU": (56, 26)}  # fmt: skip
ADULT_UNITS = ("MICU", "SICU", "CCU", "CSRU", "TSICU")
# Weight of a unit by the factors of an admission.
UNIT_LOADS = {"MICU": {"infection": 0.8}, "SICU": {"surgical": 0.7, "neurologic": 0.6},
              "CCU": {"cardiac": 1.2, "surgical": -0.6}, "CSRU": {"cardiac": 1.0, "surgical": 1.2},
              "TSICU": {"trauma": 1.4}}  # fmt: skip
UNIT_BASE = {"MICU": 0.9, "SICU": 0.1, "CCU": -0.4, "CSRU": -0.5, "TSICU": -0.3}
