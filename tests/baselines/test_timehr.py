"""TimEHR: what its pieces do, and that it learns when and how series go together."""

import numpy as np
import pytest
import torch

from synehrgy.baselines.gan import gradient_penalty
from synehrgy.baselines.marginals import independent_columns
from synehrgy.baselines.timehr import (
    Timehr,
    _alike_together,
    _levels_as_numbers,
    _numbers_as_levels,
    conditions,
)
from synehrgy.baselines.timehr_network import (
    Critic,
    Generator,
    chances_to_mask,
    draw_mask,
    draw_values,
    side,
)
from synehrgy.cohort import Covariate, Label, Schema, Variable
from tests.cohorts import build, small_cohort

CPU = torch.device("cpu")
SCHEMA = Schema(
    name="levels",
    source="test",
    covariates=[Covariate("age", "continuous", unit="years")],
    labels=[Label("high", "High", "outcome")],
    variables=[
        Variable("pain", "categorical", levels=["none", "some"]),
        Variable("potassium", "continuous"),
        Variable("pulse", "continuous"),
        Variable("sodium", "continuous"),
        Variable("volume", "continuous"),
    ],
)
SMALL = {
    "n_steps": 16,
    "noise": 16,
    "mask_updates": 800,
    "value_updates": 300,
    "mask_learning_rate": 3e-3,
    "value_learning_rate": 3e-3,
    "average": 0.98,
}


def levels(n=400, seed=0):
    """Patients with a level each: pulse rises with it, volume falls, and who is high is watched.

    Potassium and sodium are measured together, now and then.
    """
    rng = np.random.default_rng(seed)
    stays, measurements = [], []
    for i in range(n):
        level = rng.normal()
        high, end = level > 0, (8.0, 16.0)[i % 2]
        stays.append((i, i, None, 0, "train", 60 + rng.normal(), int(high), end))
        for hour in range(int(end)):
            at = hour + 0.25
            if rng.random() < 0.3:
                measurements.append((i, at, "pain", None, "some" if high else "none"))
            drawn = rng.random() < 0.3
            if drawn:
                measurements.append((i, at, "potassium", 4 + rng.normal(), None))
            if rng.random() < (0.9 if high else 0.3):
                measurements.append((i, at, "pulse", 80 + 10 * level + rng.normal(), None))
            if drawn:
                measurements.append((i, at, "sodium", 140 + rng.normal(), None))
            if rng.random() < 0.5:
                measurements.append((i, at, "volume", 50 - 5 * level + rng.normal(), None))
    return build(SCHEMA, stays, [], measurements)


def fitted(cohort, seed=0, **settings):
    baseline = Timehr(**settings)
    nobody = cohort.select(subjects=[])
    baseline.fit(cohort, nobody, seed=seed, device=CPU, progress=False)
    return baseline


