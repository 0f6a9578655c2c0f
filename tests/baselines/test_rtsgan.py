"""RTSGAN: what its pieces do, and that it learns how series and facts hang together."""

import numpy as np
import pytest
import torch

from synehrgy.baselines import baselines
from synehrgy.baselines.gan import gradient_penalty
from synehrgy.baselines.marginals import independent_columns
from synehrgy.baselines.rtsgan import Rtsgan, _points
from synehrgy.baselines.rtsgan_network import (
    Autoencoder,
    Layout,
    Records,
    _lags,
    critic,
    draw_class,
    draw_observed,
)
from synehrgy.baselines.series import SeriesGrid
from synehrgy.cohort import Covariate, Label, Schema, Variable
from tests.cohorts import build

CPU = torch.device("cpu")
SCHEMA = Schema(
    name="levels",
    source="test",
    covariates=[Covariate("age", "continuous", unit="years")],
    labels=[Label("high", "High", "outcome")],
    variables=[
        Variable("pain", "categorical", levels=["none", "some"]),
        Variable("pulse", "continuous"),
        Variable("volume", "continuous"),
    ],
)
SMALL = {
    "n_steps": 12,
    "hidden": 24,
    "noise": 24,
    "batch_size": 50,
    "updates": 300,
    "learning_rate": 5e-3,
    "gan_batch_size": 64,
    "gan_updates": 800,
}


def levels(n=300, seed=0):
    """Patients with a level each: pulse rises with it, volume falls, and who is high is watched."""
    rng = np.random.default_rng(seed)
    stays, measurements = [], []
    for i in range(n):
        level = rng.normal()
        stays.append((i, i, None, 0, "train", 60 + 10 * level, int(level > 0.5), 12.0))
        for hour in np.flatnonzero(rng.random(12) < (0.9 if level > 0.5 else 0.4)):
            at = hour + 0.25
            if rng.random() < 0.5:
                measurements.append((i, at, "pain", None, "some" if level > 0 else "none"))
            pulse = 80 + 10 * level + rng.normal()
            measurements.append((i, at, "pulse", round(pulse, 3), None))
            if rng.random() < 0.4:
                measurements.append((i, at, "volume", 50 - 5 * level + rng.normal(), None))
    return build(SCHEMA, stays, [], measurements)


def network(n_steps=6, hidden=8):
    facts = Layout([slice(0, 1), slice(1, 3)], [False, True])
    series = Layout([slice(0, 2), slice(2, 3), slice(3, 4)], [True, False, False])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Autoencoder(facts, series, n_steps, hidden)


def decoded(net, n=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    latent = torch.randn(n, net.width, generator=rng)
    with torch.no_grad():
        return latent, net.decode(latent, 5, rng)


def test_time_points_are_the_steps_with_a_value_and_know_the_last_one_of_each_series():
    stays = [(1, 1, None, 0, "train", 60.0, 0, 9.0), (2, 2, None, 0, "train", 60.0, 0, 9.0)]
    measurements = [
        (1, 1.5, "pulse", 70.0, None),
        (1, 4.2, "pain", None, "some"),
        (1, 5.0, "pulse", 90.0, None),
    ]
    cohort = build(SCHEMA, stays, [], measurements)
    grid = SeriesGrid.fit(cohort, n_steps=8)
    filled, observed, times, length = _points(grid, cohort)
    assert length.tolist() == [3, 0]
    assert times.tolist() == [[2, 5, 6], [0, 0, 0]]
    assert observed[0].astype(int).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
    low, high = filled[0, 0, 2], filled[0, 2, 2]
    assert low < 0 < high
    expected = [[0, 0, low, 0], [0, 1, low, 0], [0, 1, high, 0]]
    np.testing.assert_array_equal(filled[0], np.array(expected, dtype=np.float32))
    assert not filled[1].any()


def test_lags_count_from_the_last_value_before():
    observed = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    times = torch.tensor([[2, 5, 6]])
    assert _lags(observed, times).tolist() == [[[2.0, 2.0], [3.0, 5.0], [4.0, 1.0]]]


def test_losses_count_what_is_observed_only():
    layout = Layout([slice(0, 1), slice(1, 3)], [False, True])
    target = torch.tensor([[1.0, 0.0, 1.0]])
    predicted = torch.tensor([[3.0, 0.0, 0.0]])
    squared, entropy = (
        layout.loss(predicted, target, torch.tensor([[a, 1 - a]])).item() for a in (1.0, 0.0)
    )
    assert squared == pytest.approx(4)
    assert entropy == pytest.approx(np.log(2))
    both = layout.loss(predicted, target, torch.ones(1, 2)).item()
    assert both == pytest.approx((squared + entropy) / 2)


def test_padding_changes_neither_the_vector_nor_the_loss():
    net = network()
    _, records = decoded(net)
    records = records._replace(length=torch.full((40,), 5), times=torch.arange(1, 6).repeat(40, 1))
    longer = [torch.nn.functional.pad(part, (0, 0, 0, 3)) for part in records[1:3]]
    longer = Records(
        records.facts, *longer, torch.nn.functional.pad(records.times, (0, 3)), records.length
    )
    torch.testing.assert_close(net.encode(longer), net.encode(records))
    torch.testing.assert_close(net.loss(longer), net.loss(records))


def test_decoding_predicts_what_training_predicts():
    # So many steps that no record reaches the last one before its fifth time point.
    net = network(n_steps=500)
    net.gap.bias.data[50:] = -50.0
    latent, records = decoded(net)
    assert (records.times.diff(dim=1) > 0).all()
    _, _, values = net.follow(latent, records)
    there = net.series.by_channel(records.observed) == 1
    assert there.any((0, 1)).all()
    for channel in (2, 3):
        some = there[..., channel]
        torch.testing.assert_close(values[..., channel][some], records.filled[..., channel][some])


def test_decoded_times_ascend_and_end_with_the_grid():
    _, records = decoded(network(n_steps=6))
    times = records.times
    assert times.max() <= 6
    assert (times == 0).any()
    ended = (times == 0).int()
    assert (ended.diff(dim=1) >= 0).all()
    assert ((times.diff(dim=1) > 0) | (ended[:, 1:] == 1)).all()


def test_what_is_always_or_never_there_stays_so():
    logits = torch.zeros(200, 3)
    found = draw_observed(
        logits, torch.tensor([0.0, 0.5, 1.0]), torch.Generator().manual_seed(0)
    ).mean(0)
    assert found[0] == 0
    assert 0.3 < found[1] < 0.7
    assert found[2] == 1


def test_classes_are_drawn_by_their_chances():
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1])).expand(5000, 3)
    drawn = draw_class(logits, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=3) / 5000
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.03, rtol=0)


