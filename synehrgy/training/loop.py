"""The training loop: from a configuration to a run folder."""

import math
import os
import shlex
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from synehrgy.errors import UserError
from synehrgy.files import new_folder, read_json, write_json
from synehrgy.model import GPT, GPTConfig
from synehrgy.model.embedding import folded, share_parts
from synehrgy.processes import World, world
from synehrgy.provenance import now, versions
from synehrgy.settings import TokenSettings, TrainConfig, TrainSettings
from synehrgy.tokenizer import (
    TOKENIZER_FILE,
    Tokenizer,
    TokenStore,
    as_preprocessed,
    losses_report,
    tokenise,
)
from synehrgy.tokenizer.likeness import likeness
from synehrgy.tokenizer.segments import without_series
from synehrgy.tokenizer.tokenizer import FREE_LABELS, FREE_SERIES, PARTS
from synehrgy.training.batches import trained_share
from synehrgy.training.canaries import Canaries, make_canaries, plant
from synehrgy.training.checkpoint import (
    CONFIG_FILE,
    METRICS_FILE,
    RUN_FILE,
    find_run,
    load_run,
    save_config,
    save_model,
    weights_of,
)
from synehrgy.training.curves import draw_curves, unseen_tokens, warning
from synehrgy.training.guarantee import in_words, on_record, refuse_same_patients
from synehrgy.training.pretrained import start_from
from synehrgy.training.resume import (
    CHECKPOINTS,
    Stop,
    load_checkpoint,
    refuse_other_config,
    save_checkpoint,
    stopping_cleanly,
)
from synehrgy.training.tracking import Tracker
from synehrgy.training.trainer import Trainer, diverged, perplexity


def train(
    config: TrainConfig, store: TokenStore | None = None, *, is_passing: bool = False
) -> Path:
    """Train a model on the tokens of a cohort and keep the best weights.

    Writes ``<paths.saved_models>/<run_name>/``: config.yaml, tokenizer.json, model.json,
    model.safetensors (of the epoch with the lowest validation loss so far), metrics.jsonl (a line
    per epoch), learning_curve.png, run.json (what made the run; "finished" is null until it has)
    and, until it has, checkpoints/ to resume from. With ``train.canaries`` also canaries.parquet.
    Started by ``torchrun``, several processes train one model together.

    Args:
        config: of the run.
        store: tokens to train on, in place of those of ``config.data.path``.
        is_passing: whether the folder goes when a training is stopped, so that nobody need be told
            how to go on with it.

    Returns:
        The folder of the run.

    Raises:
        UserError: data not preprocessed, an empty split, a run of the same name, or one to resume
            that was begun with other settings or tokens.
        KeyboardInterrupt: somebody stopped it; a checkpoint was saved before.
    """
    with world(config.device) as here:
        return _train(config, here, store, is_passing)


