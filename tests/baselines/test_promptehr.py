"""What PromptEHR is for: codes that go together, over stays, as demographics have it."""

import numpy as np
import pandas as pd
import pytest
import torch

from synehrgy.baselines.marginals import independent_columns
from synehrgy.baselines.promptehr import Promptehr, delete, infill
from synehrgy.baselines.promptehr_network import END, MASK, PAD, VISIT, Grammar, PromptedTransformer
from synehrgy.cohort import CodeSystem, Covariate, Label, Schema
from tests.cohorts import build, small_cohort

CPU = torch.device("cpu")
SCHEMA = Schema(
    "groups",
    "test",
    covariates=[
        Covariate("age", "continuous"),
        Covariate("ward", "categorical", levels=["east", "west"]),
    ],
    labels=[
        Label("died", "Died", "outcome"),
        Label("first", "First disease", "phenotype", "d", [f"d0_{i}" for i in range(8)]),
    ],
    code_systems=[CodeSystem("d", "Diagnoses"), CodeSystem("p", "Procedures")],
)


def of_groups(n_patients, seed=0):
    """Patients of four groups, told by age and ward, whose codes are those of their group."""
    rng = np.random.default_rng(seed)
    stays, codes = [], []
    for patient in range(n_patients):
        age, ward = rng.uniform(20, 90), int(rng.integers(2))
        group = 2 * int(age > 55) + ward
        for stay_index in range(1 + patient % 2):
            stay = len(stays)
            facts = (age, SCHEMA.covariates[1].levels[ward], patient % 3 == 0, group == 0, 24.0)
            stays.append((patient, stay, None, stay_index, None, *facts))
            # Each stay has its own half of the procedures, diagnoses tell which.
            half = int(rng.integers(2))
            found = [("d", f"d{group}_{i + 4 * half}") for i in rng.permutation(4)[:3]]
            found += [("p", f"p{group}_{i + 3 * half}") for i in rng.permutation(3)[:2]]
            codes += [(stay, i, *code) for i, code in enumerate(found)]
    return build(SCHEMA, stays, codes, [])


def group_of(codes):
    return codes["code"].astype(str).str[1].astype(int)


def half_of(codes):
    number = codes["code"].astype(str).str.split("_").str[1].astype(int)
    return number // np.where(codes["system"] == "d", 4, 3)


def agreement(cohort):
    """Shares: of pairs of codes of a stay in one group, and of pairs in one half."""
    pairs = cohort.codes.assign(group=group_of(cohort.codes), half=half_of(cohort.codes))
    pairs = pairs.merge(pairs, on="stay_id")
    pairs = pairs[pairs["position_x"] < pairs["position_y"]]
    return [(pairs[f"{what}_x"] == pairs[f"{what}_y"]).mean() for what in ("group", "half")]


@pytest.fixture(scope="module")
def learnt():
    train = of_groups(400)
    baseline = Promptehr(width=32, n_layer=2, n_head=2, epochs=12, learning_rate=5e-3)
    baseline.fit(train, of_groups(50, seed=1), seed=0, device=CPU, progress=False)
    return train, baseline, baseline.sample(400, seed=1, device=CPU, progress=False)


def test_codes_of_a_stay_go_together_across_systems(learnt):
    train, _, found = learnt
    group, half = agreement(found)
    floor_group, floor_half = agreement(independent_columns(train, 400, 0))
    assert floor_group < 0.4
    assert floor_half < 0.6
    assert group > 0.85
    assert half > 0.75


def test_codes_follow_the_demographics_that_they_were_prompted_with(learnt):
    train, _, found = learnt
    codes = found.codes.merge(found.stays, on="stay_id")
    told = 2 * (codes["age"] > 55) + (codes["ward"].astype(str) == "west")
    assert (group_of(codes) == told).mean() > 0.8
    # Demographics of a patient are those of a real one, with all of that patient's stays.
    assert set(found.stays["age"]) <= set(train.stays["age"])
    assert set(found.stays.groupby("subject_id").size()) == {1, 2}


def test_labels_that_codes_define_follow_from_them_and_are_not_kept(learnt):
    _, baseline, found = learnt
    first = found.codes[(found.codes["system"] == "d") & (group_of(found.codes) == 0)]
    assert (found.stays["first"] == found.stays["stay_id"].isin(first["stay_id"])).all()
    assert 0.1 < found.stays["first"].mean() < 0.5
    assert not baseline.prompts.stays["first"].any()
    assert 0 < baseline.prompts.stays["died"].mean() < 1


def test_the_random_state_of_others_is_left_alone():
    before = torch.get_rng_state()
    baseline = Promptehr(width=8, n_layer=1, n_head=1, epochs=1)
    cohort = small_cohort(10)
    baseline.fit(cohort, cohort.select(subjects=[]), seed=0, device=CPU, progress=False)
    baseline.sample(3, seed=0, device=CPU, progress=False)
    assert torch.equal(before, torch.get_rng_state())


