"""What a model thinks of real records: the loss of each of their tokens, for attacks that know it.

An attacker who has the model, and not only its patients, asks it how likely a record is. A model
gives the records that it was trained on a little more than they deserve.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synehrgy.device import compute_type, pick_device
from synehrgy.evaluation.metric import SYNTHETIC, TEST, Bench, Metric
from synehrgy.files import read_yaml
from synehrgy.model import GPT
from synehrgy.tokenizer import Records, Tokenizer, encode
from synehrgy.tokenizer.segments import Pieces, cut_records
from synehrgy.tokenizer.tokenizer import PARTS
from synehrgy.training.batches import Batcher, ahead_of_time, trained_share
from synehrgy.training.checkpoint import CONFIG_FILE, Run, load_run, trained_on
from synehrgy.training.trainer import MAX_TOKENS, Objective

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Tokens times weights of the forward passes of an attack: about 20 seconds on two cores of a CPU,
# or less on a GPU. A quick one has a fifth of it.
_WORK = {"cpu": 1e12, "cuda": 1e14}
_QUICK = 0.2

# Rather than fewer patients of each kind, only the beginnings of their records are looked at: fewer
# do not show what happens at low false-positive rates.
_LEAST_PATIENTS = 1000


@dataclass(frozen=True)
class TokenLosses:
    """The loss of every token that a model was asked for, record by record.

    Attributes:
        n: records.
        record: int64 [m]; place of the record among those asked about, ascending.
        token: int64 [m]; what it was asked for.
        position: int64 [m]; place of the token in its record.
        loss: float64 [m]; cross-entropy in nats.
    """

    n: int
    record: Ints
    token: Ints
    position: Ints
    loss: Floats

    def mean(self, values: Floats | None = None, chosen: NDArray[np.bool_] | None = None) -> Floats:
        """The mean of each record: [n], NaN of one without tokens.

        Args:
            values: of each token; None: the losses.
            chosen: which tokens count; None: all.
        """
        values = self.loss if values is None else values
        where = slice(None) if chosen is None else chosen
        record = self.record[where]
        count = np.bincount(record, minlength=self.n)
        total = np.bincount(record, values[where], minlength=self.n)
        return np.divide(total, count, out=np.full(self.n, np.nan), where=count > 0)

    def by_part(self, tokenizer: Tokenizer, values: Floats | None = None) -> Floats:
        """The mean of each of ``PARTS`` of each record: [n, parts], NaN where it has none."""
        part = tokenizer.part_of[self.token]
        return np.column_stack([self.mean(values, part == i) for i in range(len(PARTS))])


def token_losses(
    model: GPT, tokenizer: Tokenizer, records: Records, rows: Ints, most_tokens: int | None = None
) -> TokenLosses:
    """Ask a model for the tokens of some records, long ones segment by segment as in training.

    Args:
        model: in evaluation mode; where it stands is where it is asked.
        tokenizer: of the model.
        records: made by it.
        rows: numbers of the records, each once.
        most_tokens: of each record, from its beginning; None: all.
    """
    device = model.output_weight.device
    plan = cut_records(tokenizer, records, rows, model.config.n_ctx)
    if most_tokens is not None:
        begun = plan.take(np.flatnonzero(plan.start < most_tokens))
        plan = replace(begun, stop=np.minimum(begun.stop, most_tokens))
    everything = np.arange(len(plan))
    most = MAX_TOKENS[device.type == "cuda"]
    batcher = Batcher(tokenizer, records, plan, len(plan) + 1, most)
    objective = Objective(model, None, compute_type(device)).eval()
    parts = [torch.empty(0)]
    with torch.no_grad():
        for batch in ahead_of_time(batcher.batches(everything), device):
            parts.append(objective(batch).hard.cpu())
    token, record, position = _asked(plan.pieces(tokenizer, everything), records)
    place = np.full(len(records), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    loss = torch.cat(parts).numpy().astype(np.float64)
    return TokenLosses(len(rows), place[record], token, position, loss)


def _asked(pieces: Pieces, records: Records) -> tuple[Ints, Ints, Ints]:
    """Token, record and position of what the segments ask for, in the order of the batches."""
    token, record, position = pieces.assemble(records)
    lengths = pieces.sizes.sum(axis=1)
    begin = np.cumsum(lengths) - lengths
    asked = np.arange(len(token)) >= np.repeat(begin + np.maximum(pieces.given, 1), lengths)
    return token[asked], record[asked], position[asked]


@dataclass(frozen=True)
class Attacked:
    """Patients whom an attack is to tell apart, as records of the model.

    Attributes:
        run: the model.
        members: patients that it was trained on.
        non_members: patients that it was not.
        member_rows, non_member_rows: equally many of each, chosen by chance: those attacked.
        most_tokens: of each record, at most; None: the whole.
    """

    run: Run
    members: Records
    non_members: Records
    member_rows: Ints
    non_member_rows: Ints
    most_tokens: int | None

    def losses(self, model: GPT | None = None) -> tuple[TokenLosses, TokenLosses]:
        """Those of members and of non-members, under the model or another of its tokenizer."""
        model = self.run.model if model is None else model
        parts = ((self.members, self.member_rows), (self.non_members, self.non_member_rows))
        inside, outside = (
            token_losses(model, self.run.tokenizer, records, rows, self.most_tokens)
            for records, rows in parts
        )
        return inside, outside


def loaded(folder: Path, device: torch.device | None = None) -> Run:
    """A trained run on a device, a GPU if there is one."""
    return load_run(folder, pick_device("auto") if device is None else device)


def affordable(model: GPT, bench: Bench) -> int:
    """Tokens that a model can be asked about in the time that there is."""
    work = _WORK["cuda" if model.output_weight.is_cuda else "cpu"]
    return int(work * (_QUICK if bench.effort.quick else 1.0) / model.n_parameters)


def attacked(bench: Bench) -> Attacked:
    """Load the model and choose whom to attack, as many as the effort allows.

    Args:
        bench: with a run that ``ModelAttack.lacks`` finds no fault with.
    """
    assert bench.run is not None
    run = loaded(bench.run)
    stays = _stays(run.config)
    assert stays is not None
    seen = _trained_on(run.config, stays)
    train, test = bench.train, bench.rows[TEST]
    members = encode(
        run.tokenizer, train.cohort.select(subjects=np.intersect1d(train.subjects, seen).tolist())
    )
    others = encode(run.tokenizer, test.cohort)
    rng = np.random.default_rng(bench.seed)
    inside, outside = (rng.permutation(len(part)) for part in (members, others))
    n, most_tokens = min(len(inside), len(outside)), None
    tokens = affordable(run.model, bench)
    lengths = members.lengths[inside[:n]] + others.lengths[outside[:n]]
    fitting = int(np.searchsorted(np.cumsum(lengths), tokens, side="right"))
    if fitting < min(n, _LEAST_PATIENTS):
        n = min(n, _LEAST_PATIENTS)
        most_tokens = max(tokens // (2 * n), 2)
    else:
        n = fitting
    rows = (np.sort(inside[:n]), np.sort(outside[:n]))
    return Attacked(run, members, others, *rows, most_tokens)


class ModelAttack(Metric):
    """A metric that needs the model and the very patients that it was trained on."""

    group = "privacy"
    rows = (SYNTHETIC,)
    needs = frozenset({"splits", "model"})

    def lacks(self, bench: Bench) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        why = super().lacks(bench)
        if why is not None or bench.run is None:
            return why
        config = read_yaml(bench.run / CONFIG_FILE)
        if config["mode"] != "generate":
            return "the model forecasts: it was not trained on whole records"
        stays = _stays(config)
        if stays is None or trained_on(bench.run, config) is None:
            return (
                f"the cohort that the model was trained on is not in {config['data']['path']} any "
                "more, so nobody knows which patients it saw"
            )
        keys = ["subject_id", "stay_id"]
        held_out = stays.merge(bench.rows[TEST].stays[keys])
        if (held_out["split"] == "val").any():
            return "the held-out patients are those by which the best epoch was chosen"
        for split, patients in (("train", bench.train), ("test", bench.rows[TEST])):
            known = stays.loc[stays["split"] == split, keys]
            if len(patients.stays[keys].merge(known)) < len(patients.stays):
                return "the real cohort is not the one that the model was trained on"
        return None


def _stays(config: dict[str, Any]) -> pd.DataFrame | None:
    """Patient, stay and split in the cohort that a run was trained on; None if it is gone."""
    file = Path(config["data"]["path"]) / "stays.parquet"
    columns = ["subject_id", "stay_id", "stay_index", "split"]
    return pd.read_parquet(file, columns=columns) if file.exists() else None


def _trained_on(config: dict[str, Any], stays: pd.DataFrame) -> Ints:
    """The patients of the train split that a run has really seen."""
    first = stays[stays["stay_index"] == 0]
    rows = np.flatnonzero(first["split"] == "train")
    rows = trained_share(rows, config["train"]["ratio"], config["seed"])
    return first["subject_id"].to_numpy(np.int64)[rows]
