"""How close the distributions of two cohorts are. Both may have any schema, but the same one."""

import numpy as np
import pandas as pd

from synehrgy.cohort import Cohort
from synehrgy.errors import UserError


def check_same_schema(real: Cohort, synthetic: Cohort) -> None:
    """Refuse two cohorts that do not declare the same columns.

    Raises:
        UserError: names the part that differs.
    """
    for part in ("covariates", "labels", "variables", "code_systems"):
        if getattr(real.schema, part) != getattr(synthetic.schema, part):
            raise UserError(
                f"Cohorts {real.schema.name!r} and {synthetic.schema.name!r} declare other "
                f"{part.replace('_', ' ')}, so they cannot be compared. Were they extracted with "
                "different settings (preprocess.profile)?"
            )


def counts(real: Cohort, synthetic: Cohort) -> pd.DataFrame:
    """Sizes, and what a stay and a patient have on average; one row per quantity."""

    def of(cohort: Cohort) -> dict[str, float]:
        found: dict[str, float] = dict(cohort.counts())
        stays = max(found["stays"], 1)
        return found | {
            "stays per patient": found["stays"] / max(found["patients"], 1),
            "codes per stay": found["codes"] / stays,
            "time points per stay": found["time_points"] / stays,
            "values per time point": found["measurements"] / max(found["time_points"], 1),
        }

    return _side_by_side(pd.Series(of(real)), pd.Series(of(synthetic)), "quantity")


def labels(real: Cohort, synthetic: Cohort) -> pd.DataFrame:
    """Share of stays with each label; mean of continuous covariates, share of each level."""

    def of(cohort: Cohort) -> pd.Series:
        # Pairs, because titles of labels need not be unique.
        found: list[tuple[str, float]] = []
        for covariate in cohort.schema.covariates:
            column = cohort.stays[covariate.name]
            if covariate.kind == "continuous":
                found.append((f"{covariate.name} (mean)", column.mean()))
            for level in covariate.levels:
                found.append((f"{covariate.name} = {level}", (column == level).mean()))
        for label in cohort.schema.labels:
            found.append((label.title, cohort.stays[label.column].mean()))
        return pd.Series([x for _, x in found], index=[fact for fact, _ in found], dtype=float)

    return _side_by_side(of(real), of(synthetic), "fact")


def code_prevalence(real: Cohort, synthetic: Cohort) -> pd.DataFrame:
    """Share of stays that have each code, over all codes of either cohort.

    Returns:
        Columns system, code, real, synthetic; a code that a cohort does not have counts as 0.
    """

    def of(cohort: Cohort) -> pd.Series:
        once = cohort.codes.drop_duplicates(["stay_id", "system", "code"])
        found = once.groupby(["system", "code"], observed=True).size()
        return found / max(len(cohort.stays), 1)

    both = pd.concat({"real": of(real), "synthetic": of(synthetic)}, axis=1).fillna(0.0)
    both.index.names = ["system", "code"]
    return both.reset_index().sort_values("real", ascending=False, ignore_index=True)


def correlation(prevalence: pd.DataFrame) -> dict[str, float | None]:
    """Pearson correlation of two columns ``real`` and ``synthetic`` of code prevalences.

    ``union`` is over all codes of either cohort. ``intersection``, the form in which it was
    published (SynEHRgy, arXiv 2411.13428), leaves out codes that one of them lacks, so that missing
    and invented codes cost nothing. None where it is not defined.
    """
    shared = prevalence[(prevalence["real"] > 0) & (prevalence["synthetic"] > 0)]
    return {"union": _pearson(prevalence), "intersection": _pearson(shared)}


def _pearson(rows: pd.DataFrame) -> float | None:
    # Not by the deviation: that of equal numbers is not exactly 0.
    if rows["real"].nunique() < 2 or rows["synthetic"].nunique() < 2:
        return None
    return float(np.corrcoef(rows["real"], rows["synthetic"])[0, 1])


def series(real: Cohort, synthetic: Cohort) -> pd.DataFrame:
    """Mean and standard deviation of each continuous series, missing rate of each series.

    The missing rate is the share of time points without a value of the series.

    Returns:
        One row per series of the schema; columns variable, unit, then each figure of real and
        synthetic. Mean and deviation are empty where a cohort has no value.
    """

    def of(cohort: Cohort) -> pd.DataFrame:
        points = max(cohort.counts()["time_points"], 1)
        by_variable = cohort.measurements.groupby("variable", observed=True)
        value = by_variable["value"]
        return pd.DataFrame(
            {"mean": value.mean(), "sd": value.std(), "missing": 1 - by_variable.size() / points}
        )

    both = pd.concat({"real": of(real), "synthetic": of(synthetic)}, axis=1)
    both = both.reindex([v.name for v in real.schema.variables])
    table = pd.DataFrame({"unit": {v.name: v.unit or "" for v in real.schema.variables}})
    for figure in ("mean", "sd", "missing"):
        for cohort in ("real", "synthetic"):
            column = both[(cohort, figure)]
            table[f"{figure}, {cohort}"] = column.fillna(1.0) if figure == "missing" else column
    return table.rename_axis("variable").reset_index()


def levels(real: Cohort, synthetic: Cohort) -> pd.DataFrame:
    """Share of each level among the values of each categorical series.

    Returns:
        Columns variable, level, real, synthetic.
    """
    names = [(v.name, x) for v in real.schema.variables_of("categorical") for x in v.levels]
    index = pd.MultiIndex.from_tuples(names, names=["variable", "level"])

    def of(cohort: Cohort) -> pd.Series:
        rows = cohort.measurements.dropna(subset="level")
        found = rows.groupby(["variable", "level"], observed=True).size()
        total = rows.groupby("variable", observed=True).size()
        return (found / total.reindex(found.index.get_level_values(0)).to_numpy()).reindex(index)

    both = pd.DataFrame({"real": of(real), "synthetic": of(synthetic)}, index=index)
    return both.fillna(0.0).reset_index()


def _side_by_side(real: pd.Series, synthetic: pd.Series, name: str) -> pd.DataFrame:
    table = pd.DataFrame({"real": real, "synthetic": synthetic})
    return table.rename_axis(name).reset_index()
