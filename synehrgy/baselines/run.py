"""From a configuration to a fitted baseline and its patients on disk."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from synehrgy.baselines import Baseline, baselines
from synehrgy.cohort import CohortWriter, hash_of, is_cohort, read_cohort
from synehrgy.cohort.futures import GENERATION_FILE
from synehrgy.device import pick_device
from synehrgy.errors import UserError, nearest
from synehrgy.files import new_folder, read_json, write_json
from synehrgy.provenance import now, versions
from synehrgy.settings import BaselineConfig

BASELINE_FILE, CONFIG_FILE, LEARNT_FOLDER = "baseline.json", "config.yaml", "learnt"


def run_baseline(config: BaselineConfig) -> Path:
    """Fit a baseline, unless that is done, and write its patients as a cohort.

    Writes ``<paths.saved_models>/<run_name>/`` (what was learnt, ``config.yaml`` and
    ``baseline.json``) and ``<paths.synthetic>/<run_name>/`` (the cohort, and ``generation.json``),
    each whole or not at all.

    Returns:
        The folder of the cohort.

    Raises:
        UserError: an unknown baseline or setting, or a folder that holds something else.
    """
    known = baselines()
    if config.name not in known:
        raise UserError(
            f"There is no baseline {config.name!r}.{nearest(config.name, list(known))} "
            f"There are: {', '.join(known)}."
        )
    kind, name = known[config.name], config.run_name or config.name
    # Settings are checked before anything is read.
    kind(**config.method)
    out = Path(config.paths.synthetic) / name
    if is_cohort(out) and not config.overwrite:
        raise UserError(
            f"{out} already holds synthetic patients. overwrite=True replaces them; "
            "run_name=<another> or paths.synthetic=<folder> writes elsewhere."
        )
    device = pick_device(config.device)
    fitted, report = _fitted(config, kind, Path(config.paths.saved_models) / name, device)
    began = time.perf_counter()
    cohort = fitted.sample(config.n_samples, seed=config.seed, device=device, progress=True)
    seconds = round(time.perf_counter() - began, 2)
    made: dict[str, Any] = {
        "model": name,
        "baseline": config.name,
        "covers": sorted(kind.covers),
        "cohort": report["plan"]["cohort"],
        "settings": report["plan"]["settings"],
        "n_samples": config.n_samples,
        "config": asdict(config),
        "seed": config.seed,
        "versions": versions(),
    }

    def complete(aside: Path) -> None:
        times = {"started": now(), "device": str(device), "seconds": seconds}
        times |= {"seconds_to_fit": report["seconds"], "records": cohort.n_patients}
        write_json(aside / GENERATION_FILE, made | times)

    schema = replace(cohort.schema, name=out.name, source=config.name)
    with CohortWriter(out, schema, made, complete) as writer:
        writer.write(cohort.stays, cohort.codes, cohort.measurements)
    return out


def read_made(config: BaselineConfig) -> dict[str, Any] | None:
    """What is noted of patients that were made with these settings before; None without any.

    Raises:
        UserError: patients of the same name that were made otherwise.
    """
    out = Path(config.paths.synthetic) / (config.run_name or config.name)
    if not is_cohort(out):
        return None
    file = out / GENERATION_FILE
    noted: dict[str, Any] = read_json(file) if file.exists() else {}
    mine = {
        "baseline": config.name,
        "settings": asdict(baselines()[config.name](**config.method).settings),
        "n_samples": config.n_samples,
        "seed": config.seed,
        "cohort": hash_of(Path(config.data.path)),
    }
    if {key: noted.get(key) for key in mine} != mine:
        raise UserError(
            f"{out} holds patients that were made with other settings or of another cohort. Remove "
            "it, or choose another run_name."
        )
    return noted


def _fitted(
    config: BaselineConfig, kind: type[Baseline], folder: Path, device: torch.device
) -> tuple[Baseline, dict[str, Any]]:
    """The baseline as it was fitted before with the same settings on the same cohort, or anew."""
    path = Path(config.data.path)
    plan = {
        "baseline": config.name,
        "settings": asdict(kind(**config.method).settings),
        "seed": config.seed,
        "cohort": hash_of(path),
    }
    if (folder / BASELINE_FILE).exists() and not config.overwrite:
        noted = read_json(folder / BASELINE_FILE)
        if noted["plan"] != plan:
            raise UserError(
                f"{folder} holds {noted['plan']['baseline']} fitted with other settings or on "
                "another cohort. Remove it, replace it with overwrite=True, or choose another "
                "run_name."
            )
        return kind.load(folder / LEARNT_FOLDER, **config.method), noted
    cohort = read_cohort(path)
    train = cohort.select(split="train")
    if not train.n_patients:
        raise UserError(f"{path} has no patients in its train split to learn from.")
    baseline = kind(**config.method)
    with new_folder(folder, lambda path: (path / BASELINE_FILE).exists()) as aside:
        began = time.perf_counter()
        val = cohort.select(split="val")
        baseline.fit(train, val, seed=config.seed, device=device, progress=True)
        noted = {
            "plan": plan,
            "title": kind.title,
            "source": kind.source,
            "covers": sorted(kind.covers),
            "settings": asdict(baseline.settings),
            "patients": train.n_patients,
            "made": now(),
            "seconds": round(time.perf_counter() - began, 2),
            "device": str(device),
            "versions": versions(),
        }
        (aside / LEARNT_FOLDER).mkdir()
        baseline.save(aside / LEARNT_FOLDER)
        OmegaConf.save(OmegaConf.structured(config), aside / CONFIG_FILE)
        write_json(aside / BASELINE_FILE, noted)
    return baseline, noted
