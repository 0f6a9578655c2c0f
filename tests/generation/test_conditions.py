"""Conditions: what they mean in tokens, what they refuse, and when a record settles them."""

import math
import re
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.errors import UserError
from synehrgy.generation.conditions import Condition, wanted
from synehrgy.settings import TokenSettings, VariableSettings
from synehrgy.tokenizer import Tokenizer, decode, encode
from synehrgy.tokenizer.quantities import Bins, Digits
from tests.cohorts import cohorts, small_cohort
from tests.generation.test_sampler import labelled
from tests.tokenizer.test_round_trip import any_settings
from tests.tokens import records_of, walk

IN_DIGITS = {"age": VariableSettings(bin_type="raw")}


def tokenizer_of(cohort=None, **how):
    return Tokenizer.fit(cohort or small_cohort(), TokenSettings(min_code_count=1, **how))


def asked(tokenizer=None, **parts):
    return wanted(tokenizer or tokenizer_of(), Condition.of(["age", "gender"], **parts))


def texts(tokenizer, flags):
    return {tokenizer.vocabulary[token] for token in np.flatnonzero(flags)}


def named(tokenizer, beginning):
    return {text for text in tokenizer.vocabulary if text.startswith(beginning)}


def with_gaps(cohort):
    """Some of the stays have no known gender and no known age."""
    stays = cohort.stays.copy()
    for shift, name in enumerate(("age", "gender")):
        stays.loc[np.arange(len(stays)) % 5 == shift, name] = None
    return replace(cohort, stays=stays)


def test_nothing_asked_is_free():
    assert asked().is_free
    assert asked(min_stays=1).is_free
    for part in (
        *({"gender": "F"}, {"labels": ["shock"]}, {"codes_any": ["4280"]}, {"max_stays": 3}),
        *({"min_stays": 2}, {"not_labels": ["shock"]}, {"codes_none": ["4280"]}),
    ):
        assert not asked(**part).is_free
    assert not asked(tokenizer_of(variables=IN_DIGITS), age=70).is_free


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("F", {"gender=F"}),
        (["M"], {"gender=M"}),
        (("F", "M"), {"gender=F", "gender=M"}),
    ],
)
def test_levels_leave_their_tokens(value, left):
    tokenizer = tokenizer_of()
    forbidden = texts(tokenizer, asked(tokenizer, gender=value).forbidden)
    assert forbidden == named(tokenizer, "gender=") - left


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("70-80", ["(70, 75]", "(75, 80]"]),
        (" 70 - 80 ", ["(70, 75]", "(75, 80]"]),
        ("70.0-75", ["(70, 75]"]),
        (72, ["(70, 75]"]),
        ("72.5", ["(70, 75]"]),
        # A bin is open on the left.
        (70, ["(65, 70]"]),
        (np.int64(72), ["(70, 75]"]),
    ],
)
def test_ranges_and_numbers_leave_their_bins(value, left):
    tokenizer = tokenizer_of()
    forbidden = texts(tokenizer, asked(tokenizer, age=value).forbidden)
    assert forbidden == named(tokenizer, "age=") - {f"age={bin_}" for bin_ in left}


def test_a_range_without_an_end_reaches_the_last_bin():
    tokenizer = tokenizer_of()
    edges = tokenizer.covariate_numbers["age"].edges
    forbidden = texts(tokenizer, asked(tokenizer, age="70-").forbidden)
    left = named(tokenizer, "age=") - forbidden
    assert len(left) == (edges[:-1] >= 70).sum() > 1
    assert asked(tokenizer, age=f"{edges[0] - 10:g}-{edges[-1] + 10:g}").is_free


def test_negative_numbers_have_ranges_too():
    cohort = small_cohort()
    cohort = replace(cohort, stays=cohort.stays.assign(age=cohort.stays["age"] - 60))
    tokenizer = tokenizer_of(cohort, covariate_edges={"age": [-40.0, -20.0, 0.0, 40.0]})
    for value, left in (
        ("-40-0", {"age=(-40, -20]", "age=(-20, 0]"}),
        ("-40--20", {"age=(-40, -20]"}),
        ("-20-", {"age=(-20, 0]", "age=(0, 40]"}),
        (-30, {"age=(-40, -20]"}),
    ):
        forbidden = texts(tokenizer, asked(tokenizer, age=value).forbidden)
        assert forbidden == named(tokenizer, "age=") - left


