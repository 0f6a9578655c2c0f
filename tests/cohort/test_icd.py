"""The hierarchy of ICD codes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synehrgy.cohort import is_icd, parents
from synehrgy.cohort.icd import CATEGORY


@pytest.mark.parametrize(
    ("system", "code", "above"),
    [
        ("icd9_diagnosis", "42823", ["4282", "428"]),
        ("icd9_diagnosis", "E8788", ["E878"]),
        ("icd9_diagnosis", "428", []),
        ("icd9_procedure", "3893", ["389", "38"]),
        ("icd10_diagnosis", "P0730", ["P073", "P07"]),
        ("icd10_diagnosis", "E119", ["E11"]),
        # Of other countries, with other names, and with the point that others write.
        ("icd10gm", "I2141", ["I214", "I21"]),
        ("ICD-10-CM", "O9A111", ["O9A11", "O9A1", "O9A"]),
        ("icd10_procedure", "0DB64ZX", ["0DB64Z", "0DB64", "0DB6", "0DB"]),
        ("icd10_diagnosis", "P07.30", ["P07.3", "P07"]),
        ("icd9_diagnosis", "E878.8", ["E878"]),
        ("ops", "8-836.0", []),
        ("icd9", "42823", []),
    ],
)
def test_what_stands_above_a_code(system, code, above):
    assert parents(system, code) == above


@pytest.mark.parametrize(
    ("system", "known"),
    [("icd10", True), ("ICD 10 GM", True), ("icd9_procedure", True), ("atc", False), ("", False)],
)
def test_systems_are_known_by_their_names(system, known):
    assert is_icd(system) == known


@given(st.sampled_from(sorted(CATEGORY)), st.text("AE0123456789.", min_size=1, max_size=8))
def test_parents_become_shorter_and_have_parents_of_their_own(system, code):
    above = parents(system, code)
    assert all(code.startswith(one) and not one.endswith(".") for one in above)
    assert [len(one) for one in above] == sorted({len(one) for one in above}, reverse=True)
    for i, one in enumerate(above):
        assert parents(system, one) == above[i + 1 :]
