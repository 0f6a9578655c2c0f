"""The training loop: from a configuration to a run folder."""

import math
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from synehrgy.device import pick_device, training_type
from synehrgy.errors import UserError
from synehrgy.files import new_folder, read_json, write_json
from synehrgy.model import GPT, GPTConfig, Loss, Packing, linear_cross_entropy
from synehrgy.provenance import now, versions
from synehrgy.settings import HyperParameters, TrainConfig, TrainSettings
from synehrgy.tokenizer import (
    TOKENIZER_FILE,
    Tokenizer,
    TokenStore,
    as_preprocessed,
    losses_report,
    tokenise,
)
from synehrgy.tokenizer.segments import cut_records, without_series
from synehrgy.tokenizer.tokenizer import FREE_LABELS, FREE_SERIES
from synehrgy.training.augment import Augmentation
from synehrgy.training.batches import IGNORE, Batch, Batcher, epoch_order
from synehrgy.training.checkpoint import (
    CONFIG_FILE,
    METRICS_FILE,
    RUN_FILE,
    save_config,
    save_model,
)
from synehrgy.training.resume import (
    CHECKPOINTS,
    Progress,
    Stop,
    load_checkpoint,
    refuse_other_config,
    save_checkpoint,
    stopping_cleanly,
)
from synehrgy.training.tracking import Tracker

# Tokens of a forward pass on a CPU, where more only fills the memory, and on a GPU.
MAX_TOKENS = (8192, 65536)


def train(config: TrainConfig) -> Path:
    """Train a model on the tokens of a cohort and keep the best weights.

    Writes ``<paths.saved_models>/<run_name>/``: config.yaml, tokenizer.json, model.json,
    model.safetensors (of the epoch with the lowest validation loss so far), metrics.jsonl (a line
    per epoch), run.json (what made the run; "finished" is null until it has) and, until it has,
    checkpoints/ to resume from.

    Returns:
        The folder of the run.

    Raises:
        UserError: data not preprocessed, an empty split, a run of the same name, or one to resume
            that was begun with other settings or tokens.
        KeyboardInterrupt: somebody stopped it; a checkpoint was saved before.
    """
    device = pick_device(config.device)
    data = Path(config.data.path)
    store = as_trained(tokenise(data, as_preprocessed(data, config.preprocess)), config.train)

    torch.manual_seed(config.seed)
    model = _new_model(config, store.tokenizer).to(device)
    trainer = Trainer(config, model, store, device)
    folder = _claim_folder(config)
    about = _resumed(trainer, folder) if config.resume else None
    print(
        f"{config.model.name}: {model.n_parameters / 1e6:.2f} M parameters, vocabulary of "
        f"{model.config.vocab_size:,}, on {device}"
    )
    print(trainer.describe())
    if losses := losses_report(store.records):
        print(losses)
    if about is None:
        about = {
            "started": now(),
            "finished": None,
            "seed": config.seed,
            "device": str(device),
            "versions": versions(),
            "tokens_fingerprint": store.fingerprint,
            "n_parameters": model.n_parameters,
            "resumed": [],
        }
        # All at once, so that a run that is killed here can be resumed or does not exist.
        with new_folder(folder, replaceable=lambda _: False) as aside:
            save_config(aside, config)
            store.tokenizer.save(aside / TOKENIZER_FILE)
            write_json(aside / RUN_FILE, about)
    else:
        write_json(folder / RUN_FILE, about)

    began = time.perf_counter()
    try:
        result = _fit(trainer, folder)
    except KeyboardInterrupt:
        print(f"\nStopped; {folder} keeps what is done. Go on with: {_resume_command(config)}")
        raise
    result |= {"finished": now(), "seconds": round(time.perf_counter() - began, 1)}
    write_json(folder / RUN_FILE, about | result)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return folder


