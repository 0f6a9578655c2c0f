"""Fresh patients of the same distribution, shown beside the synthetic ones."""

import numpy as np
import pytest

from synehrgy.cli import compose
from synehrgy.evaluation.evaluate import compare, evaluate, with_oracle
from tests.cohorts import small_cohort, write


@pytest.fixture(scope="module")
def found():
    real, synthetic, oracle = (small_cohort(n, seed=n) for n in (60, 30, 50))
    # One code that only the oracle has, and one that only the synthetic cohort has.
    oracle.codes["code"] = oracle.codes["code"].cat.rename_categories({"4019": "4018"})
    synthetic.codes["code"] = synthetic.codes["code"].cat.rename_categories({"0389": "0388"})
    whole = with_oracle(compare(real, synthetic), compare(real, oracle))
    return whole, compare(real, oracle), compare(real, synthetic)


def test_every_table_has_the_oracle_beside_the_synthetic(found):
    whole, ceiling, plain = found
    for name, table in whole.tables.items():
        ours = [column for column in plain.tables[name] if column.endswith("synthetic")]
        assert ours
        for column in ours:
            assert column.replace("synthetic", "oracle") in table
    counts = whole.tables["counts"].set_index("quantity")
    assert counts.loc["patients"].tolist() == [60, 30, 50]
    for name in ("labels", "levels", "validity"):
        expected = ceiling.tables[name]["synthetic"]
        assert np.allclose(whole.tables[name]["oracle"], expected, equal_nan=True)


def test_codes_that_one_cohort_lacks_count_as_zero(found):
    whole, _, plain = found
    codes = whole.tables["codes"].set_index(["system", "code"])
    assert codes.notna().all().all()
    only_oracle = codes.loc[("icd9_diagnosis", "4018")]
    assert only_oracle["oracle"] > 0
    assert only_oracle[["real", "synthetic"]].tolist() == [0, 0]
    only_synthetic = codes.loc[("icd9_diagnosis", "0388")]
    assert only_synthetic["synthetic"] > 0
    assert only_synthetic[["real", "oracle"]].tolist() == [0, 0]
    before = plain.tables["codes"].set_index(["system", "code"])
    assert np.allclose(codes.loc[before.index, "synthetic"], before["synthetic"])
    assert codes["real"].is_monotonic_decreasing


def test_metrics_of_the_oracle_stand_beside(found):
    whole, ceiling, plain = found
    for name, value in plain.metrics.items():
        assert whole.metrics[name] == value
        assert whole.metrics[f"oracle/{name}"] == ceiling.metrics[name]


def test_the_command_takes_one(tmp_path):
    for name, seed in (("real", 0), ("run", 1), ("fresh", 2)):
        write(small_cohort(30, seed), tmp_path / name)
    settings = [f"{k}={tmp_path / v}" for k, v in (("real", "real"), ("synthetic", "run"))]
    config = compose(
        "evaluate",
        [*settings, f"oracle={tmp_path / 'fresh'}", f"paths.results={tmp_path / 'results'}"],
    )
    out, _ = evaluate(config)
    assert "oracle" in (out / "report.html").read_text()
    assert "oracle" in (out / "tables" / "codes.csv").read_text().splitlines()[0]
