"""The simulator against the real database: figures of full MIMIC-III beside simulated ones, speed.

``python -m benchmarks.simulator`` simulates, extracts a cohort, and prints a table and one line of
JSON. With ``--scale`` it prints the table of ``synehrgy/sources/simulator/scale.py`` instead.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Cohort, read_cohort
from synehrgy.sources.mimic3 import extract
from synehrgy.sources.simulator import simulate
from synehrgy.sources.simulator.chance import BLOCK, generator
from synehrgy.sources.simulator.charting import IN_UNIT, MEASURED, draw_chart
from synehrgy.sources.simulator.codebook import load_codebook
from synehrgy.sources.simulator.people import draw_people
from synehrgy.sources.simulator.physiology import SERIES_ROW, draw_course
from synehrgy.sources.simulator.series import SERIES
from synehrgy.tokenizer import Tokenizer, encode

TARGETS = json.loads(Path(__file__).with_name("simulator_targets.json").read_text())

# Of these the published item sets mix several quantities, so their values can only be compared
# with the published ones through the profile that makes the same mistake. Everywhere else the
# clinical profile is compared, which leaves out impossible values.
MIXED = ("pH", "Prothrombin time", "Glucose")
WIDTH = 1.96  # normal quantile of 97.5 %


@dataclass(frozen=True)
class Figure:
    """One figure, real and simulated, and the largest difference that is accepted."""

    name: str
    real: float
    simulated: float
    tolerance: float

    @property
    def fits(self) -> bool:
        """Whether the simulated figure is as near as it should be."""
        return bool(abs(self.simulated - self.real) <= self.tolerance)


def figures(paper: Cohort, clinical: Cohort, raw_dir: Path) -> Iterator[Figure]:
    """All figures of a simulated database, given the two cohorts extracted from it."""
    yield from _structure(paper, raw_dir)
    yield from _presence(paper)
    yield from _quantiles(paper, clinical)
    yield from _tokens(paper)
    yield from _codes(raw_dir)


def _relative(name: str, real: float, simulated: float, share: float) -> Figure:
    return Figure(name, real, float(simulated), share * abs(real))


def _structure(cohort: Cohort, raw_dir: Path) -> Iterator[Figure]:
    real = TARGETS["cohort"]
    counts = cohort.counts()
    raw = {name: _rows(raw_dir, name) for name in ("PATIENTS", *TARGETS["raw_per_patient"])}
    per_stay = cohort.codes.groupby("system", observed=True).size() / counts["stays"]
    found = {
        "patients_per_raw_patient": counts["patients"] / raw["PATIENTS"],
        "stays_per_patient": counts["stays"] / counts["patients"],
        "time_points_per_stay": counts["time_points"] / counts["stays"],
        "values_per_time_point": counts["measurements"] / counts["time_points"],
        "diagnoses_per_admission": _rows(raw_dir, "DIAGNOSES_ICD") / raw["ADMISSIONS"],
        "procedures_per_admission": _rows(raw_dir, "PROCEDURES_ICD") / raw["ADMISSIONS"],
    }
    for name, value in found.items():
        yield _relative(name, real[name], value, 0.10)
    yield _relative("diagnoses_per_stay", 11, per_stay["icd9_diagnosis"], 0.10)
    yield _relative("procedures_per_stay", 4, per_stay["icd9_procedure"], 0.10)
    low, high = TARGETS["mortality"]
    mortality = cohort.stays["in_hospital_mortality"].mean()
    yield Figure("in_hospital_mortality", (low + high) / 2, float(mortality), (high - low) / 2)
    for name, value in TARGETS["raw_per_patient"].items():
        # How many rows there are depends on the items that no series uses, a setting.
        tolerance = 0.10 if name in ("ADMISSIONS", "ICUSTAYS") else np.inf
        yield _relative(f"{name} per patient", value, raw[name] / raw["PATIENTS"], tolerance)


def _presence(cohort: Cohort) -> Iterator[Figure]:
    points = cohort.counts()["time_points"]
    counts = cohort.measurements["variable"].value_counts()
    for name, real in TARGETS["series"].items():
        missing = 1 - counts.get(name, 0) / points
        yield _relative(f"missing: {name}", real["missing"], missing, 0.20)
        # The harder test for what is rarely measured: the share of time points that have it.
        yield _relative(f"present: {name}", 1 - real["missing"], 1 - missing, 0.20)


def _quantiles(paper: Cohort, clinical: Cohort) -> Iterator[Figure]:
    values = {
        cohort: cohort_.measurements.groupby("variable", observed=True)["value"].quantile(
            np.array([0.025, 0.5, 0.975])
        )
        for cohort, cohort_ in (("paper", paper), ("clinical", clinical))
    }
    for name, real in TARGETS["series"].items():
        if "median" not in real:
            continue
        found = values["paper" if name in MIXED else "clinical"][name]
        for key, share in (("low", 0.025), ("median", 0.5), ("high", 0.975)):
            tolerance = 0.1 * (real["high"] - real["low"])
            yield Figure(f"{key}: {name}", real[key], float(found[share]), tolerance)


def _tokens(cohort: Cohort) -> Iterator[Figure]:
    records = encode(Tokenizer.fit(cohort), cohort)
    real = TARGETS["record_tokens"]
    yield _relative("tokens: mean", real["mean"], records.lengths.mean(), 0.15)
    for length, share in real["fit"].items():
        fit = float((records.lengths <= int(length)).mean())
        yield _relative(f"tokens: fit in {length}", share, fit, 0.15)


def _codes(raw_dir: Path) -> Iterator[Figure]:
    admissions = _rows(raw_dir, "ADMISSIONS")
    for table in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
        rows = duckdb.execute(
            f"SELECT ICD9_CODE, count(DISTINCT HADM_ID) FROM '{raw_dir / table}.parquet' GROUP BY 1"
        ).fetchall()
        counts = dict(rows)
        for code, real in TARGETS["codes"][table].items():
            yield _relative(f"{table} {code}", real, counts.get(code, 0) / admissions, 0.25)


def _rows(raw_dir: Path, table: str) -> int:
    found = duckdb.execute(f"SELECT count(*) FROM '{raw_dir / table}.parquet'").fetchone()
    assert found is not None
    return int(found[0])


def features(cohort: Cohort, hours: float = 48.0) -> pd.DataFrame:
    """Per stay: age, sex, and of each series the number of values and their mean, lowest, highest
    and last in the first hours; levels count as their place in the list of levels."""
    levels = {
        (v.name, level): float(i)
        for v in cohort.schema.variables_of("categorical")
        for i, level in enumerate(v.levels)
    }
    rows = cohort.measurements[cohort.measurements["hours"] <= hours]
    coded = pd.Series(
        [
            levels.get((v, level), np.nan)
            for v, level in zip(rows["variable"], rows["level"], strict=True)
        ],
        index=rows.index,
    )
    rows = rows.assign(value=rows["value"].fillna(coded))
    grouped = rows.groupby(["stay_id", "variable"], observed=True)["value"]
    facts = [grouped.agg(what).unstack() for what in ("count", "mean", "min", "max", "last")]
    stays = cohort.stays.set_index("stay_id")
    wide = pd.concat(facts, axis=1).reindex(stays.index)
    wide.columns = pd.Index([f"f{i}" for i in range(wide.shape[1])])
    return wide.assign(age=stays["age"], male=(stays["gender"] == "M").astype(int))


def auroc(inputs: pd.DataFrame, label: NDArray[np.int_], groups: NDArray[np.int64]) -> float:
    """Cross-validated AUROC of LightGBM, patients kept together."""
    from lightgbm import LGBMClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    predicted = np.zeros(len(label))
    for train, test in GroupKFold(3).split(inputs, label, groups):
        model = LGBMClassifier(
            n_estimators=80, learning_rate=0.06, num_leaves=12, min_child_samples=25,
            colsample_bytree=0.4, subsample=0.8, subsample_freq=1, verbose=-1, random_state=0,
            n_jobs=2,
        )  # fmt: skip
        model.fit(inputs.iloc[train], label[train])
        predicted[test] = np.asarray(model.predict_proba(inputs.iloc[test]))[:, 1]
    return float(roc_auc_score(label, predicted))


def predictability(cohort: Cohort) -> dict[str, float]:
    """AUROC of each label from the first 48 hours."""
    inputs = features(cohort)
    groups = cohort.stays["subject_id"].to_numpy()
    return {
        label.column: auroc(inputs, cohort.stays[label.column].to_numpy(), groups)
        for label in cohort.schema.labels
    }


def scale_table(n_blocks: int, seed: int = 12345) -> dict[str, tuple[float, float, float]]:
    """Median and the spreads below and above it, of each series' number over all measurements of
    adults in a unit."""
    found: dict[str, list[NDArray[np.floating]]] = {name: [] for name in SERIES}
    codebook = load_codebook()
    for block in range(n_blocks):
        people = draw_people(generator(seed, block, 0), block, BLOCK, codebook)
        course = draw_course(generator(seed, block, 3), people, codebook)
        chart = draw_chart(generator(seed, block, 4), people, course)
        rng = generator(seed, block, 5)
        adult = ~people.young[people.patient[people.admission]][chart.stay[chart.point]]
        usable = adult & (chart.place[chart.point] == IN_UNIT)
        for name, series in SERIES.items():
            measured = {"Consciousness": "Glasgow total"}.get(name, name)
            cells = usable & (chart.series == MEASURED.index(measured))
            z = course.level[SERIES_ROW[name], chart.hour[chart.point[cells]]]
            found[name].append(z + series.noise * rng.standard_normal(len(z)))
    table = {}
    for name, parts in found.items():
        low, middle, high = np.quantile(np.concatenate(parts), [0.025, 0.5, 0.975])
        below, above = (middle - low) / WIDTH, (high - middle) / WIDTH
        table[name] = (round(float(middle), 3), round(float(below), 3), round(float(above), 3))
    return table


def main() -> None:
    """Parse the command line, measure, print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-patients", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scale", action="store_true", help="print the table of scale.py")
    options = parser.parse_args()
    if options.scale:
        for name, numbers in scale_table(-(-options.n_patients // BLOCK)).items():
            print(f'    "{name}": {numbers},')
        return
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), options.n_patients, options.seed, options.processes)


