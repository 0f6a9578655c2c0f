"""What an attacker who knows a part of a record learns of the rest from the release."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from synehrgy.evaluation.attacks import excess
from synehrgy.evaluation.closeness import Points, nearest, space_of
from synehrgy.evaluation.metric import (
    MARGINALS,
    NAN,
    ORACLE,
    SYNTHETIC,
    TEST,
    TRAIN,
    Bench,
    Found,
    Metric,
    Scale,
    bootstrapped,
    patient_weights,
)
from synehrgy.evaluation.patients import Patients

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_GUESSED = {"codes": "hidden codes", "labels": "outcomes and phenotypes"}
_SCALES = {
    f"attributes/{name}": Scale(
        f"Guessing {what}",
        f"How much better (F1) the {what} of train patients are guessed from the rest of their "
        "record and the release than those of held-out patients: 0 if nothing is given away.",
        "low",
        (-1.0, 1.0),
        0.0,
        0.04,
        0.1,
    )
    for name, what in _GUESSED.items()
} | {
    "attributes/linkability": Scale(
        "Linking codes to the rest",
        "By how much more often the codes of a train patient and the rest of the record lead to "
        "the same released stay than those of a held-out patient: 0 if nothing is given away.",
        "low",
        (-1.0, 1.0),
        0.0,
        0.01,
        0.05,
    )
}


class Attributes(Metric):
    """Attribute inference and linkability, of train against held-out patients.

    What holds of all patients can be guessed of anybody, from any good release: that is what it is
    made for. Only what is guessed better of those it was made from is a leak.
    """

    name = "attributes"
    title = "Inference of attributes"
    group = "privacy"
    rows = (SYNTHETIC, ORACLE, MARGINALS, TRAIN)
    needs = frozenset({"splits"})
    scales = _SCALES

    def measure(self, bench: Bench, row: str) -> Found:
        """Guess what is hidden of all first stays of train and test, from all stays of the row."""
        sides = (bench.train.first, bench.rows[TEST].first)
        attack = _Attack(bench)
        release = bench.rows[row]
        guessed = [attack.nearest(p, release) for p in sides]
        without = _without_release(attack, sides[1], bench.seed)
        weights = [
            np.concatenate(
                [
                    np.ones((1, len(p))),
                    patient_weights(len(p), bench.effort.n_resamples, bench.seed + i),
                ]
            )
            for i, p in enumerate(sides)
        ]
        scores, rows = {}, []
        for name, hidden in (("codes", attack.codes), ("labels", attack.labels)):
            there = hidden(release)
            if not there.shape[1]:
                continue
            truth = [hidden(p) for p in sides]
            guesses = [there[which] for which in guessed]
            train, test = (_f1(t, g, w) for t, g, w in zip(truth, guesses, weights, strict=True))
            key = f"attributes/{name}"
            gap = train - test
            scores[key] = bootstrapped(float(gap[0]), gap[1:], self.scales[key].bounds)
            known = NAN
            if without is not None:
                known = float(_f1(truth[1], truth[1][without], weights[1][:1])[0])
            rows.append((_GUESSED[name], float(train[0]), float(test[0]), known))
        if attack.has_codes:
            links = [attack.links(p, release) for p in sides]
            scores["attributes/linkability"] = excess(*links)
            train_share, test_share = (float(x.mean()) for x in links)
            rows.append(("link between codes and the rest", train_share, test_share, NAN))
        columns = ["guessed", "train", "test", "without_release"]
        return Found(scores, {"attributes_guesses": pd.DataFrame(rows, columns=columns)})


class _Attack:
    """What is known of a record and what is hidden.

    Known are the covariates, the series and one half of the codes, by chance, without those that
    labels follow from; hidden are the other codes and the labels.
    """

    def __init__(self, bench: Bench) -> None:
        self.space = space_of(bench)
        self.schema = bench.train.schema
        vocabulary = self.space.vocabulary
        defining = [item for x in self.schema.labels for item in x.definition.items()]
        telling = {f"{system}:{code}" for system, codes in defining for code in codes}
        chance = np.random.default_rng(bench.seed).random(len(vocabulary)) < 0.5
        known = chance & ~np.isin(vocabulary.to_numpy(dtype=object), list(telling))
        self.known = sparse.diags_array(known.astype(np.float32))
        self.hidden = np.flatnonzero(~known)
        self.has_codes = len(vocabulary) > 0

    def nearest(self, patients: Patients, release: Patients) -> Ints:
        """Of each stay the released stay that is most like what is known of it."""
        return nearest(self.known_points(patients), self.known_points(release))[1]

    def links(self, patients: Patients, release: Patients) -> NDArray[np.bool_]:
        """Whether the codes of a stay and the rest of it lead to the same released stay."""
        here, there = (self.space.locate(p) for p in (patients, release))
        by_codes = nearest(here.codes, there.codes)[1]
        by_rest = nearest(
            np.hstack([here.facts, here.series]), np.hstack([there.facts, there.series])
        )[1]
        return np.asarray(by_codes == by_rest)

    def codes(self, patients: Patients) -> sparse.csr_matrix:
        """The hidden codes: 0-1 [stays, codes]."""
        return patients.presence(self.space.vocabulary)[:, self.hidden]

    def labels(self, patients: Patients) -> sparse.csr_matrix:
        """All labels: 0-1 [stays, labels]."""
        columns = [label.column for label in self.schema.labels]
        return sparse.csr_matrix(patients.stays[columns].to_numpy(np.float32))

    def known_points(self, patients: Patients) -> Points:
        """What is known of each stay as a point."""
        here = self.space.locate(patients)
        codes = self.space.project(patients.presence(self.space.vocabulary) @ self.known)
        return np.hstack([here.facts, codes, here.series])


def _without_release(attack: _Attack, test: Patients, seed: int) -> Ints | None:
    """Of each held-out patient the most similar one of the other half of them; None of too few."""
    if len(test) < 2:
        return None
    points = attack.known_points(test)
    second = np.random.default_rng(seed).permutation(np.arange(len(test)) % 2 == 1)
    found = np.zeros(len(test), dtype=np.int64)
    for mine in (second, ~second):
        others = np.flatnonzero(~mine)
        found[mine] = others[nearest(points[mine], points[others])[1]]
    return found


def _f1(truth: sparse.csr_matrix, guess: sparse.csr_matrix, weights: Floats) -> Floats:
    """F1 of all facts together, of each weighting of the patients; NaN where there is no fact."""
    right = np.asarray(truth.multiply(guess).sum(axis=1), dtype=np.float64).ravel()
    stated = np.asarray(truth.sum(axis=1) + guess.sum(axis=1), dtype=np.float64).ravel()
    of, total = 2 * (weights @ right), weights @ stated
    return np.divide(of, total, out=np.full(len(total), np.nan), where=total > 0)
