"""The settings of utility: who is learnt from and who is asked about, and how to read the scores.

Train on synthetic, test on real (TSTR) and the reverse (TRTS) are of Esteban, Hyland and Rätsch,
"Real-valued (medical) time series generation with recurrent conditional GANs", arXiv 1706.02633,
2017.
"""

from collections.abc import Sequence

import pandas as pd

from synehrgy.cohort import Label
from synehrgy.evaluation.judge import BY_STAY, MICRO, Judged
from synehrgy.evaluation.metric import TRAIN, Scale, Score
from synehrgy.evaluation.tasks import KINDS, OUTCOME, PHENOTYPE

TSTR, TRTS, TRTR = "TSTR", "TRTS", "TRTR"

# By the name of a score: its title, better in which direction, and how much worse than training on
# real patients is still good, or fair.
_READ: dict[str, tuple[str, str, float, float]] = {
    "auroc": ("AUROC", "high", 0.05, 0.10),
    "auprc": ("AUPRC", "high", 0.10, 0.20),
    "f1": ("F1", "high", 0.10, 0.20),
    "brier": ("Brier score", "low", 0.03, 0.06),
    "ece": ("Calibration error", "low", 0.04, 0.08),
}
SCORES = {OUTCOME: (*BY_STAY, "ece"), PHENOTYPE: (*BY_STAY, "ece", *MICRO)}

SCORE_COLUMNS = ["kind", "label", "title", "setting", "share", "score", "value", "low", "high"]

_SAYS = {
    "auroc": "how often a stay with the label is ranked before one without it",
    "auprc": "how many of those flagged have the label, over all thresholds",
    "f1": "how well those flagged and those with the label agree",
    "brier": "the mean squared error of the probabilities",
    "ece": "how far the stated probabilities are from what happens",
}


def score_name(kind: str, setting: str, score: str) -> str:
    """The name of a score after that of its metric, such as ``phenotype/tstr_macro_auroc``."""
    macro = kind == PHENOTYPE and not score.startswith("micro_")
    return f"{kind}/{setting.lower()}_{'macro_' if macro else ''}{score}"


def scales(metric: str, learner: str) -> dict[str, Scale]:
    """How to read the scores of a metric whose models are of one sort."""
    found = {}
    for kind, title in KINDS.items():
        for score in SCORES[kind]:
            found[f"{metric}/{score_name(kind, TSTR, score)}"] = _scale(kind, title, score, learner)
        name = f"{metric}/{score_name(kind, TRTS, 'auroc')}"
        found[name] = Scale(
            f"{title}: AUROC, train on real, test on these ({learner})",
            "Whether these patients look to a model of real patients as real ones do. Lower: what "
            "hangs together in real patients does not in these. Higher: they are too simple.",
            "near",
            (0.0, 1.0),
            TRAIN,
            0.06,
            0.12,
        )
    return found


def _scale(kind: str, title: str, score: str, learner: str) -> Scale:
    plain = score.removeprefix("micro_")
    name, goal, good, poor = _READ[plain]
    sort = "" if kind == OUTCOME else "micro " if score in MICRO else "macro "
    return Scale(
        f"{title}: {sort}{name}, train on these, test on real ({learner})",
        f"A model that learnt from these patients only, asked about real ones: {_SAYS[plain]}.",
        goal,
        (0.0, 1.0),
        TRAIN,
        good,
        poor,
    )


def scores_of(metric: str, kind: str, setting: str, judged: Judged | None) -> dict[str, Score]:
    """The scores of one kind of label; NaN where there is nothing to judge."""
    names = SCORES[kind] if setting == TSTR else ("auroc",)
    return {
        f"{metric}/{score_name(kind, setting, score)}": Score(float("nan"))
        if judged is None
        else judged.macro(score)
        for score in names
    }


def score_table(
    judged: Judged, labels: Sequence[Label], kind: str, setting: str, share: float = 0.0
) -> pd.DataFrame:
    """Every score by label, and their means: the columns ``SCORE_COLUMNS``."""
    rows: list[tuple[object, ...]] = []

    def add(label: str, title: str, score: str, found: Score) -> None:
        rows.append((kind, label, title, setting, share, score, found.value, found.low, found.high))

    for score in SCORES[OUTCOME]:
        for i, label in enumerate(labels):
            add(label.column, label.title, score, judged.macro(score, [i]))
        add("macro", "Mean over labels", score, judged.macro(score))
    for score in MICRO:
        add("micro", "All labels as one", score.removeprefix("micro_"), judged.macro(score))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)
