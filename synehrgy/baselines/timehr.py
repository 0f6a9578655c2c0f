"""TimEHR: stays are images, one GAN draws what is measured when, another the values.

Written from Karami, Hartley, Atienza and Ionescu, "TimEHR: Image-based Time Series Generation for
Electronic Health Records", arXiv 2402.06318, 2024. A stay is an image of series by steps with two
channels: whether there is a value, the mask, and the value. A first conditional Wasserstein GAN
with gradient penalty draws masks; a second one, a U-Net as in pix2pix, draws the values of a mask.
Both know the static facts and outcomes of the stay.

What differs from the paper:

- Only the first ``n_steps`` steps of a patient's first stay are learnt and generated, with one
  value of a series in a step, the last; there are no codes. Covariates, labels and the length of
  stay are the conditions, drawn together from real first stays as they are (the paper also offers a
  tabular GAN for them), so the model that is saved holds these facts of real patients. Labels that
  follow from codes are facts like others.
- Both GANs have the same small networks without normalisation: a U-Net that halves the image three
  times, where the paper's first generator only grows it, and a critic. Conditions meet the critic
  as a scalar product at its end.
- The paper's second GAN has the loss of pix2pix and a distance to the real values. Here it is a
  Wasserstein GAN like the first, without that distance, which draws values towards their mean.
- The first GAN makes masks only; in the authors' code it makes values, too, which are not used.
  Masks are drawn from chances, whose gradient passes straight through; the paper takes what is
  above a threshold. Chances begin at how often each series has a value at each step.
- Noise enters as a vector for the image, as numbers for each step that every series weighs in its
  own way, and at every level of the U-Net; the paper has a vector in one GAN and dropout in the
  other.
- A plane says which steps lie within the stay; there is no value beyond them.
- Rows are put in an order in which neighbouring series are measured together.
- Values are normal scores by the quantiles of each series, without an end; the level of a
  categorical series is its place among the levels, in declared order, like a number.
- The generators are averages of their weights over the training. It has a fixed length, far shorter
  than the paper's, as the losses of a GAN do not tell when to stop: ``val`` is not used.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from scipy.cluster.hierarchy import leaves_list, linkage
from torch import Tensor
from tqdm import tqdm, trange

from synehrgy.baselines.baseline import SERIES, limited, seeded
from synehrgy.baselines.gan import average, gradient_penalty
from synehrgy.baselines.keeps import KeepsPatients
from synehrgy.baselines.records import assemble
from synehrgy.baselines.series import Floats, SeriesGrid
from synehrgy.baselines.timehr_network import (
    Critic,
    Generator,
    draw_mask,
    draw_values,
    side,
)
from synehrgy.cohort import Cohort, Variable
from synehrgy.files import read_json, write_json

_GRID, _WEIGHTS = "grid.json", "generators.safetensors"
# Stays generated side by side.
_BATCH = 250
# Conditions are in standard deviations and at most so many.
_FARTHEST = 4.0
# No chance that training starts from is closer to 0 or 1.
_LEAST = 1e-5
# Logits of chances reach farther than values.
_GAIN = 4.0


@dataclass
class TimehrSettings:
    """Of the images, the networks and their training.

    Attributes:
        step: hours of a step, a column of an image.
        n_steps: of a stay, from admission on.
        noise: numbers of noise that a whole image shares.
        features: channels of the generators and critics after the first halving.
        batch_size: stays of an update.
        mask_updates: of the generator of masks.
        value_updates: of the generator of values.
        critic_updates: of a critic for each one of its generator.
        mask_learning_rate: of the generator of masks and its critic.
        value_learning_rate: of the generator of values and its critic.
        penalty: weight of the gradient penalty.
        average: how much of the average of a generator's weights stays at each update.
    """

    step: float = limited(1.0, above=0.0)
    n_steps: int = limited(64, minimum=1)
    noise: int = limited(64, minimum=1)
    features: int = limited(8, minimum=1)
    batch_size: int = limited(32, minimum=1)
    mask_updates: int = limited(1600, minimum=1)
    value_updates: int = limited(1200, minimum=1)
    critic_updates: int = limited(2, minimum=1)
    mask_learning_rate: float = limited(2e-3, above=0.0)
    value_learning_rate: float = limited(1e-3, above=0.0)
    penalty: float = limited(10.0, minimum=0.0)
    average: float = limited(0.995, minimum=0.0, maximum=1.0)


class Timehr(KeepsPatients):
    """Two conditional GANs of images: when each series has a value, and which."""

    name = "timehr"
    title = "TimEHR"
    source = (
        "Karami, Hartley, Atienza and Ionescu: TimEHR: Image-based Time Series Generation for "
        "Electronic Health Records, arXiv 2402.06318, 2024"
    )
    covers = frozenset({SERIES})
    Settings = TimehrSettings
    settings: TimehrSettings

    grid: SeriesGrid
    masks: Generator
    values: Generator

    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Learn the images of first stays; ``val`` is not used."""
        first = train.of_stays(train.stays["stay_index"] == 0)
        schema = train.part(codes=False).schema
        self.cohort = Cohort(schema, first.stays, first.codes[:0], first.measurements[:0])
        numbers = _alike_together(_levels_as_numbers(first), self.settings)
        self.grid = SeriesGrid.fit(numbers, self.settings.n_steps, self.settings.step)
        self._build(seed)
        if len(first.measurements):
            self._learn(numbers, seed, device, progress)

    def _build(self, seed: int) -> None:
        n_conditions = self._conditions().shape[1]
        with seeded(seed):
            self.masks, self.values = (
                Generator(
                    self.shape,
                    n_conditions,
                    n_given,
                    self.settings.noise,
                    self.settings.features,
                    gain,
                )
                for n_given, gain in ((1, _GAIN), (2, 1.0))
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (series) and columns (steps) of images."""
        return side(len(self.grid.schema.variables)), side(self.grid.n_steps)

    def _conditions(self) -> Tensor:
        """What is known of each stay [stays, conditions]."""
        return torch.from_numpy(conditions(self.cohort))

    def _staying(self) -> Tensor:
        """Where a stay can have values: while it lasts, of series that anyone has.

        [stays, 1, rows, columns].
        """
        rows, columns = self.shape
        hours = np.nan_to_num(self.cohort.stays["los_hours"].to_numpy(np.float64), nan=np.inf)
        lasts = np.arange(columns) * self.grid.step <= hours[:, None]
        lasts[:, self.grid.n_steps :] = False
        there = np.zeros(rows, dtype=bool)
        for row, variable in enumerate(self.grid.schema.variables):
            there[row] = bool(self.grid.quantiles[variable.name])
        return torch.from_numpy(lasts[:, None, None] & there[:, None])

    def _images(self, found: np.ndarray) -> Tensor:
        """Images [stays, 1, rows, columns] of what is [stays, steps, series]."""
        n, steps, series = found.shape
        rows, columns = self.shape
        images = np.zeros((n, 1, rows, columns), dtype=found.dtype)
        images[:, 0, :series, :steps] = found.transpose(0, 2, 1)
        return torch.from_numpy(images)

    def _learn(self, numbers: Cohort, seed: int, device: torch.device, progress: bool) -> None:
        values, mask = (self._images(found) for found in self.grid.encode(numbers))
        staying, known = self._staying(), self._conditions()
        mask &= staying
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.masks.base.copy_(_logits(mask, staying))

        def batch() -> tuple[Tensor, ...]:
            rows = torch.randint(len(known), (self.settings.batch_size,), generator=rng)
            return tuple(part[rows].float().to(device) for part in (known, staying, mask, values))

        def mask_batch() -> tuple[Tensor, Tensor, Tensor]:
            known, staying, mask, _ = batch()
            return mask, known, staying

        def value_batch() -> tuple[Tensor, Tensor, Tensor]:
            known, staying, mask, values = batch()
            return values * mask, known, torch.cat([mask, staying], dim=1)

        def bar(updates: int, what: str) -> tqdm:
            return trange(updates, disable=not progress, unit="update", desc=what)

        settings = self.settings
        self.masks = self._train(
            self.masks,
            draw_mask,
            mask_batch,
            settings.mask_learning_rate,
            rng,
            bar(settings.mask_updates, "masks"),
        )
        self.values = self._train(
            self.values,
            draw_values,
            value_batch,
            settings.value_learning_rate,
            rng,
            bar(settings.value_updates, "values"),
        )

    def _train(
        self,
        generator: Generator,
        draw: Callable[..., Tensor],
        batch: Callable[[], tuple[Tensor, Tensor, Tensor]],
        learning_rate: float,
        rng: torch.Generator,
        updates: tqdm,
    ) -> Generator:
        """The average of a generator over its training against a critic."""
        settings = self.settings
        _, known, given = batch()
        with seeded(int(torch.randint(2**31, (), generator=rng))):
            critic = Critic(self.shape, known.shape[1], given.shape[1], settings.features)
        generator, critic = generator.to(given.device), critic.to(given.device)
        averaged = deepcopy(generator)
        for_critic, for_generator = (
            torch.optim.Adam(net.parameters(), lr=learning_rate, betas=(0.0, 0.9))
            for net in (critic, generator)
        )
        for update in updates:
            for _ in range(settings.critic_updates):
                real, known, given = batch()
                with torch.no_grad():
                    fake = draw(generator, known, given, rng)
                gap = critic(fake, known, given).mean() - critic(real, known, given).mean()
                share = torch.rand(len(real), 1, 1, 1, generator=rng).to(real)
                judge = partial(critic, conditions=known, given=given)
                penalty = gradient_penalty(judge, real, fake, share)
                for_critic.zero_grad()
                (gap + settings.penalty * penalty).backward()
                for_critic.step()
            real, known, given = batch()
            for_generator.zero_grad()
            (-critic(draw(generator, known, given, rng), known, given).mean()).backward()
            for_generator.step()
            kept = min(settings.average, update / (update + 10))
            average(averaged, generator, 1 - kept)
            if update % 20 == 0:
                updates.set_postfix(distance=f"{-gap.item():.3f}")
        return averaged.cpu()

    @torch.no_grad()
    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Draw what is known of real first stays, then a mask and values for each."""
        numbers, rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        chosen = numbers.integers(len(self.cohort.stays), size=n)
        stays = self.cohort.stays.iloc[chosen].reset_index(drop=True).assign(patient=np.arange(n))
        schema = self.cohort.schema
        if not schema.variables:
            return assemble(schema, stays)
        known, staying = self._conditions(), self._staying()
        masks, values = self.masks.to(device), self.values.to(device)
        n_series, n_steps = len(schema.variables), self.grid.n_steps
        parts = []
        with tqdm(total=n, disable=not progress, unit="patient", desc="sampling") as bar:
            for first in range(0, n, _BATCH):
                rows = torch.from_numpy(chosen[first : first + _BATCH])
                facts, lasts = known[rows].to(device), staying[rows].float().to(device)
                mask = draw_mask(masks, facts, lasts, rng)
                image = draw_values(values, facts, torch.cat([mask, lasts], dim=1), rng)
                found, observed = (
                    part[:, 0, :n_series, :n_steps].transpose(1, 2).cpu().numpy()
                    for part in (image, mask)
                )
                part = self.grid.decode(found, observed > 0.5, numbers)
                parts.append(part.assign(stay=part["stay"] + first))
                bar.update(len(rows))
        filled = [part for part in parts if len(part)]
        if not filled:
            return assemble(schema, stays)
        measurements = pd.concat(filled, ignore_index=True)
        return assemble(
            schema, stays, measurements=_numbers_as_levels(schema.variables, measurements)
        )

    def save(self, folder: Path) -> None:
        """The facts of the real stays, the grid and the weights."""
        super().save(folder)
        write_json(folder / _GRID, self.grid.to_dict())
        weights = {
            f"{part}.{key}": tensor.contiguous()
            for part in ("masks", "values")
            for key, tensor in getattr(self, part).state_dict().items()
        }
        save_file(weights, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, **settings: Any) -> "Timehr":
        """What ``save`` wrote."""
        found = super().load(folder, **settings)
        assert isinstance(found, cls)
        found.grid = SeriesGrid.from_dict(read_json(folder / _GRID))
        found._build(seed=0)
        weights = load_file(folder / _WEIGHTS)
        for part in ("masks", "values"):
            mine = {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(part)}
            getattr(found, part).load_state_dict(mine)
        return found


def conditions(cohort: Cohort) -> Floats:
    """What is known of each stay besides its series, in standard deviations [stays, conditions].

    Covariates, labels, the logarithm of the length of stay, and which of them are missing.
    """
    stays = cohort.stays
    columns = [stays[label.column].to_numpy(np.float64) for label in cohort.schema.labels]
    numbers = [np.log1p(stays["los_hours"].to_numpy(np.float64))]
    for covariate in cohort.schema.covariates:
        facts = stays[covariate.name]
        if covariate.kind == "continuous":
            numbers.append(facts.to_numpy(np.float64))
        else:
            columns += [(facts == level).to_numpy(np.float64) for level in covariate.levels]
    for number in numbers:
        known = ~np.isnan(number)
        middle = number[known].mean() if known.any() else 0.0
        columns += [np.where(known, number, middle), known.astype(np.float64)]
    table = np.stack(columns, axis=1)
    table -= table.mean(axis=0)
    spread = table.std(axis=0)
    scores = table / np.where(spread > 0, spread, 1.0)
    return scores.clip(-_FARTHEST, _FARTHEST).astype(np.float32)


def _logits(mask: Tensor, staying: Tensor) -> Tensor:
    """Of how often each pixel has a value in a stay that lasts, with a little of its row's rate."""
    has, could = mask.sum(dim=(0, 1)).double(), staying.sum(dim=(0, 1)).double()
    rate = has.sum(dim=1, keepdim=True) / could.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.logit((has + rate) / (could + 1), eps=_LEAST).float()


def _levels_as_numbers(cohort: Cohort) -> Cohort:
    """The cohort with the place of a level among those of its series as a number."""
    rows, schema = cohort.measurements, cohort.schema
    values = rows["value"].to_numpy(np.float64, copy=True)
    for variable in schema.variables_of("categorical"):
        mine = (rows["variable"] == variable.name).to_numpy()
        place = pd.Index(variable.levels).get_indexer(pd.Index(rows.loc[mine, "level"]))
        values[mine] = place
    variables = [Variable(variable.name, "continuous") for variable in schema.variables]
    numbers = rows.assign(value=values, level=None)
    return Cohort(replace(schema, variables=variables), cohort.stays, cohort.codes, numbers)


def _alike_together(numbers: Cohort, settings: TimehrSettings) -> Cohort:
    """The cohort with its series in an order in which neighbours are measured together."""
    grid = SeriesGrid.fit(numbers, settings.n_steps, settings.step)
    observed = np.concatenate(grid.encode(numbers)[1])
    seen = np.flatnonzero(observed.any(axis=0) & ~observed.all(axis=0))
    order = np.arange(observed.shape[1])
    if len(seen) > 2:
        alike = np.asarray(np.corrcoef(observed[:, seen].T.astype(np.float32)))
        apart = np.clip(1 - alike[np.triu_indices(len(seen), 1)], 0, None)
        found = seen[leaves_list(linkage(apart, "average", optimal_ordering=True))]
        order = np.concatenate([found, np.setdiff1d(order, found)])
    variables = [numbers.schema.variables[i] for i in order]
    return replace(numbers, schema=replace(numbers.schema, variables=variables))


def _numbers_as_levels(variables: list[Variable], rows: pd.DataFrame) -> pd.DataFrame:
    """Measurements with the level that is nearest to the number of a categorical series."""
    values, levels = rows["value"].to_numpy(copy=True), rows["level"].to_numpy(copy=True)
    for variable in variables:
        if variable.kind == "categorical":
            mine = (rows["variable"] == variable.name).to_numpy()
            place = values[mine].round().astype(np.int64)
            levels[mine] = np.array(variable.levels, dtype=object)[place]
            values[mine] = np.nan
    return rows.assign(value=values, level=levels)
