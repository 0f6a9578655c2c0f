"""PromptEHR: a sequence-to-sequence language model of visits, told demographics by prompts.

Written from Wang and Sun, "PromptEHR: Conditional Electronic Healthcare Records Generation with
Prompt Learning", EMNLP 2022. A stay is a visit, a code system a modality with tokens of its own
around its codes. A transformer with an encoder and a decoder, as BART, learns to write a visit: the
encoder reads the earlier visits and a corrupted form of this one, the decoder writes it code by
code. Covariates are prompts, vectors in front of the tokens of the encoder and, others, of the
decoder: a number scales a vector, a level has one, and both are projected to the width of the
network. Patients are generated visit by visit from prompts and visits of which all is masked.

What differs from the paper:

- The network is small and trained from scratch, and normalises before each layer; the paper starts
  from a pretrained BART-base. Tokens of all modalities share one output, of which those that the
  grammar of visits forbids are left out in sampling; the paper has an output per modality.
- The decoder writes one visit, the paper's the earlier ones again, too. Earlier visits are given
  whole.
- Codes of a visit are shuffled in each epoch, so that their order is random and not learnt. In
  some examples the whole visit is masked, which is how the next visit is generated; in the others
  the span of each system has a part of it masked (infilling) or some codes deleted. Codes are not
  replaced by random ones.
- Prompts are the covariates of the stay that is written, numbers as standard scores, with a vector
  for those that are missing. They are drawn from real patients, and with them, unchanged, come the
  number of stays, the length of each and the labels that no codes define: none of them is
  generated, and codes know of the covariates only. Labels that follow from codes do so from the
  generated ones.
- The authors' software starts from a real record and keeps about half of its codes and the number
  of codes in each visit. Here no code and no number of codes is given: all codes are drawn from the
  model, at temperature 1, none twice in a visit and no more of a system than a real stay has.
- There are no series. Training stops early by how well whole visits of ``val`` are generated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from synehrgy.baselines.baseline import CODES, STAYS, Baseline, limited, seeded
from synehrgy.baselines.promptehr_network import MASK, PAD, Grammar, PromptedTransformer, Tokens
from synehrgy.baselines.records import assemble, drawn_patients, labels_of_codes
from synehrgy.baselines.stopping import BestWeights
from synehrgy.cohort import Cohort, CohortWriter, Covariate, read_cohort
from synehrgy.files import read_json, write_json

_CONTENT, _PROMPTS, _WEIGHTS = "promptehr.json", "prompts", "network.safetensors"
_BATCH = 512
# Mean length of what a mask hides, as in BART.
_MEAN_INFILLED = 3.0


@dataclass
class PromptehrSettings:
    """Of the network and its training.

    Attributes:
        width: of the vectors of the network.
        n_layer: of the encoder, and of the decoder.
        n_head: of attention.
        n_ctx: tokens that the encoder reads, the last ones of those that there are.
        dropout: chance of each unit to be left out.
        generated: share of examples in which the whole visit is masked; others are denoised.
        deleted: share of codes that deletion takes away.
        batch_size: visits of an update.
        learning_rate: of AdamW; it falls linearly to a tenth.
        weight_decay: of AdamW.
        epochs: at most.
        patience: stop when so many epochs did not lower the loss on ``val``.
    """

    width: int = limited(128, minimum=2)
    n_layer: int = limited(2, minimum=1)
    n_head: int = limited(4, minimum=1, divides="width")
    n_ctx: int = limited(256, minimum=1)
    dropout: float = limited(0.1, minimum=0.0, maximum=0.9)
    generated: float = limited(0.5, minimum=0.0, maximum=1.0)
    deleted: float = limited(0.15, minimum=0.0, maximum=1.0)
    batch_size: int = limited(16, minimum=1)
    learning_rate: float = limited(2e-3, above=0.0)
    weight_decay: float = limited(0.01, minimum=0.0)
    epochs: int = limited(15, minimum=1)
    patience: int = limited(3, minimum=1)


@dataclass
class Visits:
    """Stays as tokens.

    Attributes:
        spans: codes of each stay and system [stays][systems].
        earlier: stays of the same patient before each.
        values, levels: covariates [stays, covariates], as ``Prompts`` takes them.
    """

    spans: list[list[Tokens]]
    earlier: list[range]
    values: Tensor
    levels: Tensor


class Promptehr(Baseline):
    """Encoder and decoder that write visits of codes, told demographics by prompts."""

    name = "promptehr"
    title = "PromptEHR"
    source = (
        "Wang and Sun: PromptEHR: Conditional Electronic Healthcare Records Generation with Prompt "
        "Learning, EMNLP 2022"
    )
    covers = frozenset({STAYS, CODES})
    Settings = PromptehrSettings
    settings: PromptehrSettings

    prompts: Cohort
    codes: list[list[str]]
    scales: list[list[float]]
    sizes: dict[str, Any]
    grammar: Grammar
    network: PromptedTransformer

    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Keep prompts and learn to write visits."""
        settings, schema = self.settings, train.part(series=False).schema
        codes = train.codes.drop_duplicates(["stay_id", "system", "code"])
        by_system = [codes[codes["system"] == system.name] for system in schema.code_systems]
        self.codes = [sorted(mine["code"].astype(str).unique()) for mine in by_system]
        most = [int(mine.groupby("stay_id").size().max()) if len(mine) else 0 for mine in by_system]
        stays = train.stays.assign(patient=train.stays["subject_id"])
        # What real codes say is not kept.
        stays = labels_of_codes(schema, stays, pd.DataFrame({"stay": [], "system": [], "code": []}))
        self.prompts = assemble(schema, stays)
        self.scales = [_scale(stays, covariate) for covariate in schema.covariates]
        self.sizes = {
            "most": most,
            "n_ctx": settings.n_ctx,
            "width": settings.width,
            "n_layer": settings.n_layer,
            "n_head": settings.n_head,
        }
        with seeded(seed):
            self._build()
            self._train(self._visits(train), self._visits(val), seed, device, progress)

    def _build(self) -> None:
        sizes = dict(self.sizes)
        self.grammar = Grammar([len(codes) for codes in self.codes], sizes.pop("most"))
        levels = [len(c.levels or ["known"]) + 1 for c in self.prompts.schema.covariates]
        self.network = PromptedTransformer(
            self.grammar, levels, dropout=self.settings.dropout, **sizes
        ).eval()

    def _visits(self, cohort: Cohort) -> Visits:
        """Stays as tokens; codes that are not known are left out."""
        stays = cohort.stays
        rows = cohort.codes.drop_duplicates(["stay_id", "system", "code"])
        stay = pd.Index(stays["stay_id"]).get_indexer(pd.Index(rows["stay_id"]))
        system, code = (rows[column].astype(object).to_numpy() for column in ("system", "code"))
        spans: list[list[Tokens]] = [[] for _ in range(len(stays))]
        for one, codes, first, most in zip(
            cohort.schema.code_systems,
            self.codes,
            self.grammar.first,
            self.sizes["most"],
            strict=True,
        ):
            at = pd.Index(codes, dtype=object).get_indexer(pd.Index(code, dtype=object))
            mine = (system == one.name) & (at >= 0)
            ends = np.cumsum(np.bincount(stay[mine], minlength=len(stays)))[:-1]
            tokens = (first + at[mine])[np.argsort(stay[mine], kind="stable")]
            for listed, span in zip(spans, np.split(tokens, ends), strict=False):
                # Stays of other patients may have more codes than there are places for.
                listed.append(span[:most])
        number = stays.groupby("subject_id").cumcount()
        earlier = [range(i - k, i) for i, k in enumerate(number)]
        return Visits(spans, earlier, *self._demographics(stays))

    def _demographics(self, stays: pd.DataFrame) -> tuple[Tensor, Tensor]:
        """Standard scores and levels, the last one for what is missing [stays, covariates]."""
        covariates = self.prompts.schema.covariates
        values = np.zeros((len(stays), len(covariates)), dtype=np.float32)
        levels = np.zeros(values.shape, dtype=np.int64)
        for i, (covariate, (mean, std)) in enumerate(zip(covariates, self.scales, strict=True)):
            column = stays[covariate.name]
            if covariate.kind == "continuous":
                levels[:, i] = column.isna()
                values[:, i] = ((column - mean) / std).fillna(0.0)
            else:
                at = pd.Index(covariate.levels, dtype=object).get_indexer(
                    pd.Index(column.astype(object))
                )
                levels[:, i] = np.where(at < 0, len(covariate.levels), at)
        return torch.from_numpy(values), torch.from_numpy(levels)

    def _train(
        self, train: Visits, val: Visits, seed: int, device: torch.device, progress: bool
    ) -> None:
        settings, network = self.settings, self.network.to(device)
        rng, n = np.random.default_rng(seed), len(train.spans)
        n_updates = settings.epochs * -(-n // settings.batch_size)
        optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, n_updates)
        best = BestWeights(network, settings.patience)
        epochs = tqdm(range(settings.epochs), "PromptEHR", disable=not progress)
        for _ in epochs:
            network.train()
            losses = []
            for batch in self._examples(train, rng.permutation(n), settings.generated, rng):
                loss = network.loss(*(part.to(device) for part in batch))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            shown = {"loss": f"{torch.stack(losses).mean().item():.3f}"}
            epochs.set_postfix(shown)
            network.eval()
            if val.spans:
                found = self._loss(val, seed, device)
                epochs.set_postfix(shown | {"val": f"{found:.3f}"})
                if best.stops_at(found):
                    break
        best.restore()

    @torch.no_grad()
    def _loss(self, visits: Visits, seed: int, device: torch.device) -> float:
        """Of visits that are masked as a whole, always in the same order of codes."""
        rng, total = np.random.default_rng(seed), 0.0
        for batch in self._examples(visits, np.arange(len(visits.spans)), 1.0, rng):
            loss = self.network.loss(*(part.to(device) for part in batch))
            total += len(batch[0]) * loss.item()
        return total / len(visits.spans)

    def _examples(
        self, visits: Visits, rows: Tokens, generated: float, rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, ...]]:
        """Batches of what ``PromptedTransformer.loss`` takes, of stays of similar length."""
        size = self.settings.batch_size
        for pool in _batches(rows, 16 * size):
            sources, targets = zip(
                *(self._example(visits, i, generated, rng) for i in pool), strict=True
            )
            order = np.argsort([len(source) for source in sources], kind="stable")
            batches = list(_batches(order, size))
            for k in rng.permutation(len(batches)):
                chosen = batches[k]
                padded = (
                    pad_sequence([texts[i] for i in chosen], True) for texts in (sources, targets)
                )
                stays = pool[chosen]
                yield (*padded, visits.values[stays], visits.levels[stays])

    def _example(
        self, visits: Visits, stay: int, generated: float, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the encoder reads and the decoder is to write."""
        *earlier, whole = (
            [rng.permutation(span) for span in visits.spans[i]]
            for i in [*visits.earlier[stay], stay]
        )
        masked = rng.random() < generated
        given = self._masked() if masked else [self._corrupt(span, rng) for span in whole]
        source = self._source([self.grammar.visit(spans) for spans in earlier], given)
        return source, torch.from_numpy(self.grammar.visit(whole))

    def _masked(self) -> list[Tokens]:
        """The spans of a visit of which nothing is known."""
        return [np.array([MASK]) for _ in self.codes]

    def _corrupt(self, span: Tokens, rng: np.random.Generator) -> Tokens:
        return infill(span, rng) if rng.random() < 0.5 else delete(span, self.settings.deleted, rng)

    def _source(self, earlier: Sequence[Tokens], given: list[Tokens]) -> Tensor:
        """What the encoder reads: whole visits before, and what is given of this one."""
        tokens = np.concatenate([*earlier, self.grammar.visit(given)])
        return torch.from_numpy(tokens[-self.sizes["n_ctx"] :])

    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Draw prompts and write visit by visit."""
        rng, draws = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        self.network.to(device)
        rows, patient = drawn_patients(self.prompts.stays, n, draws)
        stays = self.prompts.stays.iloc[rows].reset_index(drop=True).assign(patient=patient)
        number = stays.groupby("patient").cumcount().to_numpy()
        values, levels = self._demographics(stays)
        visits: list[Tokens] = [np.zeros(0, np.int64)] * len(stays)
        with tqdm(total=len(stays), desc="sampling", disable=not progress) as bar:
            for k in range(number.max(initial=-1) + 1):
                for rows in _batches(np.flatnonzero(number == k), _BATCH):
                    sources = [self._source(visits[i - k : i], self._masked()) for i in rows]
                    given = (pad_sequence(sources, True), values[rows], levels[rows])
                    drawn = self.network.generate(rng, *(part.to(device) for part in given))
                    for i, tokens in zip(rows, drawn.numpy(), strict=True):
                        visits[i] = tokens[tokens != PAD]
                    bar.update(len(rows))
        codes = self._codes(visits)
        return assemble(
            self.prompts.schema, labels_of_codes(self.prompts.schema, stays, codes), codes
        )

    def _codes(self, visits: list[Tokens]) -> pd.DataFrame:
        """Codes of visits, as ``assemble`` takes them."""
        tokens = np.concatenate(visits)
        stay = np.repeat(np.arange(len(visits)), [len(visit) for visit in visits])
        is_code = tokens >= self.grammar.first_code
        at = tokens[is_code] - self.grammar.first_code
        names = [system.name for system in self.prompts.schema.code_systems]
        known = [
            (name, code) for name, mine in zip(names, self.codes, strict=True) for code in mine
        ]
        found = pd.DataFrame(known, columns=["system", "code"], dtype=object).iloc[at]
        return found.assign(stay=stay[is_code]).reset_index(drop=True)

    def save(self, folder: Path) -> None:
        """Write prompts, codes and weights."""
        content = {"codes": self.codes, "scales": self.scales, "sizes": self.sizes}
        write_json(folder / _CONTENT, content)
        with CohortWriter(folder / _PROMPTS, self.prompts.schema, {}) as writer:
            writer.write(self.prompts.stays, self.prompts.codes, self.prompts.measurements)
        weights = {k: v.cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, **settings: Any) -> "Promptehr":
        """What ``save`` wrote."""
        found, content = cls(**settings), read_json(folder / _CONTENT)
        found.prompts = read_cohort(folder / _PROMPTS)
        found.codes, found.scales = content["codes"], content["scales"]
        found.sizes = content["sizes"]
        with torch.random.fork_rng(devices=[]):
            found._build()
        found.network.load_state_dict(load_file(folder / _WEIGHTS))
        return found


def infill(span: Tokens, rng: np.random.Generator) -> Tokens:
    """One mask in the place of some codes that follow one another; at least of one, if any."""
    n = min(max(int(rng.poisson(_MEAN_INFILLED)), 1), len(span))
    start = int(rng.integers(len(span) - n + 1))
    return np.concatenate([span[:start], [MASK], span[start + n :]])


def delete(span: Tokens, share: float, rng: np.random.Generator) -> Tokens:
    """Without some of its codes, and without a sign of it."""
    return span[rng.random(len(span)) >= share]


def _batches(rows: Tokens, size: int) -> Iterator[Tokens]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _scale(stays: pd.DataFrame, covariate: Covariate) -> list[float]:
    """Mean and standard deviation; 0 and 1 of what has none."""
    if covariate.kind != "continuous":
        return [0.0, 1.0]
    mean, std = float(stays[covariate.name].mean()), float(stays[covariate.name].std(ddof=0))
    return [mean if np.isfinite(mean) else 0.0, std if std > 0 else 1.0]
