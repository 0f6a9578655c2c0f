"""One model, its records and its optimiser: steps, epochs and validation."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from synehrgy.device import training_type
from synehrgy.draws import Stream, uniforms
from synehrgy.errors import UserError
from synehrgy.model import GPT, Loss, Packing, linear_cross_entropy
from synehrgy.processes import World
from synehrgy.settings import TrainConfig
from synehrgy.tokenizer import TokenStore
from synehrgy.tokenizer.forecast import Questions
from synehrgy.tokenizer.segments import Segments, cut_records
from synehrgy.tokenizer.tokenizer import PARTS
from synehrgy.training.augment import Augmentation
from synehrgy.training.batches import (
    Batch,
    Batcher,
    Plan,
    ahead_of_time,
    epoch_order,
    trained_share,
)
from synehrgy.training.canaries import planted
from synehrgy.training.guarantee import Guarantee
from synehrgy.training.optimiser import Optimiser, learning_rate
from synehrgy.training.parallel import distributed, keeping_gradients
from synehrgy.training.private import PrivateSteps
from synehrgy.training.resume import Progress

# Tokens of a forward pass on a CPU, where more only fills the memory, and on a GPU.
MAX_TOKENS = (8192, 65536)

# Segments that are looked at together.
_ROWS = 2048

# Seconds between two readings of the loss: to read it, a GPU must be waited for.
_READ_EVERY = 0.5

# Points of the learning curve per epoch.
_CURVE_POINTS = 100


class Objective(nn.Module):
    """The loss of a batch, so that several processes can share it.

    Args:
        model: whose loss it is.
        band: soft targets, for training; see ``linear_cross_entropy``.
        precision: type of the products.
    """

    def __init__(self, model: GPT, band: tuple[Tensor, Tensor] | None, precision: torch.dtype):
        super().__init__()
        self.model, self.precision = model, precision
        self.band = band
        self.hidden: Callable[..., Tensor] = model.packed_hidden

    def forward(self, batch: Batch) -> Loss:
        """What is minimised, and the hard cross-entropy of each token that is asked."""
        device = batch.inputs.device.type
        with torch.autocast(device, self.precision, enabled=self.precision != torch.float32):
            hidden = self.hidden(batch.inputs, batch.packing)
            loss = self._loss(hidden, batch.targets, batch.asked)
            for further, layer in enumerate(self.model.ahead if self.training else (), start=1):
                targets = batch.targets.roll(-further)
                more = self._loss(layer(hidden), targets, batch.asked_ahead[further - 1])
                loss = Loss(loss.objective + more.objective, loss.hard)
        return loss

    def _loss(self, hidden: Tensor, targets: Tensor, asked: Tensor) -> Loss:
        band = self.band if self.training else None
        return linear_cross_entropy(
            hidden[asked].to(self.precision), self.model.output_weight, targets[asked], band
        )


class Trainer:
    """Optimises a model on the records of a token store.

    Args:
        config: of the run.
        model: on the device of ``world``.
        store: tokens and tokenizer, as they are trained on.
        world: the processes that train it.

    Raises:
        UserError: a split without patients, a context too short for the records, or a model that
            cannot be compiled though it is asked for.
    """

    def __init__(self, config: TrainConfig, model: GPT, store: TokenStore, world: World):
        self.config, self.model, self.store, self.world = config, model, store, world
        self.device = world.device
        self.precision = training_type(config.hparams.precision, self.device)
        tokenizer = store.tokenizer
        self.train_batches = self._batcher("train")
        self.val_batches = self._batcher("val")
        band: tuple[Tensor, Tensor] | None = None
        if config.loss.soft_labels:
            tokens, weights = tokenizer.soft_targets()
            band = (
                torch.from_numpy(tokens).to(self.device),
                torch.from_numpy(weights).to(self.device),
            )
        objective = Objective(model, band, self.precision)
        if compiled := self._compiled():
            objective.hidden = compiled
        self.step_size = config.hparams.mini_batch * config.hparams.n_accum
        self.private = self._private() if config.privacy.epsilon is not None else None
        # What a step takes: segments, or in private patients.
        n_units = self.private.n_patients if self.private else len(self.train_batches.plan)
        self.steps_per_epoch = -(-n_units // self.step_size)
        self.total_steps = config.train.epochs * self.steps_per_epoch
        self.objective: nn.Module = objective
        if self.private is None:
            self.objective = distributed(objective, model.blocks, world, config.hparams.parallel)
        # After the weights have been shared out among the processes.
        self.optimiser = Optimiser(model, config.hparams)
        self.part_of = torch.from_numpy(tokenizer.part_of).to(self.device)
        self.progress = Progress()
        # Losses and tokens of each part of the records; double, so that millions add up.
        self.sums = torch.tensor(self.progress.sums, dtype=torch.float64, device=self.device)

    def _private(self) -> PrivateSteps:
        """How steps are made if no patient may be told from them.

        Raises:
            UserError: with weights that are shared out among processes.
        """
        config, plan = self.config, self.train_batches.plan
        if self.world.size > 1 and config.hparams.parallel != "ddp":
            raise UserError(
                f"privacy.epsilon needs all weights in each process, which "
                f"hparams.parallel={config.hparams.parallel} does not have: give "
                "hparams.parallel=ddp."
            )
        rows = np.arange(len(plan))
        parts = [
            plan.pieces(self.store.tokenizer, rows[start : start + _ROWS]).record
            for start in range(0, len(rows), _ROWS)
        ]
        # A patient has one record, in one or more segments.
        patients = np.concatenate(parts)
        n = len(np.unique(patients))
        steps = config.train.epochs * -(-n // self.step_size)
        guarantee = Guarantee.of(config.privacy, n, self.step_size, steps)
        return PrivateSteps(guarantee, patients, self.world, config.privacy.noise_seed)

    @property
    def _compiles_by_itself(self) -> bool:
        # On CPUs the products take most of the time, and the rest is not faster for it.
        return self.device.type == "cuda"

    def _compiled(self) -> Callable[..., Tensor] | None:
        """The compiled forward pass, if it is asked for and this machine can compile it."""
        asked, model = self.config.hparams.compile, self.model
        if asked == "False" or (asked == "auto" and not self._compiles_by_itself):
            return None
        compiled = torch.compile(model.packed_hidden, dynamic=True)
        tokens = torch.zeros(4, dtype=torch.int64, device=self.device)
        packing = Packing.of([3, 1], self.device)
        try:
            # As in a step, forward and backward: what is compiled now is what will be used.
            precision = self.precision
            with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
                hidden = compiled(tokens, packing)
            hidden.float().sum().backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # Compilers and their libraries raise whatever they please.
            reason = str(error).strip().split("\n")[0]
            if asked == "True":
                raise UserError(
                    f"hparams.compile=True: this machine cannot compile the model ({reason}). "
                    "Install a C++ compiler, or train with hparams.compile=False."
                ) from error
            print(f"Training without compiling: {reason}")
            return None
        finally:
            model.zero_grad(set_to_none=True)
        return compiled

    def _batcher(self, split: str) -> Batcher:
        config, store = self.config, self.store
        rows = store.of_split(split)
        if not len(rows):
            raise UserError(f"The cohort in {config.data.path} has no patient in split {split!r}.")
        augmentation = None
        if split == "train":
            augmentation = Augmentation(store.tokenizer, config.train, config.seed)
            rows = trained_share(rows, config.train.ratio, config.seed)
            rows = np.append(rows, planted(store.records))
        n_ctx = config.hparams.n_ctx
        plan: Plan
        if config.mode == "fcast":
            plan = Questions.of(store.tokenizer, store.records, rows, n_ctx, config.seed)
        else:
            plan = cut_records(store.tokenizer, store.records, rows, n_ctx)
        return Batcher(
            store.tokenizer,
            store.records,
            plan,
            config.hparams.mini_batch,
            config.hparams.max_tokens or MAX_TOKENS[self.device.type == "cuda"],
            augmentation,
            n_next=config.loss.n_next if split == "train" else 1,
        )

    def describe(self) -> str:
        """How many records, segments and tokens there are of each split, and what is lost."""
        settings = self.store.tokenizer.settings
        lines = [
            f"tokens: bin_type={settings.bin_type} n_bins={settings.n_bins} time={settings.time} "
            f"long_records={settings.long_records} rare_codes={settings.rare_codes}"
        ]
        n_ctx = self.config.hparams.n_ctx
        for split, batcher in (("train", self.train_batches), ("val", self.val_batches)):
            plan = batcher.plan
            if isinstance(plan, Questions):
                lines.append(
                    f"{split}: {len(plan.forecasts):,} stays to forecast and "
                    f"{len(plan.going_on):,} segments that go on, of at most {n_ctx:,} tokens"
                )
                continue
            assert isinstance(plan, Segments)
            records = np.unique(plan.record)
            total = int(self.store.records.lengths[records].sum())
            seen = int((plan.stop - plan.start).sum())
            lines.append(
                f"{split}: {len(records):,} records of {total:,} tokens in {len(plan):,} segments "
                f"of at most {n_ctx:,}, which hold {seen / total:.1%} of them"
            )
        return "\n".join(lines)

    def tokens_seen(self) -> NDArray[np.bool_]:
        """Which tokens of the vocabulary occur in what is trained on, bool [vocabulary]."""
        plan, store = self.train_batches.plan, self.store
        seen = np.zeros(len(store.tokenizer.vocabulary), dtype=bool)
        rows = np.arange(len(plan))
        for start in range(0, len(rows), _ROWS):
            pieces = plan.pieces(store.tokenizer, rows[start : start + _ROWS])
            seen[pieces.assemble(store.records)[0]] = True
        return seen

    def epoch(self, after_step: Callable[[], None] | None = None) -> dict[str, Any]:
        """The rest of the current epoch over the segments of the train split.

        Args:
            after_step: called after each step.

        Returns:
            Metrics of the whole epoch: epoch, train_loss (nats per token, hard targets),
            train_perplexity, train_loss_<part of the records>, lr, tokens_per_second.

        Raises:
            UserError: the loss is not finite, or a batch does not fit into the memory.
        """
        self.objective.train()
        now = self.progress
        self.sums = torch.tensor(now.sums, dtype=torch.float64, device=self.device)
        if not self.world.is_first:
            # The progress holds those of all processes together.
            self.sums.zero_()
        everything = np.arange(len(self.train_batches.plan))
        order = epoch_order(everything, self.config.seed, now.epoch)
        n_steps = self.steps_per_epoch
        bar = tqdm(
            range(now.step, n_steps),
            desc=f"epoch {now.epoch}",
            unit="step",
            initial=now.step,
            total=n_steps,
            leave=False,
            disable=None if self.world.is_first else True,
        )
        read = began = time.perf_counter()
        before = self.sums.sum(dim=1).tolist()
        for number in bar:
            if self.private is None:
                start = number * self.step_size
                self.step(order[start : start + self.step_size], now.epoch)
            else:
                self.private_step(self.private, now.epoch)
            now.step += 1
            if now.step % max(1, n_steps // _CURVE_POINTS) == 0:
                self._add_to_curve()
            if time.perf_counter() - read > _READ_EVERY:
                before, read = self._report(bar, before, read)
            if after_step is not None:
                now.seconds, began = now.seconds + time.perf_counter() - began, time.perf_counter()
                after_step()
                began = time.perf_counter()
        self.read_sums()
        now.seconds += time.perf_counter() - began
        n_tokens = sum(now.sums[1])
        return {
            "epoch": now.epoch,
            "steps_done": now.steps_done,
            **self._metrics("train", now.sums),
            "lr": learning_rate(now.steps_done - 1, self.total_steps, self.config.hparams),
            "tokens_per_second": n_tokens / max(now.seconds, 1e-9),
        }

    def read_sums(self) -> None:
        """Put the sums of all processes so far into the progress."""
        self.progress.sums = self.world.total(self.sums).tolist()

    def _add_to_curve(self) -> None:
        now = self.progress
        sums = self.world.total(self.sums).sum(dim=1).tolist()
        loss, n = (new - old for new, old in zip(sums, now.curve_sums, strict=True))
        now.curve.append([now.steps_done, loss / max(n, 1)])
        now.curve_sums = sums

    def _report(self, bar: Any, before: list[float], read: float) -> tuple[list[float], float]:
        """Show loss and speed since the last report on the bar."""
        # Those of this process: to ask the others would be to wait for them.
        sums, now = self.sums.sum(dim=1).tolist(), time.perf_counter()
        loss, n_tokens = (new - old for new, old in zip(sums, before, strict=True))
        mean = loss / max(n_tokens, 1)
        if not math.isfinite(mean):
            raise diverged(self.progress.epoch, self.config)
        speed = self.world.size * n_tokens / max(now - read, 1e-9)
        bar.set_postfix_str(
            f"loss {mean:.3f}, perplexity {perplexity(mean):.2f}, {speed:,.0f} tokens/s"
        )
        return sums, now

    @torch.no_grad()
    def evaluate(self, after_batch: Callable[[], None] | None = None) -> dict[str, Any]:
        """The loss over all tokens of the validation records.

        Returns:
            val_loss (mean cross-entropy in nats per token), val_perplexity, and
            val_loss_<part of the records>.
        """
        self.objective.eval()
        sums = torch.zeros(2, len(PARTS), dtype=torch.float64, device=self.device)
        rows = np.arange(len(self.val_batches.plan))
        n_batches = max(self.val_batches.n_batches(share) for share in self._shares(rows))
        batches = self._rounds(self.val_batches, rows, epoch=0)
        quiet = None if self.world.is_first else True
        bar = tqdm(
            batches,
            desc="validation",
            unit="batch",
            leave=False,
            disable=quiet,
            total=n_batches,
        )
        batch: Batch | None = None
        with self._enough_memory(lambda: batch):
            for batch, _ in bar:
                self._add(sums, batch, self.objective(batch).hard)
                if after_batch is not None:
                    after_batch()
        return self._metrics("val", self.world.total(sums).tolist())

    @staticmethod
    def _metrics(split: str, sums: list[list[float]]) -> dict[str, float]:
        mean = sum(sums[0]) / max(sum(sums[1]), 1)
        parts = {
            f"{split}_loss_{part}": loss / n
            for part, loss, n in zip(PARTS, *sums, strict=True)
            if n > 0
        }
        return {f"{split}_loss": mean, f"{split}_perplexity": perplexity(mean), **parts}

    def step(self, rows: NDArray[np.int64], epoch: int) -> None:
        """One optimiser step on some segments of the train split, in training mode."""
        batcher = self.train_batches
        self._seed_dropout()
        batch: Batch | None = None
        with self._enough_memory(lambda: batch):
            for batch, is_last in self._rounds(batcher, rows, epoch):
                with keeping_gradients(self.objective, local=not is_last):
                    loss: Loss = self.objective(batch)
                    loss.objective.backward()
                self._add(self.sums, batch, loss.hard.detach())
            self._update(batcher.n_targets(rows, epoch))

    def private_step(self, private: PrivateSteps, epoch: int) -> None:
        """One optimiser step on patients who are drawn for it, in training mode.

        The gradient of a patient is that of the mean loss of their tokens.
        """
        batcher, parameters = self.train_batches, list(self.model.parameters())
        self._seed_dropout()
        batch: Batch | None = None
        with self._enough_memory(lambda: batch):
            for rows in private.begin(self.progress.steps_done):
                n_targets = max(batcher.n_targets(rows, epoch), 1)
                for batch in batcher.batches(rows, epoch):
                    batch = batch.to(self.device)
                    loss: Loss = self.objective(batch)
                    (loss.objective / n_targets).backward()
                    self._add(self.sums, batch, loss.hard.detach())
                private.add(parameters)
            private.finish(parameters)
        self._move()

    def _seed_dropout(self) -> None:
        # Random numbers belong to the step: nothing else is needed to go on from here.
        draw = uniforms(self.config.seed, Stream.DROPOUT, self.progress.steps_done, self.world.rank)
        torch.manual_seed(int(draw * 2**52))

    def _update(self, n_targets: int) -> None:
        """Move the weights along the gradients of so many tokens."""
        # Sums over tokens were accumulated; dividing once makes the step independent of how its
        # records were split into batches. Processes have shared the mean of their sums.
        share = self.world.size / max(n_targets, 1)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad *= share
        nn.utils.clip_grad_norm_(parameters, self.config.train.gclip)
        self._move()

    def _move(self) -> None:
        """Move the weights along their gradients, at the rate of this step."""
        now = self.progress
        self.optimiser.step(learning_rate(now.steps_done, self.total_steps, self.config.hparams))
        now.steps_done += 1

    def _shares(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The segments of each process."""
        for rank in range(self.world.size):
            yield rows[rank :: self.world.size]

    def _rounds(
        self, batcher: Batcher, rows: NDArray[np.int64], epoch: int
    ) -> Iterator[tuple[Batch, bool]]:
        """The batches of this process, and whether each is its last.

        All processes have equally many, for each pass is one of all of them: who has fewer passes
        over a segment of which nothing is asked.
        """
        shares = list(self._shares(rows))
        n_rounds = 0
        if self.world.size > 1:
            n_rounds = max(batcher.n_batches(share, epoch) for share in shares)
        batches = ahead_of_time(batcher.batches(shares[self.world.rank], epoch), self.device)
        done, held = 0, None
        for batch in batches:
            if held is not None:
                done += 1
                yield held, False
            held = batch
        if held is None and n_rounds:
            held = next(batcher.batches(rows, epoch)).without_targets().to(self.device)
        while held is not None:
            done += 1
            yield held, done >= n_rounds
            held = held.without_targets() if done < n_rounds else None

    def _add(self, sums: Tensor, batch: Batch, hard: Tensor) -> None:
        """Add the losses of the tokens of a batch to those of their parts."""
        parts = self.part_of[batch.targets[batch.asked]]
        sums[0].index_add_(0, parts, hard.double())
        sums[1].index_add_(0, parts, torch.ones_like(hard, dtype=torch.float64))

    @contextmanager
    def _enough_memory(self, current: Callable[[], Batch | None]) -> Iterator[None]:
        """Say what to do if the memory is full; ``current`` gives the batch at hand."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            is_full = isinstance(error, (MemoryError, torch.OutOfMemoryError))
            if not is_full and "can't allocate memory" not in str(error):
                raise
            batch = current()
            if batch is None:
                raise
            raise UserError(self._too_large(batch)) from error

    def _too_large(self, batch: Batch) -> str:
        n = len(batch.inputs)
        what = f"A pass over {n:,} tokens does not fit into the memory of {self.device}."
        if len(batch.packing.lengths) > 1:
            return (
                f"{what} Try hparams.max_tokens={max(n // 2, batch.packing.longest + 1)}, also "
                "with resume=True: it bounds the memory of a pass and changes no step."
            )
        shorter = max(n // 2, self.store.tokenizer.shortest_record)
        return f"{what} It is a single record: try hparams.n_ctx={shorter}, or a smaller model."


def diverged(epoch: int, config: TrainConfig) -> UserError:
    """The error of a loss that is not finite."""
    return UserError(
        f"The loss of epoch {epoch} is not finite: training diverged. Try a lower learning rate "
        f"than hparams.lr={config.hparams.lr}."
    )


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf
