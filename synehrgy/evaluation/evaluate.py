"""Two cohorts, or real stays and their futures, to a folder of results."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from synehrgy.cohort import Cohort, is_cohort, read_cohort
from synehrgy.cohort.futures import GENERATION_FILE, has_futures, read_questions
from synehrgy.errors import UserError
from synehrgy.evaluation import fidelity
from synehrgy.evaluation.forecast import ForecastScores, score_forecasts
from synehrgy.evaluation.forecast_report import forecast_summary, write_forecast_report
from synehrgy.evaluation.report import number, write_report
from synehrgy.evaluation.validity import broken_rules
from synehrgy.files import new_folder, read_json, read_yaml, write_json
from synehrgy.provenance import now, versions
from synehrgy.settings import EvaluateConfig

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"
TABLES_FOLDER = "tables"


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        real, synthetic: names of the cohorts.
        split: of the real cohort.
        tables: by name; each has columns for real and synthetic.
        metrics: single figures, None where one is not defined.
    """

    real: str
    synthetic: str
    split: str
    tables: dict[str, pd.DataFrame]
    metrics: dict[str, float | None]


def compare(real: Cohort, synthetic: Cohort, split: str = "all") -> Evaluation:
    """Compare two cohorts of the same schema.

    Args:
        real, synthetic: the cohorts; of the real one, just the patients to compare with.
        split: what to call these patients in the report.

    Raises:
        UserError: cohorts with other columns, or an empty one.
    """
    fidelity.check_same_schema(real, synthetic)
    for cohort in (real, synthetic):
        if not len(cohort.stays):
            raise UserError(f"Cohort {cohort.schema.name!r} has no stay to compare.")
    prevalence = fidelity.code_prevalence(real, synthetic)
    metrics = {f"code_prevalence_r/{k}": v for k, v in fidelity.correlation(prevalence).items()}
    for system in real.schema.code_systems:
        r = fidelity.correlation(prevalence[prevalence["system"] == system.name])["union"]
        metrics[f"code_prevalence_r/{system.name}"] = r
    tables = {
        "counts": fidelity.counts(real, synthetic),
        "labels": fidelity.labels(real, synthetic),
        "codes": prevalence,
        "series": fidelity.series(real, synthetic),
        "levels": fidelity.levels(real, synthetic),
        "validity": broken_rules(real, synthetic),
    }
    return Evaluation(real.schema.name, synthetic.schema.name, split, tables, metrics)


def with_oracle(found: Evaluation, ceiling: Evaluation) -> Evaluation:
    """Add to each table, and to the metrics, what fresh patients of the same distribution reach.

    Args:
        found: a synthetic cohort against a real one.
        ceiling: fresh patients (as the synthetic cohort) against the same real one.

    Returns:
        ``found`` with columns and metrics named ``oracle``.
    """
    tables = {}
    for name, table in found.tables.items():
        other = ceiling.tables[name]
        ours = [str(column) for column in other if str(column).endswith("synthetic")]
        if name == "codes":
            added = other.rename(columns={"synthetic": "oracle"}).drop(columns="real")
            tables[name] = table.merge(added, on=["system", "code"], how="outer")
        else:
            # Of the same schema, and so row by row about the same.
            added = other[ours].rename(columns=lambda c: c.replace("synthetic", "oracle"))
            tables[name] = pd.concat([table, added], axis=1)
    # A code that only one of the synthetic cohorts has is missing in the others.
    counted = tables["codes"].columns.drop(["system", "code"])
    tables["codes"][counted] = tables["codes"][counted].fillna(0.0)
    tables["codes"] = tables["codes"].sort_values("real", ascending=False, ignore_index=True)
    metrics = found.metrics | {f"oracle/{k}": v for k, v in ceiling.metrics.items()}
    return replace(found, tables=tables, metrics=metrics)


def evaluate(config: EvaluateConfig) -> tuple[Path, Evaluation | ForecastScores]:
    """Compare the synthetic cohort of a run, or any cohort, with a real one.

    Futures of real stays are scored against what became of these stays. Writes
    ``<paths.results>/<run>/``: metrics.json, the tables as CSV and report.html.

    Returns:
        The folder of the results, and what was found.

    Raises:
        UserError: neither ``model=`` nor ``synthetic=``, or a cohort that is not there.
    """
    synthetic_path, real_path, name = _which_cohorts(config)
    found: Evaluation | ForecastScores
    if has_futures(synthetic_path):
        found = _score(config, synthetic_path, real_path)
    else:
        found = _compare(config, synthetic_path, real_path)
    out = Path(config.paths.results) / name
    with new_folder(out, lambda path: (path / METRICS_FILE).exists()) as folder:
        (folder / TABLES_FOLDER).mkdir()
        for table, rows in found.tables.items():
            rows.to_csv(folder / TABLES_FOLDER / f"{table}.csv", index=False)
        if isinstance(found, ForecastScores):
            write_forecast_report(folder / REPORT_FILE, found)
        else:
            write_report(folder / REPORT_FILE, found)
        write_json(folder / METRICS_FILE, _as_json(config, found, synthetic_path, real_path))
    return out, found


