"""A run as a folder for transformers, and back."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synehrgy.errors import UserError
from synehrgy.export.architectures import AHEAD, Architecture, architecture_of
from synehrgy.export.card import card_of
from synehrgy.export.check import check_export, loader_of
from synehrgy.export.facts import Facts
from synehrgy.export.words import tokenizer_config, tokenizer_json
from synehrgy.files import new_folder, read_json, read_yaml, workspace, write_json, write_text
from synehrgy.settings import DEFAULT_PATHS, GenerateConfig, check
from synehrgy.tokenizer import TOKENIZER_FILE, Tokenizer
from synehrgy.tokenizer.grammar import END, PAD, START
from synehrgy.training.checkpoint import (
    CONFIG_FILE,
    METRICS_FILE,
    MODEL_FILE,
    MODEL_SHAPE_FILE,
    RUN_FILE,
    Run,
    find_run,
    load_run,
    load_shape,
    save_model,
)

CODE_FILE = "modeling_synehrgy.py"
CARD_FILE = "README.md"
# What only this program reads, so that the folder can be turned back into a run.
OWN_FOLDER = "synehrgy"
AHEAD_FILE = "ahead.safetensors"

_FILES = {
    *(CARD_FILE, CODE_FILE, MODEL_FILE, OWN_FOLDER, "config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json"),
}

CPU = torch.device("cpu")

# Other settings of the data, and of these groups, say where somebody's files are or logs go.
_PUBLIC_DATA = ("name", "source", "simulation")
_PRIVATE = ("paths", "wandb")


def export_hf(
    run: Path,
    folder: Path,
    *,
    results: Path | None = None,
    values: bool = True,
    checked: bool = False,
    overwrite: bool = False,
) -> Facts:
    """Write a run as ``transformers`` loads it, with a model card.

    Args:
        run: the folder of a trained run.
        folder: to write, whole or not at all.
        results: the folder of evaluations, of which the one with the name of the run enters the
            card.
        values: whether the tokenizer of this program keeps the quantiles of real values inside the
            bins; without, generated values are spread evenly over their bin.
        checked: load the folder with transformers before it appears and compare its logits.
        overwrite: replace an earlier export.

    Returns:
        What is known of the run, as the card states it.

    Raises:
        UserError: no such run, a damaged one, something else in ``folder``, or, if ``checked``,
            other logits or no transformers.
    """
    _refuse_other(folder, overwrite)
    loader = loader_of() if checked else None
    run = run.resolve()
    found = load_run(find_run(run.parent, run.name), CPU)
    if not values:
        found = replace(found, tokenizer=found.tokenizer.without_values())
    architecture = architecture_of(found.model.config)
    facts = Facts.of(found, architecture, results, values)
    with new_folder(folder, replaceable=_is_export) as aside:
        write_model(aside, found, architecture)
        write_json(aside / "tokenizer.json", tokenizer_json(found.tokenizer))
        write_json(aside / "tokenizer_config.json", tokenizer_config(found.model.config.n_ctx))
        _write_own(aside / OWN_FOLDER, found)
        write_text(aside / CARD_FILE, card_of(facts))
        if loader is not None:
            check_export(aside, found, architecture, loader)
    return facts


def _is_export(folder: Path) -> bool:
    return (folder / OWN_FOLDER / MODEL_SHAPE_FILE).exists() and {
        path.name for path in folder.iterdir()
    } <= _FILES


def _refuse_other(folder: Path, overwrite: bool) -> None:
    if folder.is_dir() and _is_export(folder) and not overwrite:
        raise UserError(
            f"{folder} holds a model that was exported before. Choose another folder, or replace "
            "it, with whatever was changed in it: --overwrite."
        )


def write_model(folder: Path, run: Run, architecture: Architecture) -> None:
    """Write the files from which transformers makes the model of a run."""
    config, tokenizer = run.model.config, run.tokenizer
    marks = {
        "bos_token_id": tokenizer.token(START),
        "eos_token_id": tokenizer.token(END),
        "pad_token_id": tokenizer.token(PAD),
    }
    write_json(
        folder / "config.json",
        {
            "architectures": [architecture.model_class],
            **architecture.settings(config),
            "vocab_size": config.vocab_size,
            **marks,
            "dtype": "float32",
        },
    )
    write_json(
        folder / "generation_config.json",
        {**marks, "do_sample": True, "top_k": 0, "max_length": config.n_ctx},
    )
    weights = architecture.weights_of(run.model)
    save_file(weights, folder / MODEL_FILE, metadata={"format": "pt"})
    if architecture.has_code:
        shutil.copy(Path(__file__).with_name(CODE_FILE), folder / CODE_FILE)


def _write_own(folder: Path, run: Run) -> None:
    folder.mkdir()
    run.tokenizer.save(folder / TOKENIZER_FILE)
    public = {key: value for key, value in run.config.items() if key not in _PRIVATE}
    data = {key: value for key, value in public["data"].items() if key in _PUBLIC_DATA}
    _write_yaml(folder / CONFIG_FILE, public | {"data": data})
    for name in (MODEL_SHAPE_FILE, RUN_FILE, METRICS_FILE):
        shutil.copyfile(run.path / name, folder / name)
    ahead = {k: w.contiguous() for k, w in run.model.state_dict().items() if k.startswith(AHEAD)}
    if ahead:
        save_file(ahead, folder / AHEAD_FILE)


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def import_hf(folder: Path, run: Path, *, overwrite: bool = False) -> Path:
    """Turn an exported folder back into a run; nothing in it is executed.

    The weights may have been trained on with transformers since. A run does not say where its
    training data is on this machine: ``data.path`` becomes the place where ``preprocess.py`` puts
    data of that name.

    Args:
        folder: that ``export_hf`` wrote, or a copy of it.
        run: folder of the run to write, whole or not at all.
        overwrite: replace an earlier run.

    Returns:
        ``run``.

    Raises:
        UserError: no exported folder, a damaged one, a name that no run can have, or something
            else at ``run``.
    """
    check(GenerateConfig(run_name=run.name))
    own = folder / OWN_FOLDER
    if not (own / MODEL_SHAPE_FILE).exists():
        raise UserError(
            f"{folder} is no folder of 'export hf': it has no {OWN_FOLDER}/{MODEL_SHAPE_FILE}. If "
            "the model was trained on with transformers, copy the folder synehrgy of the export "
            "beside its new weights."
        )
    if (run / RUN_FILE).exists() and not overwrite:
        raise UserError(
            f"There is already a run in {run}. Choose another name, or replace it: --overwrite."
        )
    shape, tokenizer = load_shape(own), Tokenizer.load(own / TOKENIZER_FILE)
    config = read_yaml(own / CONFIG_FILE)
    about = read_json(own / RUN_FILE)
    for file, content, key in ((CONFIG_FILE, config, "data"), (RUN_FILE, about, "finished")):
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{own / file} is damaged: it has no {key!r}. Export the run again.")
    weights = _read_weights(folder / MODEL_FILE)
    try:
        ours = architecture_of(shape).ours(shape, weights)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder / MODEL_FILE} does not hold the weights of the model that "
            f"{own / MODEL_SHAPE_FILE} describes: {error}."
        ) from error
    if (own / AHEAD_FILE).exists():
        ours |= _read_weights(own / AHEAD_FILE)
    with new_folder(run, replaceable=lambda path: (path / RUN_FILE).exists()) as aside:
        tokenizer.save(aside / TOKENIZER_FILE)
        _write_yaml(aside / CONFIG_FILE, _placed(config, run.name))
        for name in (RUN_FILE, METRICS_FILE):
            shutil.copyfile(own / name, aside / name)
        save_model(aside, shape, ours)
        # Whatever would be refused later is refused now.
        load_run(aside, CPU)
    return run


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return weights


def _placed(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration of a run of this workspace."""
    data = config["data"]
    return {
        **config,
        "run_name": name,
        "data": data | {"path": str(workspace() / "data" / "processed" / data["name"])},
        "paths": {key: str(workspace() / path) for key, path in DEFAULT_PATHS.items()},
    }