def test_what_may_be_missing_is_not_missing_where_it_is_asked_for():
    tokenizer = tokenizer_of(with_gaps(small_cohort()))
    assert "gender=missing" in texts(tokenizer, asked(tokenizer, gender=["F", "M"]).forbidden)
    assert "age=missing" in texts(tokenizer, asked(tokenizer, age="70-").forbidden)


def test_numbers_in_digits_are_read_from_their_digits():
    cohort = with_gaps(small_cohort())
    tokenizer = tokenizer_of(cohort, variables=IN_DIGITS)
    assert isinstance(tokenizer.covariate_numbers["age"], Digits)
    found = asked(tokenizer, age="40-60")
    assert texts(tokenizer, found.forbidden) == {"age=missing"}
    assert found.numbers == {"age": (40.0, 60.0)}
    records = encode(tokenizer, cohort)
    age = cohort.stays.loc[cohort.stays["stay_index"] == 0, "age"].round(
        tokenizer.covariate_numbers["age"].decimals
    )
    verdicts = [found.verdict(records[i].astype(np.int64)) for i in range(len(records))]
    assert verdicts == [bool(40 <= value <= 60) for value in age]
    assert 5 < sum(verdicts) < len(records) - 5


def test_outcomes_are_ruled_out_by_their_other_state_and_phenotypes_are_waited_for():
    tokenizer = tokenizer_of()
    found = asked(tokenizer, labels=["in_hospital_mortality", "shock"], not_labels=["septicemia"])
    assert texts(tokenizer, found.forbidden) == {"in_hospital_mortality=0", "septicemia"}
    assert [texts(tokenizer, one) for one in found.labels] == [
        {"in_hospital_mortality=1"},
        {"shock"},
    ]
    found = asked(tokenizer, not_labels=["in_hospital_mortality"])
    assert texts(tokenizer, found.forbidden) == {"in_hospital_mortality=1"}


def test_codes_by_name_by_beginning_and_by_system():
    tokenizer = tokenizer_of()
    found = asked(
        tokenizer,
        codes_any=["4*", "icd9_procedure:0066"],
        codes_all=["E8788", "icd9_procedure:*"],
        codes_none=["V5861", "icd9_diagnosis:0*"],
    )
    assert [texts(tokenizer, one) for one in found.codes] == [
        {"icd9_diagnosis:E8788"},
        {f"icd9_procedure:{code}" for code in ("0066", "3893", "9604")},
        {"icd9_diagnosis:4019", "icd9_diagnosis:4280", "icd9_procedure:0066"},
    ]
    assert texts(tokenizer, found.forbidden) == {"icd9_diagnosis:V5861", "icd9_diagnosis:0389"}
    # With its point or without.
    (pointed,) = asked(tokenizer, codes_any=["428.0", "99592.", "E878.*"]).codes
    named = {"icd9_diagnosis:4280", "icd9_diagnosis:99592", "icd9_diagnosis:E8788"}
    assert texts(tokenizer, pointed) == named
    # Of two systems, both.
    (both,) = asked(tokenizer, codes_any=["0*"]).codes
    assert texts(tokenizer, both) == {"icd9_diagnosis:0389", "icd9_procedure:0066"}


