"""How fast raw MIMIC-III tables become a cohort, beside the usual way with pandas.

    python -m benchmarks.extraction --raw-dir <folder of the open demo> --times 20 --reference

The demo is multiplied to plain CSV files (new patients, admissions and stays each time), extracted
in a process of its own, and timed with all its imports; so is the demo as it is. The usual way is
timed likewise on a smaller multiple. One JSON line is printed, and kept in
benchmarks/results/extraction.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from benchmarks.machine import cpu_name
from synehrgy.files import REPOSITORY, write_json
from synehrgy.provenance import versions
from synehrgy.sources.extraction.tables import find_tables
from synehrgy.sources.mimic3 import MIMIC3

RESULTS = Path(__file__).parent / "results" / "extraction.json"
KEYS = ("subject_id", "hadm_id", "icustay_id")
# Larger than any identifier of MIMIC-III, so that copies do not meet.
STEP = 1_000_000


def multiply(raw_dir: Path, folder: Path, times: int) -> int:
    """Write a raw folder's patients ``times`` over, as plain CSV.

    Returns:
        The number of rows of the event tables written.
    """
    rows = 0
    duckdb.execute("SET enable_progress_bar = false")
    for name, table in find_tables(MIMIC3.release, raw_dir, MIMIC3.release.columns).items():
        source = (
            f"read_csv('{table.file}', all_varchar = true, header = true, "
            "delim = ',', quote = '\"', escape = '\"')"
        )
        columns = [row[0] for row in duckdb.execute(f"DESCRIBE FROM {source}").fetchall()]
        moved = [c for c in columns if c.lower() in KEYS]
        selected = ", ".join(
            f"CAST({c} AS BIGINT) + copy * {STEP} AS {c}" if c in moved else c for c in columns
        )
        copies = times if moved else 1
        duckdb.execute(
            f"COPY (SELECT {selected} FROM range({copies}) AS copies(copy), {source}) "
            f"TO '{folder / name.upper()}.csv' (HEADER, DELIMITER ',')"
        )
        if name.endswith("events"):
            counted = duckdb.execute(f"SELECT count(*) * {copies} FROM {source}").fetchone()
            rows += int(counted[0]) if counted else 0
    return rows


def usual_way(raw_dir: Path) -> pd.DataFrame:
    """The measurements of the paper profile as a notebook would make them.

    Whole tables are read and merged, texts are cleaned value by value, and each patient's events
    are pivoted in a loop.

    Returns:
        Columns ``stay_id``, ``hours``, ``variable`` and ``value`` (a number or a level).
    """
    tables = {}
    for name, table in find_tables(MIMIC3.release, raw_dir, MIMIC3.release.columns).items():
        tables[name] = pd.read_csv(table.file, low_memory=False).rename(columns=str.lower)
    icu, admissions, patients = (tables[n] for n in ("icustays", "admissions", "patients"))
    stays = icu[
        (icu["first_careunit"] == icu["last_careunit"])
        & (icu["first_wardid"] == icu["last_wardid"])
    ]
    stays = stays.merge(admissions, on=["subject_id", "hadm_id"]).merge(patients, on="subject_id")
    stays = stays[stays.groupby("hadm_id")["icustay_id"].transform("count") == 1]
    for column in ("intime", "outtime", "dob"):
        stays[column] = pd.to_datetime(stays[column]).astype("datetime64[s]")
    years = (stays["intime"] - stays["dob"]).dt.total_seconds() / 86400 / 365
    stays = stays[years.where(years >= 0, 90) >= 18]

    item_sets = {item_set.name: item_set for item_set in MIMIC3.profile("paper").item_sets}
    variables = pd.DataFrame(
        [
            {"itemid": item, "variable": name}
            for name, item_set in item_sets.items()
            for items in item_set.items.values()
            for item in items
        ]
    )
    columns = ["subject_id", "hadm_id", "icustay_id", "itemid", "charttime", "value", "valueuom"]
    events = pd.concat(
        [tables[name].reindex(columns=columns) for name in ("chartevents", "labevents")]
    )
    events = events.merge(variables, on="itemid").dropna(subset=["hadm_id", "value"])
    own = stays[["subject_id", "hadm_id", "icustay_id"]]
    events = events.merge(own, on=["subject_id", "hadm_id"], suffixes=("", "_own"))
    events["icustay_id"] = events["icustay_id"].fillna(events["icustay_id_own"])
    events = events[events["icustay_id"] == events["icustay_id_own"]]
    events["charttime"] = pd.to_datetime(events["charttime"])

    cleaned = events["variable"].map(lambda name: item_sets[name].duplicates == "highest")
    to_clean = events.loc[cleaned, ["variable", "value", "valueuom"]].fillna("").astype(str)
    events["number"] = float("nan")
    events.loc[cleaned, "number"] = [
        _cleaned(*row) for row in to_clean.itertuples(index=False, name=None)
    ]
    events = events[events["number"].notna() | ~cleaned]

    records = []
    for subject, charted in events.groupby("subject_id"):
        of_numbers = charted.sort_values("number").drop_duplicates(
            ["charttime", "variable"], keep="last"
        )
        as_text = charted.assign(value=charted["value"].astype(str)).sort_values("value")
        of_texts = as_text.drop_duplicates(["charttime", "variable"], keep="last")
        kept = pd.concat(
            [
                of_numbers[of_numbers["number"].notna()].assign(value=lambda f: f["number"]),
                of_texts[of_texts["number"].isna()],
            ]
        )
        series = kept.pivot(index="charttime", columns="variable", values="value")
        visits = charted[["charttime", "icustay_id"]].drop_duplicates("charttime")
        times = visits.set_index("charttime")["icustay_id"]
        for _, stay in stays[stays["subject_id"] == subject].iterrows():
            during = (series.index >= stay["intime"]) & (series.index <= stay["outtime"])
            record = series[during | (times.reindex(series.index) == stay["icustay_id"])]
            hours = (record.index - stay["intime"]).total_seconds() / 3600
            record = record.assign(hours=hours, stay_id=stay["icustay_id"])
            records.append(record[(hours >= 0) & (hours <= stay["los"] * 24)])
    table = pd.concat(records).melt(["stay_id", "hours"], var_name="variable").dropna()
    table["value"] = [
        _read(item_sets[name].levels, value)
        for name, value in zip(table["variable"], table["value"], strict=True)
    ]
    table = table[table["value"].notna()].sort_values(["stay_id", "hours", "variable"])
    return table.reset_index(drop=True)


def _cleaned(variable: str, text: str, unit: str) -> float | None:
    if variable == "Capillary refill rate":
        levels = {"normal <3 secs": 0, "brisk": 0, "abnormal >3 secs": 1, "delayed": 1}
        return levels.get(text.lower())
    if "/" in text and "pressure" in variable:
        text = text.split("/")[0 if variable.startswith("Systolic") else 1]
    number = pd.to_numeric(text, errors="coerce")
    if variable == "Fraction inspired oxygen" and number > 1 and "torr" not in unit.lower():
        return number / 100
    if variable == "Oxygen saturation" and number <= 1:
        return number * 100
    if variable == "Temperature" and number >= 79:
        return (number - 32) * 5 / 9
    return number


def _read(levels: dict[str, list[str]], value: Any) -> float | str | None:
    if not levels:
        return pd.to_numeric(value, errors="coerce")
    if isinstance(value, float):
        return list(levels)[int(value)]
    text = str(value).strip().lower().removesuffix(".0")
    return next((level for level, spellings in levels.items() if text in spellings), None)


def measure(program: str, *arguments: str) -> dict[str, float]:
    """Run Python code in a process of its own: seconds, with its imports, and peak memory."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"The measured program failed with status {status}.")
    peak = usage.ru_maxrss / (1 if sys.platform != "darwin" else 1024)
    return {"seconds": round(seconds, 2), "peak_memory_mib": round(peak / 1024)}


