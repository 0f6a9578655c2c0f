"""Our own training and sampling behind the interface of the baselines."""

import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from synehrgy.baselines.baseline import Baseline, seeded
from synehrgy.cohort import Cohort, CohortWriter
from synehrgy.errors import UserError
from synehrgy.generation.api import SynEHRgy
from synehrgy.settings import (
    DataSettings,
    PathSettings,
    TokenSettings,
    TrainConfig,
    WandbSettings,
)
from synehrgy.tokenizer import preprocess_tokens
from synehrgy.training.loop import train as train_model

_RUN = "run"


class TrainedGPT(Baseline, ABC):
    """A GPT over tokens; subclasses say with which settings."""

    run: Path

    @abstractmethod
    def tokens(self) -> TokenSettings:
        """How records become tokens."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What of ``TrainConfig`` decides about the model: its groups, by name."""

    @abstractmethod
    def sampling(self) -> dict[str, Any]:
        """Arguments of ``SynEHRgy.generate``."""

    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Tokenise and train, in a folder that is there as long as the baseline.

        Raises:
            UserError: settings that these patients do not go with.
            KeyboardInterrupt: somebody stopped it.
        """
        self._place = tempfile.TemporaryDirectory()
        place = Path(self._place.name)
        both = _both(train, val)
        with CohortWriter(place / "cohort", both.schema, both.provenance) as writer:
            writer.write(both.stays, both.codes, both.measurements)
        config = TrainConfig(
            run_name=_RUN,
            seed=seed,
            device=str(device),
            data=DataSettings(name="cohort", source="cohort", path=str(place / "cohort")),
            paths=PathSettings(saved_models=str(place), synthetic=str(place), results=str(place)),
            wandb=WandbSettings(mode="disabled"),
            **self.config(),
        )
        with self._in_words():
            preprocess_tokens(place / "cohort", self.tokens())
            with seeded(seed):
                self.run = train_model(config, is_passing=True)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What ``train.py`` says of its settings and its folder, for people who gave neither."""
        try:
            yield
        except KeyboardInterrupt:
            print(f"\nStopped; {self.name} is not kept. The same command begins it anew.")
            raise
        except UserError as error:
            mine = "|".join(item.name for item in fields(self.Settings))
            # How records become tokens is a part of the method.
            said = re.sub(r", or preprocess\.\w+=\w+", "", str(error))
            said = re.sub(rf"\b(hparams|model|train|preprocess)\.({mine})\b", r"method.\2", said)
            raise UserError(f"{self.name}: {said}") from error

    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Sample records and decode them."""
        model = SynEHRgy.load(self.run, str(device))
        return model.generate(n, seed=seed, progress=progress, **self.sampling())

    def save(self, folder: Path) -> None:
        """The run, without what only training needs."""
        left_out = shutil.ignore_patterns("checkpoints", "*.png")
        shutil.copytree(self.run, folder / _RUN, ignore=left_out)

    @classmethod
    def load(cls, folder: Path, **settings: object) -> "TrainedGPT":
        """What ``save`` wrote."""
        found = cls(**settings)
        found.run = folder / _RUN
        return found


def _both(train: Cohort, val: Cohort) -> Cohort:
    """One cohort with both splits; without validation patients, copies of the others validate."""
    if not val.n_patients:
        val = _copies(train)
    parts = [train.stays.assign(split="train"), val.stays.assign(split="val")]
    stays = pd.concat(parts, ignore_index=True)
    order = stays.sort_values(["subject_id", "stay_index"], ignore_index=True)
    rank = pd.Series(order.index, index=order["stay_id"])

    def ordered(name: str) -> pd.DataFrame:
        both = pd.concat([train.table(name), val.table(name)], ignore_index=True)
        return both.iloc[both["stay_id"].map(rank).argsort(kind="stable")].reset_index(drop=True)

    return Cohort(train.schema, order, ordered("codes"), ordered("measurements"), train.provenance)


def _copies(cohort: Cohort) -> Cohort:
    """The same patients under new numbers."""
    by_subject = int(cohort.stays["subject_id"].max()) + 1 - int(cohort.stays["subject_id"].min())
    by_stay = int(cohort.stays["stay_id"].max()) + 1 - int(cohort.stays["stay_id"].min())
    stays = cohort.stays.assign(
        subject_id=cohort.stays["subject_id"] + by_subject,
        stay_id=cohort.stays["stay_id"] + by_stay,
    )
    codes, measurements = (
        table.assign(stay_id=table["stay_id"] + by_stay)
        for table in (cohort.codes, cohort.measurements)
    )
    return Cohort(cohort.schema, stays, codes, measurements)
