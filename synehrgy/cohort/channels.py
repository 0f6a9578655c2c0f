"""The 17 channels of the mimic3-benchmarks, and the series of a cohort that are theirs.

Names and levels are spelt as its discretizer knows them, historic misspellings included.
"""

import numpy as np
import pandas as pd

from synehrgy.cohort.schema import Schema, Variable
from synehrgy.errors import UserError

CAPILLARY_REFILL = {"Normal": "0.0", "Abnormal": "1.0"}
EYE_OPENING = {
    "No Response": "1 No Response",
    "To Pain": "2 To pain",
    "To Speech": "3 To speech",
    "Spontaneously": "4 Spontaneously",
}
MOTOR_RESPONSE = {
    "No Response": "1 No Response",
    "Abnormal Extension": "2 Abnorm extensn",
    "Abnormal Flexion": "3 Abnorm flexion",
    "Flex-withdraws": "4 Flex-withdraws",
    "Localizes Pain": "5 Localizes Pain",
    "Obeys Commands": "6 Obeys Commands",
}
VERBAL_RESPONSE = {
    "ET/Trach": "1.0 ET/Trach",
    "No Response": "1 No Response",
    "Incomprehensible Sounds": "2 Incomp sounds",
    "Inappropriate Words": "3 Inapprop words",
    "Confused": "4 Confused",
    "Oriented": "5 Oriented",
}
COMA_TOTAL = {str(score): str(score) for score in range(3, 16)}

PRESSURE = {"mmHg": (1.0, 0.0), "kPa": (7.50062, 0.0)}
FRACTION = {"fraction": (1.0, 0.0), "%": (0.01, 0.0)}
PERCENT = {"%": (1.0, 0.0), "fraction": (100.0, 0.0)}
GLUCOSE = {"mg/dL": (1.0, 0.0), "mmol/L": (18.016, 0.0)}
BEATS = {"bpm": (1.0, 0.0), "beats/min": (1.0, 0.0), "/min": (1.0, 0.0)}
BREATHS = {"breaths/min": (1.0, 0.0), "bpm": (1.0, 0.0), "/min": (1.0, 0.0)}
LENGTH = {"cm": (1.0, 0.0), "m": (100.0, 0.0), "in": (2.54, 0.0)}
TEMPERATURE = {"°C": (1.0, 0.0), "°F": (5 / 9, -160 / 9)}
WEIGHT = {"kg": (1.0, 0.0), "lb": (0.45359237, 0.0)}
PH = {"pH": (1.0, 0.0), "units": (1.0, 0.0)}

# Texts of a categorical channel, by level.
LEVELS = {
    "Capillary refill rate": CAPILLARY_REFILL,
    "Glascow coma scale eye opening": EYE_OPENING,
    "Glascow coma scale motor response": MOTOR_RESPONSE,
    "Glascow coma scale total": COMA_TOTAL,
    "Glascow coma scale verbal response": VERBAL_RESPONSE,
}
# Factor and offset by which values in a unit become those of the benchmark, whose unit is first.
UNITS = {
    "Diastolic blood pressure": PRESSURE,
    "Fraction inspired oxygen": FRACTION,
    "Glucose": GLUCOSE,
    "Heart Rate": BEATS,
    "Height": LENGTH,
    "Mean blood pressure": PRESSURE,
    "Oxygen saturation": PERCENT,
    "Respiratory rate": BREATHS,
    "Systolic blood pressure": PRESSURE,
    "Temperature": TEMPERATURE,
    "Weight": WEIGHT,
    "pH": PH,
}
# In the order of the columns.
CHANNELS = sorted([*LEVELS, *UNITS])


def channel_of(variable: str) -> str:
    """The name that a series has as a channel."""
    return variable.replace("Glasgow", "Glascow")


def check_series(schema: Schema) -> None:
    """Refuse series that have the name of a channel but not its meaning.

    Raises:
        UserError: a kind, level or unit that the benchmark does not know.
    """
    for variable in schema.variables:
        channel = channel_of(variable.name)
        if channel not in CHANNELS:
            continue
        kind = "categorical" if channel in LEVELS else "continuous"
        if variable.kind != kind:
            raise UserError(
                f"Series {variable.name!r} is {variable.kind}, but {kind} in the benchmark."
            )
        if kind == "categorical":
            what, found, known = "level", variable.levels, list(LEVELS[channel])
        else:
            what, found, known = "unit", [variable.unit or ""], ["", *UNITS[channel]]
        for name in found:
            if name not in known:
                raise UserError(
                    f"Series {variable.name!r}: the {what} {name!r} has no counterpart in the "
                    f"benchmark, which knows: {', '.join(filter(None, known))}."
                )


def texts(variable: Variable, levels: pd.Series) -> pd.Series:
    """Levels of a categorical series as the channel spells them."""
    return levels.astype(object).map(LEVELS[channel_of(variable.name)])


def numbers(variable: Variable, values: pd.Series) -> np.ndarray:
    """Values of a continuous series in the unit of its channel; as they are if none is declared."""
    units = UNITS[channel_of(variable.name)]
    factor, offset = units[variable.unit] if variable.unit else (1.0, 0.0)
    return values.to_numpy() * factor + offset
