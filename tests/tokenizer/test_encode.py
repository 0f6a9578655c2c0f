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
ONE_BIN = TokenSettings(min_code_count=1, outlier_rule=False)


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
    tokenizer = Tokenizer.fit(golden(), ONE_BIN)
    records = encode(tokenizer, golden())
    assert words(tokenizer, records[0]) == [
        "<s>",
        *("age=(65, 70]", "gender=M", "</covar>"),
        *("died=0", "shock", "fever", "</label>"),
        *("dx:4019", "dx:0389", "dx:4019", "px:9604", "</code>"),
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
    tokenizer = Tokenizer.fit(golden(), ONE_BIN)
    records = encode(tokenizer, golden())
    assert records.subject_ids.tolist() == [1, 2]
    assert records.splits.tolist() == [0, 1]
    assert records.splits.dtype == np.int8
    assert records.offsets.tolist() == [0, len(records[0]), len(records.tokens)]
    assert records.lengths.tolist() == [len(records[0]), len(records[1])]
    assert records.tokens.dtype == np.uint16
    assert set(records.dropped.values()) == {0}


def test_cohorts_without_splits_are_encoded_without():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, ONE_BIN)
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
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=2))
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
    tokenizer = Tokenizer.fit(build(SCHEMA, *parts, without_ph), ONE_BIN)
    records = encode(tokenizer, cohort)
    assert records.dropped["values of series unseen in training"] == 2
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
    tokenizer = Tokenizer.fit(cohort)
    assert words(tokenizer, encode(tokenizer, cohort)[1])[4:6] == ["b=(1, 1]", "gap=(26.5, 48] h"]


def test_missing_covariates_have_their_token():
    cohort = golden()
    stays = cohort.stays.copy()
    stays.loc[0, "age"] = np.nan
    stays.loc[1, "gender"] = None
    cohort = dataclasses.replace(cohort, stays=stays)
    tokenizer = Tokenizer.fit(cohort, ONE_BIN)
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
    assert records.dropped["covariates unseen in training (encoded as missing)"] == 1


def test_covariate_missing_where_it_never_was_is_refused():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, ONE_BIN)
    stays = cohort.stays.copy()
    stays.loc[1, "gender"] = None
    with pytest.raises(UserError, match=r"stays\.gender is empty in row 1"):
        encode(tokenizer, dataclasses.replace(cohort, stays=stays))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("covariates", {"covariates": SMALL_SCHEMA.covariates[:1]}),
        ("labels", {"labels": SMALL_SCHEMA.labels[::-1]}),
        ("variables", {"variables": [*SMALL_SCHEMA.variables, Variable("x", "continuous")]}),
        ("code systems", {"code_systems": []}),
    ],
)
def test_cohort_with_another_schema_is_refused(part, change):
    cohort = small_cohort(10)
    tokenizer = Tokenizer.fit(cohort)
    other = dataclasses.replace(cohort, schema=dataclasses.replace(cohort.schema, **change))
    with pytest.raises(UserError, match=f"declares other {part} than the tokenizer"):
        encode(tokenizer, other)


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
    tokenizer = Tokenizer.fit(cohort, ONE_BIN)
    records = encode(tokenizer, cohort)
    assert records.tokens.dtype == np.uint32
    assert decode(tokenizer, records).codes["code"].tolist() == codes


def test_draws_of_a_patient_do_not_depend_on_the_batch():
    cohort = small_cohort(12)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    whole = decode(tokenizer, records, seed=4)
    last = decode(
        tokenizer,
        encode(tokenizer, cohort.select(subjects=[21])),
        seed=4,
        first_record=11,
        first_stay_id=int(whole.stays.loc[whole.stays["subject_id"] == 21, "stay_id"].iloc[0]),
    )
    expected = whole.select(subjects=[21])
    assert last.stays["los_hours"].tolist() == expected.stays["los_hours"].tolist()
    assert last.stays["stay_id"].tolist() == expected.stays["stay_id"].tolist()
    for column in ("hours", "value"):
        assert last.measurements[column].equals(expected.measurements[column])


def test_another_seed_gives_other_values_of_the_same_tokens():
    cohort = small_cohort(6)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    one, other = (decode(tokenizer, records, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.measurements["hours"], other.measurements["hours"])
    assert np.array_equal(encode(tokenizer, one).tokens, encode(tokenizer, other).tokens)


def test_length_of_stay_is_the_last_time_point():
    cohort = golden()
    tokenizer = Tokenizer.fit(cohort, ONE_BIN)
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
    records = encode(Tokenizer.fit(cohort), cohort)
    assert records.clipped == {"age": 1, "values": 2, "gaps": 1}


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
