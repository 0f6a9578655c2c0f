"""From a configuration to a fitted baseline and its patients on disk."""

import time
from collections.abc import Callable, Sequence
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
    kind = known[config.name]
    # Settings are checked before anything is read.
    kind(**config.method)
    models, out = _folders(config)
    if is_cohort(out) and not config.overwrite:
        raise UserError(
            f"{out} already holds synthetic patients. overwrite=True replaces them; "
            "run_name=<another> or paths.synthetic=<folder> writes elsewhere."
        )
    refuse_taken(out, is_cohort)
    device = pick_device(config.device)
    fitted, report = _fitted(config, kind, models, device)
    began = time.perf_counter()
    cohort = fitted.sample(config.n_samples, seed=config.seed, device=device, progress=True)
    seconds = round(time.perf_counter() - began, 2)
    made: dict[str, Any] = {
        "model": out.name,
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
        UserError: patients, or what was learnt, of the same name that were made otherwise, or
            anything else in their folders.
    """
    models, out = _folders(config)
    refuse_taken(out, is_cohort)
    if not is_cohort(out):
        refuse_taken(models, _is_fitted)
        _read_fitted(config)
        return None
    file = out / GENERATION_FILE
    noted: dict[str, Any] = read_json(file) if file.exists() else {}
    mine = _plan(config) | {"n_samples": config.n_samples}
    if differing := [key for key in mine if noted.get(key) != mine[key]]:
        # What was learnt is the same for any number of patients.
        which = [out] if differing == ["n_samples"] else [models, out]
        raise _other(f"{out} holds patients that were made", which)
    return noted


def refuse_taken(folder: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse a folder with anything else in it at once, and not after the work that it is for."""
    taken = any(folder.iterdir()) if folder.is_dir() else folder.exists()
    if taken and not is_ours(folder):
        raise UserError(
            f"{folder} already exists and was not written by this program, so it is not replaced. "
            "Choose another run_name, or remove it."
        )


def _is_fitted(folder: Path) -> bool:
    return (folder / BASELINE_FILE).exists()


def _folders(config: BaselineConfig) -> tuple[Path, Path]:
    """Of what is learnt, and of the patients."""
    name = config.run_name or config.name
    return Path(config.paths.saved_models) / name, Path(config.paths.synthetic) / name


def _plan(config: BaselineConfig) -> dict[str, Any]:
    """All that a fit depends on."""
    return {
        "baseline": config.name,
        "settings": asdict(baselines()[config.name](**config.method).settings),
        "seed": config.seed,
        "cohort": hash_of(Path(config.data.path)),
    }


def _read_fitted(config: BaselineConfig) -> dict[str, Any] | None:
    """What is noted of a fit with these settings before; None without any.

    Raises:
        UserError: a fit of the same name that was made otherwise.
    """
    folder = _folders(config)[0]
    if not _is_fitted(folder):
        return None
    noted: dict[str, Any] = read_json(folder / BASELINE_FILE)
    if noted["plan"] != _plan(config):
        raise _other(f"{folder} holds {noted['plan']['baseline']}, fitted", _folders(config))
    return noted


def _other(what: str, folders: Sequence[Path]) -> UserError:
    """The refusal of something that was made otherwise; what it says is right for both commands."""
    return UserError(
        f"{what} with other settings or from another cohort. Remove "
        f"{' and '.join(map(str, folders))}, or choose another run_name."
    )


def _fitted(
    config: BaselineConfig, kind: type[Baseline], folder: Path, device: torch.device
) -> tuple[Baseline, dict[str, Any]]:
    """The baseline as it was fitted before with the same settings on the same cohort, or anew."""
    path, plan = Path(config.data.path), _plan(config)
    before = None if config.overwrite else _read_fitted(config)
    if before is not None:
        return kind.load(folder / LEARNT_FOLDER, **config.method), before
    cohort = read_cohort(path)
    train = cohort.select(split="train")
    if not train.n_patients:
        raise UserError(f"{path} has no patients in its train split to learn from.")
    baseline = kind(**config.method)
    with new_folder(folder, _is_fitted) as aside:
        began = time.perf_counter()
        val = cohort.select(split="val")
        baseline.fit(train, val, seed=config.seed, device=device, progress=True)
        noted: dict[str, Any] = {
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