def _resumed(trainer: "Trainer", folder: Path) -> dict[str, Any] | None:
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
    progress = load_checkpoint(folder, trainer.model, trainer.optimiser, trainer.device)
    if progress is not None:
        trainer.progress = progress
    print(
        f"Going on with epoch {trainer.progress.epoch} after {trainer.progress.step} steps of it."
    )
    return about | {"resumed": [*about.get("resumed", []), now()]}


def _resume_command(config: TrainConfig) -> str:
    arguments = [a for a in sys.argv[1:] if not a.startswith(("resume=", "overwrite="))]
    if Path(sys.argv[0]).name != "train.py":
        return f"the settings of run_name={config.run_name} and resume=True"
    return shlex.join(["python", sys.argv[0], *arguments, "resume=True"])


def as_trained(store: TokenStore, settings: TrainSettings) -> TokenStore:
    """The records as they are trained on: without series if so asked, in any order if shuffled."""
    shuffles = {FREE_LABELS: settings.label_shuffle, FREE_SERIES: settings.ts_shuffle}
    free_order = [name for name, is_shuffled in shuffles.items() if is_shuffled]
    tokenizer = store.tokenizer.as_trained(free_order, settings.ignore_ts)
    records = store.records
    if settings.ignore_ts:
        records = without_series(tokenizer, records)
    return replace(store, tokenizer=tokenizer, records=records)


def _fit(trainer: "Trainer", folder: Path) -> dict[str, Any]:
    """Train until the last epoch or out of patience; the best weights are saved on the way.

    Returns:
        Epochs done, the best of them and its validation loss and perplexity.
    """
    config, model, progress = trainer.config, trainer.model, trainer.progress
    with (
        stopping_cleanly() as stop,
        Tracker(
            *(folder / METRICS_FILE, config.wandb.project, config.run_name, asdict(config)),
            done=progress.metrics,
        ) as tracker,
    ):
        keeper = _Keeper(trainer, folder, stop)
        while progress.epoch <= config.train.epochs:
            epoch = progress.epoch
            metrics = trainer.epoch(keeper.after_step)
            loss = trainer.evaluate(keeper.when_stopped)
            better = progress.best is None or loss < progress.best
            metrics |= {"val_loss": loss, "val_perplexity": perplexity(loss)}
            tqdm.write(
                f"epoch {epoch}/{config.train.epochs}  perplexity: train "
                f"{metrics['train_perplexity']:.2f}, validation {metrics['val_perplexity']:.2f}"
                f"{' (best)' if better else ''}  {metrics['tokens_per_second']:,.0f} tokens/s"
            )
            tracker.log(**metrics)
            if not math.isfinite(metrics["train_loss"] + loss):
                raise UserError(
                    f"The loss of epoch {epoch} is not finite: training diverged. Try a lower "
                    f"learning rate than hparams.lr={config.hparams.lr}."
                )
            if better:
                progress.best, progress.best_epoch = loss, epoch
                save_model(folder, model)
            progress.metrics.append(metrics)
            if epoch - progress.best_epoch >= config.train.patience:
                tqdm.write(f"No better validation loss in {config.train.patience} epochs: stopped.")
                break
            progress.next_epoch()
            keeper.save()
            keeper.when_stopped()
    best = progress.best if progress.best is not None else math.inf
    return {
        "epochs": len(progress.metrics),
        "best_epoch": progress.best_epoch,
        "val_loss": best,
        "val_perplexity": perplexity(best),
    }


