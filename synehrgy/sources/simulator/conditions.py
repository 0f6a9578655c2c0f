"""The diseases of simulated adults: how common, how they go together, what they do to the body.

A condition is one single-level CCS category. Each admission has a liability for it, a standard
normal number made of shared factors (old age, a failing heart, an infection, ...) and chance; the
condition is present where the liability is among the highest ``share``. Conditions with the same
factors therefore occur together, and chronic ones occur again in later admissions.
"""

from dataclasses import dataclass, field

# What conditions have in common. The first three are facts of the admission, the others are drawn:
# partly for the patient, partly anew for each admission.
FACTORS = (
    "age",
    "male",
    "severity",
    "cardiac",
    "renal",
    "pulmonary",
    "hepatic",
    "neurologic",
    "infection",
    "metabolic",
    "oncology",
    "surgical",
    "trauma",
)

# Physiological states that move during a stay and that the series follow.
DRIVERS = (
    "shock",
    "inflammation",
    "renal",
    "respiratory",
    "hepatic",
    "coma",
    "anaemia",
    "glycaemia",
    "rate",
    "pressure",
)


@dataclass(frozen=True)
class Condition:
    """One CCS category.

    Attributes:
        share: of the admissions of adults that have it.
        chronic: correlation of the liability's own part between admissions of one patient.
        loads: liability's weights on ``FACTORS``; their squares sum to less than one.
        effects: shift of a driver (one of ``DRIVERS``) in standard deviations.
        codes: probability of each frequent ICD-9 code where the condition is present.
        extra: mean number of further codes of the category.
    """

    share: float
    chronic: float
    loads: dict[str, float]
    effects: dict[str, float] = field(default_factory=dict)
    codes: dict[str, float] = field(default_factory=dict)
    extra: float = 0.05


