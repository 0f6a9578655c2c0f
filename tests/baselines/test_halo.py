"""HALO: masks, histories, and what it learns of codes and series."""

import numpy as np
import pandas as pd
import pytest
import torch

from synehrgy.baselines import baselines
from synehrgy.baselines.halo import Halo
from synehrgy.baselines.halo_network import (
    END,
    HOURS,
    STAY,
    FineModule,
    Layout,
    Network,
    Sizes,
)
from synehrgy.baselines.marginals import independent_columns
from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable
from tests.baselines.fast import FAST
from tests.cohorts import build, small_cohort

CPU = torch.device("cpu")
LAYOUT = Layout(widths=[3, 1, 4, 1, 1, 1], places=[0, 1, 2, 3, 3, 4])
PLACE = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4])
HOURS_LAYOUT = Layout(widths=[4, 2, 3], places=[0, 1, 2])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def vectors(layout, n, seed=0):
    """Valid ones: of each field one element at most."""
    draw = np.random.default_rng(seed)
    hot = torch.zeros(n, layout.n_elements)
    start = 0
    for width in layout.widths:
        found = draw.integers(-1, width, size=n)
        hot[np.flatnonzero(found >= 0), start + found[found >= 0]] = 1
        start += width
    return hot


@pytest.fixture
def fine():
    torch.manual_seed(0)
    found = FineModule(LAYOUT, width=5, units=3)
    torch.nn.init.normal_(found.from_elements.weight)
    return found


@pytest.fixture
def network():
    torch.manual_seed(0)
    sizes = Sizes(n_stays=3, n_steps=4, width=8, n_layers=2, n_heads=2, units=2, dropout=0.0)
    return Network({STAY: LAYOUT, HOURS: HOURS_LAYOUT}, slice(4, 8), sizes).eval()


def test_an_element_depends_on_those_of_earlier_places_and_on_no_others(fine):
    history = torch.randn(6, 5, generator=rng())
    hot = vectors(LAYOUT, 6)
    slopes = torch.autograd.functional.jacobian(lambda x: fine(history, x).sum(0), hot)
    depends = slopes.abs().sum(dim=1) > 0  # [logits, elements]
    assert torch.equal(depends, PLACE[:, None] > PLACE[None])


def test_every_element_depends_on_the_history(fine):
    hot = vectors(LAYOUT, 6)
    history = torch.randn(6, 5, generator=rng())
    slopes = torch.autograd.functional.jacobian(lambda x: fine(x, hot).sum(0), history)
    assert (slopes.abs().sum(dim=(1, 2)) > 0).all()


def test_the_chances_of_all_vectors_sum_to_one():
    torch.manual_seed(0)
    layout = Layout(widths=[2, 1, 1], places=[0, 1, 1])
    fine = FineModule(layout, width=3, units=2)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2))
    first = torch.nn.functional.one_hot(every[:, 0], 3)[:, 1:]
    hot = torch.cat([first, every[:, 1:]], dim=1).float()
    history = torch.randn(1, 3, generator=rng()).expand(1, 3)
    chances = torch.stack([torch.exp(-fine.loss(history, row[None])) for row in hot])
    assert chances.sum().item() == pytest.approx(1, abs=1e-5)


def test_vectors_are_drawn_with_the_chances_that_the_loss_gives():
    torch.manual_seed(0)
    layout = Layout(widths=[2, 1, 1], places=[0, 1, 1])
    fine = FineModule(layout, width=3, units=4)
    torch.nn.init.normal_(fine.from_elements.weight, std=2)
    torch.nn.init.normal_(fine.out.weight, std=2)
    history = torch.randn(1, 3, generator=rng())
    n = 40_000
    found = fine.sample(history.expand(n, 3), rng(1))
    kinds, counts = found.unique(dim=0, return_counts=True)
    expected = [torch.exp(-fine.loss(history, row[None])).item() for row in kinds]
    np.testing.assert_allclose(counts / n, expected, atol=0.012)


def test_drawn_vectors_have_one_element_of_a_field_at_most(fine):
    found = fine.sample(torch.randn(300, 5, generator=rng()), rng(1))
    fields = torch.zeros(300, len(LAYOUT.widths)).index_add(1, LAYOUT.field_of, found)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert set(fields.unique().tolist()) == {0.0, 1.0}


def test_given_elements_are_kept_and_the_others_follow_from_them(fine):
    history = torch.zeros(500, 5)
    with torch.no_grad():
        fine.out.weight.mul_(4)
    one, other = (torch.tensor([on]).expand(500, 3) for on in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]))
    found = [fine.sample(history, rng(1), given) for given in (one, other)]
    assert torch.equal(found[0][:, :3], one)
    assert torch.equal(found[1][:, :3], other)
    assert not torch.equal(found[0][:, 3:], found[1][:, 3:])


