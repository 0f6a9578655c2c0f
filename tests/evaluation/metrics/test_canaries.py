"""Canaries are found if they were planted, and the better the more often they were."""

import numpy as np
import pytest

from synehrgy.evaluation import likelihood
from synehrgy.evaluation.metrics.canaries import CanariesMetric
from synehrgy.evaluation.scores import auroc
from tests.evaluation.metrics.conftest import bench, trained_on

# Repeated so often, so many canaries: those that are not trained on cost nothing.
DOSES = {0: 200, 2: 20, 10: 20}


@pytest.fixture(scope="module")
def planted(halves_folder, tmp_path_factory):
    """What is found in runs in which canaries are repeated never, once and often."""
    runs = tmp_path_factory.mktemp("canaries")
    more = ["train.epochs=6", "hparams.lr=1e-2"]
    found = []
    for repeats, n in DOSES.items():
        given = [f"train.canary_repeats={repeats}", f"train.canaries={n}"]
        run = trained_on(halves_folder, runs, f"run-{repeats}", *given, *more)
        found.append(CanariesMetric().measure(bench(halves_folder, run), "synthetic"))
    return found


def test_what_was_planted_is_found(planted):
    never, _, often = (found.scores["canaries/auroc"] for found in planted)
    assert never.low < 0.5 < never.high
    assert often.value > 0.95
    areas = [found.scores["canaries/auroc"].value for found in planted]
    assert areas == sorted(areas)


def test_exposure_grows_with_repetition(planted):
    never, twice, often = (found.scores["canaries/exposure"] for found in planted)
    assert never.value < twice.value < often.value
    scale = CanariesMetric.scales["canaries/exposure"]
    assert scale.light(never.value, scale.reference) == "good"
    assert scale.light(often.value, scale.reference) == "poor"
    assert often.low > scale.reference
    # All 20 before all that were held out: log2(21) bits.
    assert often.value == pytest.approx(np.log2(21), abs=0.5)


def test_scores_are_those_of_the_table(planted):
    for found, (repeats, n) in zip(planted, DOSES.items(), strict=True):
        table = found.tables["canaries_exposure"]
        held_out = table["loss_held_out"].to_list()
        ranks = [1 + sum(other < loss for other in held_out) for loss in table["loss"]]
        expected = np.log2(n + 1) - np.log2(ranks)
        np.testing.assert_allclose(table["exposure"], expected)
        assert found.scores["canaries/exposure"].value == pytest.approx(expected.mean())
        label = np.repeat([1, 0], [n, n])
        area = auroc(label, -np.array([*table["loss"], *held_out]))
        assert found.scores["canaries/auroc"].value == pytest.approx(area)
        assert (table["repeats"] == repeats).all()
        assert set(found.scores) == set(CanariesMetric.scales)


def test_a_run_without_canaries_says_so(doses, halves_folder):
    assert "train.canaries" in CanariesMetric().lacks(bench(halves_folder, doses[0]))
    assert "not known" in CanariesMetric().lacks(bench(halves_folder, None))


def test_of_a_large_model_fewer_are_looked_at(halves_folder, tmp_path, monkeypatch):
    given = ["train.canaries=120", "train.canary_repeats=0", "train.epochs=1"]
    run = trained_on(halves_folder, tmp_path, "many", *given)
    mine = bench(halves_folder, run)
    whole = CanariesMetric().measure(mine, "synthetic").tables["canaries_exposure"]
    assert len(whole) == 120
    monkeypatch.setitem(likelihood._WORK, "cpu", 0.0)
    fewer = CanariesMetric().measure(mine, "synthetic").tables["canaries_exposure"]
    assert len(fewer) == 100
    np.testing.assert_allclose(fewer["loss"], whole["loss"][:100], rtol=1e-3)
