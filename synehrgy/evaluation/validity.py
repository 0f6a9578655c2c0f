"""How often records break rules that records should keep. Real ones break some too."""

from functools import partial

import pandas as pd

from synehrgy.cohort import Cohort


def broken_rules(real: Cohort, synthetic: Cohort) -> pd.DataFrame:
    """Share of stays that break each rule.

    Reading a cohort already refuses what no record may do: unknown levels and variables, times
    that run backwards, values twice at one time.

    Returns:
        Columns rule, real, synthetic.
    """
    rules = {
        "no code": lambda c: ~c.stays["stay_id"].isin(c.codes["stay_id"]),
        "no measurement": lambda c: ~c.stays["stay_id"].isin(c.measurements["stay_id"]),
        "the same code twice": _repeated_code,
        "a value after the end of the stay": _after_the_end,
    }
    if any(c.name == "age" and c.kind == "continuous" for c in real.schema.covariates):
        rules["younger than at an earlier stay"] = _younger
    for covariate in real.schema.covariates:
        if covariate.kind == "categorical":
            rules[f"other {covariate.name} than at the stay before"] = partial(
                _other_level, covariate.name
            )
    if any(label.column == "in_hospital_mortality" for label in real.schema.labels):
        rules["a stay after a death in hospital"] = _after_death
    if any(label.codes for label in real.schema.labels):
        rules["a label without any of the codes that define it"] = partial(_at_odds, True)
        rules["a code that defines a label without the label"] = partial(_at_odds, False)
    share = {
        rule: {"real": find(real).mean(), "synthetic": find(synthetic).mean()}
        for rule, find in rules.items()
    }
    return pd.DataFrame(share).T.rename_axis("rule").reset_index()


def _at_odds(has_label: bool, cohort: Cohort) -> pd.Series:
    """Whether a stay has a label without its codes, or its codes without the label."""
    stays, codes = cohort.stays, cohort.codes
    odd = pd.Series(False, index=stays.index)
    for label in cohort.schema.labels:
        if label.codes:
            mine = (codes["system"] == label.system) & codes["code"].isin(label.codes)
            explained = stays["stay_id"].isin(codes.loc[mine, "stay_id"])
            stated = stays[label.column] == 1
            odd |= (stated & ~explained) if has_label else (explained & ~stated)
    return odd


def _repeated_code(cohort: Cohort) -> pd.Series:
    twice = cohort.codes.duplicated(["stay_id", "system", "code"])
    return cohort.stays["stay_id"].isin(cohort.codes.loc[twice, "stay_id"])


def _after_the_end(cohort: Cohort) -> pd.Series:
    last = cohort.measurements.groupby("stay_id")["hours"].max()
    return cohort.stays["stay_id"].map(last) > cohort.stays["los_hours"]


def _younger(cohort: Cohort) -> pd.Series:
    return cohort.stays.groupby("subject_id")["age"].diff() < 0


def _other_level(covariate: str, cohort: Cohort) -> pd.Series:
    before = cohort.stays.groupby("subject_id")[covariate].shift()
    now = cohort.stays[covariate]
    return before.notna() & now.notna() & (now != before)


def _after_death(cohort: Cohort) -> pd.Series:
    return cohort.stays.groupby("subject_id")["in_hospital_mortality"].shift() == 1
