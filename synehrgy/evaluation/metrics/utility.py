"""Whether models that learn from the patients are good for real patients (LightGBM)."""

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from synehrgy.evaluation import scores
from synehrgy.evaluation.boosting import Boosted, boost, in_parallel
from synehrgy.evaluation.judge import Judged, combine, judge, nan_mean
from synehrgy.evaluation.metric import (
    NAN,
    SYNTHETIC,
    TEST,
    TRAIN,
    Bench,
    Found,
    Metric,
    Scale,
    Score,
)
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.tasks import (
    KINDS,
    MIN_STAYS,
    OUTCOME,
    TRAINED_ON,
    Examples,
    asked,
    examples,
    frequent_enough,
    learners,
    published_examples,
    too_few,
)
from synehrgy.evaluation.tstr import (
    SCORE_COLUMNS,
    TRTR,
    TRTS,
    TSTR,
    scales,
    score_table,
    scores_of,
)

Floats = NDArray[np.float64]

SHARES = (0.1, 0.2, 0.5, 1.0)
# Settings of augmentation: a share of the real patients with and without those of the row.
BESIDE, ALONE = "synthetic and real", "real alone"

# What takes most of the time, and how much of it is done: synthetic beside real patients for the
# most frequent phenotypes only.
_AUGMENTED_SEEDS = 5
_AUGMENTED_LABELS = 3
_QUICK_LABELS = 8
# Resamples of the test patients, at most.
_MOST_RESAMPLES = 100

_PUBLISHED = ("macro_auroc", "micro_auroc", "macro_auprc", "micro_auprc", "macro_f1", "micro_f1")
_N_ROC = 101

_LEFT_OUT = ["kind", "label", "title", "train_with", "test_with", "why"]
_GROUPS = [
    *("kind", "setting", "covariate", "group", "stays", "labels"),
    *("score", "value", "low", "high"),
]
_CALIBRATION = ["kind", "label", "title", "setting", "bin", "n", "predicted", "observed"]
_ROC = ["label", "title", "setting", "false_positives", "true_positives"]


def _scales() -> dict[str, Scale]:
    found = scales("utility", "LightGBM")
    for kind, title in KINDS.items():
        for share in SHARES:
            found[f"utility/{kind}/gain_{100 * share:.0f}"] = Scale(
                f"{title}: gain of AUROC beside {share:.0%} of real patients",
                f"What synthetic patients add to {share:.0%} as many real ones. Below 0 they do "
                "harm.",
                "high",
                (-1.0, 1.0),
                0.0,
                0.02,
                0.05,
            )
        found[f"utility/{kind}/group_auroc"] = Scale(
            f"{title}: greatest difference of AUROC between groups",
            "How differently well a model that learnt from these patients ranks real ones of "
            "another group, such as a sex or an age.",
            "low",
            (0.0, 1.0),
            TRAIN,
            0.10,
            0.20,
        )
        found[f"utility/{kind}/group_calibration"] = Scale(
            f"{title}: greatest difference of calibration between groups",
            "How differently a model that learnt from these patients over- or underrates the risk "
            "of real ones of another group, such as a sex or an age.",
            "low",
            (0.0, 2.0),
            TRAIN,
            0.04,
            0.08,
        )
    found["utility/importance"] = Scale(
        "Agreement on what matters",
        "Whether models use the same features for the same label when they learn from these "
        "patients as when they learn from real ones: 1 is the same order.",
        "high",
        (-1.0, 1.0),
        TRAIN,
    )
    for name in _PUBLISHED:
        sort, score = name.split("_")
        found[f"published/utility/{name}"] = Scale(
            f"As published: {sort} {score.upper()}, all labels mixed",
            "A model that learnt from these patients, asked about outcomes and phenotypes of real "
            "ones after 48 hours.",
            "high",
            (0.0, 1.0),
            TRAIN,
        )
    return found