def run_multiply(raw_dir: Path, folder: Path, times: int) -> int:
    """``multiply`` in a process of its own, whose memory is then not counted as the children's."""
    folder.mkdir()
    command = [sys.executable, "-c", MULTIPLY, str(raw_dir), str(folder), str(times)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


MULTIPLY = (
    "import sys; from pathlib import Path; from benchmarks.extraction import multiply; "
    "print(multiply(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))"
)
OURS = "import sys; from synehrgy.sources.mimic3 import extract; extract(*sys.argv[1:])"
USUAL = (
    "import sys; from pathlib import Path; from benchmarks.extraction import usual_way; "
    "usual_way(Path(sys.argv[1]))"
)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--raw-dir", type=Path, required=True, help="folder of the raw tables")
    parser.add_argument("--times", type=int, default=20, help="how often patients are repeated")
    parser.add_argument("--reference", action="store_true", help="also time the usual way")
    parser.add_argument(
        "--reference-times", type=int, default=4, help="repetitions of patients for the usual way"
    )
    parser.add_argument("--work-dir", type=Path, help="folder for the multiplied tables")
    arguments = parser.parse_args()
    raw_dir = arguments.raw_dir.resolve()

    with tempfile.TemporaryDirectory(dir=arguments.work_dir) as folder:
        work = Path(folder)
        rows = run_multiply(raw_dir, work / "raw", arguments.times)
        ours = _rates(rows, measure(OURS, str(work / "raw"), str(work / "cohort")))
        demo_rows = rows // arguments.times
        demo = _rates(demo_rows, measure(OURS, str(raw_dir), str(work / "demo")))
        result = {"stage": "extraction", "times": arguments.times, **ours, "demo": demo}
        if arguments.reference:
            rows = run_multiply(raw_dir, work / "small", arguments.reference_times)
            usual = _rates(rows, measure(USUAL, str(work / "small")))
            result["usual_way"] = {"times": arguments.reference_times, **usual}
            result["times_faster"] = round(ours["rows_per_second"] / usual["rows_per_second"], 1)
    result |= {"cpu": cpu_name(), "cores": os.cpu_count(), "versions": versions()}
    write_json(RESULTS, result)
    print(json.dumps(result))


def _rates(rows: int, measured: dict[str, float]) -> dict[str, float]:
    return {"event_rows": rows, **measured, "rows_per_second": round(rows / measured["seconds"])}


if __name__ == "__main__":
    main()