class _Keeper:
    """Keeps checkpoints of a training, from time to time and before it stops."""

    def __init__(self, trainer: "Trainer", folder: Path, stop: Stop):
        self.trainer, self.folder, self.stop = trainer, folder, stop
        self.saved = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint now."""
        trainer = self.trainer
        save_checkpoint(self.folder, trainer.progress, trainer.model, trainer.optimiser)
        self.saved = time.monotonic()

    def after_step(self) -> None:
        """Save if it is time to; save and leave if somebody has asked for it."""
        if time.monotonic() - self.saved >= 60 * self.trainer.config.train.save_minutes:
            self.save()
        self.when_stopped()

    def when_stopped(self) -> None:
        """Save and leave if somebody has asked for it."""
        if self.stop.requested:
            self.save()
            raise KeyboardInterrupt


class Trainer:
    """Optimises a model on the records of a token store.

    Args:
        config: of the run.
        model: on ``device``.
        store: tokens and tokenizer, as they are trained on.
        device: where to compute.

    Raises:
        UserError: a split without patients, or a context too short for the records.
    """

    def __init__(self, config: TrainConfig, model: GPT, store: TokenStore, device: torch.device):
        self.config, self.model, self.store, self.device = config, model, store, device
        self.precision = training_type(config.hparams.precision, device)
        self.optimiser = _optimiser(model, config.hparams, device)
        self.step_size = config.hparams.mini_batch * config.hparams.n_accum
        tokenizer, seed = store.tokenizer, config.seed
        self.train_batches = self._batcher("train", Augmentation(tokenizer, config.train, seed))
        self.val_batches = self._batcher("val", None)
        n_segments = len(self.train_batches.segments)
        self.total_steps = config.train.epochs * -(-n_segments // self.step_size)
        self.progress = Progress()
        self.band: tuple[Tensor, Tensor] | None = None
        if config.loss.soft_labels:
            tokens, weights = tokenizer.soft_targets()
            self.band = (torch.from_numpy(tokens).to(device), torch.from_numpy(weights).to(device))

    def _batcher(self, split: str, augmentation: Augmentation | None) -> Batcher:
        config, store = self.config, self.store
        rows = store.of_split(split)
        if not len(rows):
            raise UserError(f"The cohort in {config.data.path} has no patient in split {split!r}.")
        return Batcher(
            store.tokenizer,
            store.records,
            cut_records(store.tokenizer, store.records, rows, config.hparams.n_ctx),
            config.hparams.mini_batch,
            config.hparams.max_tokens or MAX_TOKENS[self.device.type == "cuda"],
            augmentation,
        )

    def describe(self) -> str:
        """How many records, segments and tokens there are of each split, and what is lost."""
        settings = self.store.tokenizer.settings
        lines = [
            f"tokens: bin_type={settings.bin_type} n_bins={settings.n_bins} time={settings.time} "
            f"long_records={settings.long_records} rare_codes={settings.rare_codes}"
        ]
        for split, batcher in (("train", self.train_batches), ("val", self.val_batches)):
            rows, segments = self.store.of_split(split), batcher.segments
            total = int(self.store.records.lengths[rows].sum())
            seen = int((segments.stop - segments.start).sum())
            lines.append(
                f"{split}: {len(rows):,} records of {total:,} tokens in {len(segments):,} segments "
                f"of at most {self.config.hparams.n_ctx:,}, which hold {seen / total:.1%} of them"
            )
        return "\n".join(lines)

    def epoch(self, after_step: Callable[[], None] | None = None) -> dict[str, Any]:
        """The rest of the current epoch over the segments of the train split.

        Args:
            after_step: called after each step.

        Returns:
            Metrics of the whole epoch: epoch, train_loss (nats per token, hard targets),
            train_perplexity, lr, tokens_per_second.
        """
        self.model.train()
        now = self.progress
        everything = np.arange(len(self.train_batches.segments))
        order = epoch_order(everything, self.config.seed, now.epoch)
        starts = range(0, len(order), self.step_size)
        bar = tqdm(
            starts[now.step :],
            desc=f"epoch {now.epoch}",
            unit="step",
            initial=now.step,
            total=len(starts),
            leave=False,
        )
        for start in bar:
            began = time.perf_counter()
            loss, n = self._step(order[start : start + self.step_size], now.epoch)
            now.loss, now.n_tokens = now.loss + loss, now.n_tokens + n
            now.seconds += time.perf_counter() - began
            now.step += 1
            bar.set_postfix(perplexity=f"{perplexity(loss / max(n, 1)):.2f}")
            if after_step is not None:
                after_step()
        mean = now.loss / max(now.n_tokens, 1)
        return {
            "epoch": now.epoch,
            "train_loss": mean,
            "train_perplexity": perplexity(mean),
            "lr": learning_rate(now.steps_done - 1, self.total_steps, self.config.hparams),
            "tokens_per_second": now.n_tokens / max(now.seconds, 1e-9),
        }

    @torch.no_grad()
    def evaluate(self, after_batch: Callable[[], None] | None = None) -> float:
        """Mean cross-entropy over all tokens of the validation records, in nats per token."""
        self.model.eval()
        total, n_tokens = 0.0, 0
        batches = self.val_batches.batches(np.arange(len(self.val_batches.segments)))
        for batch in tqdm(batches, desc="validation", unit="batch", leave=False):
            total += float(self._loss(batch).hard.sum())
            n_tokens += batch.n_targets
            if after_batch is not None:
                after_batch()
        return total / max(n_tokens, 1)

    def _step(self, rows: NDArray[np.int64], epoch: int) -> tuple[float, int]:
        """One optimiser step; the sum of the hard loss and the number of tokens."""
        rate = learning_rate(self.progress.steps_done, self.total_steps, self.config.hparams)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total, n_tokens = 0.0, 0
        for batch in self.train_batches.batches(rows, epoch):
            loss = self._loss(batch)
            loss.objective.backward()
            total += float(loss.hard.sum())
            n_tokens += batch.n_targets
        # Sums over tokens were accumulated; dividing once makes the step independent of how its
        # records were split into batches.
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= max(n_tokens, 1)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.gclip)
        self.optimiser.step()
        self.progress.steps_done += 1
        return total, n_tokens

    def _loss(self, batch: Batch) -> Loss:
        """What is minimised, and the hard cross-entropy of each target."""
        inputs, targets = batch.inputs.to(self.device), batch.targets.to(self.device)
        with torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        ):
            hidden = self.model.packed_hidden(inputs, Packing.of(batch.lengths, self.device))
        asked = targets != IGNORE
        band = self.band if self.model.training else None
        hidden = hidden[asked].to(self.precision)
        return linear_cross_entropy(hidden, self.model.token_embedding.weight, targets[asked], band)


def learning_rate(step: int, total: int, hparams: HyperParameters) -> float:
    """Linear warm-up, then a cosine down to ``min_lr_ratio`` of the peak."""
    warmup = round(hparams.warmup * total)
    if step < warmup:
        return hparams.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return hparams.lr * (hparams.min_lr_ratio + (1 - hparams.min_lr_ratio) * cosine)


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf


def _claim_folder(config: TrainConfig) -> Path:
    folder = Path(config.paths.saved_models) / config.run_name
    if (folder / RUN_FILE).exists():
        if config.resume:
            return folder
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
    return folder


def _new_model(config: TrainConfig, tokenizer: Tokenizer) -> GPT:
    if config.hparams.n_ctx < tokenizer.shortest_record:
        raise UserError(
            f"hparams.n_ctx={config.hparams.n_ctx} has no room for any record: the shortest has "
            f"{tokenizer.shortest_record} tokens."
        )
    shape = {key: value for key, value in asdict(config.model).items() if key != "name"}
    try:
        return GPT(GPTConfig(len(tokenizer.vocabulary), config.hparams.n_ctx, **shape))
    except ValueError as error:
        raise UserError(f"model={config.model.name}: {error}") from None


def _optimiser(model: GPT, hparams: HyperParameters, device: torch.device) -> torch.optim.Optimizer:
    # Biases and norms have one dimension; decaying them only hurts.
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": hparams.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=hparams.lr, betas=(0.9, 0.95), fused=fused)
