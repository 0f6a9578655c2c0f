"""How good forecasts are: of labels beside LightGBM's, of next values beside carrying forward.

Metrics are about what happened to the real stays. LightGBM learns from the train split and knows of
a stay what is known of its first hours; the futures come from a model that has also read the
patient's earlier admissions. A share p of m futures is off by sqrt(p (1 - p) / m) by chance, which
costs calibration and Brier score: compare runs of equally many futures.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Cohort
from synehrgy.cohort.futures import (
    going_on,
    label_predictions,
    last_values,
    next_values,
    next_values_of_futures,
    sample_quantile,
)
from synehrgy.errors import UserError
from synehrgy.evaluation import scores
from synehrgy.evaluation.baseline import predict_label, window_features
from synehrgy.evaluation.rows import check_same_schema

FUTURES, LIGHTGBM = "futures", "LightGBM"
FORECASTERS = (FUTURES, LIGHTGBM)
SCORES = ("auroc", "auprc", "brier", "ece")
N_RESAMPLES = 1000

# What becomes of a pair of a stay and a series; the first three leave it out.
_NOT_AGAIN = "not measured again"
_NEW = "no value before"
_FEW = "in fewer than 2 futures"
_SCORED = "n"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ForecastScores:
    """What was found.

    Attributes:
        real, synthetic: names of the cohorts.
        split: of the real stays that the futures continue.
        hours: of each stay that were known.
        tables: by name: ``questions``, ``labels``, ``calibration`` and ``next_values``.
        metrics: single figures, None where one is not defined.
    """

    real: str
    synthetic: str
    split: str
    hours: float
    tables: dict[str, pd.DataFrame]
    metrics: dict[str, float | None]


def score_forecasts(
    real: Cohort, futures: Cohort, questions: pd.DataFrame, seed: int = 0
) -> ForecastScores:
    """Score the futures of real stays.

    Args:
        real: the whole real cohort; LightGBM learns from its train split, without the patients that
            are asked about.
        futures: several for each stay.
        questions: what each continues (``synehrgy.cohort.futures``).
        seed: of LightGBM and the bootstrap.

    Raises:
        UserError: cohorts with other columns, no futures, several windows at once, stays that the
            real cohort does not have, or futures and questions that do not belong together.
    """
    check_same_schema(real, futures)
    predicted = label_predictions(futures, questions)
    if not len(predicted):
        raise UserError(f"Cohort {futures.schema.name!r} holds no futures to score.")
    windows = predicted["hours"].unique()
    if len(windows) > 1:
        shown = ", ".join(f"{hours:g}" for hours in sorted(windows))
        raise UserError(
            f"Cohort {futures.schema.name!r} has futures after {shown} hours. Score one window at "
            "a time."
        )
    window = float(windows[0])
    truth = _real_stays(real, futures, predicted)
    train = real.select(split="train")
    train_stays = going_on(train, window)
    train_stays = train_stays[~train_stays["subject_id"].isin(predicted["subject_id"])]
    labels, calibration = _score_labels(real, predicted, truth, train_stays, window, seed)
    values, value_metrics = _score_next_values(real, train, futures, questions, truth, window)
    split = ", ".join(sorted(truth["split"].dropna().unique())) or "all"
    tables = {
        "questions": _count(predicted, real, truth, train_stays, window),
        "labels": labels,
        "calibration": calibration,
        "next_values": values,
    }
    metrics = _mean_scores(labels) | value_metrics
    return ForecastScores(real.schema.name, futures.schema.name, split, window, tables, metrics)


def _real_stays(real: Cohort, futures: Cohort, predicted: pd.DataFrame) -> pd.DataFrame:
    """The real stays that are asked about, in the order of the predictions."""
    found = predicted[["subject_id", "stay_id"]].merge(
        real.stays, on=["subject_id", "stay_id"], how="left", indicator=True
    )
    unknown = found["_merge"] == "left_only"
    if unknown.any():
        raise UserError(
            f"Cohort {real.schema.name!r} has no stay {found['stay_id'][unknown].iloc[0]} of "
            f"subject {found['subject_id'][unknown].iloc[0]}, which {futures.schema.name!r} "
            f"continues ({int(unknown.sum()):,} unknown of {len(found):,}). Give the cohort that "
            "the futures were generated from: real=<folder>."
        )
    return found.drop(columns="_merge")


def _count(
    predicted: pd.DataFrame,
    real: Cohort,
    truth: pd.DataFrame,
    train_stays: pd.DataFrame,
    window: float,
) -> pd.DataFrame:
    eligible = going_on(real, window)
    same = eligible["split"].isin(truth["split"]) | eligible["split"].isna()
    rows = {
        "hours known": window,
        "stays asked about": len(predicted),
        "stays that could be asked about": int(same.sum()),
        "futures": int(predicted["futures"].sum()),
        "futures of a stay, at least": int(predicted["futures"].min()),
        "stays that LightGBM learns from": len(train_stays),
    }
    return pd.DataFrame({"quantity": list(rows), "value": list(rows.values())})


def _score_labels(
    real: Cohort,
    predicted: pd.DataFrame,
    truth: pd.DataFrame,
    train_stays: pd.DataFrame,
    window: float,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    train = window_features(real, train_stays["stay_id"], window)
    asked = window_features(real, truth["stay_id"], window)
    counts = scores.resamples(len(truth), N_RESAMPLES, seed)
    rows, curves = [], []
    for label in real.schema.labels:
        happened = truth[label.column].to_numpy(dtype=np.int64)
        learnt = predict_label(train, train_stays[label.column].to_numpy(), asked, seed)
        by_whom = {FUTURES: predicted[label.column].to_numpy(dtype=np.float64), LIGHTGBM: learnt}
        for forecaster, chances in by_whom.items():
            about = {"label": label.column, "title": label.title, "kind": label.kind}
            about["forecaster"] = forecaster
            drawn = predicted["futures"].to_numpy() if forecaster == FUTURES else None
            rows.append({**about, **_score_label(happened, chances, drawn, counts, seed)})
            if chances is not None:
                curves.append(_curve(happened, chances).assign(**about))
    keys = ["label", "title", "kind", "forecaster"]
    labels = pd.DataFrame(rows, columns=[*keys, *_LABEL_COLUMNS])
    points = [*keys, "bin", "n", "predicted", "observed"]
    empty = pd.DataFrame(columns=points)
    return labels, pd.concat(curves, ignore_index=True)[points] if curves else empty


_LABEL_COLUMNS = [
    *("n", "prevalence", "auroc", "auroc_low", "auroc_high", "auprc", "brier"),
    *("ece", "ece_low", "ece_high", "ece_by_chance", "note"),
]


def _score_label(
    happened: NDArray[np.int64],
    chances: Floats | None,
    drawn: NDArray[np.int64] | None,
    counts: NDArray[np.uint16],
    seed: int,
) -> dict[str, float | str]:
    """The columns of a row of the table of labels; what is left out is not defined."""
    found: dict[str, float | str] = {"n": len(happened), "prevalence": float(happened.mean())}
    notes = []
    if len(np.unique(happened)) < 2:
        notes.append("one class, so AUROC and AUPRC are not defined")
    if chances is None:
        notes.append("one class in the train split, or no stay, so there is nothing to learn")
    else:
        found |= {name: getattr(scores, name)(happened, chances) for name in SCORES}
        for name, (low, high) in scores.intervals(happened, chances, counts).items():
            found |= {f"{name}_low": low, f"{name}_high": high}
        found["ece_by_chance"] = scores.ece_by_chance(chances, seed, drawn)
    return found | {"note": "; ".join(notes)}


def _curve(happened: NDArray[np.int64], chances: Floats) -> pd.DataFrame:
    """The points of a reliability diagram: one row per bin."""
    both = pd.DataFrame({"predicted": chances, "observed": happened})
    grouped = both.groupby(scores.bins_of(chances))
    return grouped.mean().assign(n=grouped.size()).rename_axis("bin").reset_index()


def _mean_scores(labels: pd.DataFrame) -> dict[str, float | None]:
    """The mean of each score over the labels for which it is defined for both forecasters."""
    metrics: dict[str, float | None] = {}
    for name in SCORES:
        by_label = labels.pivot(index="label", columns="forecaster", values=name)
        # Without a train split, there are the futures alone.
        both = by_label.dropna(axis=1, how="all").dropna()
        metrics[f"{name}/labels"] = float(len(both))
        for forecaster in FORECASTERS:
            defined = forecaster in both and len(both)
            metrics[f"{name}/{forecaster}"] = float(both[forecaster].mean()) if defined else None
    return metrics


def _score_next_values(
    real: Cohort,
    train: Cohort,
    futures: Cohort,
    questions: pd.DataFrame,
    truth: pd.DataFrame,
    window: float,
) -> tuple[pd.DataFrame, dict[str, float | None]]:
    key = ["stay_id", "variable"]
    drawn = next_values_of_futures(futures, questions)
    counts = drawn.groupby(key, sort=False).size()
    known = pd.Series(window, index=pd.Index(truth["stay_id"]))
    variables = real.schema.variables_of("continuous")
    pairs = pd.DataFrame(
        index=pd.MultiIndex.from_product([known.index, [v.name for v in variables]], names=key)
    )
    pairs["next"] = next_values(real.measurements, known).set_index(key)["value"]
    pairs["last"] = last_values(real.measurements, known).set_index(key)["value"]
    pairs["futures"] = counts
    why = [pairs["next"].isna(), pairs["last"].isna(), ~(pairs["futures"] >= 2)]
    pairs["fate"] = np.select(why, [_NOT_AGAIN, _NEW, _FEW], _SCORED)

    # In the order of the draws.
    scored = pairs.loc[counts.index]
    kept = (scored["fate"] == _SCORED).to_numpy()
    values = drawn["value"].to_numpy()[np.repeat(kept, counts)]
    scored, n_drawn = scored[kept], counts.to_numpy(dtype=np.int64)[kept]
    happened = scored["next"].to_numpy()
    found = pd.DataFrame(index=scored.index)
    found["crps"] = scores.fair_crps(values, n_drawn, happened)
    found["carry_forward"] = np.abs(scored["last"].to_numpy() - happened)
    for share in (50, 90):
        low, high = (sample_quantile(values, n_drawn, 0.5 + side * share / 200) for side in (-1, 1))
        found[f"coverage_{share}"] = (low <= happened) & (happened <= high)

    table = pd.DataFrame({"unit": {v.name: v.unit or "" for v in variables}}, dtype=object)
    fates = pairs.groupby(["variable", "fate"]).size().unstack(fill_value=0)
    for fate in (_NOT_AGAIN, _NEW, _FEW, _SCORED):
        table[fate] = fates[fate].reindex(table.index) if fate in fates else 0
    table = table.join(found.groupby("variable").mean())
    table["skill"] = 1 - table["crps"] / table["carry_forward"].replace(0, np.nan)
    deviation = train.measurements.groupby("variable", observed=True)["value"].std()
    # A series that does not vary in the train split has no unit to be compared in.
    table["train_sd"] = deviation.reindex(table.index).replace(0, np.nan)

    unit = table["train_sd"].reindex(found.index.get_level_values("variable")).to_numpy()
    crps, carried = (found[name] / unit for name in ("crps", "carry_forward"))
    metrics = {
        "next_values/pairs": float(len(found)),
        "next_values/crps": crps.mean(),
        "next_values/carry_forward": carried.mean(),
        "next_values/skill": 1 - crps.mean() / carried.mean() if carried.mean() > 0 else np.nan,
        "next_values/coverage_50": found["coverage_50"].mean(),
        "next_values/coverage_90": found["coverage_90"].mean(),
    }
    for fate in (_NOT_AGAIN, _NEW, _FEW):
        metrics[f"next_values/left out: {fate}"] = float((pairs["fate"] == fate).sum())
    defined = {name: None if pd.isna(x) else float(x) for name, x in metrics.items()}
    return table.rename_axis("variable").reset_index(), defined
