"""RTSGAN: an autoencoder makes each stay one vector, a GAN learns the vectors.

Written from Pei, Ren, Yang, Liu, Qin and Li, "Towards Generating Real-World Time Series Data",
ICDM 2021, in its form for values that are missing (RTSGAN-M). A GRU encoder compresses the static
facts of a stay and its time points into a vector; a Wasserstein GAN with gradient penalty learns
the vectors; a decoder turns each into facts and then, point by point, first decides when the next
time point is and which series have a value there, and then generates these values.

What differs from the paper:

- A time point is a step of an hourly grid with any value, of several values of a series in a step
  the last. Only the first ``n_steps`` steps of a patient's first stay are learnt and generated,
  and there are no codes.
- Age, gender and other covariates, labels, the length of stay and the number of time points are the
  static facts, and all are generated. Labels that follow from codes are facts like others. Series
  end with the number of time points, the length of stay or the grid, whatever comes first.
- Continuous values and facts are normal scores by their own quantiles with a squared error, where
  the paper scales them to between 0 and 1.
- Which series have a value, levels, labels and missing facts are drawn from the predicted chances;
  the paper takes what is above a threshold. The time to the next point is a class, a number of
  steps, which is drawn, too; the paper regresses it. Continuous values are what the decoder
  predicts, as in the paper, so that what the vector does not tell of them is not in them: series
  are smoother than real ones.
- The networks are told the last value of each series, and which ones are fresh; the paper states
  fresh values apart. Steps have learnt embeddings in place of an encoding of time.
- Each recurrent network has one layer, of 96 units by default; encoder and decoder of the paper
  have three of 128. There is no dropout. The decoder is always told the real past in training. The
  loss of which series have a value is not weighted by how common they are, and has no second term
  for series that a stay never has.
- The vectors are divided by their root mean square before the GAN sees them, it is trained for
  fewer updates with a greater step, patients come from the running mean of the generator's weights,
  and the autoencoder stops early by its loss on ``val``.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from synehrgy.baselines.baseline import SERIES, Baseline, limited, seeded
from synehrgy.baselines.gan import average, gradient_penalty
from synehrgy.baselines.records import assemble
from synehrgy.baselines.rtsgan_network import (
    Autoencoder,
    Generator,
    Layout,
    Records,
    critic,
)
from synehrgy.baselines.series import SeriesGrid
from synehrgy.baselines.stopping import BestWeights
from synehrgy.cohort import Cohort, Schema, Variable
from synehrgy.files import read_json, write_json

_CONTENT = "rtsgan.json"
_BATCH = 500
# Share of the latest weights in the running mean of the generator: a GAN sways about its aim.
_AVERAGE = 0.005
# The number of time points of a stay; no text, so no covariate has this name.
_LENGTH = 0


@dataclass
class RtsganSettings:
    """Of the networks and their training.

    Attributes:
        step: hours of a step of the grid.
        n_steps: of a stay, from admission on.
        hidden: width of the recurrent networks; the vector of a stay has three times as many.
        noise: numbers that the generator starts from.
        batch_size: patients of an update of the autoencoder.
        updates: of the autoencoder, at most.
        learning_rate: of the autoencoder.
        patience: stop when so many passes over the patients did not lower the loss on ``val``.
        gan_batch_size: patients of an update of the GAN.
        gan_updates: of the generator.
        critic_updates: of the critic for each one of the generator.
        gan_learning_rate: of the generator and the critic.
        penalty: weight of the gradient penalty.
    """

    step: float = limited(1.0, above=0.0)
    n_steps: int = limited(72, minimum=1)
    hidden: int = limited(96, minimum=1)
    noise: int = limited(128, minimum=1)
    batch_size: int = limited(64, minimum=1)
    updates: int = limited(2000, minimum=1)
    learning_rate: float = limited(2e-3, above=0.0)
    patience: int = limited(10, minimum=1)
    gan_batch_size: int = limited(128, minimum=1)
    gan_updates: int = limited(3000, minimum=1)
    critic_updates: int = limited(5, minimum=1)
    gan_learning_rate: float = limited(5e-4, above=0.0)
    penalty: float = limited(10.0, minimum=0.0)


class Rtsgan(Baseline):
    """Recurrent autoencoder and Wasserstein GAN of irregular series with missing values."""

    name = "rtsgan"
    title = "RTSGAN"
    source = (
        "Pei, Ren, Yang, Liu, Qin and Li: Towards Generating Real-World Time Series Data, ICDM 2021"
    )
    covers = frozenset({SERIES})
    Settings = RtsganSettings
    settings: RtsganSettings

    schema: Schema
    facts: SeriesGrid
    series: SeriesGrid
    autoencoder: Autoencoder
    generator: Generator

    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Learn the vectors of first stays, then how they are distributed."""
        settings = self.settings
        self.schema = train.part(codes=False).schema
        train, val = _first_stays(train), _first_stays(val)
        self.series = SeriesGrid.fit(train, settings.n_steps, settings.step)
        points = _points(self.series, train)
        self.facts = SeriesGrid.fit(_facts(train, points[-1]), n_steps=1)
        records = self._records(train)
        self._build(settings.hidden, settings.noise, seed)
        self.autoencoder.note_rates(records)
        rng = torch.Generator().manual_seed(seed)
        self._fit_autoencoder(records, self._records(val), rng, device, progress)
        self._fit_gan(self._vectors(records, device), rng, seed, progress)

    def _build(self, hidden: int, noise: int, seed: int) -> None:
        layouts = Layout.of(self.facts), Layout.of(self.series)
        with seeded(seed):
            self.autoencoder = Autoencoder(*layouts, self.series.n_steps, hidden)
            self.generator = Generator(noise, self.autoencoder.width)

    def _records(self, cohort: Cohort) -> Records:
        points = _points(self.series, cohort)
        values, known = self.facts.encode(_facts(cohort, points[-1]))
        facts = np.concatenate([values, known], axis=-1, dtype=np.float32)[:, 0]
        return Records(*(torch.from_numpy(part) for part in (facts, *points)))

    def _fit_autoencoder(
        self,
        records: Records,
        val: Records,
        rng: torch.Generator,
        device: torch.device,
        progress: bool,
    ) -> None:
        settings, network = self.settings, self.autoencoder.to(device)
        optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
        n = len(records.length)
        per_epoch = -(-n // settings.batch_size)
        epochs = tqdm(range(-(-settings.updates // per_epoch)), "autoencoder", disable=not progress)
        best = BestWeights(network, settings.patience)
        for _ in epochs:
            for rows in torch.randperm(n, generator=rng).split(settings.batch_size):
                loss = network.loss(records.take(rows).to(device))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
            epochs.set_postfix(loss=f"{loss.item():.3f}")
            if len(val.length):
                found = self._loss(val, device)
                epochs.set_postfix(loss=f"{loss.item():.3f}", val=f"{found:.3f}")
                if best.stops_at(found):
                    break
        best.restore()

    @torch.no_grad()
    def _loss(self, records: Records, device: torch.device) -> float:
        parts = [(len(b.length), self.autoencoder.loss(b)) for b in _batches(records, device)]
        return sum(n * loss.item() for n, loss in parts) / sum(n for n, _ in parts)

    @torch.no_grad()
    def _vectors(self, records: Records, device: torch.device) -> Tensor:
        return torch.cat([self.autoencoder.encode(batch) for batch in _batches(records, device)])

    def _fit_gan(self, vectors: Tensor, rng: torch.Generator, seed: int, progress: bool) -> None:
        settings, size, device = self.settings, self.settings.gan_batch_size, vectors.device
        self.autoencoder.scale.copy_(vectors.square().mean(0).sqrt().clamp(min=1e-6))
        vectors = vectors / self.autoencoder.scale
        generator = self.generator.to(device)
        with seeded(seed):
            judge = critic(self.autoencoder.width).to(device)
        of_generator, of_critic = (
            torch.optim.RMSprop(network.parameters(), settings.gan_learning_rate)
            for network in (generator, judge)
        )
        averaged = deepcopy(generator)
        updates = tqdm(range(settings.gan_updates), "GAN", disable=not progress)
        for update in updates:
            for _ in range(settings.critic_updates):
                rows = torch.randint(len(vectors), (size,), generator=rng)
                real = vectors[rows.to(device)]
                with torch.no_grad():
                    fake = generator(self._noise(size, rng, device))
                share = torch.rand(size, 1, generator=rng).to(device)
                apart = judge(real).mean() - judge(fake).mean()
                loss = settings.penalty * gradient_penalty(judge, real, fake, share) - apart
                of_critic.zero_grad()
                loss.backward()
                of_critic.step()
            of_generator.zero_grad()
            (-judge(generator(self._noise(size, rng, device))).mean()).backward()
            of_generator.step()
            average(averaged, generator, max(_AVERAGE, 1 / (update + 1)))
            if update % 100 == 0:
                # The estimated Wasserstein distance; it falls.
                updates.set_postfix(apart=f"{apart.item():.3f}")
        self.generator = averaged

    def _noise(self, n: int, rng: torch.Generator, device: torch.device) -> Tensor:
        return torch.randn(n, self.generator.out.in_features, generator=rng).to(device)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Draw vectors and decode them."""
        rng, minutes = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        autoencoder, generator = self.autoencoder.to(device), self.generator.to(device)
        # The last fact is the number of time points; its last quantile the greatest one.
        longest = max(int(list(self.facts.quantiles.values())[-1][-1]), 1)
        stays, measurements = [], []
        for start in tqdm(range(0, n, _BATCH), "sampling", disable=not progress):
            size = min(_BATCH, n - start)
            vectors = generator(self._noise(size, rng, device)) * autoencoder.scale
            records = autoencoder.decode(vectors, longest, rng).to(torch.device("cpu"))
            facts = self._decode_facts(records, minutes)
            rows = self._decode_points(records, facts[_LENGTH].to_numpy(), minutes)
            stays.append(facts)
            measurements.append(rows.assign(stay=rows["stay"] + start))
        found = pd.concat(stays, ignore_index=True).assign(patient=np.arange(n))
        return assemble(self.schema, found, None, pd.concat(measurements, ignore_index=True))

    def _decode_facts(self, records: Records, rng: np.random.Generator) -> pd.DataFrame:
        """A row per stay, a column per fact; the number of time points is the last."""
        n_channels = self.facts.n_channels
        values, known = records.facts[:, :n_channels], records.facts[:, n_channels:] > 0
        rows = self.facts.decode(values[:, None].numpy(), known[:, None].numpy(), rng)
        columns = {}
        for variable, (column, levels) in zip(
            self.facts.schema.variables, _columns(self.schema).items(), strict=True
        ):
            mine = rows[rows["variable"] == variable.name].set_index("stay")
            columns[column] = mine["level" if levels else "value"].reindex(range(len(values)))
        return pd.DataFrame(columns)

    def _decode_points(
        self, records: Records, length: np.ndarray, rng: np.random.Generator
    ) -> pd.DataFrame:
        """Measurements, as ``assemble`` takes them."""
        times, observed = records.times.numpy(), records.observed.numpy() > 0
        shape = (len(times), self.series.n_steps)
        values = np.zeros((*shape, self.series.n_channels), dtype=np.float32)
        there = np.zeros((*shape, observed.shape[-1]), dtype=bool)
        in_length = np.arange(times.shape[1]) < length.round()[:, None]
        stay, point = np.nonzero(in_length & (times > 0))
        step = times[stay, point] - 1
        values[stay, step] = records.filled.numpy()[stay, point]
        there[stay, step] = observed[stay, point]
        return self.series.decode(values, there, rng)

    def save(self, folder: Path) -> None:
        """Write the grids, with the quantiles of values and facts, and the weights."""
        sizes = {
            "hidden": self.autoencoder.facts.in_features,
            "noise": self.generator.out.in_features,
        }
        grids = {"facts": self.facts.to_dict(), "series": self.series.to_dict()}
        write_json(folder / _CONTENT, {"schema": self.schema.to_dict(), **sizes, **grids})
        for network in (self.autoencoder, self.generator):
            weights = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
            save_file(weights, folder / f"{type(network).__name__.lower()}.safetensors")

    @classmethod
    def load(cls, folder: Path, **settings: Any) -> "Rtsgan":
        """What ``save`` wrote."""
        found, content = cls(**settings), read_json(folder / _CONTENT)
        found.schema = Schema.from_dict(content["schema"], str(folder / _CONTENT))
        found.facts, found.series = (
            SeriesGrid.from_dict(content[grid]) for grid in ("facts", "series")
        )
        found._build(content["hidden"], content["noise"], seed=0)
        for network in (found.autoencoder, found.generator):
            weights = load_file(folder / f"{type(network).__name__.lower()}.safetensors")
            network.load_state_dict(weights)
        return found


def _batches(records: Records, device: torch.device) -> Iterator[Records]:
    for rows in torch.arange(len(records.length)).split(_BATCH):
        yield records.take(rows).to(device)


def _first_stays(cohort: Cohort) -> Cohort:
    """The first stay of each patient; a cohort without series has one that is never measured."""
    stays = cohort.stays.drop_duplicates("subject_id").reset_index(drop=True)
    rows = cohort.measurements
    rows = rows[rows["stay_id"].isin(stays["stay_id"])].reset_index(drop=True)
    variables = cohort.schema.variables or [Variable("none", "continuous")]
    schema = replace(cohort.schema, variables=variables)
    return Cohort(schema, stays, cohort.codes.iloc[:0], rows)


def _points(grid: SeriesGrid, cohort: Cohort) -> tuple[np.ndarray, ...]:
    """``filled``, ``observed``, ``times`` and ``length`` of ``Records``: steps with any value."""
    values, observed = grid.encode(cohort)
    occupied = observed.any(axis=-1)
    length = occupied.sum(axis=1)
    longest = max(length.max(initial=0), 1)
    order = np.argsort(~occupied, axis=1, kind="stable")[:, :longest]
    there = np.arange(longest) < length[:, None]
    filled = np.take_along_axis(values, order[..., None], axis=1)
    observed = np.take_along_axis(observed, order[..., None], axis=1)
    widths = [mine.stop - mine.start for mine in grid.channels]
    for point in range(1, longest):
        seen = np.repeat(observed[:, point], widths, axis=-1)
        filled[:, point] = np.where(seen, filled[:, point], filled[:, point - 1])
    filled *= there[..., None]
    return filled, observed, (order + 1) * there, length


def _columns(schema: Schema) -> dict[str | int, list[str]]:
    """The static facts of a stay, with the levels of those that have some."""
    covariates: dict[str | int, list[str]] = {c.name: c.levels for c in schema.covariates}
    labels = {label.column: ["0", "1"] for label in schema.labels}
    return covariates | labels | {"los_hours": [], _LENGTH: []}


def _facts(cohort: Cohort, length: np.ndarray) -> Cohort:
    """Static facts as series of a single step, so that a grid can read them."""
    variables, parts = [], []
    for i, (column, levels) in enumerate(_columns(cohort.schema).items()):
        facts = pd.Series(length) if column == _LENGTH else cohort.stays[column]
        known = facts.notna().to_numpy()
        variables.append(Variable(str(i), "categorical" if levels else "continuous", None, levels))
        part = {"stay_id": cohort.stays["stay_id"][known], "hours": 0.0, "variable": str(i)}
        as_text = facts[known].astype(str).astype(object)
        part |= {"level": as_text} if levels else {"value": facts[known].astype("float64")}
        parts.append(pd.DataFrame(part))
    rows = pd.concat(parts, ignore_index=True).reindex(
        columns=["stay_id", "hours", "variable", "value", "level"]
    )
    schema = Schema("facts", "", variables=variables)
    return Cohort(schema, cohort.stays, cohort.codes, rows)
