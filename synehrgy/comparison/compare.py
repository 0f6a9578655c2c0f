"""All generators on one cohort: fitted, sampled and judged, each once."""

import json
import math
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from synehrgy.baselines import CODES, PARTS, SERIES, STAYS, baselines
from synehrgy.baselines.run import read_made, refuse_taken, run_baseline
from synehrgy.cohort import Cohort, hash_of, is_cohort, read_cohort, read_schema
from synehrgy.cohort.futures import GENERATION_FILE
from synehrgy.comparison.figure import draw
from synehrgy.comparison.generated import Generated
from synehrgy.comparison.table import table_of, write_tables
from synehrgy.errors import UserError, nearest
from synehrgy.evaluation.api import chosen_metrics, evaluate
from synehrgy.evaluation.compare import code_hash
from synehrgy.evaluation.metric import ROWS, SYNTHETIC
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.rows import as_covered, check_same_schema
from synehrgy.files import new_folder, read_json, write_json
from synehrgy.provenance import now, versions
from synehrgy.settings import BaselineConfig, ComparisonConfig, PreprocessSettings
from synehrgy.sources import make_cohort, refuse_other_simulation, simulated_cohort

COMPARISON_FILE, SCORES_FILE, TABLES_FOLDER = "comparison.json", "scores.csv", "tables"

# Patients to simulate for each that is wanted: some are no intensive-care patients.
_SIMULATED_PER_PATIENT = 1 / 0.65
# Between the seeds of the cohort and of the oracle.
_OTHER_SEED = 1_000_003


def run_comparison(config: ComparisonConfig) -> Path:
    """Fit, sample and judge every generator, and write the table.

    Writes ``<paths.results>/<run_name>/``: the table (``comparison.md``, ``.csv``, ``.tex``), its
    figure (PNG, SVG), ``scores.csv`` with every score of every generator, ``comparison.json``, and
    ``<name>/`` with the tables that lie behind the scores of each, as Parquet.
    What is finished is kept, so that the same command goes on from there, and one with more
    generators does not fit and sample the others again.

    Returns:
        The folder of the results.

    Raises:
        UserError: an unknown generator, a cohort that is not there or has other columns, or a
            folder that holds something else. Nothing is fitted then.
    """
    names = list(dict.fromkeys(config.names)) or list(baselines())
    for name in names:
        if name not in baselines():
            raise UserError(
                f"There is no generator {name!r}.{nearest(name, list(baselines()))} "
                f"There are: {', '.join(baselines())}."
            )
    unknown = sorted(set(config.methods) - set(names))
    if unknown:
        raise UserError(f"methods has settings of {unknown[0]!r}, which is not compared.")
    # Mistakes are found before anything is fitted: here those for which no data are needed.
    for name in names:
        baselines()[name](**config.methods.get(name, {}))
    chosen_metrics(config.preset, config.metrics)
    others = [_outside(name, folder) for name, folder in config.others.items()]
    out = Path(config.paths.results) / config.run_name
    refuse_taken(out, _is_comparison)
    if config.oracle is not None:
        read_schema(Path(config.oracle))
    path = Path(config.data.path)
    if config.data.source == "simulated":
        if is_cohort(path):
            refuse_other_simulation(config.data)
        else:
            make_cohort(config.data, PreprocessSettings(profile=config.profile))
    real = read_cohort(path)
    n_train, n_test = (real.select(split=split).n_patients for split in ("train", "test"))
    n = config.n_samples or n_train
    profile = real.provenance.get("config", {}).get("profile")
    print(
        f"{path}: {real.n_patients:,} patients{f' (profile {profile})' if profile else ''}, "
        f"{n_train:,} of them to learn from"
    )
    if not n_train or not n_test:
        raise UserError(
            f"{path} has {n_train:,} patients in its train split and {n_test:,} in its test split; "
            "a comparison needs both."
        )
    for one in others:
        _check_other(one, real, n)
    planned = [_planned(config, name, n) for name in names]
    for mine in planned:
        read_made(mine)
    oracle = _oracle(config, real, n)
    made = [_made(mine) for mine in planned] + others
    scores = _judged(config, real, oracle, made, n)
    with new_folder(out, _is_comparison) as folder:
        scores.to_csv(folder / SCORES_FILE, index=False)
        for one in made:
            shutil.copytree(_kept(config) / one.name / TABLES_FOLDER, folder / one.name)
        table = table_of(scores, made)
        write_tables(folder, table)
        draw(folder, table)
        noted = {
            "config": asdict(config),
            "made": now(),
            "versions": versions(),
            "patients": {"train": n_train, "generated": n, "all": real.n_patients},
            "generators": [
                {**asdict(one), "folder": str(one.folder), "covers": sorted(one.covers)}
                for one in made
            ],
        }
        # NaN is no number in JSON.
        write_json(folder / COMPARISON_FILE, json.loads(pd.Series(noted).to_json()))
    return out


