"""How much better a model knows made-up patients that it was trained on than others like them."""

import numpy as np
import pandas as pd

from synehrgy.evaluation.attacks import attack_scales, attack_scores, roc_table
from synehrgy.evaluation.likelihood import affordable, loaded, token_losses
from synehrgy.evaluation.metric import (
    SYNTHETIC,
    Bench,
    Found,
    Metric,
    Scale,
    bootstrapped,
    patient_weights,
)
from synehrgy.files import read_yaml
from synehrgy.training.canaries import CANARIES_FILE, Canaries
from synehrgy.training.checkpoint import CONFIG_FILE

# Exposure to expect of a canary that the model has never seen, whose rank is any: 1 / ln 2 bits.
_BY_CHANCE = 1.4427

_LEAST_PAIRS = 100


class CanariesMetric(Metric):
    """Exposure of canaries (Carlini et al., "The Secret Sharer", USENIX Security 2019).

    Asked is only for what was drawn of each canary: its codes and values. The exposure of a planted
    one is log2(n + 1) - log2(its rank) by loss among itself and the n that were held out.
    """

    name = "canaries"
    title = "Canaries"
    group = "privacy"
    scales = {
        **attack_scales("canaries", "Canaries", "asks the model how likely a record is"),
        "canaries/exposure": Scale(
            "Canaries: exposure",
            "By how many bits, on the average, having been trained on a record makes it easier to "
            "guess; 1.4 by chance.",
            "low",
            (0.0, float("inf")),
            _BY_CHANCE,
            good=0.5,
            poor=1.5,
        ),
    }
    rows = (SYNTHETIC,)
    needs = frozenset({"model"})

    def lacks(self, bench: Bench) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        why = super().lacks(bench)
        if why is not None or bench.run is None:
            return why
        if not (bench.run / CANARIES_FILE).exists():
            return "the model was trained without canaries (train.canaries)"
        if read_yaml(bench.run / CONFIG_FILE)["mode"] != "generate":
            return "the model forecasts: it was not trained on whole records"
        return None

    def measure(self, bench: Bench, row: str) -> Found:
        """Measure the model; the patients do not matter."""
        assert bench.run is not None
        run, canaries = loaded(bench.run), Canaries.load(bench.run)
        # As many pairs as there is time for, but enough to say something.
        lengths = np.cumsum(canaries.records.lengths)[1::2]
        fitting = int(np.searchsorted(lengths, affordable(run.model, bench), side="right"))
        n = min(max(fitting, _LEAST_PAIRS), len(lengths))
        losses = token_losses(run.model, run.tokenizer, canaries.records, np.arange(2 * n))
        at = canaries.records.offsets[losses.record] + losses.position
        loss = losses.mean(chosen=canaries.drawn[at])
        is_planted = canaries.planted[: 2 * n]
        inside, outside = loss[is_planted], loss[~is_planted]
        easier = (outside[None, :] < inside[:, None]).astype(np.float64)
        exposure = np.log2(n + 1) - np.log2(easier.sum(axis=1) + 1)
        resamples, seed = bench.effort.n_resamples, bench.seed
        ranks = patient_weights(n, resamples, seed + 1) @ easier.T + 1
        weights = patient_weights(n, resamples, seed) / n
        drawn = (weights * (np.log2(n + 1) - np.log2(ranks))).sum(axis=1)
        scores = attack_scores("canaries", -inside, -outside, seed, resamples)
        bounds = self.scales["canaries/exposure"].bounds
        scores["canaries/exposure"] = bootstrapped(float(exposure.mean()), drawn, bounds)
        table = pd.DataFrame({"loss": inside, "loss_held_out": outside, "exposure": exposure})
        repeats = run.config["train"]["canary_repeats"]
        return Found(
            scores,
            {
                "canaries_exposure": table.assign(repeats=repeats),
                "canaries_roc": roc_table("canaries", -inside, -outside),
            },
        )
