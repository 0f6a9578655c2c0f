"""The evaluation as a command: two cohorts, or real stays and their futures, to a folder."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synehrgy.cohort import is_cohort, read_cohort
from synehrgy.cohort.futures import GENERATION_FILE, has_futures, read_questions
from synehrgy.errors import UserError
from synehrgy.evaluation.api import evaluate
from synehrgy.evaluation.compare import Evaluation
from synehrgy.evaluation.forecast import ForecastScores, score_forecasts
from synehrgy.evaluation.forecast_report import forecast_summary, write_forecast_report
from synehrgy.evaluation.metric import GROUPS
from synehrgy.evaluation.report import REPORT_FILE, TABLES_FOLDER, write_report
from synehrgy.files import new_folder, read_json, read_yaml, write_json
from synehrgy.provenance import now, versions
from synehrgy.settings import EvaluateConfig
from synehrgy.training.checkpoint import MODEL_FILE, RUN_FILE, trained_on

METRICS_FILE = "metrics.json"


def evaluate_run(config: EvaluateConfig) -> tuple[Path, Evaluation | ForecastScores]:
    """Compare the synthetic cohort of a run, or any cohort, with a real one.

    Futures of real stays are scored against what became of these stays. Writes
    ``<paths.results>/<run>/``: metrics.json, the tables and figures, and report.html. With
    ``metrics=`` the name of the folder has these, too. Metrics that are finished are kept beside it
    until then, so that an interrupted evaluation goes on.

    Returns:
        The folder of the results, and what was found.

    Raises:
        UserError: neither ``model=`` nor ``synthetic=``, or a cohort that is not there.
    """
    synthetic_path, real_path, name = _which_cohorts(config)
    if config.metrics and not has_futures(synthetic_path):
        # A part is no replacement for a whole evaluation.
        name = f"{name}-{'-'.join(config.metrics)}"
    out = Path(config.paths.results) / name
    kept = out.parent / f".{name}.parts"
    found: Evaluation | ForecastScores
    if has_futures(synthetic_path):
        found = _score(config, synthetic_path, real_path)
    else:
        found = _compare(config, synthetic_path, real_path, kept)
    with new_folder(out, lambda path: (path / METRICS_FILE).exists()) as folder:
        if isinstance(found, ForecastScores):
            (folder / TABLES_FOLDER).mkdir()
            for table, rows in found.tables.items():
                rows.to_csv(folder / TABLES_FOLDER / f"{table}.csv", index=False)
            write_forecast_report(folder / REPORT_FILE, found)
        else:
            facts = {"preset": config.preset, "seed": str(config.seed), **versions()}
            write_report(folder, found, made=now(), facts=facts)
        write_json(folder / METRICS_FILE, _as_json(config, found, synthetic_path, real_path))
    shutil.rmtree(kept, ignore_errors=True)
    return out, found


def _compare(config: EvaluateConfig, synthetic: Path, real: Path, kept: Path) -> Evaluation:
    run = None if config.run_name is None else Path(config.paths.saved_models) / config.run_name
    file = synthetic / GENERATION_FILE
    covers = read_json(file).get("covers") if file.exists() else None
    # Who generates first stays only is compared with first stays.
    later = covers is None or "stays" in covers
    oracle = None if config.oracle is None else read_cohort(Path(config.oracle))
    return evaluate(
        read_cohort(real).part(stays=later),
        synthetic,
        oracle=None if oracle is None else oracle.part(stays=later),
        run=run if run is not None and (run / MODEL_FILE).exists() else None,
        preset=config.preset,
        metrics=config.metrics,
        split=config.split,
        max_patients=config.max_patients,
        seed=config.seed,
        show_real=config.show_real,
        keep=kept,
    )


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
    lines = [f"{found.synthetic} (synthetic) against {found.real} (real)"]
    table = found.summary()
    for group, title in GROUPS.items():
        mine = table[table["group"] == group]
        if mine.empty:
            continue
        counts = mine["light"].value_counts()
        lights = ", ".join(f"{counts.get(light, 0)} {light}" for light in ("good", "fair", "poor"))
        lines += ["", f"{title}: {lights}"]
        shown = mine.drop(columns="group").dropna(axis="columns", how="all")
        lines.append(shown.to_string(index=False, na_rep="", float_format="{:.3g}".format))
    for metric, why in found.skipped.items():
        lines.append(f"Left out: {metric}, because {why}.")
    return "\n".join(lines)


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
        _expect_cohort(synthetic, "synthetic")
    if config.oracle is not None:
        _expect_cohort(Path(config.oracle), "oracle")
    if config.real is not None:
        return synthetic, _expect_cohort(Path(config.real), "real"), name
    if has_futures(synthetic):
        return synthetic, _continued(synthetic), name
    trained = Path(config.paths.saved_models) / name / "config.yaml"
    if config.run_name is None or not trained.exists():
        raise UserError("real=<folder of the real cohort> is needed to compare with.")
    noted = read_yaml(trained)
    real = Path(noted["data"]["path"])
    if not is_cohort(real):
        raise UserError(
            f"{name} was trained on {real}, where there is no cohort any more. Give "
            "real=<folder of the real cohort>."
        )
    # Baselines note what they were fitted on in their own way.
    if (trained.parent / RUN_FILE).exists() and trained_on(trained.parent, noted) is None:
        raise UserError(
            f"{real} holds another cohort than the one that {name} was trained on. "
            f"real={real} compares with it all the same."
        )
    return synthetic, real, name


def _expect_cohort(path: Path, key: str) -> Path:
    """Refuse a folder that a setting names but that holds no cohort."""
    if not is_cohort(path):
        raise UserError(f"{path} is not a cohort. Give {key}=<folder of a cohort>.")
    return path


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
    noted: dict[str, Any] = {
        "config": asdict(config),
        "made": now(),
        "versions": versions(),
        "synthetic": str(synthetic),
        "real": str(real),
    }

    # The detour through pandas turns numpy's numbers and NaN into JSON's.
    def plain(table: Any) -> Any:
        return json.loads(table.to_json(orient="records"))

    if isinstance(found, ForecastScores):
        tables = {name: plain(rows) for name, rows in found.tables.items()}
        return noted | {"split": found.split, "metrics": found.metrics, "tables": tables}
    return noted | {
        "patients": found.patients,
        "scores": plain(found.scores),
        "skipped": found.skipped,
        "seconds": found.seconds,
    }