class Utility(Metric):
    """LightGBM that learns from a row, asked about real patients, and the reverse."""

    name = "utility"
    title = "Utility: LightGBM"
    group = "utility"
    scales = _scales()
    rows = TRAINED_ON
    needs = frozenset({"labels"})

    def lacks(self, bench: Bench) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        return super().lacks(bench) or too_few(bench)

    def measure(self, bench: Bench, row: str) -> Found:
        """Train, predict and judge."""
        found: dict[str, Score] = {}
        tables: dict[str, list[pd.DataFrame]] = {
            "utility_scores": [pd.DataFrame(columns=SCORE_COLUMNS)],
            "utility_calibration": [pd.DataFrame(columns=_CALIBRATION)],
            "utility_groups": [pd.DataFrame(columns=_GROUPS)],
            "utility_roc": [pd.DataFrame(columns=_ROC)],
            "utility_left_out": [pd.DataFrame(columns=_LEFT_OUT)],
        }
        agreements = []
        for kind in KINDS:
            part = _Part(bench, row, kind)
            tables["utility_left_out"].append(part.left_out())
            found |= part.both_ways(tables) | part.groups(tables["utility_groups"])
            agreements.append(part.agreement())
            if row == SYNTHETIC and not bench.effort.quick:
                found |= part.augmentation(tables["utility_scores"])
        found["utility/importance"] = Score(float(nan_mean(np.concatenate(agreements), axis=0)))
        if row in (SYNTHETIC, TRAIN) and not bench.effort.quick:
            found |= _published(bench, row)
        return Found(found, {name: _concat(parts) for name, parts in tables.items()})