def _train(config: TrainConfig, here: World, store: TokenStore | None, is_passing: bool) -> Path:
    refuse_same_patients(config)
    if store is None:
        data, made_by = Path(config.data.path), _made_by(config)
        # The others find the tokens made.
        here.first(lambda: tokenise(data, made_by))
        store = tokenise(data, made_by)
    store = as_trained(store, config.train)
    canaries = _canaries(config, store)
    if canaries is not None:
        store = plant(store, canaries, config.train.canary_repeats)

    torch.manual_seed(config.seed)
    model = new_model(config, store.tokenizer).to(here.device)
    # What a checkpoint holds is further on than what it began with.
    is_begun = config.resume and (_folder(config) / RUN_FILE).exists()
    if config.use_pretrained is not None and not is_begun:
        folder = find_run(Path(config.paths.saved_models), config.use_pretrained)
        print(start_from(load_run(folder, torch.device("cpu")), model, store.tokenizer))
    n_parameters = model.n_parameters
    if config.model.shared:
        parts = (torch.from_numpy(array) for array in likeness(store.tokenizer))
        share_parts(model, *parts, is_fresh=config.use_pretrained is None)
    trainer = Trainer(config, model, store, here)
    folder = _folder(config)
    here.first(lambda: _claim(folder, config))
    about = _resumed(trainer, folder) if config.resume else None
    processes = f" in {here.size} processes" if here.size > 1 else ""
    print(
        f"{config.model.name}: {n_parameters / 1e6:.2f} M parameters, vocabulary of "
        f"{model.config.vocab_size:,}, on {here.device}{processes}"
    )
    print(trainer.describe())
    if trainer.private is not None:
        print(in_words(trainer.private.guarantee, config))
    if canaries is not None:
        repeats = config.train.canary_repeats
        print(f"canaries: {config.train.canaries:,} made-up patients, each {repeats:,} times")
    if losses := losses_report(store.records):
        print(losses)
    if unseen := unseen_tokens(store.tokenizer, trainer.tokens_seen()):
        print(f"Warning: {unseen}")
    if about is None:
        about = {
            "started": now(),
            "finished": None,
            "seed": config.seed,
            "device": str(here.device),
            "versions": versions(),
            "tokens_fingerprint": store.fingerprint,
            "simulated": store.is_simulated,
            "n_parameters": n_parameters,
            "privacy": trainer.private and on_record(trainer.private.guarantee, config),
            "resumed": [],
        }
        here.first(lambda: _begin(folder, config, store.tokenizer, about, canaries))
    else:
        here.first(lambda: write_json(folder / RUN_FILE, about))

    began = time.perf_counter()
    try:
        result = _fit(trainer, folder)
    except KeyboardInterrupt:
        if not is_passing:
            print(f"\nStopped; {folder} keeps what is done. Go on with: {_resume_command(config)}")
        raise
    result |= {"finished": now(), "seconds": round(time.perf_counter() - began, 1)}
    here.first(lambda: write_json(folder / RUN_FILE, about | result))
    if here.is_first:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return folder


def _made_by(config: TrainConfig) -> TokenSettings | Tokenizer:
    """What the tokens are made by: settings, or the tokenizer of another run.

    Raises:
        UserError: no such run, or settings that its tokenizer does not have.
    """
    if config.use_tokenizer is None:
        return as_preprocessed(Path(config.data.path), config.preprocess)
    folder = find_run(Path(config.paths.saved_models), config.use_tokenizer)
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    for key, value in vars(config.preprocess).items():
        has = getattr(tokenizer.settings, key)
        if value not in (None, {}, has):
            raise UserError(
                f"use_tokenizer={config.use_tokenizer}: its tokenizer has preprocess.{key}={has}, "
                f"not {value}. Leave preprocess.{key} out."
            )
    return tokenizer


def _canaries(config: TrainConfig, store: TokenStore) -> Canaries | None:
    """The made-up patients of a run, the same ones each time; None if it is to have none."""
    n = config.train.canaries
    if not n:
        return None
    rows = trained_share(store.of_split("train"), config.train.ratio, config.seed)
    return make_canaries(store.tokenizer, store.records, rows, n, config.seed)


def _begin(
    folder: Path,
    config: TrainConfig,
    tokenizer: Tokenizer,
    about: dict[str, Any],
    canaries: Canaries | None,
) -> None:
    # All at once, so that a run that is killed here can be resumed or does not exist.
    with new_folder(folder, replaceable=lambda _: False) as aside:
        save_config(aside, config)
        tokenizer.save(aside / TOKENIZER_FILE)
        write_json(aside / RUN_FILE, about)
        if canaries is not None:
            canaries.save(aside)


