"""What is known of a run when it is shared: from its folder, its cohort and its evaluation."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from synehrgy.errors import UserError
from synehrgy.export.architectures import Architecture
from synehrgy.files import read_json
from synehrgy.training.checkpoint import METRICS_FILE, RUN_FILE, Run, trained_on

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
        counts: codes and measurements of its cohort; None if that is not at hand any more.
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
        counts, splits = _patients(run)
        evaluation = None if results is None else _evaluation(results, run, about)
        epochs = _epochs(run.path / METRICS_FILE)
        return cls(run, architecture, values, about, epochs, counts, splits, evaluation)

    @property
    def best(self) -> dict[str, Any]:
        """The epoch whose weights were kept."""
        if self.about.get("privacy") is not None:
            return self.epochs[-1]
        return min(self.epochs, key=lambda epoch: float(epoch["val_loss"]))

    @property
    def forecasts(self) -> bool:
        """Whether it was trained to forecast."""
        return bool(self.run.config["mode"] == "fcast")

    @property
    def is_simulated(self) -> bool:
        """Whether no real patient had a part in it."""
        # What it began with may have been trained on anything.
        begun_with = (self.run.config.get(key) for key in ("use_pretrained", "use_tokenizer"))
        return self.about.get("simulated") is True and not any(begun_with)

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


def _patients(run: Run) -> tuple[dict[str, int] | None, pd.DataFrame | None]:
    """The cohort that the run was trained on, if it is still there and the same."""
    folder = trained_on(run.path, run.config)
    if folder is None:
        return None, None
    stays = pd.read_parquet(folder / "stays.parquet", columns=["subject_id", "split"])
    by_split = stays.groupby("split", observed=True)["subject_id"]
    rows = {
        table: pq.ParquetFile(folder / f"{table}.parquet").metadata.num_rows
        for table in ("codes", "measurements")
    }
    return rows, pd.DataFrame({"patients": by_split.nunique(), "stays": by_split.size()})


def _evaluation(results: Path, run: Run, about: dict[str, Any]) -> dict[str, Any] | None:
    """The evaluation of this very run, if there is one; of several windows the latest."""
    name = run.path.name
    # Futures are judged under the name of the run and the hours that are known.
    names = f"{name}-*h" if run.config["mode"] == "fcast" else name
    found: list[dict[str, Any]] = [
        read_json(file) for file in results.glob(f"{names}/{EVALUATION_FILE}")
    ]
    # It may be that of an earlier run, or of another cohort, of the same name.
    since = about["finished"] or about["started"]
    mine = [one for one in found if one["made"] >= since and _is_of(one, name)]
    return max(mine, key=lambda one: one["made"], default=None)


def _is_of(evaluation: dict[str, Any], name: str) -> bool:
    judged = evaluation["config"]["run_name"] or ""
    return judged == name or re.fullmatch(rf"{re.escape(name)}-[\d.]+h", judged) is not None