@pytest.mark.parametrize(("slope", "penalty"), [(1.0, 0.0), (3.0, 4.0)])
def test_the_penalty_is_of_slopes_other_than_one(slope, penalty):
    judge = torch.nn.Linear(2, 1)
    judge.weight.data = torch.tensor([[0.6 * slope, 0.8 * slope]])
    real, fake = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(0))
    found = gradient_penalty(judge, real, fake, torch.full((7, 1), 0.3))
    assert found.item() == pytest.approx(penalty, abs=1e-5)
    assert critic(9)(torch.zeros(4, 9)).shape == (4, 1)


def test_training_stops_when_other_patients_are_not_told_better(monkeypatch):
    calls = []
    real_loss = Autoencoder.loss

    def counted(self, records):
        calls.append(len(records.length))
        loss = real_loss(self, records)
        # That of the 7 patients of val never falls.
        return loss if len(records.length) != 7 else loss * 0 + len(calls)

    monkeypatch.setattr(Autoencoder, "loss", counted)
    settings = {**SMALL, "updates": 1000, "patience": 3, "gan_updates": 1}
    cohort = levels(27)
    train, val = (cohort.select(subjects=ids) for ids in (range(20), range(20, 27)))
    baselines()["rtsgan"](**settings).fit(train, val, seed=0, device=CPU, progress=False)
    # The first pass is the best one, and three more do not better it.
    assert calls == [20, 7] * 4


def means(cohort):
    """Of each patient: the mean of each continuous series, age, label and time points."""
    rows = cohort.measurements
    numbers = rows[rows["value"].notna()].astype({"variable": object})
    table = numbers.pivot_table(index="stay_id", columns="variable", values="value")
    stays = cohort.stays.set_index("stay_id")
    table = table.reindex(stays.index)
    table["points"] = rows.groupby("stay_id")["hours"].nunique().reindex(stays.index).fillna(0)
    levels = rows[rows["variable"] == "pain"]
    table["pain"] = (levels["level"] == "some").groupby(levels["stay_id"]).mean()
    return table.assign(age=stays["age"], high=stays["high"]).corr()


@pytest.fixture(scope="module")
def learnt():
    real = levels()
    baseline = Rtsgan(**SMALL)
    baseline.fit(real, real.select(subjects=[]), seed=0, device=CPU, progress=False)
    found = baseline.sample(300, seed=1, device=CPU, progress=False)
    return real, found, independent_columns(real, 300, seed=1)


def test_series_levels_labels_and_facts_hang_together_as_in_real_patients(learnt):
    real, found, floor = (means(cohort) for cohort in learnt)
    for one, other in (
        ("pulse", "volume"),
        ("pulse", "pain"),
        ("pulse", "age"),
        ("pulse", "high"),
        ("points", "high"),
    ):
        assert abs(real.loc[one, other]) > 0.6
        assert abs(floor.loc[one, other]) < 0.3
        assert found.loc[one, other] * np.sign(real.loc[one, other]) > 0.5, (one, other)


def test_values_of_a_patient_stay_near_each_other(learnt):
    def within(cohort):
        rows = cohort.measurements
        pulse = rows[rows["variable"] == "pulse"]
        return pulse.groupby("stay_id")["value"].std().mean() / pulse["value"].std()

    real, found, floor = (within(cohort) for cohort in learnt)
    assert real < 0.2
    assert floor > 0.7
    assert found < 0.35


def test_patients_differ_as_real_ones_do(learnt):
    real, found, _ = learnt
    spread = [
        c.measurements.loc[c.measurements["variable"] == "pulse", "value"].std() for c in learnt
    ]
    assert 0.6 < spread[1] / spread[0] < 1.5
    assert abs(found.stays["high"].mean() - real.stays["high"].mean()) < 0.15
    assert abs(found.stays["age"].mean() - real.stays["age"].mean()) < 4
    points = [len(c.measurements[["stay_id", "hours"]].drop_duplicates()) for c in learnt]
    assert 0.75 < points[1] / points[0] < 1.33