def test_without_training_the_chances_are_about_those_of_the_visits(fine):
    counts = torch.tensor([10, 20, 30, 50, 5, 5, 5, 5, 0, 99, 1])
    fine.begin_at(counts, 100)
    found = fine.sample(torch.zeros(20_000, 5), rng(1)).mean(0)
    np.testing.assert_allclose(found, counts / 100, atol=0.05)
    assert found[8] == 0


def fitted(cohort, seed=0, **settings):
    found = Halo(**settings)
    nobody = cohort.select(subjects=[])
    found.fit(cohort, nobody, seed=seed, device=CPU, progress=False)
    return found


def test_visits_hold_the_stays_the_codes_and_the_steps_with_values():
    schema = Schema(
        "s",
        "test",
        [Covariate("age", "continuous")],
        [Label("dead", "Dead", "outcome")],
        [Variable("x", "continuous"), Variable("y", "categorical", levels=["a", "b"])],
        [CodeSystem("icd", "ICD")],
    )
    stays = [
        (1, 1, None, 0, "train", 50.0, 0, 9.0),
        (1, 2, None, 1, "train", 51.0, 1, 9.0),
        (2, 3, None, 0, "train", None, 0, None),
    ]
    codes = [(1, 0, "icd", "A"), (1, 1, "icd", "B"), (2, 0, "icd", "B")]
    measurements = [
        (2, 1.5, "x", 3.0, None),
        (2, 1.5, "y", None, "b"),
        (2, 4.2, "x", 1.0, None),
        (2, 99.0, "x", 1.0, None),
    ]
    halo = fitted(build(schema, stays, codes, measurements), n_bins=4, n_steps=6, epochs=1)
    visits = halo._visits(build(schema, stays, codes, measurements))
    assert visits.first.tolist() == [0, 4, 5]
    assert visits.kind.tolist() == [STAY, STAY, HOURS, HOURS, STAY]
    assert visits.stay.tolist() == [0, 1, 1, 1, 0]
    assert visits.step.tolist() == [0, 0, 2, 5, 0]
    assert visits.los.tolist() == [3, 3, 3, 3, 0]
    there = [sorted(visits.elements[a:b].tolist()) for a, b in visits.begin.unfold(0, 2, 1)]
    # Age, length of stay, label, A and B.
    n_facts = 4 + 4 + 1
    assert [e - n_facts for e in there[0] if e >= n_facts] == [0, 1]
    assert [e - n_facts for e in there[1] if e >= n_facts] == [1]
    assert there[1].count(8) == 1
    assert 8 not in there[0]
    assert there[4] == []
    # Steps since the last visit; then bins of x and levels of y, from 6 on.
    assert there[2][0] == 1
    assert there[3][0] == 2
    assert there[2][-1] == 6 + 4 + 1
    assert there[2][1] > there[3][1] >= 6


def test_histories_do_not_know_what_comes_later():
    halo = fitted(small_cohort(30), **FAST["halo"])
    visits = halo._visits(small_cohort(30))
    batch = visits.batch(torch.arange(8), CPU)
    network = halo.network
    before = network.history(batch)
    changed = batch.hot[HOURS].clone()
    last = (batch.kind == HOURS).nonzero()
    mine = int((last[:, 0] == 0).nonzero()[-1])
    changed[mine] = 1 - changed[mine]
    position = int(last[mine, 1])
    batch.hot[HOURS].copy_(changed)
    moved = ~torch.isclose(before, network.history(batch), atol=1e-6).all(-1)
    assert not moved[0, : position + 1].any()
    assert moved[0, position + 1 :].any()
    assert not moved[1:].any()


def test_sampling_with_kept_keys_is_what_a_whole_history_gives(network):
    x = torch.randn(2, 7, 8, generator=rng())
    for block in network.blocks:
        whole, _ = block(x)
        past, parts = None, []
        for position in range(7):
            part, past = block(x[:, position : position + 1], past)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)
        x = whole


def test_drawn_visits_are_in_the_order_that_they_may_have(network):
    seen = {}
    fixed = {}
    for drawn in network.sample(200, n_given=3, rng=rng(1)):
        rows = zip(drawn.patient, drawn.stay, drawn.step, drawn.hot, strict=True)
        for patient, stay, step, hot in rows:
            p, now = int(patient), (int(stay), int(step))
            assert now > seen.get(p, (-1, 0))
            if drawn.kind == STAY:
                assert now == (seen.get(p, (-1, 0))[0] + 1, 0)
                assert torch.equal(hot[:3], fixed.setdefault(p, hot[:3]))
            else:
                assert now[0] == seen[p][0]
            seen[p] = now
    assert len(seen) == 200
    assert {stay for stay, _ in seen.values()} == {0, 1, 2}


def test_batches_have_every_patient_once_and_no_more_visits_than_asked():
    halo = fitted(small_cohort(50), **FAST["halo"])
    visits = halo._visits(small_cohort(50))
    length = visits.first.diff()
    batches = list(visits.batches(40, rng()))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(length)))
    assert all(len(b) * int(length[b].max()) <= 40 or len(b) == 1 for b in batches)
    assert len(batches) > 2
    kinds = visits.batch(batches[0], CPU).kind
    assert int((kinds != END).sum()) == int(length[batches[0]].sum())