def test_one_mapping_holds_covariates_and_parts():
    found = Condition.of(
        ["age", "gender"], age="70-", labels="shock", codes_any=["4280"], max_stays=2
    )
    assert found == Condition({"age": "70-"}, ["shock"], codes_any=["4280"], max_stays=2)
    assert Condition.of(["age"], covariates={"age": 3}) == Condition({"age": 3})
    assert Condition.of([], codes_all=("a", "b"), codes_none=4280) == Condition(
        codes_all=["a", "b"], codes_none=[4280]
    )
    longer = Condition(labels=["a"]).and_also(labels=["b"], codes_none=["c"])
    assert longer == Condition(labels=["a", "b"], codes_none=["c"])
    with pytest.raises(UserError, match=r"'gander' is neither .* Did you mean 'gender'"):
        Condition.of(["age", "gender"], gander="F")
    with pytest.raises(UserError, match=r"'code_any' is neither .* Did you mean 'codes_any'"):
        Condition.of(["age", "gender"], code_any=["4280"])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"covariates": {"agge": 3}}, r"condition\.agge: .* Did you mean 'age'"),
        ({"gender": "f"}, r"condition\.gender=f: gender is one of F, M\. Did you mean 'F'"),
        ({"gender": ["F", "X"]}, r"condition\.gender=X: gender is one of F, M"),
        ({"age": "old"}, r"condition\.age=old: give a number, or a range such as 70-80"),
        ({"age": "70-80-90"}, r"condition\.age=70-80-90: give a number"),
        ({"age": None}, r"condition\.age=None: give a number"),
        ({"age": [70, 80]}, r"condition\.age=\[70, 80\]: give a number"),
        ({"age": math.nan}, r"condition\.age=nan"),
        ({"age": "80-70"}, r"condition\.age=80-70: the range is empty"),
        ({"age": "71-80"}, r"condition\.age=71-80 is not made of whole bins .* 70, 75, 80"),
        ({"age": "70-79"}, r"condition\.age=70-79 is not made of whole bins"),
        ({"age": "71-74"}, r"condition\.age=71-74 is not made of whole bins"),
        ({"age": 300}, r"condition\.age=300: the model knows age from"),
        ({"age": -1}, r"condition\.age=-1: the model knows age from"),
        ({"labels": ["septicaemia"]}, r"condition\.labels: .* Did you mean 'septicemia'"),
        ({"not_labels": ["choc"]}, r"condition\.\w*labels: .* 'choc'"),
        ({"codes_any": ["4281"]}, r"condition\.codes_any: .* no code '4281'.* mean '4280'"),
        ({"codes_all": ["99*", "77*"]}, r"condition\.codes_all: .* no code '77\*'"),
        ({"codes_none": ["icd9_procedure:4280"]}, r"condition\.codes_none: .*'icd9_proced"),
        ({"codes_none": ["icd10:4280"]}, r"condition\.codes_none: .* no code 'icd10:4280'"),
        ({"labels": ["shock"], "not_labels": ["shock"]}, "asks for shock and excludes it"),
        (
            {"labels": ["in_hospital_mortality"], "not_labels": ["in_hospital_mortality"]},
            "asks for in_hospital_mortality and excludes it",
        ),
        ({"codes_all": ["4280"], "codes_none": ["42*"]}, "asks for 4280 and excludes it"),
        ({"codes_any": ["0066", "0389"], "codes_none": ["0*"]}, "for codes_any and excludes it"),
        ({"min_stays": 3, "max_stays": 2}, r"condition\.min_stays=3 and condition\.max_stays=2"),
        ({"max_stays": 0}, r"condition\.max_stays=0 exclude each other"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(parts, words):
    with pytest.raises(UserError, match=words):
        asked(**parts)


def test_a_label_that_is_not_to_be_names_its_own_key():
    with pytest.raises(UserError, match=r"condition\.not_labels: "):
        asked(not_labels=["choc"])


def test_a_covariate_that_was_never_seen_is_refused():
    cohort = small_cohort()
    unknown = replace(cohort, stays=cohort.stays.assign(age=np.nan))
    tokenizer = tokenizer_of(unknown, covariate_edges={})
    with pytest.raises(UserError, match=r"condition\.age: the model was trained without any age"):
        asked(tokenizer, age=70)


def test_bounds_can_be_given_as_a_refusal_shows_them():
    """Fitted edges have many digits, and a message shows six."""
    tokenizer = tokenizer_of(covariate_edges={})
    edges = tokenizer.covariate_numbers["age"].edges
    with pytest.raises(UserError, match="not made of whole bins") as refusal:
        asked(tokenizer, age="33.3-44.4")
    shown = re.findall(r"\d+(?:\.\d+)?", str(refusal.value).split("bounded by")[1])
    assert len(shown) == len(edges) > 3
    (token,) = np.flatnonzero(
        ~asked(tokenizer, age=f"{shown[1]}-{shown[2]}").forbidden
        & (np.arange(len(tokenizer.vocabulary)) >= tokenizer.first_of_covariate("age"))
        & (np.arange(len(tokenizer.vocabulary)) < tokenizer.first_of_covariate("gender"))
    )
    assert token == tokenizer.first_of_covariate("age") + 1
    for bound in (shown[0], shown[-1]):
        assert (~asked(tokenizer, age=bound).forbidden).any()


def test_codes_that_define_a_label_do_not_go_with_its_absence():
    tokenizer = tokenizer_of(labelled())
    both = Condition(not_labels=["septicemia"], codes_all=["0389"])
    with pytest.raises(UserError, match=r"excludes the label 'septicemia', .* icd9_diagnosis:0389"):
        wanted(tokenizer, both, rule_out=True)
    assert wanted(tokenizer, both).codes
    # Of several codes one may be free of it.
    either = Condition(not_labels=["septicemia"], codes_any=["0389", "4280"])
    assert wanted(tokenizer, either, rule_out=True).codes
    elsewhere = Condition(not_labels=["septicemia"], codes_all=["9604"], labels=["shock"])
    assert wanted(tokenizer, elsewhere, rule_out=True).codes


def test_a_label_does_not_go_without_every_code_that_explains_it():
    """No attempt could succeed: such a label never stands without one of them."""
    tokenizer = tokenizer_of(labelled())
    assert "septicemia" in tokenizer.explained
    never = Condition(labels=["septicemia"], codes_none=["0389", "99592"])
    with pytest.raises(UserError, match="septicemia"):
        wanted(tokenizer, never, rule_out=True)
    assert wanted(tokenizer, never).labels


def test_verdicts_come_as_soon_as_they_can():
    tokenizer = tokenizer_of()
    number = {text: i for i, text in enumerate(tokenizer.vocabulary)}

    def says(condition, *words):
        return wanted(tokenizer, Condition.of(["age", "gender"], **condition)).verdict(
            np.array([number[word] for word in words])
        )

    facts = ["<s>", "age=(70, 75]", "gender=F", "</covar>", "in_hospital_mortality=1"]
    assert says({"gender": "F"}, *facts) is None
    assert says({"gender": "M"}, *facts[:2]) is None
    assert says({"gender": "M"}, *facts[:3]) is False
    assert says({"not_labels": ["in_hospital_mortality"]}, *facts) is False
    assert says({"labels": ["shock"]}, *facts, "septicemia") is None
    assert says({"labels": ["shock"]}, *facts, "septicemia", "</label>") is False
    labelled_so = [*facts, "septicemia", "shock", "</label>"]
    assert says({"codes_none": ["4019"]}, *labelled_so, "icd9_diagnosis:4019") is False
    assert says({"codes_any": ["4*"]}, *labelled_so, "icd9_diagnosis:4019") is None
    coded = [*labelled_so, "icd9_diagnosis:4019", "</code>"]
    assert says({"codes_any": ["4*"]}, *coded) is True
    assert says({"codes_all": ["4019", "4280"]}, *coded) is False
    assert says({"labels": ["septicemia", "shock"], "age": "70-75"}, *coded) is True
    # What a later stay says is of no account.
    stay = [*coded, "</ts>", "</adm>"]
    again = [*stay, "age=(75, 80]", "gender=M", "</covar>", "in_hospital_mortality=0", "</label>"]
    again += ["icd9_diagnosis:4280", "</code>"]
    assert says({"gender": "F", "codes_none": ["4280"], "min_stays": 2}, *again) is True
    assert says({"min_stays": 2}, *coded) is None
    assert says({"min_stays": 2}, *stay) is None
    assert says({"min_stays": 2}, *stay, "</s>") is False
    assert says({"min_stays": 2}, *stay, "age=(70, 75]") is True
    assert says({"max_stays": 1}, *coded) is None
    assert says({"max_stays": 1}, *stay, "</s>") is True
    assert says({"max_stays": 1}, *stay, "age=(70, 75]") is False
    assert says({"min_stays": 2, "max_stays": 2}, *again) is None
    assert says({"min_stays": 2, "max_stays": 2}, *again, "</ts>", "</adm>", "</s>") is True


def meant(tokenizer, text):
    """Codes that a text stands for, by a reading of its own."""
    system, _, pattern = text.rpartition(":")
    for special in "[?":
        pattern = pattern.replace(special, f"[{special}]")
    return {
        (name, code)
        for name, kept in tokenizer.codes.items()
        for code in kept
        if system in ("", name) and fnmatchcase(code, pattern)
    }


def any_condition(tokenizer, rng):
    """A condition at random, whose parts do not exclude each other."""
    parts = {"covariates": {}}
    for covariate in tokenizer.schema.covariates:
        numbers = tokenizer.covariate_numbers.get(covariate.name)
        if rng.random() < 0.5:
            continue
        if covariate.kind == "categorical":
            n = rng.integers(1, len(covariate.levels) + 1)
            value = [str(level) for level in rng.permutation(covariate.levels)[:n]]
        elif isinstance(numbers, Bins):
            low = int(rng.integers(len(numbers.edges) - 1))
            high = int(rng.integers(low, len(numbers.edges) - 1)) + 1
            ends = [
                np.format_float_positional(numbers.edges[i], trim="-").rstrip(".")
                for i in (low, high)
            ]
            value = f"{ends[0]}-{ends[1]}"
        elif isinstance(numbers, Digits):
            value = f"-{rng.integers(1, 50)}-{rng.integers(0, 10**6)}"
        else:
            continue
        parts["covariates"][covariate.name] = value
    for label in tokenizer.schema.labels:
        where = rng.choice(["labels", "not_labels", ""])
        parts.setdefault(str(where), []).append(label.column)
    parts.pop("", None)
    every = [(system, code) for system, kept in tokenizer.codes.items() for code in kept]
    for place in rng.permutation(len(every))[:4]:
        system, code = every[place]
        text = str(rng.choice([f"{system}:{code}", code, f"{code[:1]}*"]))
        part = str(rng.choice(["codes_any", "codes_all", "codes_none"]))
        parts.setdefault(part, []).append(text)
    none = set().union(*(meant(tokenizer, text) for text in parts.get("codes_none", [])))
    asked_for = [meant(tokenizer, text) for text in parts.get("codes_all", [])]
    if "codes_any" in parts:
        asked_for.append(set().union(*(meant(tokenizer, text) for text in parts["codes_any"])))
    if any(one <= none for one in asked_for):
        del parts["codes_none"]
    if rng.random() < 0.5:
        parts["min_stays"] = int(rng.integers(1, 3))
    if rng.random() < 0.5:
        parts["max_stays"] = int(rng.integers(parts.get("min_stays", 1), 4))
    return Condition(**parts)


def fulfils(tokenizer, condition, patient):
    """Whether the tables of a patient, read slowly, are what a condition asks for."""
    first = patient.stays.iloc[0]
    for name, value in condition.covariates.items():
        found, numbers = first[name], tokenizer.covariate_numbers.get(name)
        if found is None or found != found:
            return False
        if isinstance(value, list):
            if found not in value:
                return False
            continue
        low, high = (float(text) for text in re.fullmatch(r"(-?[\d.]+)-(-?[\d.]+)", value).groups())
        # The first bin holds its lower edge, too.
        is_lowest = isinstance(numbers, Digits) or low <= numbers.edges[0]
        if not (low < found <= high or (is_lowest and found == low)):
            return False
    if not all(first[column] for column in condition.labels):
        return False
    if any(first[column] for column in condition.not_labels):
        return False
    rows = patient.codes[patient.codes["stay_id"] == first["stay_id"]]
    codes = {*zip(rows["system"].astype(str), rows["code"], strict=True)}
    if condition.codes_any and not any(
        codes & meant(tokenizer, text) for text in condition.codes_any
    ):
        return False
    if not all(codes & meant(tokenizer, text) for text in condition.codes_all):
        return False
    if any(codes & meant(tokenizer, text) for text in condition.codes_none):
        return False
    return (condition.min_stays or 1) <= len(patient.stays) <= (condition.max_stays or math.inf)


@settings(max_examples=150, deadline=None)
@given(
    cohort=cohorts(),
    how=any_settings,
    digits=st.booleans(),
    free=st.sets(st.sampled_from(["labels", "series"])),
    seed=st.integers(0, 2**32 - 1),
)
def test_verdicts_are_those_of_a_slow_reader_and_final(cohort, how, digits, free, seed):
    rng = np.random.default_rng(seed)
    if digits:
        numbers = [c.name for c in cohort.schema.covariates if c.kind == "continuous"]
        how = replace(how, variables={name: VariableSettings(bin_type="raw") for name in numbers})
    tokenizer = Tokenizer.fit(cohort, how).as_trained(sorted(free))
    records = [walk(tokenizer, rng, rng.integers(5, 60)) for _ in range(3)]
    condition = any_condition(tokenizer, rng)
    found = wanted(tokenizer, condition)
    for record in records:
        patient = decode(tokenizer, records_of(tokenizer, record))
        tokens = np.array(record)
        verdicts = [found.verdict(tokens[:n]) for n in range(1, len(tokens) + 1)]
        assert verdicts[-1] is fulfils(tokenizer, condition, patient)
        final = [verdict for verdict in verdicts if verdict is not None]
        assert set(final) == {verdicts[-1]}
        assert None not in verdicts[verdicts.index(verdicts[-1]) :]
        if found.is_free:
            assert verdicts[-1]
