"""Encoding: the published order, and what has no token."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable
from synehrgy.errors import UserError
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults
from synehrgy.tokenizer import grammar as g
from tests.cohorts import SMALL_SCHEMA, build, small_cohort

SCHEMA = Schema(
    name="golden",
    source="test",
    covariates=[
        Covariate("age", "continuous"),
        Covariate("gender", "categorical", levels=["F", "M"]),
    ],
    # The labels are declared mixed: outcomes come first in a record all the same.
    labels=[
        Label("shock", "Shock", "phenotype"),
        Label("died", "Died", "outcome"),
        Label("asthma", "Asthma", "phenotype"),
        Label("fever", "Fever", "phenotype"),
    ],
    variables=[
        Variable("pH", "continuous"),
        Variable("Heart Rate", "continuous"),
        Variable("rhythm", "categorical", levels=["sinus", "other"]),
    ],
    code_systems=[CodeSystem("dx", "Diagnoses"), CodeSystem("px", "Procedures")],
)
# As published, but with every code.
PUBLISHED = TokenSettings(min_code_count=1, outlier_rule=False, time="gap", long_records="truncate")
CLOCK = dataclasses.replace(PUBLISHED, time="clock")


def golden():
    """Two patients; the first has two stays."""
    stays = [
        [1, 10, None, 0, "train", 67.3, "M", 1, 0, 0, 1, 50.0],
        [1, 11, None, 1, "train", 70.0, "M", 0, 1, 0, 0, 9.0],
        [2, 5, None, 0, "val", 18.0, "F", 0, 0, 1, 0, None],
    ]
    codes = [
        # Listed in an order of their own, procedures in between.
        *([10, 0, "dx", "4019"], [10, 1, "px", "9604"], [10, 2, "dx", "0389"]),
        *([10, 3, "dx", "4019"], [11, 0, "dx", "0389"]),
    ]
    measurements = [
        [10, 0.0, "Heart Rate", 80.0, None],
        [10, 0.0, "pH", 7.4, None],
        [10, 0.0, "rhythm", None, "other"],
        [10, 0.5, "pH", 7.2, None],
        [10, 48.55, "rhythm", None, "sinus"],
        [5, 3.0, "Heart Rate", 99.0, None],
        [5, 503.0, "Heart Rate", 60.0, None],
    ]
    return build(SCHEMA, stays, codes, measurements)


def words(tokenizer, sequence):
    return [tokenizer.vocabulary[token] for token in sequence]


def test_record_has_the_published_order():
    tokenizer = Tokenizer.fit(golden(), PUBLISHED)
    records = encode(tokenizer, golden())
    assert words(tokenizer, records[0]) == [
        "<s>",
        *("age=(65, 70]", "gender=M", "</covar>"),
        *("died=0", "shock", "fever", "</label>"),
        # The second 4019 of the stay says nothing new.
        *("dx:4019", "dx:0389", "px:9604", "</code>"),
        *("rhythm=other", "Heart Rate=(80, 80]", "pH=(7.2, 7.4]", "gap=(0, 0.5] h"),
        *("pH=(7.2, 7.4]", "gap=(0, 0.5] h"),
        *("rhythm=sinus", "gap=(48, 48.1] h", "</ts>"),
        "</adm>",
        # The age moves on; no phenotype, no procedure, no series.
        *("age=(65, 70]", "gender=M", "</covar>"),
        *("died=1", "</label>"),
        *("dx:0389", "</code>"),
        "</ts>",
        "</adm>",
        "</s>",
    ]
    assert words(tokenizer, records[1]) == [
        "<s>",
        # 18 lies on the open edge, and 500 hours beyond the last one.
        *("age=(18, 20]", "gender=F", "</covar>"),
        *("died=0", "asthma", "</label>", "</code>"),
        *("Heart Rate=(80, 80]", "gap=(2.5, 3.5] h"),
        *("Heart Rate=(80, 80]", "gap=(150.1, 200.1] h", "</ts>"),
        *("</adm>", "</s>"),
    ]


def test_records_state_whose_they_are():
    tokenizer = Tokenizer.fit(golden(), PUBLISHED)
    records = encode(tokenizer, golden())
    assert records.subject_ids.tolist() == [1, 2]
    assert records.splits.tolist() == [0, 1]
    assert records.splits.dtype == np.int8
    assert records.offsets.tolist() == [0, len(records[0]), len(records.tokens)]
    assert records.lengths.tolist() == [len(records[0]), len(records[1])]
    assert records.tokens.dtype == np.uint16
    assert {what: n for what, n in records.dropped.items() if n} == {
        "codes repeated within a stay": 1,
        "lengths of stay, which these records do not write": 2,
    }
    assert {what: n for what, n in records.changed.items() if n} == {
        # Values of the val split, and a gap of 500 hours.
        "series: beyond the bins": 2,
        "gaps beyond their bins": 1,
    }


def test_cohorts_without_splits_are_encoded_without():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, PUBLISHED)
    stays = cohort.stays.assign(split=pd.Series([None] * 3, dtype=object))
    records = encode(tokenizer, dataclasses.replace(cohort, stays=stays))
    assert records.splits.tolist() == [-1, -1]
    assert decode(tokenizer, records).stays["split"].isna().all()


def test_a_patient_of_one_split_is_the_same_as_in_the_cohort():
    cohort = small_cohort(30)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    alone = encode(tokenizer, cohort.select(split="val"))
    chosen = np.flatnonzero(records.splits == 1)
    assert len(alone) == len(chosen) > 0
    for i, j in enumerate(chosen):
        assert alone[i].tolist() == records[j].tolist()


def test_rare_codes_are_dropped_and_counted():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, dataclasses.replace(CLOCK, min_code_count=2))
    records = encode(tokenizer, cohort)
    assert tokenizer.codes == {"dx": ["0389", "4019"], "px": []}
    assert records.dropped["codes not in the vocabulary"] == 1
    assert not any("px" in word for word in words(tokenizer, records.tokens))
    assert find_faults(tokenizer, records) == []


def test_values_of_series_that_training_never_saw_are_dropped_and_counted():
    cohort = golden()
    rows = [*cohort.measurements.itertuples(index=False, name=None)]
    without_ph = [row for row in rows if row[2] != "pH"]
    parts = [[*frame.itertuples(index=False, name=None)] for frame in (cohort.stays, cohort.codes)]
    tokenizer = Tokenizer.fit(build(SCHEMA, *parts, without_ph), PUBLISHED)
    records = encode(tokenizer, cohort)
    assert records.dropped["values of 'pH', unseen in training"] == 2
    text = words(tokenizer, records[0])
    assert not any("pH" in word for word in text)
    # At 0.5 hours there was nothing else: the gap up to 48.55 hours now begins at 0.
    start = text.index("rhythm=sinus")
    assert text[start - 1 : start + 2] == ["gap=(0, 0.5] h", "rhythm=sinus", "gap=(48.1, 60.1] h"]
    assert find_faults(tokenizer, records) == []


def test_the_first_gap_counts_from_admission_even_if_values_before_it_are_dropped():
    schema = Schema("s", "test", variables=[Variable(n, "continuous") for n in "ab"])
    stays = [[1, 1, None, 0, "train", None], [2, 2, None, 0, "test", None]]
    rows = [[1, 1.0, "b", 1.0, None], [2, 2.0, "a", 1.0, None], [2, 30.0, "b", 1.0, None]]
    cohort = build(schema, stays, [], rows)
    published, clock = (Tokenizer.fit(cohort, how) for how in (PUBLISHED, CLOCK))
    assert words(published, encode(published, cohort)[1])[4:6] == ["b=(1, 1]", "gap=(26.5, 48] h"]
    assert words(clock, encode(clock, cohort)[1])[4:7] == ["b=(1, 1]", "+1 d", "+6 h"]


def test_missing_covariates_have_their_token():
    cohort = golden()
    stays = cohort.stays.copy()
    stays.loc[0, "age"] = np.nan
    stays.loc[1, "gender"] = None
    cohort = dataclasses.replace(cohort, stays=stays)
    tokenizer = Tokenizer.fit(cohort, PUBLISHED)
    text = words(tokenizer, encode(tokenizer, cohort)[0])
    assert text[1:3] == ["age=missing", "gender=M"]
    second = text.index("</adm>") + 1
    assert text[second : second + 2] == ["age=(65, 70]", "gender=missing"]
    back = decode(tokenizer, encode(tokenizer, cohort)).stays
    assert back["age"].isna().tolist() == [True, False, False]
    assert back["gender"].isna().tolist() == [False, True, False]


def test_covariate_that_training_never_saw_is_counted_and_encoded_as_missing():
    schema = Schema("s", "test", covariates=[Covariate("weight", "continuous")])
    stays = [[1, 1, None, 0, "train", None, None], [2, 2, None, 0, "test", 70.0, None]]
    cohort = build(schema, stays, [], [])
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    assert words(tokenizer, records.tokens).count("weight=missing") == 2
    assert records.dropped["weight: unseen in training, encoded as missing"] == 1


def test_covariate_missing_where_it_never_was_is_refused():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, PUBLISHED)
    stays = cohort.stays.copy()
    stays.loc[1, "gender"] = None
    with pytest.raises(UserError, match=r"stays\.gender is empty in the row of stay 11"):
        encode(tokenizer, dataclasses.replace(cohort, stays=stays))


def declared(cohort, **parts):
    return dataclasses.replace(cohort, schema=dataclasses.replace(cohort.schema, **parts))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"covariates": SMALL_SCHEMA.covariates[:1]}, "has no covariate 'gender'"),
        (
            {
                "covariates": [
                    Covariate("age", "continuous", unit="months"),
                    *SMALL_SCHEMA.covariates[1:],
                ]
            },
            "declares covariate 'age' as continuous in months, the tokenizer .* in years",
        ),
        ({"labels": SMALL_SCHEMA.labels[1:]}, "has no outcome 'in_hospital_mortality'"),
        (
            {"variables": [Variable("Lactate", "continuous", unit="mg/dL")]},
            "declares variable 'Lactate' as continuous in mg/dL",
        ),
        (
            {"variables": [Variable("pH", "categorical", levels=["low"])]},
            "declares variable 'pH' as categorical",
        ),
    ],
)
def test_cohort_in_which_a_name_means_something_else_is_refused(parts, message):
    cohort = small_cohort(10)
    tokenizer = Tokenizer.fit(cohort)
    with pytest.raises(UserError, match=message):
        encode(tokenizer, declared(cohort, **parts))


def test_what_the_tokenizer_does_not_know_is_dropped_and_counted():
    """Another hospital: a further label, series, level and code system; the rest is as before."""
    cohort = small_cohort(30)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1))
    expected = encode(tokenizer, cohort)
    scale = SMALL_SCHEMA.variables[0]
    more = declared(
        cohort,
        labels=[*SMALL_SCHEMA.labels, Label("fever", "Fever", "phenotype")],
        variables=[
            dataclasses.replace(scale, levels=[*scale.levels, "2"]),
            *SMALL_SCHEMA.variables[1:],
            Variable("Zinc", "continuous"),
        ],
        code_systems=[*SMALL_SCHEMA.code_systems, CodeSystem("drugs", "Drugs")],
    )
    first = int(cohort.stays["stay_id"].iloc[0])
    # After all other rows of the first stay, each at its own time.
    split = int((cohort.measurements["stay_id"] == first).sum())
    rows = [*cohort.measurements.itertuples(index=False, name=None)]
    rows[split:split] = [
        (first, 90.0, scale.name, None, "2"),
        (first, 91.0, "Zinc", 4.0, None),
        (first, 92.0, "Zinc", 5.0, None),
    ]
    codes = [*cohort.codes.itertuples(index=False, name=None)]
    codes.insert(int((cohort.codes["stay_id"] == first).sum()), (first, 99, "drugs", "aspirin"))
    stays = [(*row[:-1], 0, row[-1]) for row in cohort.stays.itertuples(index=False, name=None)]
    records = encode(tokenizer, build(more.schema, stays, codes, rows))
    assert np.array_equal(records.tokens, expected.tokens)
    assert {what: n for what, n in records.dropped.items() if n} == {
        "states of 'fever', unknown to the tokenizer": len(cohort.stays),
        "values of 'Zinc', unknown to the tokenizer": 2,
        "values of 'Glasgow coma scale total' at an unknown level": 1,
        "codes not in the vocabulary": 1,
    }


def test_an_unknown_level_of_a_covariate_is_missing_or_refused():
    cohort = small_cohort(10)
    other = declared(
        cohort,
        covariates=[
            SMALL_SCHEMA.covariates[0],
            Covariate("gender", "categorical", levels=["F", "M", "X"]),
        ],
    )
    stays = cohort.stays.copy()
    stays.loc[3, "gender"] = "X"
    other = dataclasses.replace(other, stays=stays)
    with pytest.raises(UserError, match=r"stays.gender is 'X', unknown in the row of stay"):
        encode(Tokenizer.fit(cohort), other)
    stays = cohort.stays.copy()
    stays.loc[0, "gender"] = None
    nullable = Tokenizer.fit(dataclasses.replace(cohort, stays=stays))
    records = encode(nullable, other)
    assert records.dropped["gender: unseen in training, encoded as missing"] == 1
    assert (
        decode(nullable, records).stays["gender"].isna().tolist()
        == (other.stays["gender"] == "X").tolist()
    )


def test_another_name_of_the_cohort_is_no_other_schema():
    cohort = small_cohort(10)
    tokenizer = Tokenizer.fit(cohort)
    renamed = dataclasses.replace(cohort, schema=dataclasses.replace(cohort.schema, name="new"))
    assert np.array_equal(encode(tokenizer, renamed).tokens, encode(tokenizer, cohort).tokens)


def test_no_patients_have_no_tokens():
    cohort = small_cohort(10)
    records = encode(Tokenizer.fit(cohort), cohort.select(subjects=[]))
    assert len(records) == 0
    assert records.offsets.tolist() == [0]
    assert len(records.tokens) == 0


def test_more_tokens_than_16_bits_can_count():
    codes = [f"{i:05}" for i in range(66_000)]
    schema = Schema("s", "test", code_systems=[CodeSystem("x", "X")])
    rows = [[1, i, "x", code] for i, code in enumerate(codes)]
    cohort = build(schema, [[1, 1, None, 0, "train", None]], rows, [])
    tokenizer = Tokenizer.fit(cohort, PUBLISHED)
    records = encode(tokenizer, cohort)
    assert records.tokens.dtype == np.uint32
    assert decode(tokenizer, records).codes["code"].tolist() == codes


def test_draws_of_a_patient_do_not_depend_on_the_batch():
    cohort = small_cohort(12)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    whole = decode(tokenizer, records, seed=4, independent=True)
    last = decode(
        tokenizer,
        encode(tokenizer, cohort.select(subjects=[21])),
        seed=4,
        numbers=np.array([11]),
        independent=True,
        first_stay_id=int(whole.stays.loc[whole.stays["subject_id"] == 21, "stay_id"].iloc[0]),
    )
    expected = whole.select(subjects=[21])
    assert last.stays["los_hours"].tolist() == expected.stays["los_hours"].tolist()
    assert last.stays["stay_id"].tolist() == expected.stays["stay_id"].tolist()
    for column in ("hours", "value"):
        assert last.measurements[column].equals(expected.measurements[column])


def test_another_seed_gives_other_values_of_the_same_tokens():
    cohort = small_cohort(6)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(time="gap"))
    records = encode(tokenizer, cohort)
    one, other = (decode(tokenizer, records, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.measurements["hours"], other.measurements["hours"])
    assert np.array_equal(encode(tokenizer, one).tokens, encode(tokenizer, other).tokens)


def test_length_of_stay_is_the_last_time_point_where_records_do_not_state_it():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, PUBLISHED)
    back = decode(tokenizer, encode(tokenizer, cohort))
    last = back.measurements.groupby("stay_id")["hours"].max()
    assert back.stays["los_hours"].isna().tolist() == [False, True, False]
    assert back.stays["los_hours"].dropna().tolist() == last.tolist()
    assert back.stays["hadm_id"].isna().all()
    assert back.stays["stay_id"].tolist() == [1, 2, 3]


def test_every_section_is_closed_in_every_admission():
    cohort = small_cohort(20)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    for closer in (g.END_COVARIATES, g.END_LABELS, g.END_CODES, g.END_SERIES, g.END_ADMISSION):
        assert np.sum(records.tokens == tokenizer.token(closer)) == len(cohort.stays)
    assert np.sum(records.tokens == tokenizer.token(g.START)) == cohort.n_patients


def test_labels_far_up_in_the_vocabulary():
    """Labels are stored in 8 bits; the numbers of their tokens need more."""
    levels = [f"level {i}" for i in range(300)]
    schema = Schema(
        "many",
        "test",
        covariates=[Covariate("ward", "categorical", levels=levels)],
        labels=[Label("died", "Died", "outcome"), Label("ill", "Ill", "phenotype")],
    )
    stays = [(i, i, None, 0, "train", levels[i], i % 2, 1, None) for i in range(4)]
    cohort = build(schema, stays, [], [])
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    said = [tokenizer.vocabulary[token] for token in records[1]]
    assert said[1:6] == ["ward=level 1", "</covar>", "died=1", "ill", "</label>"]
    assert decode(tokenizer, records).stays["died"].tolist() == [0, 1, 0, 1]


def test_numbers_outside_the_bins_are_counted():
    schema = Schema(
        "tails",
        "test",
        covariates=[Covariate("age", "continuous")],
        variables=[Variable("Heart Rate", "continuous")],
    )
    stays = [(1, 1, None, 0, "train", 50.0, None), (2, 2, None, 0, "test", 12.0, None)]
    measurements = [(1, float(i), "Heart Rate", 80.0 + i, None) for i in range(10)]
    measurements += [(2, 1.0, "Heart Rate", 30.0, None), (2, 2.0, "Heart Rate", 85.0, None)]
    measurements += [(2, 900.0, "Heart Rate", 300.0, None)]
    cohort = build(schema, stays, [], measurements)
    records = encode(Tokenizer.fit(cohort, PUBLISHED), cohort)
    assert records.changed == {
        "age: beyond the bins": 1,
        "series: beyond the bins": 2,
        "gaps beyond their bins": 1,
        "codes written as their ICD parent": 0,
    }


def test_age_does_not_fall_between_stays_of_the_same_bin():
    cohort = small_cohort(80)
    tokenizer = Tokenizer.fit(cohort)
    back = decode(tokenizer, encode(tokenizer, cohort), seed=4)
    later = back.stays["stay_index"] > 0
    assert later.sum() > 20
    assert (back.stays.groupby("subject_id")["age"].diff()[later] >= 0).all()


def test_edges_for_a_covariate_that_is_not_there_are_a_mistake():
    with pytest.raises(UserError, match=r"covariate_edges.agee: .* Did you mean 'age'"):
        Tokenizer.fit(small_cohort(20), TokenSettings(covariate_edges={"agee": [1.0, 2.0]}))


@pytest.mark.parametrize("count_in", ["train", "all"])
def test_rare_codes_can_be_kept_dropped_or_written_as_their_parent(count_in):
    schema = Schema(
        "icd",
        "test",
        code_systems=[CodeSystem("icd9_diagnosis", "D"), CodeSystem("drugs", "Drugs")],
    )
    stays = [[i, i, None, 0, "train" if i < 3 else "val", None] for i in range(5)]
    listed = {
        # 42821 and 42822 are rare and share 4282; E8490 has the category E849; 99 is no category.
        0: ["4280", "42821", "E8490"],
        1: ["4280", "42822", "99"],
        2: ["E8491", "V5861"],
        3: ["42823", "V5862"],
        4: ["V5861"],
    }
    codes = [
        [stay, i, "icd9_diagnosis", code]
        for stay, found in listed.items()
        for i, code in enumerate(found)
    ]
    codes = sorted([*codes, [0, 9, "drugs", "aspirin"]], key=lambda row: row[:2])
    cohort = build(schema, stays, codes, [])

    def result(how):
        settings = TokenSettings(rare_codes=how, min_code_count=2, count_codes_in=count_in)
        tokenizer = Tokenizer.fit(cohort, settings)
        records = encode(tokenizer, cohort)
        found = decode(tokenizer, records).codes
        return (
            tokenizer.codes,
            found.groupby("stay_id")["code"].agg(list).to_dict(),
            records.dropped["codes not in the vocabulary"],
            records.changed["codes written as their ICD parent"],
        )

    everywhere = count_in == "all"
    codes, found, dropped, changed = result("drop")
    assert codes == {"icd9_diagnosis": ["4280", *["V5861"] * everywhere], "drugs": []}
    assert (dropped, changed) == (len(listed[0]) + len(listed[1]) + 5 - 2 - 2 * everywhere + 1, 0)
    codes, found, dropped, changed = result("keep")
    if everywhere:
        assert (dropped, changed) == (0, 0)
        assert found[4] == listed[3]
    else:
        assert (dropped, changed) == (2, 0)
    codes, found, dropped, changed = result("parent")
    assert codes["icd9_diagnosis"][:2] == ["4280", "4282"]
    assert "E849" in codes["icd9_diagnosis"]
    assert found[1] == ["4280", "4282", "E849"]
    assert found[2] == ["4280", "4282"]
    # The drug and the code that has no category fall away in any case.
    assert dropped >= 2
    assert changed >= 4


def test_the_length_of_a_stay_comes_back_to_the_minute():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, CLOCK)
    text = words(tokenizer, encode(tokenizer, cohort)[0])
    # 48.55 hours are 48 h 33 min; the stay of 50 hours goes on for 1 h 27 min.
    assert text[text.index("rhythm=sinus") :][:7] == [
        *("rhythm=sinus", "+2 d", "+3 min", "</ts>"),
        *("discharge +1 h", "discharge +27 min", "</adm>"),
    ]
    back = decode(tokenizer, encode(tokenizer, cohort)).stays["los_hours"]
    assert back.tolist()[:2] == [50.0, 9.0]
    assert np.isnan(back.iloc[2])


def test_a_stay_of_unknown_length_where_there_was_none_is_refused():
    cohort = golden()
    known = dataclasses.replace(cohort, stays=cohort.stays.fillna({"los_hours": 1.0}))
    tokenizer = Tokenizer.fit(known, CLOCK)
    with pytest.raises(UserError, match=r"stays.los_hours is empty in the row of stay 5"):
        encode(tokenizer, cohort)


def test_a_stay_that_ends_before_its_last_value_is_counted():
    cohort = golden()
    stays = cohort.stays.assign(los_hours=[40.0, 9.0, 600.0])
    cohort = dataclasses.replace(cohort, stays=stays)
    tokenizer = Tokenizer.fit(cohort, CLOCK)
    records = encode(tokenizer, cohort)
    assert records.changed["stays that end before their last time point"] == 1
    assert decode(tokenizer, records).stays["los_hours"].round(2).tolist() == [48.55, 9.0, 600.0]


def test_a_hospital_that_knows_no_length_of_stay_has_no_token_for_it():
    cohort = small_cohort(20)
    cohort.stays["los_hours"] = np.nan
    tokenizer = Tokenizer.fit(cohort)
    assert tokenizer.lengths_of_stay == "none"
    assert not any(text.startswith("discharge") for text in tokenizer.vocabulary)
    records = encode(tokenizer, cohort)
    assert find_faults(tokenizer, records) == []
    assert decode(tokenizer, records).stays["los_hours"].isna().all()
    # A length in another cohort is dropped and counted.
    other = encode(tokenizer, small_cohort(20))
    assert other.dropped["lengths of stay, which these records do not write"] == len(cohort.stays)
