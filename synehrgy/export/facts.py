"""What is known of a run when it is shared: from its folder, its cohort and its evaluation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from synehrgy.cohort import is_cohort
from synehrgy.errors import UserError
from synehrgy.export.architectures import Architecture
from synehrgy.files import read_json
from synehrgy.tokenizer import fingerprint_of
from synehrgy.training.checkpoint import METRICS_FILE, RUN_FILE, Run

EVALUATION_FILE = "metrics.json"

# In the source that a cohort states.
CREDENTIALED = ("mimic", "eicu")


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
        run: the run.
        architecture: that it is written as.
        values: whether the tokenizer keeps quantiles of real values.
        about: its ``run.json``.
        epochs: lines of its ``metrics.jsonl``.
        counts: patients, stays, codes, ... of its cohort; None if that is not at hand any more.
        splits: by split the number of ``patients`` and of ``stays``, likewise.
        evaluation: ``metrics.json`` of its evaluation; None if there is none.
    """

    run: Run
    architecture: Architecture
    values: bool
    about: dict[str, Any]
    epochs: list[dict[str, Any]]
    counts: dict[str, int] | None
    splits: pd.DataFrame | None
    evaluation: dict[str, Any] | None

    @classmethod
    def of(
        cls, run: Run, architecture: Architecture, results: Path | None, values: bool
    ) -> "Facts":
        """Gather them, as far as cohort and evaluation are there.

        Raises:
            UserError: a missing or damaged file of the run.
        """
        about = read_json(run.path / RUN_FILE)
        counts, splits = _patients(run, about)
        evaluation = None if results is None else _evaluation(results, run, about)
        epochs = _epochs(run.path / METRICS_FILE)
        return cls(run, architecture, values, about, epochs, counts, splits, evaluation)

    @property
    def best(self) -> dict[str, Any]:
        """The epoch whose weights were kept."""
        return min(self.epochs, key=lambda epoch: float(epoch["val_loss"]))

    @property
    def forecasts(self) -> bool:
        """Whether it was trained to forecast."""
        return bool(self.run.config["mode"] == "fcast")

    @property
    def is_simulated(self) -> bool:
        """Whether no real patient had a part in it."""
        config = self.run.config
        # What it began with may have been trained on anything.
        return config["data"]["source"] == "simulated" and config["use_pretrained"] is None

    @property
    def is_credentialed(self) -> bool:
        """Whether its data are, or may be, under an agreement with PhysioNet."""
        source = self.run.tokenizer.schema.source.lower()
        return not self.is_simulated and any(name in source for name in CREDENTIALED)


def _epochs(file: Path) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{file} does not exist.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not found:
        raise UserError(f"{file} is empty: no epoch of the training is known.")
    return found


def _patients(run: Run, about: dict[str, Any]) -> tuple[dict[str, int] | None, pd.DataFrame | None]:
    """The cohort that the run was trained on, if it is still there and the same."""
    folder = Path(run.config["data"]["path"])
    if not is_cohort(folder):
        return None, None
    if fingerprint_of(folder, run.tokenizer.settings) != about["tokens_fingerprint"]:
        return None, None
    stays = pd.read_parquet(folder / "stays.parquet", columns=["subject_id", "split"])
    by_split = stays.groupby("split", observed=True)["subject_id"]
    return (
        read_json(folder / "cohort.json")["counts"],
        pd.DataFrame({"patients": by_split.nunique(), "stays": by_split.size()}),
    )


def _evaluation(results: Path, run: Run, about: dict[str, Any]) -> dict[str, Any] | None:
    """The evaluation of this very run, if there is one."""
    file = results / run.path.name / EVALUATION_FILE
    if not file.exists():
        return None
    found: dict[str, Any] = read_json(file)
    # It may be that of an earlier run, or of another cohort, of the same name.
    is_later = found["made"] >= (about["finished"] or about["started"])
    return found if is_later and found["config"]["run_name"] == run.path.name else None