def _resumed(trainer: Trainer, folder: Path) -> dict[str, Any] | None:
    """Put the trainer to where the run in the folder was; what is known about it, None if new.

    Raises:
        UserError: a run of other settings or tokens, or one that has finished.
    """
    if not (folder / RUN_FILE).exists():
        print("There is nothing to resume yet: starting.")
        return None
    about: dict[str, Any] = read_json(folder / RUN_FILE)
    if about["finished"]:
        raise UserError(f"The run in {folder} finished {about['finished']}: nothing to resume.")
    refuse_other_config(folder / CONFIG_FILE, trainer.config)
    if about["tokens_fingerprint"] != trainer.store.fingerprint:
        raise UserError(
            f"The run in {folder} was begun with other tokens: its data or their settings have "
            "changed. Choose another run_name, or overwrite=True to begin anew."
        )
    progress = load_checkpoint(folder, trainer.model, trainer.optimiser)
    if progress is not None:
        trainer.progress = progress
    print(
        f"Going on with epoch {trainer.progress.epoch} after {trainer.progress.step} steps of it."
    )
    return about | {"resumed": [*about.get("resumed", []), now()]}


def _resume_command(config: TrainConfig) -> str:
    arguments = [a for a in sys.argv[1:] if not a.startswith(("resume=", "overwrite="))]
    program = Path(sys.argv[0]).name
    if program == "train.py":
        command, several = ["python", sys.argv[0]], [sys.argv[0]]
    elif program == "synehrgy-train":
        command, several = [program], ["--no-python", program]
    else:
        return f"the settings of run_name={config.run_name} and resume=True"
    n_processes = os.environ.get("WORLD_SIZE", "1")
    if n_processes != "1":
        command = ["torchrun", "--standalone", f"--nproc_per_node={n_processes}", *several]
    return shlex.join([*command, *arguments, "resume=True"])


def as_trained(store: TokenStore, settings: TrainSettings) -> TokenStore:
    """The records as they are trained on: without series if so asked, in any order if shuffled."""
    shuffles = {FREE_LABELS: settings.label_shuffle, FREE_SERIES: settings.ts_shuffle}
    free_order = [name for name, is_shuffled in shuffles.items() if is_shuffled]
    tokenizer = store.tokenizer.as_trained(free_order, settings.ignore_ts)
    records = store.records
    if settings.ignore_ts:
        records = without_series(tokenizer, records)
    return replace(store, tokenizer=tokenizer, records=records)


