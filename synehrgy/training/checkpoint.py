"""A trained run on disk: complete in itself, safetensors and JSON."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synehrgy.errors import UserError, nearest
from synehrgy.files import read_json, read_yaml, write_json, write_text
from synehrgy.model import GPT, GPTConfig
from synehrgy.tokenizer import TOKENIZER_FILE, Tokenizer, are_of
from synehrgy.training.parallel import as_held, whole

CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.safetensors"
MODEL_SHAPE_FILE = "model.json"
METRICS_FILE = "metrics.jsonl"
RUN_FILE = "run.json"

MODEL_VERSION = 2


@dataclass(frozen=True)
class Run:
    """A trained run.

    Attributes:
        path: its folder.
        model: with the best weights, in evaluation mode.
        tokenizer: the one that the model was trained with.
        config: the configuration of the training.
    """

    path: Path
    model: GPT
    tokenizer: Tokenizer
    config: dict[str, Any]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """All weights by name, whole; if processes share them, all must ask."""
    return {name: whole(tensor).contiguous() for name, tensor in model.state_dict().items()}


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model its weights, of which each process may hold a share.

    Raises:
        RuntimeError: weights of another model.
    """
    held = model.state_dict()
    model.load_state_dict(
        {name: as_held(w, held[name]) if name in held else w for name, w in weights.items()}
    )


def save_model(folder: Path, config: GPTConfig, weights: dict[str, Tensor]) -> None:
    """Write shape and weights; a file is there whole or not at all."""
    write_json(folder / MODEL_SHAPE_FILE, {"version": MODEL_VERSION, **asdict(config)})
    aside = folder / f".{MODEL_FILE}.partial"
    save_file(weights, aside)
    os.replace(aside, folder / MODEL_FILE)


def save_config(folder: Path, config: Any) -> None:
    """Write the configuration of a run as YAML."""
    write_text(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.structured(config)))


def find_run(saved_models: Path, name: str) -> Path:
    """Folder of a trained run.

    Raises:
        UserError: no such run, or one that has no model yet.
    """
    folder = Path(saved_models) / name
    if (folder / MODEL_FILE).exists():
        return folder
    if folder.is_dir():
        raise UserError(f"{folder} has no {MODEL_FILE}: its training saved no model yet.")
    runs = sorted(path.parent.name for path in Path(saved_models).glob(f"*/{MODEL_FILE}"))
    hint = nearest(name, runs) if runs else " There is none yet: train one with train.py."
    raise UserError(f"There is no trained run {name!r} in {saved_models}.{hint}")


def trained_on(folder: Path, config: dict[str, Any]) -> Path | None:
    """The cohort that a run was trained on; None if it is not there any more, or another one is.

    Args:
        folder: of the run.
        config: of the run.

    Raises:
        UserError: a missing or damaged file of the run.
    """
    cohort = Path(config["data"]["path"])
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    # A tokenizer that was given is part of what tells tokens from others.
    made_by = tokenizer if config.get("use_tokenizer") is not None else tokenizer.settings
    fingerprint = read_json(folder / RUN_FILE)["tokens_fingerprint"]
    return cohort if are_of(fingerprint, cohort, made_by) else None


def load_shape(folder: Path) -> GPTConfig:
    """Read the shape of the model in a folder.

    Raises:
        UserError: a missing or damaged file, or one of another version.
    """
    shape = read_json(folder / MODEL_SHAPE_FILE)
    version = shape.pop("version", 1) if isinstance(shape, dict) else None
    if version != MODEL_VERSION:
        raise UserError(
            f"The model in {folder} has version {version} of its format, this program reads "
            f"version {MODEL_VERSION}. Train it again with train.py."
        )
    try:
        return GPTConfig(**shape)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / MODEL_SHAPE_FILE} is damaged: {error}") from error


def load_run(folder: Path, device: torch.device) -> Run:
    """Read a trained run from its folder alone; no random number is drawn.

    Raises:
        UserError: a missing or damaged file.
    """
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    shape = load_shape(folder)
    try:
        # Without weights of its own, as drawing them would take from the caller's random numbers.
        with torch.device("meta"):
            model = GPT(shape)
        model.load_state_dict(load_file(folder / MODEL_FILE), assign=True)
    except (TypeError, ValueError, RuntimeError, SafetensorError, OSError) as error:
        raise UserError(f"The model in {folder} is damaged: {error}") from error
    if model.config.vocab_size != len(tokenizer.vocabulary):
        raise UserError(
            f"{folder}: the model knows {model.config.vocab_size} tokens, the tokenizer "
            f"{len(tokenizer.vocabulary)}; they do not belong together."
        )
    config = read_yaml(folder / CONFIG_FILE)
    return Run(folder, model.to(device).eval(), tokenizer, config)
