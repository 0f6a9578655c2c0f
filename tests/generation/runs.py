"""Runs whose records are short, so that thousands of them take seconds."""

from pathlib import Path

import numpy as np

from synehrgy.generation.sampler import sample
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import END_SERIES
from synehrgy.training.checkpoint import Run
from tests.cohorts import small_cohort
from tests.generation.test_sampler import untrained


def hasty(model, tokenizer, **boosts):
    """A model that hardly ever measures anything; ``boosts`` add to the logits of tokens."""
    logits = model.logits
    more = {tokenizer.token(END_SERIES): 12.0}
    more |= {tokenizer.vocabulary.index(text): boost for text, boost in boosts.items()}

    def changed(states):
        found = logits(states).clone()
        for token, boost in more.items():
            found[..., token] += boost
        return found

    model.logits = changed
    return model


def noisy_run(cohort=None, n_ctx=120, scale=12.0, seed=0, mode="generate", how=None, **boosts):
    """A run that was never trained: everything in its records hangs together, by chance."""
    cohort = cohort or small_cohort()
    tokenizer = Tokenizer.fit(cohort, how or TokenSettings(min_code_count=1))
    model = hasty(untrained(tokenizer, n_ctx, seed, scale), tokenizer, **boosts)
    return Run(Path("noisy"), model, tokenizer, {"mode": mode})


def drawn_of(run, requests, n, seed=0, **how):
    """Patients 0 to n - 1 in order."""
    how = {"batch_size": 512, **how}
    found = sample(run.model, run.tokenizer, range(n), requests=requests, seed=seed, **how)
    return sorted(found, key=lambda one: one.patient)


def assert_alike(ours, theirs, n_ours, n_theirs, sigmas=4.5):
    """Counts of the same things in two samples differ no more than chance allows."""
    p = (ours + theirs) / (n_ours + n_theirs)
    spread = np.sqrt(p * (1 - p) * (1 / n_ours + 1 / n_theirs))
    apart = np.abs(ours / n_ours - theirs / n_theirs)
    assert np.all(apart <= sigmas * spread + 1 / min(n_ours, n_theirs)), apart / spread
