"""Cohorts of futures: what may become of real stays, many times each, and what that predicts.

A folder of futures is a cohort like any other, with ``questions.parquet`` beside its tables: which
real stay each future continues, and from which hour on. The first stay of a future (stay_index 0)
is the real one's continuation: its labels, its codes and its measurements after the window.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from synehrgy.cohort.io import reading
from synehrgy.cohort.tables import Cohort, conform
from synehrgy.errors import UserError

QUESTIONS_FILE = "questions.parquet"
PREDICTIONS_FILE = "predictions.parquet"
NEXT_VALUES_FILE = "next_values.parquet"

# How a synthetic cohort was generated; of futures, ``real`` is the folder of the real cohort.
GENERATION_FILE = "generation.json"

# One row per future; ``sample`` numbers the futures of a stay.
QUESTIONS = pa.schema(
    {
        "subject_id": pa.int64(),
        "source_subject_id": pa.int64(),
        "source_stay_id": pa.int64(),
        "hours": pa.float64(),
        "sample": pa.int32(),
    }
)

# What a prediction is about: a real stay, and the hours of it that were known.
_KEY = {"source_subject_id": "subject_id", "source_stay_id": "stay_id", "hours": "hours"}

# A time may lie just below its minute by the rounding of hours to floats.
_ROUNDING = 1e-6


def has_futures(path: Path) -> bool:
    """Whether a folder holds a cohort of futures."""
    return (Path(path) / QUESTIONS_FILE).is_file()


def read_questions(path: Path) -> pd.DataFrame:
    """The questions of a folder of futures.

    Returns:
        One row per future, columns and types as in ``QUESTIONS``.

    Raises:
        UserError: no such file, a damaged one, a column that is missing, undeclared, of another
            type or not filled.
    """
    file = Path(path) / QUESTIONS_FILE
    with reading(file):
        table = pq.read_table(file)
    table = conform(table, QUESTIONS, str(file)).replace_schema_metadata(None)
    for name in QUESTIONS.names:
        if table.column(name).null_count:
            raise UserError(f"{file}: column {name!r} is empty in a row.")
    return table.to_pandas()


def in_window(hours: ArrayLike, window: ArrayLike) -> NDArray[np.bool_]:
    """Whether times are known when so many hours are.

    Records tell time to the minute, so the minute at which the window ends is known as a whole.
    Of a window of no hours nothing is known, not even what is measured at admission.

    Args:
        hours: times since admission.
        window: hours that are known; broadcasts against ``hours``.
    """
    window = np.asarray(window, dtype=np.float64)
    minute = np.floor(np.asarray(hours, dtype=np.float64) * 60 + _ROUNDING)
    known: NDArray[np.bool_] = (minute <= window * 60) & (window > 0)
    return known


def going_on(cohort: Cohort, window: float) -> pd.DataFrame:
    """The stays that can be asked about: those with a time point after the window."""
    after = cohort.measurements.loc[~in_window(cohort.measurements["hours"], window), "stay_id"]
    return cohort.stays[cohort.stays["stay_id"].isin(after)]


def next_values(measurements: pd.DataFrame, windows: pd.Series) -> pd.DataFrame:
    """The first value of each continuous series after the window.

    Args:
        measurements: as in a cohort, sorted by (stay, hours).
        windows: hours that are known, indexed by the stay_id of the stays meant.

    Returns:
        One row per stay and series that has such a value: stay_id, variable (text), hours, value.
    """
    return _one_value(measurements, windows, known=False)


def last_values(measurements: pd.DataFrame, windows: pd.Series) -> pd.DataFrame:
    """The last value of each continuous series in the window; as ``next_values``."""
    return _one_value(measurements, windows, known=True)


def _one_value(measurements: pd.DataFrame, windows: pd.Series, known: bool) -> pd.DataFrame:
    rows = measurements.loc[
        measurements["value"].notna(), ["stay_id", "variable", "hours", "value"]
    ]
    rows = rows[rows["stay_id"].isin(windows.index)]
    rows = rows[in_window(rows["hours"], windows[rows["stay_id"]]) == known]
    rows = rows.drop_duplicates(["stay_id", "variable"], keep="last" if known else "first")
    return rows.astype({"variable": str}).reset_index(drop=True)


def forecast_stays(futures: Cohort, questions: pd.DataFrame) -> pd.DataFrame:
    """The forecast stay of each future, with the question that it answers.

    Returns:
        One row per future: the columns of ``QUESTIONS``, stay_id of the future's first stay, and
        its labels.

    Raises:
        UserError: futures without a question, questions without a future or with several, or a
            label whose column has the name of one of these.
    """
    labels = [label.column for label in futures.schema.labels]
    taken = sorted({*QUESTIONS.names, "futures"} & set(labels))
    if taken:
        raise UserError(
            f"Cohort {futures.schema.name!r}: a label is in the column {taken[0]!r}, which in "
            "forecasts means something else. Give it another name."
        )
    repeated = questions["subject_id"].duplicated()
    if repeated.any():
        again = questions["subject_id"][repeated].iloc[0]
        raise UserError(f"{QUESTIONS_FILE}: future {again} has more than one row.")
    first = futures.stays[futures.stays["stay_index"] == 0]
    unanswered = ~questions["subject_id"].isin(first["subject_id"])
    unasked = ~first["subject_id"].isin(questions["subject_id"])
    for bad, table, words in (
        (unanswered, questions, "is in {} but has no stay in the cohort"),
        (unasked, first, "is in the cohort but has no row in {}"),
    ):
        if bad.any():
            raise UserError(
                f"Cohort {futures.schema.name!r}: future {table['subject_id'][bad].iloc[0]} "
                f"{words.format(QUESTIONS_FILE)} ({int(bad.sum()):,} of them)."
            )
    return questions.merge(first[["subject_id", "stay_id", *labels]], on="subject_id")


def label_predictions(futures: Cohort, questions: pd.DataFrame) -> pd.DataFrame:
    """The probability of each label: the share of a stay's futures that have it.

    Args:
        futures: the cohort of futures.
        questions: what each continues, as in ``QUESTIONS``.

    Returns:
        One row per question: subject_id and stay_id of the real stay, hours known, futures (how
        many), and a column per label.

    Raises:
        UserError: futures and questions that do not belong together.
    """
    answers = forecast_stays(futures, questions)
    columns = [label.column for label in futures.schema.labels]
    grouped = answers.groupby(list(_KEY))
    shares = grouped[columns].mean() if columns else pd.DataFrame(index=grouped.size().index)
    shares.insert(0, "futures", grouped.size())
    return shares.rename_axis(list(_KEY.values())).reset_index()


def next_values_of_futures(futures: Cohort, questions: pd.DataFrame) -> pd.DataFrame:
    """The next value of each continuous series in each future that measures it again.

    Returns:
        One row per future and series: subject_id and stay_id of the real stay, hours known,
        variable, value; sorted by stay, series and value.

    Raises:
        UserError: futures and questions that do not belong together.
    """
    answers = forecast_stays(futures, questions).set_index("stay_id")
    found = next_values(futures.measurements, answers["hours"])
    keys = answers.loc[found["stay_id"], list(_KEY)].reset_index(drop=True)
    drawn = pd.concat([keys, found[["variable", "value"]]], axis=1).rename(columns=_KEY)
    return drawn.sort_values([*_KEY.values(), "variable", "value"], ignore_index=True)


def value_predictions(
    futures: Cohort,
    questions: pd.DataFrame,
    quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
) -> pd.DataFrame:
    """The next value of each continuous series, as distributed over a stay's futures.

    Args:
        futures: the cohort of futures.
        questions: what each continues, as in ``QUESTIONS``.
        quantiles: in [0, 1]; as ``sample_quantile`` has them.

    Returns:
        One row per question and continuous series: subject_id and stay_id of the real stay, hours
        known, variable, futures (how many), measured (share of them that measure it again), and
        of those their mean and quantiles (``q0.05``, ...), empty where no future does.

    Raises:
        UserError: futures and questions that do not belong together.
    """
    key = [*_KEY.values()]
    asked = questions.drop(columns="subject_id").rename(columns=_KEY)
    table = asked.groupby(key).size().rename("futures").reset_index()
    variables = [v.name for v in futures.schema.variables_of("continuous")]
    table = table.merge(pd.DataFrame({"variable": variables}, dtype=str), how="cross")
    drawn = next_values_of_futures(futures, questions)
    found = drawn.groupby([*key, "variable"])["value"].agg(["size", "mean"])
    counts = found["size"].to_numpy(dtype=np.int64)
    for q in quantiles:
        found[f"q{q:g}"] = sample_quantile(drawn["value"].to_numpy(), counts, q)
    table = table.merge(found.reset_index(), on=[*key, "variable"], how="left")
    measured = table["size"].fillna(0) / table["futures"]
    return table.assign(size=measured).rename(columns={"size": "measured"})


def sample_quantile(
    values: NDArray[np.float64], counts: NDArray[np.integer], q: float
) -> NDArray[np.float64]:
    """A quantile of each group of draws.

    A further draw lies below the k-th of n with probability k / (n + 1), and so that is the
    quantile it is taken for (type 6 of Hyndman and Fan, The American Statistician 50, 1996):
    intervals between such quantiles cover as often as they say. A quantile that n draws are too few
    for, such as 0.95 of fewer than 19, is their smallest or largest.

    Args:
        values: the draws, group by group, in ascending order within a group.
        counts: draws of each group, at least 1.
        q: in [0, 1].

    Returns:
        One number per group.
    """
    start = np.cumsum(counts) - counts
    place = np.clip(q * (counts + 1), 1, counts) - 1
    below = place.astype(np.int64)
    above = np.minimum(below + 1, counts - 1)
    low, high = values[start + below], values[start + above]
    quantile: NDArray[np.float64] = low + (place - below) * (high - low)
    return quantile