def generator(n_given=1, shape=(8, 16), gain=1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(shape, 3, n_given, noise=4, features=2, gain=gain)


def test_sides_of_images_can_be_halved_three_times():
    assert [side(n) for n in (0, 1, 8, 9, 42, 64)] == [8, 8, 8, 16, 48, 64]


def test_a_generator_makes_other_images_of_other_noise_conditions_and_planes():
    net, known = generator(), torch.zeros(5, 3)
    given = torch.zeros(5, 1, 8, 16)

    def image(known, given, seed):
        with torch.no_grad():
            return net(known, given, torch.Generator().manual_seed(seed))

    first = image(known, given, 0)
    assert first.shape == (5, 1, 8, 16)
    assert torch.equal(first, image(known, given, 0))
    assert (first - image(known, given, 1)).abs().mean() > 0.01
    assert (first - image(known + 1, given, 0)).abs().mean() > 0.01
    assert (first - image(known, given + 1, 0)).abs().mean() > 0.01
    # Stays of a batch have noise of their own.
    assert (first[0] - first[1]).abs().mean() > 0.01


def test_a_critic_sees_the_whole_image_its_planes_and_conditions():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = Critic((8, 16), n_conditions=3, n_given=2, features=2)
    parts = torch.randn(4, 1, 8, 16), torch.randn(4, 3), torch.randn(4, 2, 8, 16)
    parts = [part.requires_grad_() for part in parts]
    scores = critic(*parts)
    assert scores.shape == (4,)
    for slope in torch.autograd.grad(scores.sum(), parts):
        assert (slope != 0).float().mean() > 0.99


def test_masks_are_drawn_by_their_chances_and_pass_the_gradient_on():
    logits = torch.tensor([-2.0, 0.0, 1.0]).repeat(20_000, 1).requires_grad_()
    mask = chances_to_mask(logits, torch.Generator().manual_seed(0))
    assert set(mask.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    share = mask.detach().mean(dim=0)
    assert share.tolist() == pytest.approx(torch.sigmoid(logits[0]).tolist(), abs=0.02)
    mask.sum().backward()
    assert (logits.grad > 0).all()


def test_the_gradient_penalty_is_the_squared_difference_of_the_slope_from_1():
    def slope_of(size):
        def critic(image):
            return size * image.flatten(1).sum(dim=1) / image[0].numel() ** 0.5

        real = torch.rand(6, 1, 8, 8)
        return float(gradient_penalty(critic, real, 1 - real, torch.rand(6, 1, 1, 1)))

    assert slope_of(1.0) == pytest.approx(0, abs=1e-6)
    assert slope_of(3.0) == pytest.approx(4, rel=1e-4)


def test_there_is_nothing_beyond_the_stay_and_no_value_without_its_mask():
    staying = torch.zeros(3, 1, 8, 16)
    staying[..., :5] = 1
    masks, values, rng = generator(), generator(2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        mask = draw_mask(masks, torch.zeros(3, 3), staying, rng)
        given = torch.cat([mask, staying], dim=1)
        found = draw_values(values, torch.zeros(3, 3), given, rng)
    assert 0 < mask[..., :5].mean() < 1
    assert mask[..., 5:].sum() == 0
    assert torch.equal(found != 0, mask > 0.5)


def test_levels_become_numbers_and_come_back():
    cohort = small_cohort(20)
    numbers = _levels_as_numbers(cohort)
    assert {variable.kind for variable in numbers.schema.variables} == {"continuous"}
    assert numbers.measurements["value"].notna().all()
    back = _numbers_as_levels(cohort.schema.variables, numbers.measurements)
    rows = cohort.measurements
    np.testing.assert_array_equal(back["value"], rows["value"])
    was = rows["level"].astype(object)
    assert (back["level"].where(back["level"].notna(), "") == was.where(was.notna(), "")).all()


def test_series_that_are_measured_together_become_neighbours():
    numbers = _levels_as_numbers(levels(60))
    names = [v.name for v in _alike_together(numbers, Timehr(n_steps=16).settings).schema.variables]
    assert set(names) == {variable.name for variable in SCHEMA.variables}
    assert abs(names.index("potassium") - names.index("sodium")) == 1


def test_conditions_are_centred_and_tell_what_is_missing():
    cohort = small_cohort(80)
    stays = cohort.stays.copy()
    stays.loc[:9, "age"] = np.nan
    stays.loc[3:12, "los_hours"] = np.nan
    found = conditions(type(cohort)(cohort.schema, stays, cohort.codes, cohort.measurements))
    # 3 labels, 2 levels, and age and length of stay each with whether they are known.
    assert found.shape == (len(stays), 9)
    assert np.isfinite(found).all()
    assert found.mean(axis=0) == pytest.approx(np.zeros(9), abs=0.05)
    known = found[:, [6, 8]] > 0
    np.testing.assert_array_equal(known, stays[["los_hours", "age"]].notna())


def table(cohort):
    """Values [stay and step, series], levels as numbers."""
    rows = _levels_as_numbers(cohort).measurements
    rows = rows.assign(step=rows["hours"] // 1, variable=rows["variable"].astype(str))
    return rows.pivot_table(index=["stay_id", "step"], columns="variable", values="value")


def together(cohort):
    """How far the presence of potassium and sodium is correlated, where anything is present."""
    values = table(cohort)
    # Every stay is that long.
    early = values[values.index.get_level_values("step") < 8]
    return early[["potassium", "sodium"]].notna().astype(float).corr().iloc[0, 1]


def across(cohort):
    """Correlation of pulse and volume, of one pulse and the next, and of pulse and the label."""
    values = table(cohort)
    means = values.groupby("stay_id").mean()
    pulse = values["pulse"].dropna()
    before = pulse.groupby("stay_id").shift()
    high = cohort.stays.set_index("stay_id")["high"]
    return [means["pulse"].corr(means["volume"]), pulse.corr(before), means["pulse"].corr(high)]


@pytest.fixture(scope="module")
def learnt():
    cohort = levels()
    return cohort, fitted(cohort, **SMALL).sample(400, seed=1, device=CPU, progress=False)


def test_it_learns_what_is_measured_together(learnt):
    real, found = learnt
    floor = independent_columns(real, 400, seed=0)
    assert together(found) > together(floor) + 0.35


def test_it_learns_how_values_hang_together(learnt):
    real, found = learnt
    floor = across(independent_columns(real, 400, seed=0))
    volume, after, high = across(found)
    assert volume < floor[0] - 0.6
    assert after > floor[1] + 0.6
    assert high > floor[2] + 0.5


def test_it_learns_how_often_whom_is_measured(learnt):
    real, found = learnt

    def often(cohort):
        pulses = (cohort.measurements["variable"] == "pulse").groupby(
            cohort.measurements["stay_id"]
        )
        stays = cohort.stays.set_index("stay_id")
        per_hour = pulses.sum().reindex(stays.index, fill_value=0) / stays["los_hours"]
        return per_hour.groupby(stays["high"]).mean()

    assert often(found)[1] > often(found)[0] + 0.4
    assert often(found).mean() == pytest.approx(often(real).mean(), abs=0.12)


def test_series_that_nobody_has_stay_away():
    cohort = levels(30)
    keep = cohort.measurements["variable"] != "volume"
    cohort = type(cohort)(cohort.schema, cohort.stays, cohort.codes, cohort.measurements[keep])
    settings = {"n_steps": 16, "mask_updates": 2, "value_updates": 2}
    found = fitted(cohort, **settings).sample(100, seed=0, device=CPU, progress=False)
    assert "volume" not in set(found.measurements["variable"])
    assert found.schema == cohort.schema