def structured(n=500, seed=0):
    """Pairs of codes that come together or not at all, and series that keep their level."""
    draw = np.random.default_rng(seed)
    schema = Schema(
        "structured",
        "test",
        [Covariate("gender", "categorical", levels=["F", "M"])],
        [Label("ill", "Ill", "phenotype", "icd", ["A0", "A1"])],
        [Variable("x", "continuous"), Variable("y", "continuous")],
        [CodeSystem("icd", "ICD")],
    )
    stays, codes, measurements = [], [], []
    for subject in range(n):
        gender = str(draw.choice(["F", "M"]))
        with_pairs = draw.random(4) < 0.4
        for index in range(1 + subject % 2):
            stay = subject * 2 + index
            stays.append((subject, stay, None, index, "train", gender, int(with_pairs[0]), 24.0))
            found = [f"{'ABCD'[i]}{j}" for i in np.flatnonzero(with_pairs) for j in (0, 1)]
            codes += [(stay, i, "icd", code) for i, code in enumerate(found)]
            level = draw.normal() + 2 * with_pairs[0]
            for hour in range(6):
                x = level + 0.2 * draw.normal()
                measurements += [
                    (stay, float(hour), "x", x, None),
                    (stay, float(hour), "y", x + 0.2 * draw.normal(), None),
                ]
    return build(schema, stays, codes, measurements)


def table(cohort):
    """Codes as columns of stays, and x and y with the x of the hour before."""
    codes = pd.crosstab(cohort.codes["stay_id"], cohort.codes["code"])
    codes = codes.reindex(cohort.stays["stay_id"], fill_value=0)
    rows = cohort.measurements.pivot(index=["stay_id", "hours"], columns="variable", values="value")
    return codes, rows.assign(before=rows["x"].groupby("stay_id").shift(1))


@pytest.fixture(scope="module", params=["halo", "marginals"])
def learnt(request):
    torch.set_num_threads(1)
    cohort = structured()
    if request.param == "marginals":
        return request.param, independent_columns(cohort, 400, 0)
    size = {"width": 32, "n_layers": 1, "n_heads": 2, "n_steps": 6, "batch_size": 256}
    size |= {"epochs": 25, "learning_rate": 0.01, "code_decay": 0.05}
    return request.param, fitted(cohort, **size).sample(400, seed=1, device=CPU, progress=False)


def test_codes_come_together_as_in_the_patients(learnt):
    name, cohort = learnt
    codes, _ = table(cohort)
    pairs = [np.corrcoef(codes[f"{c}0"], codes[f"{c}1"])[0, 1] for c in "ABCD"]
    across = [np.corrcoef(codes["A0"], codes[f"{c}0"])[0, 1] for c in "BCD"]
    assert (min(pairs) > 0.7) == (name == "halo")
    assert np.abs(across).max() < 0.3


def test_series_keep_their_level_and_hang_together(learnt):
    name, cohort = learnt
    _, rows = table(cohort)
    found = rows[["x", "y", "before"]].corr().to_numpy()
    assert (found[0, 1] > 0.7) == (name == "halo")
    assert (found[0, 2] > 0.7) == (name == "halo")


def test_values_are_higher_where_the_codes_say_so(learnt):
    name, cohort = learnt
    _, rows = table(cohort)
    ill = cohort.stays.set_index("stay_id")["ill"].reindex(rows.index.get_level_values(0))
    apart = rows["x"].groupby(ill.to_numpy()).mean().diff().iloc[-1]
    assert (apart > 1) == (name == "halo")


def test_stays_of_a_patient_hang_together(learnt):
    name, cohort = learnt
    both = cohort.stays[["subject_id", "stay_index", "gender", "ill"]].copy()
    same = both.groupby("subject_id").filter(lambda rows: len(rows) == 2)
    genders = same.groupby("subject_id")["gender"].nunique()
    ills = same.groupby("subject_id")["ill"].nunique()
    assert len(genders) > 50
    assert ((genders == 1).all()) == (name == "halo")
    assert ((ills == 1).mean() > 0.8) == (name == "halo")


def test_labels_that_codes_define_follow_from_them(learnt):
    name, cohort = learnt
    codes, _ = table(cohort)
    says = codes[["A0", "A1"]].any(axis=1).to_numpy()
    if name == "halo":
        assert np.array_equal(cohort.stays["ill"].to_numpy(), says.astype(int))


def test_ages_of_one_bin_are_equal_in_all_stays_of_a_patient():
    halo = fitted(small_cohort(150), **FAST["halo"] | {"n_bins": 2})
    stays = halo.sample(100, seed=0, device=CPU, progress=False).stays
    ages = stays.groupby("subject_id")["age"].agg(["nunique", "size"])
    assert (ages["size"] > 2).any()
    assert (ages["nunique"] <= 2).all()


def test_it_is_found_by_its_name():
    assert baselines()["halo"] is Halo
