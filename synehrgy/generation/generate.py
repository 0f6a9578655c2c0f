"""From a configuration to a synthetic cohort on disk."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from synehrgy.cohort import EXPORTS, CohortWriter, check_benchmark, is_cohort
from synehrgy.cohort.futures import GENERATION_FILE
from synehrgy.device import compute_type
from synehrgy.errors import UserError
from synehrgy.files import read_json, write_json
from synehrgy.generation.conditions import Condition
from synehrgy.generation.jobs import (
    FIRST_ID,
    WEIGHTS_FILE,
    Job,
    Options,
    futures_job,
    patients_job,
    real_cohort,
)
from synehrgy.generation.parts import Parts, collect
from synehrgy.processes import World, world
from synehrgy.provenance import now, versions
from synehrgy.settings import ConditionSettings, GenerateConfig
from synehrgy.training.checkpoint import MODEL_FILE, RUN_FILE, Run, find_run, load_run

# Processes wait for the slowest, however long it takes.
_PATIENCE = timedelta(days=30)

# Settings that decide nothing about the records.
_FREE = ("batch_size", "device", "format", "overwrite", "paths")


def generate(config: GenerateConfig) -> Path:
    """Sample patients, or futures of real ones, from a trained run and write them as a cohort.

    Writes ``<paths.synthetic>/<run>/`` (of futures, ``<run>-24h/``): the tables, generation.json
    (config, seed, versions, counts, seconds) and what the settings ask for besides. When it is
    interrupted, the records so far are kept aside, and the same command goes on from them.

    With ``torchrun`` each process samples a share of the patients.

    Returns:
        The folder of the cohort.

    Raises:
        UserError: no such run, bins other than the model's, patients generated before, or a
            condition that cannot be met.
    """
    folder = find_run(Path(config.paths.saved_models), config.run_name)
    out = Path(config.paths.synthetic) / folder_name(config)
    if is_cohort(out) and not config.overwrite:
        raise UserError(
            f"{out} already holds synthetic patients. overwrite=True replaces them; "
            "paths.synthetic=<folder> writes elsewhere."
        )
    with world(config.device, _PATIENCE) as here:
        run = load_run(folder, here.device)
        _check_bins(run, config)
        _check_format(run, config)
        run.model.to(compute_type(here.device))
        started, began = now(), time.perf_counter()
        job, sources = _job(run, config)
        plan = _plan(run, config, sources)
        parts = Parts(out.with_name(f".{out.name}.parts"), plan, job.n, job.part_size)
        here.first(parts.open)
        _draw(job, parts, here)
        # All parts are there when all processes are.
        here.any(False)

        def complete(aside: Path) -> None:
            for name, table in job.tables().items():
                table.to_parquet(aside / name, index=False)
            report = {
                "config": asdict(config),
                "seed": config.seed,
                "started": started,
                "seconds": round(time.perf_counter() - began, 1),
                "device": str(here.device),
                "processes": here.size,
                "versions": versions(),
                "privacy": None if sources else _guarantee(run),
                **sources,
                **job.report(),
            }
            write_json(aside / GENERATION_FILE, report)
            if config.format in EXPORTS:
                EXPORTS[config.format](aside, aside / config.format)

        schema = replace(run.tokenizer.schema, name=out.name, source="synehrgy")
        provenance = {
            "model": config.run_name,
            "trained_on": run.tokenizer.schema.name,
            "config": asdict(config),
            "seed": config.seed,
            "versions": versions(),
        }
        here.first(lambda: _assemble(job, parts, CohortWriter(out, schema, provenance, complete)))
        if here.is_first:
            print(summary(job.report()))
    return out


def folder_name(config: GenerateConfig) -> str:
    """Name of the folder of a cohort: that of the run, and for futures the hours known."""
    if config.mode == "forecast":
        return f"{config.run_name}-{config.condition.hours:g}h"
    return config.run_name


def summary(counts: Mapping[str, Any]) -> str:
    """What was generated, and what the limits took from it, in words."""
    lines = [
        f"{counts['records']:,} patients, {counts['stays']:,} stays, {counts['tokens']:,} tokens "
        f"in {counts['segments']:,} contexts",
        f"stays with a code that contradicts their labels: {counts['codes_without_label']:,}; with "
        f"a label that none of their codes explains: {counts['label_without_codes']:,}",
    ]
    if counts["records_begun"] > counts["records"]:
        lines.append(
            f"condition: {counts['records_begun']:,} records were begun, "
            f"{counts['acceptance_rate']:.2%} fulfilled it"
        )
    if "probability" in counts:
        lines.append(f"probability of the condition under the model: {counts['probability']:.3g}")
    if "share_without_balance" in counts:
        share = counts["share_without_balance"]
        lines.append(f"balanced: the model expects {share:.2%} to have it; see {WEIGHTS_FILE}")
    if counts["records_closed_by_limit"]:
        lines.append(
            f"{counts['records_closed_by_limit']:,} records were closed by the limit of their last "
            "context (max_segments) before the model ended them: train longer, or raise the limit"
        )
    return "\n".join(lines)


def _check_bins(run: Run, config: GenerateConfig) -> None:
    bin_type = run.tokenizer.settings.bin_type
    if config.bin_type not in (None, bin_type):
        raise UserError(
            f"bin_type={config.bin_type}, but the run {config.run_name!r} was trained with "
            f"{bin_type} bins. Leave bin_type out, or train a run with "
            f"preprocess.bin_type={config.bin_type}."
        )


def _guarantee(run: Run) -> dict[str, Any] | None:
    """What the training promises of each patient, and so what is sampled from it; None: nothing."""
    file = run.path / RUN_FILE
    found: dict[str, Any] | None = read_json(file).get("privacy") if file.exists() else None
    return None if found is None or found["spoilt_by"] else found


def _check_format(run: Run, config: GenerateConfig) -> None:
    """Refuse before, not after, everything was sampled."""
    if config.format != "benchmark":
        return
    if config.mode == "forecast":
        raise UserError(
            "format=benchmark is of whole stays: futures have nothing of the hours that are known."
        )
    check_benchmark(run.tokenizer.schema, config.run_name)


def _job(run: Run, config: GenerateConfig) -> tuple[Job, dict[str, Any]]:
    """What is to be done, and which files it was taken from."""
    asked = config.condition
    options = Options.of(config, run.model.token_embedding.weight.device)
    if config.mode == "forecast":
        _refuse_conditions(config)
    else:
        _refuse_idle(config)
    sources: dict[str, Any] = {}
    if config.mode == "forecast" or config.fix_covars:
        split = asked.split or ("test" if config.mode == "forecast" else "train")
        path, real = real_cohort(run, config.data.path, split)
        sources = {"real": str(path), "split": split}
    if config.mode == "forecast":
        job = futures_job(run, options, real, asked.hours, config.n_resample, config.n_samples)
        return job, sources
    return patients_job(
        run,
        options,
        config.n_samples,
        Condition(
            **{name: getattr(asked, name) for name in Condition.__dataclass_fields__},
        ),
        table=read_table(Path(asked.table), _text_columns(run)) if asked.table else None,
        table_name=asked.table or "",
        balance=asked.balance,
        share=asked.share,
        counterfactual=asked.counterfactual,
        real=real if config.fix_covars else None,
    ), sources


def _refuse_conditions(config: GenerateConfig) -> None:
    given, default = asdict(config.condition), asdict(ConditionSettings())
    of_futures = ("hours", "split", "max_attempts")
    wrong = [f"condition.{k}" for k, v in given.items() if v != default[k] and k not in of_futures]
    wrong += ["fix_covars"] * config.fix_covars
    if wrong:
        raise UserError(
            f"mode=forecast continues real stays as they are, so {wrong[0]} has no place there. "
            "condition.hours and condition.split choose what is known, and of whom."
        )


def _refuse_idle(config: GenerateConfig) -> None:
    """Refuse what would be ignored: whoever gives it expects something of it."""
    asked, default = config.condition, ConditionSettings()
    idle = {
        "condition.hours": asked.hours != default.hours,
        "n_resample": config.n_resample != GenerateConfig.n_resample,
        "condition.split": asked.split is not None and not config.fix_covars,
        "condition.share": asked.share != default.share and asked.balance is None,
    }
    needs = {"condition.split": "fix_covars=True", "condition.share": "condition.balance"}
    for name, is_given in idle.items():
        if is_given:
            raise UserError(f"{name} has no effect without {needs.get(name, 'mode=forecast')}.")


def _text_columns(run: Run) -> list[str]:
    return [c.name for c in run.tokenizer.schema.covariates if c.kind == "categorical"]


def read_table(file: Path, text_columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table of wanted patients, CSV or Parquet.

    Args:
        file: to read.
        text_columns: that are text, though they may look like numbers.

    Raises:
        UserError: no such file, or one that is not a table.
    """
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        # A level may be called "NA" or "001".
        types = dict.fromkeys(text_columns, str)
        return pd.read_csv(file, dtype=types, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a table: {error}") from None


def _plan(run: Run, config: GenerateConfig, sources: Mapping[str, Any]) -> dict[str, Any]:
    """What decides about the records: parts of the same plan can be put together."""
    files = [run.path / MODEL_FILE]
    if config.condition.table:
        files.append(Path(config.condition.table))
    if "real" in sources:
        files += sorted(Path(sources["real"]).glob("*.parquet"))
    weight = run.model.token_embedding.weight
    settings = {name: value for name, value in asdict(config).items() if name not in _FREE}
    # More attempts may be asked for when some patients were too rare, without losing the others.
    settings["condition"].pop("max_attempts")
    return {
        "config": settings,
        "files": {str(file): hashlib.blake2b(file.read_bytes()).hexdigest() for file in files},
        "numbers": f"{weight.dtype} on {weight.device.type}",
        "versions": versions(),
    }


def _draw(job: Job, parts: Parts, here: World) -> None:
    """Sample the parts that fall to this process and are not there yet."""
    mine = [part for part in parts.numbers() if part % here.size == here.rank]
    missing = [part for part in mine if not parts.has(part)]
    patients = [patient for part in missing for patient in parts.patients(part)]
    total = sum(len(parts.patients(part)) for part in mine)
    if len(patients) < total:
        print(f"Going on: {total - len(patients):,} of {total:,} patients are there already.")
    whose = f" (process 1 of {here.size})" if here.size > 1 else ""
    with tqdm(
        total=total,
        initial=total - len(patients),
        desc=f"generating{whose}",
        unit="patient",
        disable=not here.is_first,
    ) as bar:
        try:
            for _ in collect(job.draw(patients), parts):
                bar.update()
        except KeyboardInterrupt:
            kept = sum(len(parts.patients(part)) for part in mine if parts.has(part))
            print(f"{kept:,} patients are kept: the same command goes on from them.")
            raise


def _assemble(job: Job, parts: Parts, writer: CohortWriter) -> None:
    """Decode all parts into the cohort."""
    next_stay = FIRST_ID
    with writer:
        for drawn in tqdm(parts.read(), total=len(parts.numbers()), desc="decoding", unit="part"):
            cohort = job.cohort(drawn, next_stay)
            writer.write(cohort.stays, cohort.codes, cohort.measurements)
            next_stay = int(cohort.stays["stay_id"].iloc[-1]) + 1
    parts.remove()