CONDITIONS: dict[str, Condition] = {
    # The phenotypes.
    "2": Condition(
        0.150,
        0.1,
        {"infection": 0.65, "severity": 0.45},
        {"inflammation": 0.9, "shock": 0.6, "rate": 0.4},
        {"0389": 0.5, "99592": 0.5, "99591": 0.2},
        0.3,
    ),
    "49": Condition(
        0.195,
        0.93,
        {"metabolic": 0.75, "age": 0.15, "cardiac": 0.15},
        {"glycaemia": 1.0},
        {"25000": 0.92},
    ),
    "50": Condition(
        0.097,
        0.93,
        {"metabolic": 0.7, "renal": 0.35},
        {"glycaemia": 1.5, "renal": 0.5},
        {"25060": 0.3, "25040": 0.3, "25050": 0.25, "25002": 0.15},
        0.4,
    ),
    "53": Condition(
        0.290,
        0.85,
        {"age": 0.25, "cardiac": 0.5, "metabolic": 0.4},
        {"pressure": 0.25, "inflammation": -0.25},
        {"2724": 0.60, "2720": 0.40},
    ),
    "55": Condition(
        0.275,
        0.15,
        {"severity": 0.4, "renal": 0.4, "metabolic": 0.2},
        {"renal": 0.35, "inflammation": 0.15},
        {"2762": 0.3, "2761": 0.22, "2760": 0.18},
        0.5,
    ),
    "98": Condition(
        0.420,
        0.85,
        {"age": 0.35, "metabolic": 0.3, "renal": -0.3, "cardiac": 0.1},
        {"pressure": 0.75, "renal": -0.1},
        {"4019": 0.97},
    ),
    "99": Condition(
        0.133,
        0.9,
        {"age": 0.2, "renal": 0.75, "metabolic": 0.25},
        {"pressure": 0.7, "renal": 0.5},
        {"40390": 0.4, "40391": 0.35},
    ),
    "100": Condition(
        0.105,
        0.1,
        {"cardiac": 0.65, "age": 0.25, "male": 0.1, "surgical": -0.1},
        {"rate": -0.5, "glycaemia": 0.4, "inflammation": 0.35},
        {"41071": 0.5, "41041": 0.12},
        0.1,
    ),
    "101": Condition(
        0.325,
        0.88,
        {"cardiac": 0.75, "age": 0.35, "male": 0.2},
        {"rate": -0.35, "inflammation": -0.2},
        {"41401": 0.76, "412": 0.2, "4111": 0.12},
        0.12,
    ),
    "105": Condition(
        0.072, 0.4, {"cardiac": 0.4, "age": 0.35}, {"rate": -0.8}, {"4263": 0.2, "42611": 0.15}, 0.1
    ),
    "106": Condition(
        0.322,
        0.55,
        {"cardiac": 0.45, "age": 0.5, "severity": 0.15},
        {"rate": 0.65},
        {"42731": 0.79, "42789": 0.12, "4271": 0.1},
        0.1,
    ),
    "108": Condition(
        0.270,
        0.8,
        {"cardiac": 0.6, "age": 0.4, "renal": 0.2, "pulmonary": 0.15},
        {"renal": 0.35, "respiratory": 0.4, "pressure": -0.2},
        {"4280": 0.955, "42823": 0.1, "42833": 0.1, "42832": 0.08},
        0.15,
    ),
    "109": Condition(
        0.076,
        0.15,
        {"neurologic": 0.8, "age": 0.15},
        {"coma": 1.0, "pressure": 0.6, "anaemia": -0.6},
        {"431": 0.35, "430": 0.15, "43491": 0.18},
        0.15,
    ),
    "122": Condition(
        0.140,
        0.1,
        {"infection": 0.5, "pulmonary": 0.45, "severity": 0.3},
        {"inflammation": 0.6, "respiratory": 0.9},
        {"486": 0.65, "48241": 0.1},
        0.1,
    ),
    "127": Condition(
        0.132,
        0.9,
        {"pulmonary": 0.75, "age": 0.25, "cardiac": 0.15},
        {"respiratory": 1.0},
        {"496": 0.75, "49121": 0.15},
        0.06,
    ),
    "130": Condition(
        0.088,
        0.1,
        {"pulmonary": 0.45, "surgical": 0.3, "cardiac": 0.1},
        {"respiratory": 0.45},
        {"5119": 0.45, "5180": 0.3},
        0.1,
    ),
    "131": Condition(
        0.181,
        0.1,
        {"severity": 0.6, "pulmonary": 0.5},
        {"respiratory": 1.2, "shock": 0.3},
        {"51881": 0.815, "51882": 0.1},
        0.08,
    ),
    "133": Condition(
        0.052, 0.2, {"pulmonary": 0.5, "oncology": 0.2}, {"respiratory": 0.5}, {"78630": 0.15}, 0.2
    ),
    "134": Condition(0.041, 0.2, {"pulmonary": 0.35}, {"respiratory": 0.35}, {"47819": 0.08}, 0.2),
    "151": Condition(
        0.089,
        0.75,
        {"hepatic": 0.85},
        {"hepatic": 1.5, "anaemia": 0.3, "coma": 0.2},
        {"5715": 0.45, "5723": 0.28, "5722": 0.2, "78959": 0.15},
        0.25,
    ),
    "153": Condition(
        0.073,
        0.2,
        {"hepatic": 0.45, "age": 0.2},
        {"anaemia": 1.3, "renal": 0.2},
        {"5789": 0.3, "5780": 0.1},
        0.25,
    ),
    "157": Condition(
        0.215,
        0.15,
        {"renal": 0.6, "severity": 0.45, "infection": 0.15},
        {"renal": 1.05, "shock": 0.2},
        {"5849": 0.835, "5845": 0.2},
    ),
    "158": Condition(
        0.134,
        0.95,
        {"renal": 0.8, "age": 0.3},
        {"renal": 1.1, "anaemia": 0.4},
        {"5859": 0.4, "5856": 0.3},
        0.1,
    ),
    "238": Condition(
        0.208,
        0.1,
        {"surgical": 0.55, "severity": 0.15},
        {"anaemia": 0.4, "inflammation": 0.25},
        {"99811": 0.12, "99859": 0.12, "9971": 0.12},
        0.6,
    ),
    "249": Condition(
        0.079,
        0.1,
        {"severity": 0.65, "infection": 0.35},
        {"shock": 1.2, "rate": 0.4},
        {"78552": 0.65, "78551": 0.3},
    ),
    # Others that are common.
    "3": Condition(
        0.14,
        0.1,
        {"infection": 0.6, "severity": 0.2},
        {"inflammation": 0.4},
        {"04111": 0.2, "04149": 0.15},
        0.3,
    ),
    "4": Condition(
        0.04, 0.1, {"infection": 0.5, "severity": 0.25}, {"inflammation": 0.3}, {"1120": 0.3}, 0.2
    ),
    "6": Condition(0.055, 0.8, {"hepatic": 0.7}, {"hepatic": 0.6}, {"07054": 0.6}, 0.1),
    "42": Condition(
        0.065,
        0.7,
        {"oncology": 0.8},
        {"anaemia": 0.4, "inflammation": 0.2},
        {"1977": 0.25, "1970": 0.25, "1985": 0.25, "1983": 0.25},
        0.4,
    ),
    "48": Condition(
        0.115, 0.85, {"age": 0.2, "male": -0.3, "metabolic": 0.15}, {}, {"2449": 0.9}, 0.08
    ),
    "51": Condition(0.03, 0.4, {"metabolic": 0.3}, {"glycaemia": 0.2}, {}, 0.1),
    "52": Condition(0.05, 0.3, {"oncology": 0.25, "severity": 0.2}, {"anaemia": 0.2}, {}, 0.1),
    "54": Condition(0.05, 0.8, {"renal": 0.4, "male": 0.2}, {"renal": 0.2}, {"2749": 0.8}),
    "58": Condition(
        0.12, 0.6, {"metabolic": 0.5}, {"glycaemia": 0.2}, {"27800": 0.3, "27801": 0.2}, 0.3
    ),
    "59": Condition(
        0.19,
        0.4,
        {"renal": 0.35, "age": 0.15, "oncology": 0.2},
        {"anaemia": 0.8},
        {"2859": 0.5, "28521": 0.15, "2809": 0.15},
        0.1,
    ),
    "60": Condition(
        0.11, 0.1, {"surgical": 0.4, "hepatic": 0.2}, {"anaemia": 0.9}, {"2851": 1.0}, 0.0
    ),
    "62": Condition(
        0.13,
        0.3,
        {"hepatic": 0.45, "severity": 0.3},
        {"hepatic": 0.5, "shock": 0.1},
        {"2875": 0.5, "2869": 0.25},
        0.1,
    ),
    "63": Condition(0.04, 0.3, {"oncology": 0.35}, {"inflammation": -0.3}, {}, 0.1),
    "83": Condition(
        0.08, 0.5, {"neurologic": 0.6}, {"coma": 0.5}, {"78039": 0.5, "34590": 0.2}, 0.1
    ),
    "85": Condition(
        0.06,
        0.1,
        {"neurologic": 0.6, "severity": 0.35},
        {"coma": 1.2},
        {"3481": 0.3, "78001": 0.2},
        0.2,
    ),
    "95": Condition(0.13, 0.3, {"neurologic": 0.4}, {"coma": 0.2}, {}, 0.3),
    "96": Condition(
        0.16,
        0.85,
        {"cardiac": 0.55, "age": 0.3},
        {"pressure": -0.15},
        {"4241": 0.4, "4240": 0.4},
        0.15,
    ),
    "97": Condition(
        0.06, 0.7, {"cardiac": 0.5}, {"rate": 0.2, "pressure": -0.3}, {"4254": 0.5}, 0.2
    ),
    "103": Condition(
        0.07,
        0.5,
        {"pulmonary": 0.4, "cardiac": 0.3},
        {"respiratory": 0.4},
        {"4168": 0.5, "41519": 0.25},
        0.1,
    ),
    "104": Condition(0.03, 0.3, {"cardiac": 0.4}, {}, {}, 0.05),
    "107": Condition(
        0.04,
        0.1,
        {"severity": 0.6, "cardiac": 0.35},
        {"shock": 1.0, "coma": 0.9},
        {"4275": 0.75},
        0.05,
    ),
    "110": Condition(0.04, 0.7, {"cardiac": 0.4, "age": 0.3}, {}, {"43310": 0.7}, 0.1),
    "114": Condition(0.08, 0.8, {"cardiac": 0.45, "age": 0.3}, {}, {"4439": 0.5}, 0.2),
    "115": Condition(0.05, 0.6, {"cardiac": 0.3, "age": 0.3, "male": 0.2}, {}, {"4414": 0.4}, 0.1),
    "117": Condition(
        0.14,
        0.1,
        {"severity": 0.3, "surgical": 0.2},
        {"shock": 0.3, "pressure": -0.4},
        {"4589": 0.4},
        0.2,
    ),
    "118": Condition(0.05, 0.2, {"oncology": 0.3, "trauma": 0.1}, {}, {"45341": 0.3}, 0.2),
    "121": Condition(0.06, 0.3, {"hepatic": 0.4}, {"anaemia": 0.2}, {}, 0.15),
    "128": Condition(
        0.06, 0.8, {"pulmonary": 0.4, "age": -0.2}, {"respiratory": 0.4}, {"49390": 0.9}, 0.05
    ),
    "129": Condition(
        0.07,
        0.1,
        {"pulmonary": 0.4, "neurologic": 0.3, "severity": 0.3},
        {"respiratory": 0.7, "inflammation": 0.4},
        {"5070": 1.0},
        0.0,
    ),
    "135": Condition(0.04, 0.2, {"infection": 0.5}, {"inflammation": 0.6}, {"00845": 0.8}, 0.1),
    "138": Condition(0.155, 0.75, {"age": 0.15, "metabolic": 0.15}, {}, {"53081": 0.81}, 0.15),
    "139": Condition(0.03, 0.3, {"hepatic": 0.3}, {"anaemia": 0.5}, {}, 0.1),
    "140": Condition(0.03, 0.3, {"hepatic": 0.3}, {"anaemia": 0.3}, {}, 0.1),
    "145": Condition(0.05, 0.1, {"surgical": 0.35}, {}, {"5601": 0.5}, 0.1),
    "149": Condition(0.05, 0.2, {"hepatic": 0.45}, {"hepatic": 0.7, "inflammation": 0.3}, {}, 0.25),
    "152": Condition(
        0.04, 0.3, {"hepatic": 0.4}, {"glycaemia": 0.5, "inflammation": 0.5}, {"5770": 0.7}, 0.1
    ),
    "155": Condition(0.11, 0.2, {"hepatic": 0.35, "surgical": 0.1}, {}, {}, 0.25),
    "159": Condition(
        0.145,
        0.2,
        {"infection": 0.35, "age": 0.25, "male": -0.3},
        {"inflammation": 0.25},
        {"5990": 0.89},
        0.05,
    ),
    "161": Condition(0.05, 0.3, {"renal": 0.4}, {"renal": 0.3}, {}, 0.1),
    "163": Condition(0.06, 0.2, {"age": 0.15}, {}, {"78820": 0.3}, 0.1),
    "164": Condition(0.05, 0.8, {"age": 0.4, "male": 0.5}, {}, {"60000": 0.8}, 0.05),
    "197": Condition(
        0.05, 0.2, {"infection": 0.4, "metabolic": 0.2}, {"inflammation": 0.4}, {}, 0.15
    ),
    "199": Condition(
        0.06,
        0.5,
        {"infection": 0.25, "metabolic": 0.25},
        {"inflammation": 0.2},
        {"70703": 0.4},
        0.25,
    ),
    "205": Condition(0.06, 0.5, {"surgical": 0.2}, {}, {}, 0.2),
    "211": Condition(0.05, 0.3, {"age": 0.1}, {}, {}, 0.1),
    "231": Condition(0.04, 0.1, {"trauma": 0.8}, {"anaemia": 0.3}, {}, 0.7),
    "233": Condition(
        0.05, 0.1, {"trauma": 0.7, "neurologic": 0.35}, {"coma": 0.9}, {"85220": 0.25}, 0.3
    ),
    "234": Condition(0.03, 0.1, {"trauma": 0.8}, {"anaemia": 0.6}, {}, 0.5),
    "237": Condition(
        0.12, 0.2, {"surgical": 0.3, "infection": 0.2}, {"inflammation": 0.2}, {"99662": 0.2}, 0.3
    ),
    "253": Condition(0.08, 0.8, {"male": -0.1}, {}, {}, 0.15),
    "259": Condition(0.25, 0.3, {"age": 0.1}, {}, {"78097": 0.1}, 0.3),
    "257": Condition(0.15, 0.6, {"age": 0.1, "cardiac": 0.2}, {}, {"V5861": 0.5}, 0.1),
    "651": Condition(0.04, 0.7, {"male": -0.15}, {}, {"30000": 0.8}, 0.05),
    "653": Condition(
        0.09,
        0.5,
        {"age": 0.35, "neurologic": 0.3},
        {"coma": 0.4},
        {"2930": 0.3, "2948": 0.25},
        0.15,
    ),
    "657": Condition(0.10, 0.8, {"male": -0.2, "age": -0.1}, {}, {"311": 0.8}, 0.1),
    "659": Condition(0.025, 0.8, {"age": -0.1}, {}, {}, 0.1),
    "660": Condition(
        0.08,
        0.6,
        {"hepatic": 0.45, "male": 0.25, "trauma": 0.15, "age": -0.25},
        {"hepatic": 0.4, "rate": 0.2},
        {"30500": 0.3, "30390": 0.2, "5712": 0.3, "29181": 0.2},
        0.15,
    ),
    "661": Condition(0.04, 0.6, {"age": -0.35, "male": 0.1}, {}, {}, 0.3),
    "663": Condition(
        0.13,
        0.7,
        {"pulmonary": 0.25, "cardiac": 0.2, "male": 0.1},
        {},
        {"V1582": 0.6, "3051": 0.4},
        0.05,
    ),
    "2603": Condition(
        0.05, 0.1, {"trauma": 0.75, "age": 0.2}, {}, {"E8889": 0.3, "E8859": 0.2}, 0.1
    ),
    "2607": Condition(0.02, 0.1, {"trauma": 0.8, "age": -0.3}, {}, {}, 0.2),
    "2616": Condition(0.20, 0.1, {"surgical": 0.5}, {}, {"E8788": 0.3, "E8782": 0.2}, 0.2),
    "2617": Condition(0.09, 0.1, {"age": 0.1}, {}, {"E9342": 0.15}, 0.2),
    "2621": Condition(0.06, 0.1, {"trauma": 0.5}, {}, {"E8497": 0.5}, 0.05),
}