def _compare(config: EvaluateConfig, synthetic_path: Path, real_path: Path) -> Evaluation:
    synthetic, real = read_cohort(synthetic_path), read_cohort(real_path)
    split = "all"
    if real.stays["split"].notna().any():
        split, real = config.split, _of_split(real, config.split)
    found = compare(real, synthetic, split)
    if config.oracle is not None:
        found = with_oracle(found, compare(real, read_cohort(Path(config.oracle)), split))
    return found


def _score(config: EvaluateConfig, futures_path: Path, real_path: Path) -> ForecastScores:
    if config.oracle is not None:
        raise UserError(
            f"{futures_path} holds futures of real stays, which are scored against these stays: "
            "leave oracle= out."
        )
    questions = read_questions(futures_path)
    return score_forecasts(read_cohort(real_path), read_cohort(futures_path), questions)


def summary(found: Evaluation | ForecastScores) -> str:
    """The results as text for a terminal."""
    if isinstance(found, ForecastScores):
        return forecast_summary(found)
    lines = [f"{found.synthetic} (synthetic) against {found.real}, {found.split} (real)"]
    for name in ("counts", "labels", "series", "validity"):
        text = found.tables[name].to_string(index=False, float_format=number)
        lines += ["", text]
    lines += [""]
    for metric, value in found.metrics.items():
        lines.append(f"{metric} = {'not defined' if value is None else f'{value:.3f}'}")
    return "\n".join(lines)


def _of_split(real: Cohort, split: str) -> Cohort:
    chosen = real.select(split=split)
    if not len(chosen.stays):
        counts = real.stays["split"].value_counts()
        raise UserError(
            f"Cohort {real.schema.name!r} has no stay in split {split!r}; it has "
            f"{', '.join(f'{name} ({n})' for name, n in counts.items())}. Give split=..."
        )
    return chosen


def _which_cohorts(config: EvaluateConfig) -> tuple[Path, Path, str]:
    if (config.run_name is None) == (config.synthetic is None):
        raise UserError("Give either model=<run> or synthetic=<folder of a cohort>.")
    if config.run_name is not None:
        synthetic, name = Path(config.paths.synthetic) / config.run_name, config.run_name
        if not is_cohort(synthetic):
            raise UserError(
                f"{synthetic} holds no synthetic patients. Run first: python generate.py "
                f"model={name}"
            )
    else:
        synthetic = Path(str(config.synthetic))
        name = synthetic.resolve().name
    if config.real is not None:
        return synthetic, Path(config.real), name
    if has_futures(synthetic):
        return synthetic, _continued(synthetic), name
    trained = Path(config.paths.saved_models) / name / "config.yaml"
    if config.run_name is None or not trained.exists():
        raise UserError("real=<folder of the real cohort> is needed to compare with.")
    return synthetic, Path(read_yaml(trained)["data"]["path"]), name


def _continued(futures: Path) -> Path:
    """The real cohort whose stays the futures continue, as was noted when they were generated."""
    file = futures / GENERATION_FILE
    noted = read_json(file).get("real") if file.exists() else None
    if noted is None:
        raise UserError(
            f"{futures} holds futures of real stays, but does not say of which cohort. Give "
            "real=<folder of the real cohort>."
        )
    if not is_cohort(Path(noted)):
        raise UserError(
            f"{futures} continues stays of {noted}, where there is no cohort any more. Give "
            "real=<folder of the real cohort>."
        )
    return Path(noted)


def _as_json(
    config: EvaluateConfig, found: Evaluation | ForecastScores, synthetic: Path, real: Path
) -> dict[str, Any]:
    tables = {name: rows for name, rows in found.tables.items() if name != "codes"}
    return {
        "config": asdict(config),
        "made": now(),
        "versions": versions(),
        "synthetic": str(synthetic),
        "real": str(real),
        "split": found.split,
        "metrics": found.metrics,
        # The detour through pandas turns numpy's numbers and NaN into JSON's.
        "tables": {n: json.loads(rows.to_json(orient="records")) for n, rows in tables.items()},
    }
