"""Membership inference with shadow models: LiRA."""

import hashlib
import io
import json
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from synehrgy.cohort import SPLITS, read_cohort
from synehrgy.evaluation.attacks import attack_scales, attack_scores, roc_table
from synehrgy.evaluation.likelihood import Attacked, Floats, ModelAttack, attacked, loaded
from synehrgy.evaluation.metric import Bench, Found, Score
from synehrgy.files import read_json, read_yaml
from synehrgy.model import GPT
from synehrgy.settings import TrainConfig
from synehrgy.tokenizer import TokenStore, encode, joined
from synehrgy.tokenizer.tokenizer import PARTS
from synehrgy.training.checkpoint import CONFIG_FILE, RUN_FILE
from synehrgy.training.loop import train

N_MODELS = 8
SHADOWS = "shadows"

_ATTACKS = {
    "online": (
        "LiRA, online",
        "trains models with and without a patient, and compares the loss with both,",
    ),
    "offline": (
        "LiRA, offline",
        "trains models without a patient, and compares the loss with these,",
    ),
}


class Shadow(ModelAttack):
    """Likelihood ratio attack, LiRA (Carlini et al., IEEE S&P 2022).

    Models of the run's own configuration and tokenizer are trained on random halves of its train
    and the test patients, so that each patient is in half of them. The losses of a patient under
    those with it, and under those without, are taken for normal, with a mean for each patient and
    a variance for all together (as is advised for few shadow models), for each part of the records
    (codes, series, ...) by itself. The likelihood ratio of the loss under the model itself is the
    attack; offline, only the models without the patient are looked at.

    Args:
        n_models: how many are trained; even.
        epochs: of each, at most; None: as many as the run.
        folder: where they are kept, so that they are trained once; None: in that of the run.
    """

    name = "shadow"
    title = "Attack with shadow models"
    scales = {
        score: scale
        for attack, (title, how) in _ATTACKS.items()
        for score, scale in attack_scales(f"shadow/{attack}", title, how).items()
    }
    quick = False
    costly = True

    def __init__(
        self, n_models: int = N_MODELS, epochs: int | None = None, folder: Path | None = None
    ) -> None:
        self.n_models, self.epochs, self.folder = n_models, epochs, folder

    def lacks(self, bench: Bench) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        why = super().lacks(bench)
        if why is not None or bench.run is None:
            return why
        if read_yaml(bench.run / CONFIG_FILE)["use_pretrained"] is not None:
            return "the model began with the weights of another, which shadow models cannot"
        return None

    def measure(self, bench: Bench, row: str) -> Found:
        """Train what is not trained yet, and measure the model."""
        chosen = attacked(bench)
        n = len(chosen.member_rows)
        is_in = _halves(len(chosen.members) + len(chosen.non_members), self.n_models, bench.seed)
        folders = self._trained(chosen, is_in, bench.seed)
        rows = np.concatenate([chosen.member_rows, len(chosen.members) + chosen.non_member_rows])
        is_in = is_in[:, rows]
        target = _losses(chosen, chosen.run.model)
        shadows = np.stack([_losses(chosen, loaded(path).model) for path in folders])
        found = dict(zip(_ATTACKS, lira(target, shadows, is_in), strict=True))
        scores: dict[str, Score] = {}
        for attack, numbers in found.items():
            parts = (numbers[:n], numbers[n:])
            scores |= attack_scores(
                f"shadow/{attack}", *parts, bench.seed, bench.effort.n_resamples
            )
        roc = [roc_table(_ATTACKS[a][0], found[a][:n], found[a][n:]) for a in _ATTACKS]
        return Found(
            scores,
            {
                "shadow_roc": pd.concat(roc, ignore_index=True),
                "shadow_models": _models(target, shadows, is_in, n),
            },
        )

    def _trained(self, chosen: Attacked, is_in: NDArray[np.bool_], seed: int) -> list[Path]:
        """Folders of the shadow models; those that are there and finished are not trained again."""
        tokenizer = chosen.run.tokenizer
        config = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(TrainConfig), chosen.run.config)
        )
        assert isinstance(config, TrainConfig)
        validation = read_cohort(Path(config.data.path)).select(split="val")
        pool = joined([chosen.members, chosen.non_members, encode(tokenizer, validation)])
        config.train = replace(config.train, ratio=1.0, canaries=0)
        if self.epochs is not None:
            config.train.epochs = min(config.train.epochs, self.epochs)
        facts = [asdict(config.train), asdict(config.hparams), asdict(config.model), seed]
        known = hashlib.sha256(json.dumps([facts, tokenizer.to_json()]).encode())
        known.update(pool.tokens.tobytes() + is_in.tobytes())
        kept = chosen.run.path / SHADOWS if self.folder is None else self.folder
        config.paths.saved_models = str(kept / known.hexdigest()[:16])
        config.wandb.mode, config.device = "disabled", "auto"
        config.resume, config.overwrite = True, False
        folders = []
        for i, inside in enumerate(is_in):
            config.run_name, config.seed = f"shadow-{i}", seed + i + 1
            folder = Path(config.paths.saved_models) / config.run_name
            folders.append(folder)
            if (folder / RUN_FILE).exists() and read_json(folder / RUN_FILE)["finished"]:
                continue
            print(f"Shadow model {i + 1} of {len(is_in)}: {folder}")
            splits = np.full(len(pool), SPLITS.index("val"), dtype=np.int8)
            splits[: len(inside)] = np.where(inside, SPLITS.index("train"), SPLITS.index("test"))
            store = TokenStore(folder, known.hexdigest(), tokenizer, replace(pool, splits=splits))
            # What it has to say of itself is not about the evaluation; its bar is still seen.
            gpus = range(torch.cuda.device_count())
            with torch.random.fork_rng(devices=gpus), redirect_stdout(io.StringIO()):
                train(config, store)
        return folders