# All other categories are rare; they share a load and a frequency by chapter of the CCS:
# (first and last category, share of admissions, loads). Those of newborns and of childbirth are
# left to the young.
CHAPTERS: tuple[tuple[int, int, float, dict[str, float]], ...] = (
    (1, 10, 0.0064, {"infection": 0.4}),
    (11, 47, 0.0053, {"oncology": 0.6}),
    (48, 58, 0.008, {"metabolic": 0.4}),
    (59, 64, 0.008, {"oncology": 0.3}),
    (76, 95, 0.0064, {"neurologic": 0.4}),
    (96, 121, 0.0107, {"cardiac": 0.4}),
    (122, 134, 0.0064, {"pulmonary": 0.4}),
    (135, 155, 0.0107, {"hepatic": 0.3}),
    (156, 175, 0.0064, {"renal": 0.3}),
    (176, 196, 0.0003, {"age": -0.5, "male": -0.5}),
    (197, 200, 0.008, {"infection": 0.3}),
    (201, 212, 0.0107, {"age": 0.2}),
    (213, 217, 0.0053, {}),
    (225, 244, 0.0086, {"trauma": 0.6}),
    (245, 259, 0.0107, {}),
    (650, 670, 0.0053, {"age": -0.1}),
    (2601, 2621, 0.0032, {"trauma": 0.4}),
)
RARE_CHRONIC = 0.5
RARE_EXTRA = 0.15

# What children and newborns have: probability of each frequent code, and further ones.
NEWBORN_CODES = {
    "V3000": 0.38, "V3001": 0.35, "V290": 0.70, "V053": 0.70, "7742": 0.35, "769": 0.18,
    "7706": 0.14, "77081": 0.16, "77182": 0.03, "76518": 0.12, "76519": 0.12, "77931": 0.10,
    "76528": 0.12, "7746": 0.12, "V502": 0.15,
}  # fmt: skip
NEWBORN_CHAPTERS = ((213, 224),)
NEWBORN_EXTRA = 2.0