def _concat(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """All parts, the first of which is empty and says the columns."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


class _Part:
    """One row and one kind of label."""

    def __init__(self, bench: Bench, row: str, kind: str) -> None:
        self.bench, self.row, self.kind = bench, row, kind
        train, test = examples(bench.train, kind), examples(asked(bench, TEST), kind)
        self.enough = frequent_enough(train, test)
        order = np.argsort(-train.labels.sum(axis=0, dtype=np.int64), kind="stable")
        by_frequency = order[self.enough[order]]
        if bench.effort.quick:
            by_frequency = by_frequency[:_QUICK_LABELS]
        self.columns = np.sort(by_frequency)
        self.frequent = np.searchsorted(self.columns, np.sort(by_frequency[:_AUGMENTED_LABELS]))
        self.labels = [bench.train.schema.labels_of(kind)[i] for i in self.columns]
        self.test = test.of_labels(self.columns)
        self.models = _learn(bench, row, kind, self.columns)
        self.real_models = _learn(bench, TRAIN, kind, self.columns)
        self.predicted = _predict(self.models, self.test)

    def left_out(self) -> pd.DataFrame:
        """Labels that are not part of the comparison, and why."""
        train, test = (
            examples(self.bench.train, self.kind),
            examples(asked(self.bench, TEST), self.kind),
        )
        rows = []
        for i, label in enumerate(self.bench.train.schema.labels_of(self.kind)):
            if i in self.columns:
                continue
            why = "one of the less frequent, which a quick evaluation leaves out"
            if not self.enough[i]:
                why = f"fewer than {MIN_STAYS} real stays with it, or without it"
            ones = (int(part.labels[:, i].sum(dtype=np.int64)) for part in (train, test))
            rows.append((self.kind, label.column, label.title, *ones, why))
        return pd.DataFrame(rows, columns=_LEFT_OUT)

    def _judge(
        self, stays: Examples, predicted: Floats, models: Sequence[Boosted]
    ) -> Judged | None:
        if not len(self.columns) or not len(stays):
            return None
        thresholds = np.stack([model.prevalence for model in models])
        n_resamples = min(self.bench.effort.n_resamples, _MOST_RESAMPLES)
        return judge(
            stays.labels, predicted, thresholds, stays.patient, n_resamples, self.bench.seed
        )

    def both_ways(self, tables: dict[str, list[pd.DataFrame]]) -> dict[str, Score]:
        """TSTR and TRTS; of the train split both are training on real and testing on real."""
        found: dict[str, Score] = {}
        ways = {TSTR: (self.test, self.predicted, self.models)}
        if self.row != TRAIN:
            mine = examples(asked(self.bench, self.row), self.kind).of_labels(self.columns)
            ways[TRTS] = (mine, _predict(self.real_models, mine), self.real_models)
        for setting, (those, predicted, models) in ways.items():
            judged = self._judge(those, predicted, models)
            found |= scores_of("utility", self.kind, setting, judged)
            if self.row == TRAIN:
                found |= scores_of("utility", self.kind, TRTS, judged)
            if judged is None:
                continue
            shown, share = (TRTR, 1.0) if self.row == TRAIN else (setting, float(setting == TRTS))
            tables["utility_scores"].append(
                score_table(judged, self.labels, self.kind, shown, share)
            )
            tables["utility_calibration"].append(self._calibration(those, predicted, shown))
            if self.kind == OUTCOME:
                tables["utility_roc"].append(self._roc(those, predicted, shown))
        return found

    def _calibration(self, stays: Examples, predicted: Floats, setting: str) -> pd.DataFrame:
        """Points of a reliability diagram: of each outcome, and of all phenotypes together."""
        one_by_one = [(label.column, label.title, [i]) for i, label in enumerate(self.labels)]
        every = ("all", "All labels as one", list(range(len(self.labels))))
        parts = []
        for column, title, which in one_by_one if self.kind == OUTCOME else [every]:
            chances = predicted[:, :, which].ravel()
            happened = np.broadcast_to(stays.labels[:, which], predicted[:, :, which].shape)
            points = pd.DataFrame({"predicted": chances, "observed": happened.ravel()})
            grouped = points.groupby(scores.bins_of(chances))
            part = grouped.mean().assign(n=grouped.size()).rename_axis("bin").reset_index()
            about = {"kind": self.kind, "label": column, "title": title, "setting": setting}
            parts.append(part.assign(**about)[_CALIBRATION])
        return pd.concat(parts, ignore_index=True)

    def _roc(self, stays: Examples, predicted: Floats, setting: str) -> pd.DataFrame:
        """ROC curves, the mean of the repetitions at each share of false positives."""
        from sklearn.metrics import roc_curve

        at = np.linspace(0, 1, _N_ROC)
        parts = []
        for i, label in enumerate(self.labels):
            if len(np.unique(stays.labels[:, i])) < 2:
                continue
            curves = [roc_curve(stays.labels[:, i], chances[:, i])[:2] for chances in predicted]
            heights = np.mean([np.interp(at, *curve) for curve in curves], axis=0)
            heights[0] = 0.0
            about = {"label": label.column, "title": label.title, "setting": setting}
            part = pd.DataFrame({"false_positives": at, "true_positives": heights})
            parts.append(part.assign(**about)[_ROC])
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_ROC)

    def groups(self, tables: list[pd.DataFrame]) -> dict[str, Score]:
        """AUROC and calibration by group of real patients, and the greatest differences."""
        rows: list[tuple[object, ...]] = []
        differences: dict[str, list[Floats]] = {"auroc": [], "calibration": []}
        setting = TRTR if self.row == TRAIN else TSTR
        for covariate, groups in _groups_of(self.bench).items():
            inside = {name: stays[self.test.stay] for name, stays in groups.items()}
            inside = {name: mine for name, mine in inside.items() if mine.sum() >= 2 * MIN_STAYS}
            if len(inside) < 2 or not len(self.columns):
                continue
            areas = np.stack([self._areas(mine) for mine in inside.values()])
            # Labels that all groups have: else the difference may be one of labels.
            shared = ~np.isnan(areas).any(axis=(0, 1))
            by_score = {
                "auroc": nan_mean(areas[:, :, shared], axis=2),
                "calibration": np.stack([self._gap(mine) for mine in inside.values()]),
            }
            for score, found in by_score.items():
                differences[score].append(np.ptp(found, axis=0))
                n_labels = int(shared.sum()) if score == "auroc" else len(self.labels)
                bounds = (0.0, 1.0) if score == "auroc" else (-1.0, 1.0)
                for (name, mine), values in zip(inside.items(), found, strict=True):
                    one = combine(values, np.zeros((len(values), 0)), bounds)
                    about = (self.kind, setting, covariate, name, int(mine.sum()), n_labels)
                    rows.append((*about, score, one.value, one.low, one.high))
        tables.append(pd.DataFrame(rows, columns=_GROUPS))
        worst = {}
        for score, by_covariate in differences.items():
            combined = [combine(values, np.zeros((len(values), 0))) for values in by_covariate]
            defined = [one for one in combined if not np.isnan(one.value)]
            name = f"utility/{self.kind}/group_{score}"
            worst[name] = max(defined, key=lambda one: one.value, default=Score(NAN))
        return worst

    def _areas(self, inside: NDArray[np.bool_]) -> Floats:
        """AUROC within a group [seeds, labels]; NaN where it has too few stays with a label."""
        areas = np.full(self.predicted[:, 0].shape, np.nan)
        for i, label in enumerate(self.test.labels[inside].T):
            if min(label.sum(), (1 - label).sum()) >= MIN_STAYS:
                for s, predicted in enumerate(self.predicted[:, inside, i]):
                    areas[s, i] = scores.auroc(label, predicted)
        return areas

    def _gap(self, inside: NDArray[np.bool_]) -> Floats:
        """By how much the risk of a group is overrated, the mean over labels [seeds]."""
        gaps = self.predicted[:, inside] - self.test.labels[inside]
        return np.asarray(gaps.mean(axis=(1, 2)))

    def augmentation(self, tables: list[pd.DataFrame]) -> dict[str, Score]:
        """What the row adds to shares of the real patients."""
        names = {share: f"utility/{self.kind}/gain_{100 * share:.0f}" for share in SHARES}
        if not len(self.frequent) or not len(self.test):
            return {name: Score(NAN) for name in names.values()}
        n_seeds = min(len(self.models), _AUGMENTED_SEEDS)
        labels = [self.labels[i] for i in self.frequent]
        test = self.test.of_labels(self.frequent)
        mine, real = (
            examples(patients, self.kind).of_labels(self.columns[self.frequent])
            for patients in (self.bench.rows[self.row], self.bench.train)
        )
        chosen = learners(self.bench, self.row)[:n_seeds]
        order = [
            np.random.default_rng([self.bench.seed, s]).permutation(np.flatnonzero(of_seed))
            for s, of_seed in enumerate(learners(self.bench, TRAIN)[:n_seeds])
        ]

        def learn(job: tuple[float, int, bool]) -> Boosted:
            share, s, beside = job
            some = order[s][: max(round(share * len(order[s])), 1)]
            part = real.where(np.isin(real.patient, some))
            return boost(part + mine.where(chosen[s][mine.patient]) if beside else part)

        # The longest first, so that no thread is left with one at the end.
        jobs = [
            (share, s, beside)
            for share in sorted(SHARES, reverse=True)
            for beside in (True, False)
            for s in range(n_seeds)
            # All real patients alone are what the real models have learnt from.
            if beside or share < 1
        ]
        learnt = dict(zip(jobs, in_parallel(learn, jobs), strict=True))
        found = {}
        for share, name in names.items():
            judged = []
            for setting, beside in ((ALONE, False), (BESIDE, True)):
                if beside or share < 1:
                    models = [learnt[share, s, beside] for s in range(n_seeds)]
                else:
                    models = [
                        model.of_labels(self.frequent) for model in self.real_models[:n_seeds]
                    ]
                one = self._judge(test, _predict(models, test), models)
                assert one is not None
                tables.append(score_table(one, labels, self.kind, setting, share))
                judged.append(one)
            found[name] = judged[1].gain("auroc", judged[0])
        return found

    def agreement(self) -> Floats:
        """Rank correlation of the importance of features, by label.

        Of a repetition with the next one of the real models: of the train split itself that is how
        far two repetitions agree.
        """
        found = []
        for s, model in enumerate(self.models):
            other = self.real_models[(s + 1) % len(self.real_models)]
            pairs = zip(model.importance, other.importance, strict=True)
            found.append([_rank_correlation(a, b) for a, b in pairs])
        return nan_mean(np.array(found).reshape(len(self.models), len(self.labels)), axis=0)


# The models that learnt from real patients, which every row is compared with.
_LEARNT: WeakKeyDictionary[Patients, dict[tuple[object, ...], list[Boosted]]] = WeakKeyDictionary()


def _learn(bench: Bench, row: str, kind: str, columns: NDArray[np.int64]) -> list[Boosted]:
    """The models of a row, one for each repetition; of the train split they are kept."""
    chosen = learners(bench, row)
    kept = _LEARNT.setdefault(bench.train, {}) if row == TRAIN else {}
    key = (kind, columns.tobytes(), chosen.tobytes())
    if key not in kept:
        every = examples(bench.rows[row], kind).of_labels(columns)
        parts = [every.where(mine[every.patient]) for mine in chosen]
        kept[key] = in_parallel(boost, parts)
    return kept[key]


def _predict(models: Sequence[Boosted], stays: Examples) -> Floats:
    """Probabilities [seeds, stays, labels]."""
    return np.stack(in_parallel(lambda model: model.predict(stays.features), models))


def _groups_of(bench: Bench) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """By covariate, the test stays of each group: levels, or thirds of the real train stays."""
    stays, train = asked(bench, TEST).stays, bench.train.stays
    found = {}
    for covariate in bench.train.schema.covariates:
        of_stay = stays[covariate.name]
        if covariate.kind == "categorical":
            values = of_stay.to_numpy(object)
            found[covariate.name] = {
                level: np.asarray(values == level) for level in covariate.levels
            }
            continue
        known = train[covariate.name].dropna().to_numpy(np.float64)
        if not len(known):
            continue
        low, high = np.quantile(known, [1 / 3, 2 / 3])
        numbers = of_stay.to_numpy(np.float64)
        found[covariate.name] = {
            f"< {low:.3g}": numbers < low,
            f"{low:.3g} to {high:.3g}": (numbers >= low) & (numbers < high),
            f">= {high:.3g}": numbers >= high,
        }
    return found


def _rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's; NaN if all are equal."""
    a, b = rankdata(one), rankdata(other)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return NAN
    return float(np.corrcoef(a, b)[0, 1])


def _published(bench: Bench, row: str) -> dict[str, Score]:
    """The published form: once, all labels in one, first stays, what is missing is the mean."""
    undefined = {f"published/utility/{name}": Score(NAN) for name in _PUBLISHED}
    if not len(bench.train.continuous):
        return undefined
    mine, real, test = (
        published_examples(patients)
        for patients in (bench.rows[row], bench.train, asked(bench, TEST))
    )
    columns = np.flatnonzero(frequent_enough(real, test))
    if not len(columns):
        return undefined
    chosen = np.asarray(learners(bench, row).any(axis=0))
    learnt = mine.of_labels(columns).where(chosen[mine.patient])
    means = nan_mean(learnt.features.astype(np.float64), axis=0)
    learnt, test = (
        replace(part, features=np.where(np.isnan(part.features), means, part.features))
        for part in (learnt, test.of_labels(columns))
    )
    # Labels side by side, so that all threads have some.
    parts = [learnt.of_labels(part) for part in np.array_split(np.arange(len(columns)), 4)]
    predicted = np.concatenate(
        [model.predict(test.features) for model in in_parallel(boost, parts)], axis=1
    )
    half = np.full((1, len(columns)), 0.5)
    n_resamples = min(bench.effort.n_resamples, _MOST_RESAMPLES)
    judged = judge(test.labels, predicted[None], half, test.patient, n_resamples, bench.seed)
    return {
        f"published/utility/{name}": judged.macro(name.removeprefix("macro_"))
        for name in _PUBLISHED
    }
