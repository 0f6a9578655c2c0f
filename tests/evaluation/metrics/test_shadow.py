"""LiRA: the likelihood ratio itself, and shadow models that are trained once."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from synehrgy.evaluation.metrics import shadow as module
from synehrgy.evaluation.metrics.shadow import Shadow, _halves, lira
from synehrgy.evaluation.scores import auroc
from tests.evaluation.metrics.conftest import bench


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    monkeypatch.setattr("synehrgy.training.loop.draw_curves", lambda *_: None)


def simulated(effect, n=400, n_models=8, n_kinds=2, seed=0):
    """Losses of patients who differ from each other, lower by ``effect`` where trained on."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=(n, n_kinds)) * 5
    is_in = _halves(n, n_models, seed)
    member = np.arange(n) < n // 2
    noise = rng.normal(size=(n_models + 1, n, n_kinds))
    inside = np.concatenate([member[None], is_in])
    losses = hard + noise - effect * inside[:, :, None]
    return losses[0], losses[1:], is_in, member


def test_each_patient_is_in_half_of_the_models():
    is_in = _halves(1000, 8, seed=1)
    assert (is_in.sum(axis=0) == 4).all()
    assert np.abs(is_in.sum(axis=1) - 500).max() < 100
    assert np.abs(np.corrcoef(is_in) - np.eye(8)).max() < 0.3


def test_it_is_the_ratio_of_two_normal_densities():
    target, shadows, is_in, _ = simulated(1.0, n=30)
    online, offline = lira(target, shadows, is_in)
    expected = np.zeros((2, 30))
    for kind in range(2):
        mean, sd = [], []
        for chosen in (is_in, ~is_in):
            own = [shadows[chosen[:, i], i, kind] for i in range(30)]
            mean.append(np.array([x.mean() for x in own]))
            rest = np.concatenate([x - x.mean() for x in own])
            sd.append(np.sqrt((rest**2).sum() / (len(rest) - 30)))
        x = target[:, kind] - np.mean(target[:, kind] - (mean[0] + mean[1]) / 2)
        with_it, without = (norm.logpdf(x, m, s) for m, s in zip(mean, sd, strict=True))
        expected[0] += with_it - without
        expected[1] += (mean[1] - x) / sd[1]
    np.testing.assert_allclose(online, expected[0])
    np.testing.assert_allclose(offline, expected[1])


def test_the_more_a_model_remembers_the_more_patients_are_found():
    found = []
    for effect in (0.0, 0.5, 1.0, 2.0):
        target, shadows, is_in, member = simulated(effect)
        found.append([auroc(member.astype(int), x) for x in lira(target, shadows, is_in)])
        # Who only looks at the loss itself sees who is easy to predict.
        assert auroc(member.astype(int), -target.sum(axis=1)) < 0.68
    online, offline = np.array(found).T
    assert (np.diff(online) > 0).all()
    assert (np.diff(offline) > 0).all()
    assert abs(online[0] - 0.5) < 0.06
    assert abs(offline[0] - 0.5) < 0.06
    assert online[3] > 0.95


def test_a_target_that_is_trained_better_than_its_shadows_is_no_member_everywhere():
    target, shadows, is_in, _ = simulated(1.0)
    for found, shifted in zip(
        lira(target, shadows, is_in), lira(target - 7, shadows, is_in), strict=True
    ):
        np.testing.assert_allclose(found, shifted)


def test_what_a_record_does_not_have_says_nothing():
    target, shadows, is_in, _ = simulated(1.0)
    absent = np.full(len(target), np.nan)
    more = np.column_stack([target, absent])
    wider = np.concatenate([shadows, np.full((*shadows.shape[:2], 1), np.nan)], axis=2)
    for found, same in zip(lira(target, shadows, is_in), lira(more, wider, is_in), strict=True):
        np.testing.assert_allclose(found, same)


def test_one_model_with_and_one_without_say_nothing_instead_of_failing():
    target, shadows, is_in, _ = simulated(1.0, n_models=2)
    assert all((found == 0).all() for found in lira(target, shadows, is_in))


@pytest.fixture
def attack(tmp_path):
    """With few and short trainings."""
    return Shadow(n_models=4, epochs=8, folder=tmp_path)


def test_a_model_that_learnt_by_heart_is_found_out(doses, halves_folder, attack, monkeypatch):
    mine = bench(halves_folder, doses[2])
    before = torch.get_rng_state()
    found = attack.measure(mine, "synthetic")
    assert torch.equal(torch.get_rng_state(), before)
    assert set(found.scores) == set(Shadow.scales)
    for name in ("online", "offline"):
        score = found.scores[f"shadow/{name}/auroc"]
        assert score.value > 0.8
        assert score.low > 0.65
    table = found.tables["shadow_models"]
    assert len(table) == 5
    assert (table["loss, trained on"] < table["loss, not trained on"]).iloc[0]
    # What is trained is not trained again.
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained again"))
    again = attack.measure(mine, "synthetic")
    assert again.scores["shadow/online/auroc"] == found.scores["shadow/online/auroc"]


def test_a_model_that_has_hardly_begun_gives_nobody_away(doses, halves_folder, attack):
    found = attack.measure(bench(halves_folder, doses[0]), "synthetic")
    for name in ("online", "offline"):
        score = found.scores[f"shadow/{name}/auroc"]
        assert score.low < 0.5 < score.high


def test_it_is_left_out_unless_asked_for(doses, halves_folder):
    assert Shadow.costly
    assert Shadow().lacks(bench(halves_folder, doses[0])) is None
    assert "not known" in Shadow().lacks(bench(halves_folder, None))