def report(folder: Path, n_patients: int, seed: int, processes: int) -> None:
    """Simulate, extract, print."""
    speed: dict[str, float] = {}
    for file_format in ("csv.gz", "parquet"):
        begin = time.perf_counter()
        summary = simulate(
            folder / "raw", n_patients=n_patients, seed=seed, file_format=file_format,
            processes=processes, progress=False,
        )  # fmt: skip
        speed[file_format] = summary.event_rows / (time.perf_counter() - begin)
    cohorts = {}
    for profile in ("paper", "clinical"):
        extract(folder / "raw", folder / profile, profile=profile, progress=False)
        cohorts[profile] = read_cohort(folder / profile)
    table = list(figures(cohorts["paper"], cohorts["clinical"], folder / "raw"))
    print(f"{'figure':<50}{'real':>12}{'simulated':>12}")
    for figure in table:
        mark = "" if figure.fits else "   <- off"
        print(f"{figure.name:<50}{figure.real:>12.4g}{figure.simulated:>12.4g}{mark}")
    scores = predictability(cohorts["paper"])
    mortality = scores.pop("in_hospital_mortality")
    macro = float(np.mean(list(scores.values())))
    print(f"AUROC of in-hospital mortality {mortality:.3f}; phenotypes, macro {macro:.3f}:")
    print("  " + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()))
    for file_format, rate in speed.items():
        print(f"{rate:,.0f} event rows per second into {file_format}, {processes} processes")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line: dict[str, Any] = {
        "benchmark": "simulator",
        "n_patients": n_patients,
        "event_rows": summary.event_rows,
        "rows_per_second": {k: round(v) for k, v in speed.items()},
        "auroc_mortality": round(mortality, 4),
        "auroc_phenotypes": round(macro, 4),
        "figures": len(table),
        "off": [asdict(f) for f in table if not f.fits],
        "peak_gib_of_all_steps": round(peak, 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