def _is_comparison(folder: Path) -> bool:
    return (folder / COMPARISON_FILE).exists()


def _planned(config: ComparisonConfig, name: str, n: int) -> BaselineConfig:
    """How a generator of ours is fitted and sampled."""
    return BaselineConfig(
        name=name,
        run_name=f"{config.run_name}-{name}",
        n_samples=n,
        method=dict(config.methods.get(name, {})),
        seed=config.seed,
        device=config.device,
        data=config.data,
        paths=config.paths,
    )


def _made(mine: BaselineConfig) -> Generated:
    """A generator of ours, fitted and sampled unless that is done."""
    folder, kind = Path(mine.paths.synthetic) / str(mine.run_name), baselines()[mine.name]
    made = read_made(mine)
    print(f"{mine.name}: {'fit and sample' if made is None else 'as it was made before'}")
    if made is None:
        run_baseline(mine)
        made = read_json(folder / GENERATION_FILE)
    return Generated(
        mine.name,
        _title(kind.title, kind.covers),
        folder,
        kind.covers,
        kind.competes,
        made["seconds_to_fit"],
        made["seconds"] / made["records"] * 1000,
    )


def _outside(name: str, place: Any) -> Generated:
    """Patients of a generator that is none of ours, as a cohort; covers what they have."""
    taken = {kind.title.lower() for kind in baselines().values()} | set(baselines())
    if name.lower() in taken:
        raise UserError(f"others.{name}: this is the name of a generator of the toolkit.")
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"others: {name!r} is no name; it has letters, digits and . _ - + only, and begins "
            "with a letter or digit."
        )
    if not isinstance(place, str) or not place:
        raise UserError(
            f"others.{name}={place!r} is not the folder of a cohort: "
            f"'others={{{name}: /path/to/cohort}}'."
        )
    # Not pathlib's, which fails for a "~name" that is nobody's home.
    folder = Path(os.path.expanduser(place)).absolute()  # noqa: PTH111
    schema, _ = read_schema(folder)
    cohort = read_cohort(folder)
    has = {
        STAYS: bool((cohort.stays["stay_index"] > 0).any()),
        CODES: bool(schema.code_systems),
        SERIES: bool(schema.variables),
    }
    covers = frozenset(part for part in PARTS if has[part])
    return Generated(name, _title(name, covers), folder, covers)


def _title(title: str, covers: frozenset[str]) -> str:
    return title if STAYS in covers else f"{title} (first stays)"


def _check_other(other: Generated, real: Cohort, n: int) -> None:
    """Refuse patients of other columns, or fewer than the others generate."""
    cohort = read_cohort(other.folder)
    check_same_schema(as_covered(real, cohort), cohort)
    if cohort.n_patients < n:
        raise UserError(
            f"others.{other.name} has {cohort.n_patients:,} patients, the others generate {n:,}. "
            f"Give more of them, or n_samples={cohort.n_patients}."
        )
    if cohort.n_patients > n:
        print(f"others.{other.name}: {n:,} of its {cohort.n_patients:,} patients are judged")