def _halves(n: int, n_models: int, seed: int) -> NDArray[np.bool_]:
    """Which model is trained on which patient: bool [models, n], each patient in half of them."""
    order = np.random.default_rng(seed).random((n_models, n)).argsort(axis=0)
    return order < n_models // 2


def _losses(chosen: Attacked, model: GPT) -> Floats:
    """Losses of the attacked patients, members first, by part: [patients, parts].

    The sum over the tokens of a part, divided by the root of their number: where tokens err
    independently, it varies equally much in short records and in long ones. NaN of no tokens.
    """
    tokenizer, found = chosen.run.tokenizer, []
    for losses in chosen.losses(model):
        ones = np.ones(len(losses.loss))
        part = tokenizer.part_of[losses.token]
        cell = np.bincount(losses.record * len(PARTS) + part, ones, losses.n * len(PARTS))
        found.append(losses.by_part(tokenizer) * np.sqrt(cell.reshape(losses.n, len(PARTS))))
    return np.concatenate(found)


def lira(target: Floats, shadows: Floats, is_in: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Log likelihood ratios that the target was trained on each patient, from normal fits.

    The target is another model than its shadows, trained on more or on fewer patients: its losses
    are first shifted, so that their mean lies midway between those with and without.

    Args:
        target: losses under the model, [patients, kinds of loss]; NaN where there is none.
        shadows: under its shadow models, [models, patients, kinds]; NaN as in the target.
        is_in: which model was trained on which patient, [models, patients].

    Returns:
        Online: log p(loss | trained on) - log p(loss | not), summed over kinds. Offline: how far
        the loss lies below what it is without, in standard deviations, summed over kinds. Both
        float64 [patients]; great: taken for a member.
    """
    known = ~np.isnan(target)
    target, shadows = np.where(known, target, 0.0), np.where(known, shadows, 0.0)
    mean_in, sd_in = _normal(shadows, is_in, known)
    mean_out, sd_out = _normal(shadows, ~is_in, known)
    middle = (mean_in + mean_out) / 2
    shift = (target - middle).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    below_in, below_out = (
        np.divide(mean + shift - target, sd, out=np.zeros_like(target), where=known & (sd > 0))
        for mean, sd in ((mean_in, sd_in), (mean_out, sd_out))
    )
    both = (sd_in > 0) & (sd_out > 0)
    ratio = np.log(np.divide(sd_out, sd_in, out=np.ones_like(sd_in), where=both))
    online = np.where(known & both, ratio + (below_out**2 - below_in**2) / 2, 0.0)
    return online.sum(axis=1), below_out.sum(axis=1)


def _normal(
    losses: Floats, chosen: NDArray[np.bool_], known: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """The mean of each patient over the chosen models, and one standard deviation for all."""
    weight = chosen[:, :, None]
    count = weight.sum(axis=0)
    mean = (losses * weight).sum(axis=0) / np.maximum(count, 1)
    squares = ((losses - mean) ** 2 * weight).sum(axis=(0, 1))
    free = (np.maximum(count - 1, 0) * known).sum(axis=0)
    return mean, np.sqrt(np.divide(squares, free, out=np.zeros_like(squares), where=free > 0))


def _models(
    target: Floats, shadows: Floats, is_in: NDArray[np.bool_], n_members: int
) -> pd.DataFrame:
    """Whether the shadows are like the model: losses of whom they were trained on, and of others.

    The sum of the losses of a record, each part divided by the root of its tokens.
    """
    inside = np.arange(len(target)) < n_members
    models = ["the model", *(f"shadow {i + 1}" for i in range(len(shadows)))]
    rows = []
    for name, losses, mine in zip(models, [target, *shadows], [inside, *is_in], strict=True):
        total = np.nansum(losses, axis=1)
        means = [total[who].mean() if who.any() else np.nan for who in (mine, ~mine)]
        rows.append((name, *means))
    return pd.DataFrame(rows, columns=["model", "loss, trained on", "loss, not trained on"])
