"""A small hospital of its own shape: three tables and the file that explains them."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import pandas as pd
import yaml

STAYS = pd.DataFrame(
    {
        "patient": ["7", "7", "9", "12"],
        "visit": ["70", "71", "90", "120"],
        "arrived": [
            *("2024-03-05 10:00:00", "2024-01-01 08:00:00"),
            *("2024-02-02 23:30:00", "2024-02-29 00:00:00"),
        ],
        "left": [
            *("2024-03-06 10:00:00", "2024-01-01 20:00:00"),
            *("2024-02-03 11:30:00", "2024-03-01 00:00:00"),
        ],
        "born": ["1960-01-01", "1960-01-01", "2001-05-05", "1938-07-07"],
        "sex": ["f", "f", "m", ""],
        "triage": ["2", "3.0", "1", "5"],
        "died": ["yes", "no", "No", "0"],
    }
)
CODES = pd.DataFrame(
    {
        "visit": ["70", "70", "70", "90", "120"],
        "rank": ["2", "1", "3", "1", "1"],
        "kind": ["dx", "dx", "px", "dx", "dx"],
        "code": ["I21.4", "E11.9", "8-836", "a41.9", "A41.9"],
    }
)
VITALS = pd.DataFrame(
    {
        "visit": ["70", "70", "71", "71", "90", "120"],
        "time": [
            *("2024-03-05 10:00:00", "2024-03-05 16:30:00"),
            *("2024-01-01 08:15:00", "2024-01-01 20:00:00"),
            *("2024-02-03 00:00:00", "2024-02-29 12:00:00"),
        ],
        "HR": ["88", "91.5", "60", "", "130", "1e2"],
        "AVPU": ["A", "A", "v", "P", "", "A"],
    }
)
DECLARATION = {
    "name": "emergency",
    "stays": {
        "file": "stays.csv",
        "subject": "patient",
        "stay": "visit",
        "admitted": "arrived",
        "discharged": "left",
    },
    "covariates": {
        "age": {"since": "born", "unit": "years"},
        "sex": {"levels": {"F": ["f"], "M": ["m"]}},
        "triage": {"range": [1, 4]},
    },
    "labels": {
        "died": {},
        "sepsis": {"system": "icd10_diagnosis", "codes": ["A40*", "a41.*"], "title": "Sepsis!"},
    },
    "codes": {
        "file": "codes.csv",
        "stay": "visit",
        "code": "code",
        "system_column": "kind",
        "systems": {"icd10_diagnosis": ["dx"], "ops": ["px"]},
        "position": "rank",
    },
    "code_systems": {"ops": "OPS procedures"},
    "measurements": {"file": "vitals.csv", "stay": "visit", "time": "time"},
    "series": {
        "Pulse": {"called": "HR", "unit": "bpm", "range": [0, 350]},
        "Alertness": {"called": ["AVPU"], "levels": {"A": [], "V": ["v"], "P": [], "U": []}},
    },
}

# Tables by file; None leaves one out.
Tables = dict[str, pd.DataFrame]


def tables() -> Tables:
    """The three tables."""
    return {"stays.csv": STAYS.copy(), "codes.csv": CODES.copy(), "vitals.csv": VITALS.copy()}


def write_hospital(
    folder: Path,
    change: Callable[[Tables, dict], None] | None = None,
    frames: Mapping[str, pd.DataFrame] | None = None,
    declaration: dict | None = None,
) -> Path:
    """Write tables and ``tables.yaml``; ``change`` alters either before."""
    folder.mkdir(parents=True, exist_ok=True)
    found = dict(tables() if frames is None else frames)
    declared = deepcopy(declaration or DECLARATION)
    if change is not None:
        change(found, declared)
    for name, frame in found.items():
        if name.endswith(".parquet"):
            frame.to_parquet(folder / name, index=False)
        else:
            frame.to_csv(folder / name, index=False)
    text = yaml.safe_dump(declared, sort_keys=False, allow_unicode=True)
    (folder / "tables.yaml").write_text(text, encoding="utf-8")
    return folder


def long_form(wide: pd.DataFrame) -> pd.DataFrame:
    """The measurements with a row per value."""
    keys = ["visit", "time"]
    rows = wide.melt(keys, var_name="item", value_name="result")
    return rows[rows["result"] != ""].sample(frac=1, random_state=0)
