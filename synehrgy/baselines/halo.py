"""HALO: a transformer over visits, and masked layers over what a visit holds.

Written from Theodorou, Xiao and Sun, "Synthesize high-dimensional longitudinal electronic health
records via hierarchical autoregressive language model", Nature Communications 14, 2023. A patient
is a sequence of visits, each a vector of zeros and ones. The coarse module, a causal transformer,
makes of the visits so far a history; the fine module, two masked linear layers, gives from it and
from the elements of the visit before it the chance of each element. In the paper's extension to
series a visit also holds each continuous variable as one of some bins, and the time since the last
visit.

What differs from the paper:

- Intensive-care series have values in each hour, not one per visit. A stay is a visit (covariates,
  labels, length of stay, codes), followed by one for each step of an hour in which anything was
  measured (the steps since the last one, and a bin of each series with a value); only the first
  ``n_steps`` steps of a stay are learnt and generated, and the last of several values in a step.
  At the defaults that is two days, of which it keeps about nine values of ten, and few enough
  visits to learn 5,000 patients in minutes on a CPU.
- Both kinds of visits share the coarse module and have fine modules of their own. Instead of its
  number in the patient, a visit's place is the number of its stay, its step and, as the end of the
  series depends on it, the bin of its stay's length.
- Covariates and labels are in the first visit of each stay, where the paper has one visit for them
  before all others. Those covariates that never change for any patient are drawn for the first
  stay and kept; a bin of the others gives the same value for all stays of a patient. Labels that
  codes define are generated as well, for the codes to follow from, and then set as the codes say.
- What comes next (a visit of hours, another stay, the end) is drawn from the history by a layer of
  its own, where the paper has special elements.
- The bins of a variable and its absence are alternatives of one softmax; the paper predicts each
  element by itself. Bins have equal shares of the values seen, as far as ties allow, and values
  are drawn from the quantiles within a bin; the paper has bins of a fixed width and draws evenly.
  Time since the last visit is exact to the step.
- The hidden layer of the fine module is narrower than the paper's, with some units for each place
  in the order and not one for each element. Codes are ordered by where they are listed, and share
  ``code_places`` places of equal numbers of codes per stay; those of one place, mostly rare ones,
  are independent given all before them. The transformer is much smaller than the paper's.
- Only codes of the train patients are known, and how they are listed is always the same order.
- Training is short, with weight decay and most of it where codes are learnt; its step falls to
  nearly zero, and it stops early by the loss on ``val``. Afterwards the biases of all elements are
  shifted so that each is expected as often as it is found in the train patients: rare codes are
  too rare otherwise.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.special import ndtr, ndtri
from torch import nn
from tqdm import tqdm

from synehrgy.baselines.baseline import Baseline, limited, seeded
from synehrgy.baselines.halo_network import HOURS, STAY, Drawn, Layout, Network, Sizes, Visits
from synehrgy.baselines.records import assemble, labels_of_codes
from synehrgy.baselines.series import SeriesGrid
from synehrgy.baselines.stopping import BestWeights
from synehrgy.cohort import Cohort, Schema, Variable
from synehrgy.files import read_json, write_json

Ints = NDArray[np.int64]

_CONTENT, _WEIGHTS = "halo.json", "network.safetensors"
# Patients sampled side by side.
_BATCH = 500
# Rare codes have gradients that are mostly tiny: with the usual 1e-8 Adam would make them great.
_EPSILON = 1e-4
# Passes that bring elements to how common they are; each pass corrects what the last one left.
_CALIBRATIONS = 2
# Quantiles of the values inside a bin.
_N_INSIDE = 11


@dataclass
class HaloSettings:
    """Of visits, networks and training.

    Attributes:
        step: hours of a step of the series.
        n_steps: of a stay, from admission on.
        n_bins: of each continuous series, covariate and the length of stay.
        width: of the transformer.
        n_layers: of the transformer.
        n_heads: of its attention.
        units: hidden units of the fine modules for each place in the order of elements.
        code_places: places of all codes in that order, at most.
        dropout: share of the transformer's units left out in training.
        epochs: passes over the patients, at most.
        batch_size: visits of an update.
        learning_rate: at the beginning.
        weight_decay: of AdamW.
        code_decay: the same for the fine module of stays.
        patience: stop when so many epochs did not lower the loss on ``val``.
    """

    step: float = limited(1.0, above=0.0)
    n_steps: int = limited(48, minimum=1)
    n_bins: int = limited(10, minimum=1)
    width: int = limited(128, minimum=1)
    n_layers: int = limited(2, minimum=1)
    n_heads: int = limited(4, minimum=1, divides="width")
    units: int = limited(4, minimum=1)
    code_places: int = limited(128, minimum=1)
    dropout: float = limited(0.1, minimum=0.0, maximum=0.9)
    epochs: int = limited(12, minimum=1)
    batch_size: int = limited(1024, minimum=1)
    learning_rate: float = limited(3e-3, above=0.0)
    weight_decay: float = limited(0.05, minimum=0.0)
    code_decay: float = limited(1.0, minimum=0.0)
    patience: int = limited(3, minimum=1)


@dataclass
class Bins:
    """Steps of stays as fields of which one element at most is there: bins and levels of series.

    Attributes:
        grid: the steps, and the quantiles of continuous series.
        n_bins: of each continuous series.
        inside: of each element, quantiles of the shares (as ``grid`` has them, from 0 to 1) of the
            values in it: where many values are equal, a bin is not filled evenly. Levels have none
            to draw from, and zeros.
    """

    grid: SeriesGrid
    n_bins: int
    inside: list[list[float]]

    @classmethod
    def fit(cls, grid: SeriesGrid, n_bins: int, cohort: Cohort) -> "Bins":
        """Learn how the values of a cohort fill the bins."""
        found = cls(grid, n_bins, [])
        values, observed = grid.encode(cohort)
        at = np.linspace(0, 1, _N_INSIDE)
        for i, variable in enumerate(grid.schema.variables):
            if variable.kind != "continuous":
                found.inside += np.zeros((found.widths[i], _N_INSIDE)).tolist()
                continue
            shares = ndtr(values[observed[:, :, i], grid.channels[i].start].astype(np.float64))
            place = (shares * n_bins).astype(np.int64)
            for k in range(n_bins):
                mine = shares[place == k]
                # Of a bin without values nothing is known.
                filled = np.quantile(mine, at) if len(mine) else (k + at) / n_bins
                found.inside.append(filled.tolist())
        return found

    @cached_property
    def widths(self) -> list[int]:
        """Elements of each series."""
        return [len(v.levels) or self.n_bins for v in self.grid.schema.variables]

    @cached_property
    def starts(self) -> list[int]:
        """The first element of each series, and the end."""
        return [0, *np.cumsum(self.widths, dtype=np.int64).tolist()]

    def series_of(self, element: Ints) -> Ints:
        """The number of the series that elements belong to."""
        return np.asarray(np.searchsorted(self.starts, element, side="right") - 1, np.int64)

    def encode(self, cohort: Cohort) -> Ints:
        """Row of the stay, step and element of each value, in no order [3, values]."""
        values, observed = self.grid.encode(cohort)
        parts = [np.zeros((3, 0), dtype=np.int64)]
        for i, variable in enumerate(self.grid.schema.variables):
            stay, step = np.nonzero(observed[:, :, i])
            found = values[stay, step, self.grid.channels[i]]
            if variable.kind == "continuous":
                place = (ndtr(found[:, 0]) * self.n_bins).astype(np.int64)
            else:
                place = found.argmax(axis=1)
            parts.append(np.stack([stay, step, self.starts[i] + place]))
        return np.concatenate(parts, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"grid": self.grid.to_dict(), "n_bins": self.n_bins, "inside": self.inside}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Bins":
        """What ``to_dict`` gave."""
        return cls(**(content | {"grid": SeriesGrid.from_dict(content["grid"])}))

    def decode(
        self, found: Ints, share: NDArray[np.float64], n: int, rng: np.random.Generator
    ) -> pd.DataFrame:
        """Measurements, as ``assemble`` takes them.

        Args:
            found: as ``encode`` returns them [3, values].
            share: where in its bin each is, from 0 to 1 [values].
            n: stays.
            rng: of the minutes.
        """
        stay, step, element = found
        shape = (n, self.grid.n_steps)
        values = np.zeros((*shape, self.grid.n_channels), dtype=np.float32)
        observed = np.zeros((*shape, len(self.widths)), dtype=bool)
        series = self.series_of(element)
        observed[stay, step, series] = True
        place = element - np.asarray(self.starts)[series]
        continuous = np.array([v.kind == "continuous" for v in self.grid.schema.variables], bool)
        first = np.array([mine.start for mine in self.grid.channels], np.int64)[series]
        inside = np.asarray(self.inside).reshape(-1, _N_INSIDE)[element]
        at = np.minimum((share * (_N_INSIDE - 1)).astype(np.int64), _N_INSIDE - 2)
        low, high = (np.take_along_axis(inside, (at + k)[:, None], 1)[:, 0] for k in (0, 1))
        filled = low + (share * (_N_INSIDE - 1) - at) * (high - low)
        score = ndtri(np.clip(filled, 1e-6, 1 - 1e-6))
        number = continuous[series]
        channel = np.where(number, first, first + place)
        values[stay, step, channel] = np.where(number, score, 1)
        return self.grid.decode(values, observed, rng)


class Halo(Baseline):
    """Hierarchical autoregressive language model of visits and of what they hold."""

    name = "halo"
    title = "HALO"
    source = (
        "Theodorou, Xiao and Sun: Synthesize high-dimensional longitudinal electronic health "
        "records via hierarchical autoregressive language model, Nature Communications 14, 2023"
    )
    Settings = HaloSettings
    settings: HaloSettings

    schema: Schema
    facts: Bins
    series: Bins
    # Codes in their order, as system and code, and the place of each.
    codes: list[tuple[str, str]]
    code_places: list[int]
    # How many facts are the same for all stays of a patient, and how many stays there are at most.
    n_fixed: int
    n_stays: int
    network: Network

    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Learn bins and codes, then the networks."""
        settings = self.settings
        self.schema = train.schema
        fixed = [c.name for c in train.schema.covariates if _never_changes(train, c.name)]
        self.n_fixed = len(fixed)
        facts = _facts(train, fixed)
        grid = SeriesGrid.fit(train, settings.n_steps, settings.step)
        self.facts = Bins.fit(SeriesGrid.fit(facts, n_steps=1), settings.n_bins, facts)
        self.series = Bins.fit(grid, settings.n_bins, train)
        self.codes, self.code_places = _order(train, settings.code_places)
        self.n_stays = int(train.stays["stay_index"].max()) + 1
        # Weights and dropout draw from the global generators, which are set back after it.
        with seeded(seed):
            self._build()
            self._train(self._visits(train), self._visits(val), seed, device, progress)

    @property
    def layouts(self) -> dict[int, Layout]:
        """What the visits of a stay and of its hours hold."""
        facts = self.facts.widths
        places = [*range(len(facts)), *(len(facts) + place for place in self.code_places)]
        hours = [self.settings.n_steps, *self.series.widths]
        return {
            STAY: Layout([*facts, *[1] * len(self.codes)], places),
            HOURS: Layout(hours, list(range(len(hours)))),
        }

    def _build(self) -> None:
        s = self.settings
        sizes = Sizes(self.n_stays, s.n_steps, s.width, s.n_layers, s.n_heads, s.units, s.dropout)
        self.network = Network(self.layouts, self._los, sizes)

    @property
    def _los(self) -> slice:
        """Where the length of stay is in the vector of a stay; it follows the covariates."""
        i = len(self.schema.covariates)
        return slice(self.facts.starts[i], self.facts.starts[i + 1])

    def _visits(self, cohort: Cohort) -> Visits:
        """A visit for each stay and for each step with a value."""
        after = self.settings.n_steps + 1
        names = [v.name for v in self.facts.grid.schema.variables]
        of_facts = self.facts.encode(_facts(cohort, names[: self.n_fixed]))
        of_series = self.series.encode(cohort)
        of_codes = self._encode_codes(cohort)
        # Numbers that rise in the order of visits: a stay, its steps, the next stay.
        n = len(cohort.stays)
        hours = of_series[0] * after + 1 + of_series[1]
        visits = np.unique(np.concatenate([np.arange(n) * after, hours]))
        step = visits % after
        since = np.flatnonzero(step)
        key = np.concatenate([of_facts[0] * after, of_codes[0] * after, hours, visits[since]])
        element = np.concatenate(
            [
                of_facts[2],
                of_codes[1] + self.facts.starts[-1],
                of_series[2] + self.settings.n_steps,
                visits[since] - visits[since - 1] - 1,
            ]
        )
        order = np.argsort(key, kind="stable")
        begin = np.searchsorted(key[order], np.append(visits, n * after))
        subject = cohort.stays["subject_id"].to_numpy()[visits // after]
        first = np.flatnonzero(subject != np.append(-np.inf, subject)[:-1])
        los = np.zeros(n, dtype=np.int64)
        bins = of_facts[2] - self._los.start
        has = (bins >= 0) & (bins < self.facts.n_bins)
        los[of_facts[0][has]] = bins[has] + 1
        number = cohort.stays["stay_index"].to_numpy(np.int64)[visits // after]
        arrays = {
            "first": np.append(first, len(visits)),
            "kind": np.where(step > 0, HOURS, STAY),
            "stay": np.minimum(number, self.n_stays - 1),
            "step": step,
            "los": los[visits // after],
            "begin": begin,
            "elements": element[order],
        }
        tensors = {key: torch.from_numpy(array.astype(np.int64)) for key, array in arrays.items()}
        return Visits(**tensors, layouts=self.layouts)

    def _encode_codes(self, cohort: Cohort) -> tuple[Ints, Ints]:
        """Row of the stay and number of each code that is known; each once in a stay."""
        rows = cohort.codes
        found = pd.MultiIndex.from_tuples(self.codes, names=["system", "code"])
        asked = pd.MultiIndex.from_arrays([rows["system"].astype(str), rows["code"].astype(str)])
        number = found.get_indexer(asked) if len(rows) and self.codes else np.full(len(rows), -1)
        stay = pd.Index(cohort.stays["stay_id"]).get_indexer(pd.Index(rows["stay_id"]))
        pairs = np.unique(np.stack([stay, number])[:, number >= 0], axis=1).astype(np.int64)
        return pairs[0], pairs[1]

    def _train(
        self, train: Visits, val: Visits, seed: int, device: torch.device, progress: bool
    ) -> None:
        s, rng, network = self.settings, torch.Generator().manual_seed(seed), self.network
        network.begin_at(train)
        network.to(device).train()
        # Stays are few and their codes many: without more decay these are learnt by heart.
        decay: dict[float, list[nn.Parameter]] = {0.0: [], s.weight_decay: [], s.code_decay: []}
        for name, weights in network.named_parameters():
            of_codes = name.startswith(f"fine.{STAY}.")
            chosen = s.code_decay if of_codes else s.weight_decay
            decay[chosen if weights.ndim > 1 else 0.0].append(weights)
        groups = [{"params": some, "weight_decay": share} for share, some in decay.items()]
        optimizer = torch.optim.AdamW(groups, s.learning_rate, eps=_EPSILON)
        updates = s.epochs * sum(1 for _ in train.batches(s.batch_size))
        slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
        best = BestWeights(network, s.patience)
        epochs = tqdm(range(s.epochs), "fitting", disable=not progress)
        for _ in epochs:
            total = 0.0
            for patients in train.batches(s.batch_size, rng):
                losses = network.losses(train.batch(patients, device))
                optimizer.zero_grad()
                (losses.sum() / s.batch_size).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                slower.step()
                total += losses.sum().item()
            shown = {"loss": f"{total / (len(train.first) - 1):.1f}"}
            epochs.set_postfix(shown)
            if len(val.first) > 1:
                found = self._loss(val, device)
                epochs.set_postfix(shown | {"val": f"{found:.1f}"})
                if best.stops_at(found):
                    break
        best.restore()
        network.eval()
        for _ in range(_CALIBRATIONS):
            batches = train.batches(s.batch_size)
            network.calibrate(train.batch(patients, device) for patients in batches)

    @torch.no_grad()
    def _loss(self, visits: Visits, device: torch.device) -> float:
        """Negative log-likelihood per patient."""
        self.network.eval()
        batches = visits.batches(self.settings.batch_size)
        total = sum(
            self.network.losses(visits.batch(patients, device)).sum().item() for patients in batches
        )
        self.network.train()
        return total / (len(visits.first) - 1)

    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Draw patients visit by visit, many side by side."""
        rng = torch.Generator(device).manual_seed(seed)
        within = np.random.default_rng(seed)
        network = self.network.to(device).eval()
        n_given = self.facts.starts[self.n_fixed]
        parts: list[tuple[pd.DataFrame, ...]] = []
        n_stays = 0
        for start in tqdm(range(0, n, _BATCH), "sampling", disable=not progress):
            drawn = network.sample(min(_BATCH, n - start), n_given, rng)
            stays, codes, measurements = self._decode(drawn, within)
            stays["patient"] += start
            codes["stay"] += n_stays
            measurements["stay"] += n_stays
            n_stays += len(stays)
            parts.append((stays, codes, measurements))
        stays, codes, measurements = (
            pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True)
        )
        stays = labels_of_codes(self.schema, stays, codes)
        return assemble(self.schema, stays, codes, measurements)

    def _decode(self, drawn: Iterator[Drawn], rng: np.random.Generator) -> tuple[pd.DataFrame, ...]:
        """Stays, codes and measurements, as ``assemble`` takes them."""
        found: dict[int, list[torch.Tensor]] = {STAY: [], HOURS: []}
        keys = []
        for visits in drawn:
            key = visits.patient * self.n_stays + visits.stay
            row, element = visits.hot.nonzero(as_tuple=True)
            found[visits.kind].append(torch.stack([key[row], visits.step[row], element]))
            if visits.kind == STAY:
                keys.append(key)
        order = np.unique(torch.cat(keys).cpu().numpy())
        of_stays, of_hours = (self._rows(found[kind], order) for kind in (STAY, HOURS))
        patient = order // self.n_stays
        is_fact = of_stays[2] < self.facts.starts[-1]
        stays = self._decode_facts(of_stays[:, is_fact], patient, rng)
        stay, _, code = of_stays[:, ~is_fact]
        pairs = pd.DataFrame(self.codes, columns=["system", "code"], dtype=object)
        codes = pairs.iloc[code - self.facts.starts[-1]].assign(stay=stay)
        n_steps = self.settings.n_steps
        hours = of_hours[:, (of_hours[2] >= n_steps) & (of_hours[1] <= n_steps)]
        hours -= np.array([[0], [1], [n_steps]])
        measurements = self.series.decode(hours, rng.random(len(hours[0])), len(order), rng)
        return stays, codes, measurements

    @staticmethod
    def _rows(parts: list[torch.Tensor], order: Ints) -> Ints:
        """Row of the stay, step and element of all that was drawn [3, elements]."""
        if not parts:
            return np.zeros((3, 0), dtype=np.int64)
        found = torch.cat(parts, dim=1).cpu().numpy()
        found[0] = np.searchsorted(order, found[0])
        # By stay, step and element, so that codes are in their order.
        return found[:, np.lexsort(found[::-1])]

    def _decode_facts(self, found: Ints, patient: Ints, rng: np.random.Generator) -> pd.DataFrame:
        """A row per stay: its patient and its facts."""
        # A bin means the same value for all stays of a patient, who else would get younger.
        share = rng.random((int(patient.max()) + 1, len(self.facts.widths)))
        share = share[patient[found[0]], self.facts.series_of(found[2])]
        rows = self.facts.decode(found, share, len(patient), rng)
        stays = pd.DataFrame({"patient": patient})
        for variable in self.facts.grid.schema.variables:
            mine = rows[rows["variable"] == variable.name].set_index("stay")
            stays[variable.name] = mine["level" if variable.levels else "value"]
        for label in self.schema.labels:
            stays[label.column] = stays[label.column].notna().astype(np.int8)
        return stays

    def save(self, folder: Path) -> None:
        """Write settings, bins, codes and weights."""
        content = {
            "schema": self.schema.to_dict(),
            "settings": asdict(self.settings),
            "facts": self.facts.to_dict(),
            "series": self.series.to_dict(),
            "codes": [list(code) for code in self.codes],
            "code_places": self.code_places,
            "n_fixed": self.n_fixed,
            "n_stays": self.n_stays,
        }
        write_json(folder / _CONTENT, content)
        weights = {k: v.cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, **settings: Any) -> "Halo":
        """What ``save`` wrote; settings that it was fitted with are those that count."""
        content = read_json(folder / _CONTENT)
        found = cls(**(settings | content["settings"]))
        found.schema = Schema.from_dict(content["schema"], str(folder / _CONTENT))
        found.facts, found.series = (Bins.from_dict(content[part]) for part in ("facts", "series"))
        found.codes = [(system, code) for system, code in content["codes"]]
        found.code_places = content["code_places"]
        found.n_fixed, found.n_stays = content["n_fixed"], content["n_stays"]
        with torch.random.fork_rng(devices=[]):
            found._build()
        found.network.load_state_dict(load_file(folder / _WEIGHTS))
        return found


def _never_changes(cohort: Cohort, covariate: str) -> bool:
    """Whether all stays of each patient have the same value."""
    values = cohort.stays.groupby("subject_id")[covariate].nunique(dropna=False)
    return bool((values <= 1).all())


def _facts(cohort: Cohort, fixed: list[str]) -> Cohort:
    """Covariates, those that never change first, length of stay and labels, as series.

    They are series of one step, so that they are binned as series are. A label has one level.
    """
    schema = cohort.schema
    covariates = sorted(schema.covariates, key=lambda c: c.name not in fixed)
    variables = [Variable(c.name, c.kind, None, c.levels) for c in covariates]
    variables.append(Variable("los_hours", "continuous"))
    labels = [label.column for label in schema.labels]
    variables += [Variable(label, "categorical", None, ["1"]) for label in labels]
    columns = ["stay_id", "hours", "variable", "value", "level"]
    parts = [pd.DataFrame(columns=columns)]
    for variable in variables:
        values = cohort.stays[variable.name]
        values = values[values == 1 if variable.name in labels else values.notna()]
        part: dict[str, object] = {"stay_id": cohort.stays["stay_id"][values.index]}
        part |= {"hours": 0.0, "variable": variable.name}
        part |= {"level": values.astype(str)} if variable.levels else {"value": values}
        parts.append(pd.DataFrame(part).reindex(columns=columns))
    rows = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    return Cohort(Schema("facts", "", variables=variables), cohort.stays, cohort.codes, rows)


def _order(cohort: Cohort, n_places: int) -> tuple[list[tuple[str, str]], list[int]]:
    """All codes by where they are listed on average, and places of about equally many."""
    rows = cohort.codes.astype({"system": str, "code": str})
    rows = rows.drop_duplicates(["stay_id", "system", "code"])
    found = rows.groupby(["system", "code"])["position"].agg(["mean", "size"]).reset_index()
    systems = [system.name for system in cohort.schema.code_systems]
    found["rank"] = found["system"].map(systems.index)
    found = found.sort_values(["rank", "mean", "code"], ignore_index=True)
    share = (found["size"].cumsum() - found["size"]) / max(found["size"].sum(), 1)
    places = np.unique((share * n_places).astype(np.int64), return_inverse=True)[1]
    return list(zip(found["system"], found["code"], strict=True)), places.tolist()