def _oracle(config: ComparisonConfig, real: Cohort, n: int) -> Path | None:
    """Fresh patients: those that were given, or simulated ones where the real ones are.

    Raises:
        UserError: a cohort with other columns was given.
    """
    if config.oracle is not None:
        check_same_schema(real, read_cohort(Path(config.oracle)))
        return Path(config.oracle)
    if real.provenance.get("simulated") is not True:
        return None
    path, profile = Path(config.data.path), real.provenance["config"]["profile"]
    wanted = math.ceil(n * _SIMULATED_PER_PATIENT)
    seed = config.data.simulation.seed + _OTHER_SEED
    # The name says what is in it, so that no other one is taken for it.
    folder = path.with_name(f"{path.name}-oracle-{profile}-{wanted}-{seed}")
    if not is_cohort(folder):
        print("oracle: simulate fresh patients")
        simulated_cohort(folder, wanted, seed, profile)
    return folder


def _judged(
    config: ComparisonConfig, real: Cohort, oracle: Path | None, made: list[Generated], n: int
) -> pd.DataFrame:
    """Every score of every generator; of the reference rows once for each set of parts."""
    found = []
    referred: set[frozenset[str]] = set()
    for one in made:
        print(f"{one.name}: judge")
        rows = [SYNTHETIC] if one.covers in referred else list(ROWS)
        referred.add(one.covers)
        scores = _scores_of(config, real, oracle, one, n, rows)
        found.append(scores.assign(generator=one.name, covers=" ".join(sorted(one.covers))))
    return pd.concat(found, ignore_index=True)


def _scores_of(
    config: ComparisonConfig,
    real: Cohort,
    oracle: Path | None,
    one: Generated,
    n: int,
    rows: list[str],
) -> pd.DataFrame:
    """Of one generator, computed unless that is done."""
    paths = [Path(config.data.path), one.folder, *([] if oracle is None else [oracle])]
    place = _kept(config) / one.name
    file, plan_file = place / SCORES_FILE, place / "plan.json"
    plan = {
        "cohorts": [hash_of(path) for path in paths],
        "patients": n,
        "covers": sorted(one.covers),
        "effort": [config.preset, config.max_patients, config.seed, list(config.metrics)],
        "code": code_hash(),
        "versions": versions(),
    }
    # With its plan a result is complete; it may have more rows than are asked for.
    noted = read_json(plan_file) if plan_file.exists() else {}
    if set(rows) <= set(noted.pop("rows", [])) and noted == plan:
        scores = pd.read_csv(file)
        return scores[scores["row"].isin(rows)].reset_index(drop=True)
    parts = {"stays": STAYS in one.covers, "codes": CODES in one.covers}
    parts["series"] = SERIES in one.covers
    evaluation = evaluate(
        real.part(**parts),
        _read(one.folder, n, config.seed),
        oracle=None if oracle is None else _read(oracle, n, config.seed).part(**parts),
        preset=config.preset,
        metrics=config.metrics,
        max_patients=config.max_patients,
        seed=config.seed,
        rows=rows,
        keep=place.with_name(f"{one.name}.metrics"),
    )
    shutil.rmtree(place, ignore_errors=True)
    (place / TABLES_FOLDER).mkdir(parents=True)
    evaluation.scores.to_csv(file, index=False)
    for name, table in evaluation.tables.items():
        table.to_parquet(place / TABLES_FOLDER / f"{name}.parquet", index=False)
    write_json(plan_file, plan | {"rows": rows})
    return pd.read_csv(file)


def _read(folder: Path, n: int, seed: int) -> Cohort:
    """The patients of a cohort, by chance no more than are compared."""
    return Patients(read_cohort(folder)).sample(n, seed).cohort


def _kept(config: ComparisonConfig) -> Path:
    """What is finished of each generator."""
    return Path(config.paths.results) / f".{config.run_name}.parts"
