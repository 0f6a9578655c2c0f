"""What is usual for such predictions: one classifier per label, on summaries of the first hours."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Cohort
from synehrgy.cohort.futures import in_window

SUMMARIES = ("min", "max", "mean", "std", "last", "count")


def window_features(
    cohort: Cohort, stays: Sequence[int] | pd.Series, window: float
) -> pd.DataFrame:
    """What is known of stays after their first hours, as numbers.

    Covariates (levels one-hot) and the number of the stay; of each continuous series in the window
    ``SUMMARIES``; of each categorical one the count of each level and the last level, numbered as
    declared. What is not known is NaN; counts are 0. Nothing that sums up the stay: neither codes,
    labels nor its length.

    Args:
        cohort: that they are in.
        stays: their stay_id, in the order wanted.
        window: hours that are known.

    Returns:
        float64 [stays, features], indexed by stay_id. The columns depend on the schema only.
    """
    facts = cohort.stays.set_index("stay_id").loc[list(stays)]
    columns: dict[str, pd.Series] = {"stay_index": facts["stay_index"]}
    for covariate in cohort.schema.covariates:
        if covariate.kind == "continuous":
            columns[covariate.name] = facts[covariate.name]
        for level in covariate.levels:
            columns[f"{covariate.name} = {level}"] = facts[covariate.name] == level

    rows = cohort.measurements
    rows = rows[rows["stay_id"].isin(facts.index) & in_window(rows["hours"], window)]
    for variable in cohort.schema.variables:
        mine = rows[rows["variable"] == variable.name].set_index("stay_id")
        last = mine[~mine.index.duplicated(keep="last")]
        if variable.kind == "continuous":
            summary = mine.groupby(level=0)["value"].agg(["min", "max", "mean", "std", "count"])
            summary = summary.assign(last=last["value"])
            for what in SUMMARIES:
                columns[f"{variable.name}, {what}"] = summary[what].reindex(
                    facts.index, fill_value=0 if what == "count" else np.nan
                )
        else:
            code = pd.Index(variable.levels).get_indexer(pd.Index(last["level"])).astype(float)
            columns[f"{variable.name}, last"] = pd.Series(code, last.index).reindex(facts.index)
            for level in variable.levels:
                count = mine.index[mine["level"] == level].value_counts()
                columns[f"{variable.name} = {level}"] = count.reindex(facts.index, fill_value=0)
    return pd.DataFrame(columns, index=facts.index).astype(np.float64)


def predict_label(
    train: pd.DataFrame, label: NDArray[np.int_], asked: pd.DataFrame, seed: int
) -> NDArray[np.float64] | None:
    """Probabilities of a label by LightGBM with its default parameters.

    Args:
        train, asked: of ``window_features``.
        label: 0 or 1 of each row of ``train``.
        seed: of the classifier.

    Returns:
        float64 [asked], or None if ``label`` has one class only, so that there is nothing to learn.
    """
    from lightgbm import LGBMClassifier

    if len(np.unique(label)) < 2:
        return None
    # None of this changes what is learnt: the same result on each call, and as many threads as
    # OpenMP is told (0) rather than one per core, which wait for each other on a busy machine.
    classifier = LGBMClassifier(
        random_state=seed, deterministic=True, force_row_wise=True, verbosity=-1, n_jobs=0
    )
    # It refuses names with brackets, which series have.
    names = [f"f{i}" for i in range(train.shape[1])]
    classifier.fit(train.set_axis(names, axis=1), label)
    chances = np.asarray(classifier.predict_proba(asked.set_axis(names, axis=1)))
    return chances[:, 1]