def _fit(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Train until the last epoch or out of patience; the best weights are saved on the way.

    Returns:
        Epochs done, the best of them and its validation loss and perplexity.
    """
    config, progress, here = trainer.config, trainer.progress, trainer.world
    # Only the first process keeps a diary.
    diary = (
        Tracker(
            *(folder / METRICS_FILE, config.wandb, config.run_name, asdict(config)),
            done=progress.metrics,
        )
        if here.is_first
        else nullcontext()
    )
    with stopping_cleanly() as stop, diary as tracker:
        keeper = _Keeper(trainer, folder, stop)
        while progress.epoch <= config.train.epochs:
            epoch = progress.epoch
            metrics = trainer.epoch(keeper.after_step)
            metrics |= trainer.evaluate(keeper.when_stopped)
            loss = metrics["val_loss"]
            if not math.isfinite(metrics["train_loss"] + loss):
                raise diverged(epoch, config)
            better = progress.best is None or loss < progress.best
            progress.metrics.append(metrics)
            if here.is_first:
                is_best = better and trainer.private is None
                tqdm.write(_line(metrics, config.train.epochs, is_best))
                if warned := warning(progress.metrics):
                    tqdm.write(f"Warning: {warned}")
                assert tracker is not None
                tracker.log(**metrics)
            # Which epoch is the best would tell something of the patients of the validation split.
            if better or trainer.private is not None:
                progress.best, progress.best_epoch = loss, epoch
                weights = folded(weights_of(trainer.model))
                if here.is_first:
                    save_model(folder, trainer.model.config, weights)
            if here.is_first:
                draw_curves(folder, progress.curve, progress.metrics)
            if epoch - progress.best_epoch >= config.train.patience:
                if here.is_first:
                    tqdm.write(
                        f"No better validation loss in {config.train.patience} epochs: stopped."
                    )
                break
            progress.next_epoch()
            keeper.save()
            keeper.when_stopped()
        best = progress.best if progress.best is not None else math.inf
        result = {
            "epochs": len(progress.metrics),
            "best_epoch": progress.best_epoch,
            "val_loss": best,
            "val_perplexity": perplexity(best),
        }
        if tracker is not None:
            tracker.summarise(**result, folder=str(folder))
    return result


def _line(metrics: dict[str, Any], epochs: int, better: bool) -> str:
    parts = "  ".join(
        f"{part} {metrics[f'val_loss_{part}']:.3f}"
        for part in PARTS
        if f"val_loss_{part}" in metrics
    )
    return (
        f"epoch {metrics['epoch']}/{epochs}  perplexity: train {metrics['train_perplexity']:.2f}, "
        f"validation {metrics['val_perplexity']:.2f}{' (best)' if better else ''}  "
        f"{metrics['tokens_per_second']:,.0f} tokens/s\n  validation loss by part: {parts}"
    )


class _Keeper:
    """Keeps checkpoints of a training, from time to time and before it stops."""

    def __init__(self, trainer: Trainer, folder: Path, stop: Stop):
        self.trainer, self.folder, self.stop = trainer, folder, stop
        self.saved = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint now; all processes must."""
        trainer = self.trainer
        save_checkpoint(
            *(self.folder, trainer.progress, trainer.model, trainer.optimiser, trainer.world)
        )
        self.saved = time.monotonic()

    def after_step(self) -> None:
        """Save if it is time to; save and leave if somebody has asked for it."""
        due = time.monotonic() - self.saved >= 60 * self.trainer.config.train.save_minutes
        # All processes save together, or none.
        if self.trainer.world.any(due or self.stop.requested):
            self.trainer.read_sums()
            self.save()
            self._leave_if_asked()

    def when_stopped(self) -> None:
        """Save and leave if somebody has asked for it."""
        if self.trainer.world.any(self.stop.requested):
            self.save()
            raise KeyboardInterrupt

    def _leave_if_asked(self) -> None:
        if self.trainer.world.any(self.stop.requested):
            raise KeyboardInterrupt


def _folder(config: TrainConfig) -> Path:
    return Path(config.paths.saved_models) / config.run_name


def _claim(folder: Path, config: TrainConfig) -> None:
    """Make room for a run, or refuse to.

    Raises:
        UserError: there is something in its folder that may not be replaced.
    """
    if (folder / RUN_FILE).exists():
        if config.resume:
            return
        finished = read_json(folder / RUN_FILE)["finished"]
        if not config.overwrite:
            state = f"finished {finished}" if finished else "which has not finished"
            go_on = "" if finished else "resume=True to go on with it, "
            raise UserError(
                f"There is already a run {config.run_name!r} in {folder}, {state}. Choose "
                f"another run_name, {go_on}or overwrite=True to replace it."
            )
        print(f"Replacing the earlier run in {folder}.")
        shutil.rmtree(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not the folder of a run; choose another run_name.")


def new_model(config: TrainConfig, tokenizer: Tokenizer) -> GPT:
    """A model with fresh weights for the tokens of a tokenizer.

    Raises:
        UserError: a context without room for a record, or a shape that does not fit together.
    """
    if config.hparams.n_ctx < tokenizer.shortest_record:
        raise UserError(
            f"hparams.n_ctx={config.hparams.n_ctx} has no room for any record: the shortest has "
            f"{tokenizer.shortest_record} tokens."
        )
    shape = asdict(config.model)
    del shape["name"], shape["shared"]
    shape["n_next"] = config.loss.n_next
    try:
        return GPT(GPTConfig(len(tokenizer.vocabulary), config.hparams.n_ctx, **shape))
    except ValueError as error:
        raise UserError(f"model={config.model.name}: {error}") from None
