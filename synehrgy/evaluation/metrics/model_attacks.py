"""Membership inference by who has the model: training records are likelier than they should be."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from synehrgy.evaluation.attacks import attack_scales, attack_scores, roc_table
from synehrgy.evaluation.likelihood import (
    Attacked,
    Floats,
    Ints,
    ModelAttack,
    TokenLosses,
    attacked,
)
from synehrgy.evaluation.metric import Bench, Found, Score
from synehrgy.evaluation.scores import auroc
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.tokenizer import PARTS

# Share of the tokens of a record, the least likely ones, that the min-k attack looks at.
_MIN_K = 0.2

# Records without the token that its expected loss stands for, beside those that have it.
_PRIOR = 5.0

# The combined attack learns from all parts but one which patients are members, and tries that one.
_N_FOLDS = 5

_ATTACKS = {
    "loss": ("Loss", "asks the model how likely a whole record is"),
    "min_k": ("Least likely tokens", "asks the model how likely the unlikeliest fifth of it is"),
    "reference": (
        "Calibrated loss",
        "compares how likely a record is with how usual its tokens are",
    ),
    "combined": (
        "Calibrated loss by part",
        "knows of some patients whether they were trained on, and learns from these which parts "
        "of a record give it away,",
    ),
}


class ModelAttacks(ModelAttack):
    """Attacks by the loss of records, without training other models.

    The mean loss (Yeom et al., CSF 2018); that of the 20 % least likely tokens (Min-K%, Shi et al.,
    ICLR 2024); the mean loss less that of a reference (Watson et al., "On the Importance of
    Difficulty Calibration in Membership Inference Attacks", ICLR 2022); and this for each part of
    the records (codes, series, ...) by itself, put together by a logistic regression.
    """

    name = "model_attacks"
    title = "Attacks on the model by likelihood"
    scales = {
        score: scale
        for attack, (title, how) in _ATTACKS.items()
        for score, scale in attack_scales(f"model_attacks/{attack}", title, how).items()
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Measure the model on the train patients that it saw, and on test patients."""
        chosen = attacked(bench)
        losses, tokenizer = chosen.losses(), chosen.run.tokenizer
        calibrated = _calibrated(losses, tokenizer, bench.seed)
        above = list(zip(losses, calibrated, strict=True))
        by_part = [part.by_part(tokenizer, values) for part, values in above]
        numbers = {
            "loss": [-part.mean() for part in losses],
            "min_k": [-_least_likely(part) for part in losses],
            "reference": [-part.mean(values) for part, values in above],
            "combined": _combined(by_part, bench.seed),
        }
        scores: dict[str, Score] = {}
        roc = []
        for attack, (inside, outside) in numbers.items():
            scores |= attack_scores(
                f"model_attacks/{attack}", inside, outside, bench.seed, bench.effort.n_resamples
            )
            roc.append(roc_table(_ATTACKS[attack][0], inside, outside))
        return Found(
            scores,
            {
                "model_attacks_roc": pd.concat(roc, ignore_index=True),
                "model_attacks_parts": _parts(losses, by_part, tokenizer),
                "model_attacks_patients": _patients(chosen, losses),
            },
        )


def _least_likely(losses: TokenLosses) -> Floats:
    """The mean loss of the least likely tokens of each record: [n]."""
    order = np.lexsort((-losses.loss, losses.record))
    record = losses.record[order]
    count = np.bincount(record, minlength=losses.n)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    chosen = np.zeros(len(order), dtype=np.bool_)
    chosen[order] = rank < np.ceil(_MIN_K * count)[record]
    return losses.mean(chosen=chosen)


def expected_losses(token: Ints, loss: Floats, tokenizer: Tokenizer) -> Floats:
    """The loss to expect of each token of the vocabulary, from records that were not trained on.

    The mean loss where the token stood. Where it stood seldom, this is drawn to its surprisal among
    the tokens of its kind, plus the mean difference of the two over the kind: a rare code is as
    hard to guess as rare codes are.

    Args:
        token, loss: of the records, [m].
        tokenizer: of the tokens.

    Returns:
        float64 [vocabulary], in nats.
    """
    kind, n_tokens = tokenizer.kind_of, len(tokenizer.vocabulary)
    count = np.bincount(token, minlength=n_tokens).astype(np.float64)
    total = np.bincount(token, loss, minlength=n_tokens)
    surprisal = -np.log((count + 1) / np.bincount(kind, count + 1)[kind])
    excess = np.bincount(kind, total - count * surprisal)
    of_kind = excess / (np.bincount(kind, count) + _PRIOR)
    return np.asarray((total + _PRIOR * (surprisal + of_kind[kind])) / (count + _PRIOR))


def _calibrated(
    losses: Sequence[TokenLosses], tokenizer: Tokenizer, seed: int
) -> tuple[Floats, Floats]:
    """Losses less those to expect, of each token of members and of non-members.

    What is to be expected of one half of the patients, members or not, is learnt from the other
    half of the non-members.
    """
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(part.n) % 2 for part in losses]
    found = [part.loss.copy() for part in losses]
    others = losses[1]
    for half in (0, 1):
        learnt = halves[1][others.record] != half
        expected = expected_losses(others.token[learnt], others.loss[learnt], tokenizer)
        for part, values, of in zip(losses, found, halves, strict=True):
            mine = of[part.record] == half
            values[mine] -= expected[part.token[mine]]
    return found[0], found[1]


def _combined(by_part: Sequence[Floats], seed: int) -> list[Floats]:
    """What a logistic regression makes of the parts, of members and of non-members.

    It learns from four fifths of the patients and is asked for the last.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = len(by_part[0])
    if n < _N_FOLDS:
        return [np.empty(0), np.empty(0)]
    # A part that a record does not have is as was to be expected.
    features = np.nan_to_num(np.concatenate(by_part))
    label = np.repeat([1, 0], n)
    folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed)
    learner = make_pipeline(StandardScaler(), LogisticRegression())
    found = cross_val_predict(learner, features, label, cv=folds, method="decision_function")
    return [found[:n], found[n:]]


def _parts(
    losses: Sequence[TokenLosses], calibrated: Sequence[Floats], tokenizer: Tokenizer
) -> pd.DataFrame:
    """Where the model remembers: the losses of members and of others by part of the record."""
    plain = [part.by_part(tokenizer) for part in losses]
    rows = []
    for i, name in enumerate(PARTS):
        given = [part[:, i][~np.isnan(part[:, i])] for part in plain]
        if not min(map(len, given)):
            continue
        label = np.repeat([1, 0], list(map(len, given)))
        above = [part[:, i][~np.isnan(part[:, i])] for part in calibrated]
        rows.append(
            {
                "part": name,
                "loss, members": given[0].mean(),
                "loss, non-members": given[1].mean(),
                "auroc": auroc(label, -np.concatenate(given)),
                "auroc, calibrated": auroc(label, -np.concatenate(above)),
            }
        )
    columns = ["part", "loss, members", "loss, non-members", "auroc", "auroc, calibrated"]
    return pd.DataFrame(rows, columns=columns)


def _patients(chosen: Attacked, losses: Sequence[TokenLosses]) -> pd.DataFrame:
    """How many were attacked, of how many."""
    known = {"members": chosen.members, "non-members": chosen.non_members}
    return pd.DataFrame(
        {
            "patients": list(known),
            "known": [len(records) for records in known.values()],
            "attacked": [part.n for part in losses],
            "tokens": [len(part.loss) for part in losses],
            "tokens per record, at most": [chosen.most_tokens] * 2,
        }
    )