def test_a_cohort_without_codes_still_has_patients():
    cohort = small_cohort(20).part(codes=False)
    baseline = Promptehr(width=8, n_layer=1, n_head=1, epochs=1)
    baseline.fit(cohort, cohort, seed=0, device=CPU, progress=False)
    found = baseline.sample(40, seed=0, device=CPU, progress=False)
    assert found.codes.empty
    assert found.stays["shock"].any()
    assert set(found.stays["age"]) <= set(cohort.stays["age"])


def test_only_what_the_grammar_says_may_follow():
    grammar = Grammar([3, 2], most=[2, 1])
    used = torch.zeros(1, grammar.n_tokens, dtype=torch.bool)
    # 4 and 5 enclose the codes 8, 9, 10; 6 and 7 the codes 11, 12.
    visit = grammar.visit([np.array([9, 8]), np.array([12])])
    assert visit.tolist() == [VISIT, 4, 9, 8, 5, 6, 12, 7, END]
    assert len(visit) == grammar.longest
    wanted = [{4}, {5, 8, 9, 10}, {5, 8, 10}, {5}, {6}, {7, 11, 12}, {7}, {END}, {PAD}]
    for last, may in zip(visit, wanted, strict=True):
        used[0, last] = grammar.is_code[last]
        allowed = grammar.allowed(torch.tensor([last]), used)
        assert set(allowed[0].nonzero()[:, 0].tolist()) == may


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"n_ctx": 20, "width": 16, "n_layer": 2, "n_head": 2, "dropout": 0.5}
        return PromptedTransformer(Grammar([9, 5], most=[6, 3]), [2, 3], **sizes).eval()


VALUES, LEVELS = torch.tensor([[0.5, 0.0], [0.0, 0.0]]), torch.tensor([[0, 2], [1, 0]])


def test_an_untrained_network_writes_whole_visits_without_repeats(network):
    grammar, rng = network.grammar, torch.Generator().manual_seed(0)
    source = torch.from_numpy(grammar.visit([np.array([MASK])] * 2)).expand(64, -1)
    many = (VALUES[:1].expand(64, -1), LEVELS[:1].expand(64, -1))
    visits = network.generate(rng, source, *many)
    assert visits.shape[1] <= grammar.longest
    for visit in visits.tolist():
        whole = visit[: visit.index(END) + 1]
        assert set(visit[len(whole) :]) <= {PAD}
        spans = [
            [token for token in whole if first <= token < first + n]
            for first, n in zip(grammar.first, grammar.n_codes, strict=True)
        ]
        assert grammar.visit([np.array(span) for span in spans]).tolist() == whole
        assert all(len(set(span)) == len(span) for span in spans)
        assert all(len(span) <= most for span, most in zip(spans, grammar.most, strict=True))


def test_token_by_token_it_reads_the_same_as_at_once(network):
    grammar = network.grammar
    target = torch.from_numpy(grammar.visit([np.array([9, 8, 12]), np.array([18])]))[None]
    source = torch.tensor([[VISIT, MASK, END]])
    memory, mask = network.encode(source, VALUES[:1], LEVELS[:1])
    prompts = network.target_prompts(VALUES[:1], LEVELS[:1])
    whole, _ = network.decode(target, 0, memory, mask, prompts)
    past, steps = None, []
    for i in range(target.shape[1]):
        first = None if i else prompts
        x, past = network.decode(target[:, i : i + 1], i, memory, mask, first, past)
        steps.append(x)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-4)


def test_padding_counts_for_nothing_and_prompts_and_earlier_visits_for_something(network):
    grammar = network.grammar
    target = torch.from_numpy(grammar.visit([np.array([9, 8]), np.array([18])]))[None]
    source = torch.tensor([[VISIT, 10, END, VISIT, MASK, END]])
    padding = torch.zeros(1, 4, dtype=torch.long)
    one = (VALUES[:1], LEVELS[:1])
    with torch.no_grad():
        plain = network.loss(source, target, *one)
        padded = (torch.cat([part, padding], dim=1) for part in (source, target))
        torch.testing.assert_close(network.loss(*padded, *one), plain, atol=1e-5, rtol=1e-5)
        others = [
            network.loss(source.where(source != 10, 11), target, *one),
            network.loss(source, target, VALUES[:1] + 1, LEVELS[:1]),
            network.loss(source, target, VALUES[:1], LEVELS[1:]),
        ]
    assert all(abs(other - plain) > 1e-4 for other in others)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_infilling_hides_some_codes_in_a_row_behind_one_mask(n):
    rng, span = np.random.default_rng(0), np.arange(100, 100 + n)
    hidden = set()
    for _ in range(200):
        found = infill(span, rng).tolist()
        at = found.index(MASK)
        assert found[:at] == span[:at].tolist()
        after = len(found) - at - 1
        assert found[at + 1 :] == span[n - after :].tolist()
        hidden.add(n - len(found) + 1)
    assert min(hidden) == min(n, 1)
    assert len(hidden) > 4 or n < 9


def test_deletion_leaves_the_order_and_about_the_share_that_it_should():
    rng, span = np.random.default_rng(0), np.arange(2000)
    found = delete(span, 0.15, rng)
    assert pd.Index(found).is_monotonic_increasing
    assert 0.8 < len(found) / len(span) < 0.9
