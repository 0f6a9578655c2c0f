"""What a baseline is: a generator that is fitted on a cohort and samples another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch

from synehrgy.cohort import Cohort
from synehrgy.errors import UserError, nearest

# Parts of a cohort that not every method covers. Covariates and labels all of them have.
STAYS, CODES, SERIES = "stays", "codes", "series"
PARTS = {
    STAYS: "how many stays a patient has, and their order",
    CODES: "codes",
    SERIES: "time series",
}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of PyTorch with a seed, on all devices; as they were in the end."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


class Baseline(ABC):
    """A generator of patients. A file in this package with such a class is all it takes.

    Attributes:
        name: by which it is chosen; the name of its module.
        title: for people.
        source: the paper that it is written from; None: it has none.
        covers: which of ``PARTS`` it generates. What it does not cover its cohorts do not have: no
            codes, no series, or one stay per patient.
        competes: whether it can be the best; the floor and the trap cannot.
        Settings: a dataclass of its settings, all with defaults.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str | None] = None
    covers: ClassVar[frozenset[str]] = frozenset(PARTS)
    competes: ClassVar[bool] = True
    Settings: ClassVar[type]

    def __init__(self, **settings: Any) -> None:
        """Set it up.

        Args:
            settings: of ``Settings``, other than their defaults.

        Raises:
            UserError: an unknown setting or a value of another type.
        """
        known = {field.name: field for field in fields(self.Settings)}
        for key, value in settings.items():
            if key not in known:
                raise UserError(
                    f"{self.name} has no setting {key!r}.{nearest(key, list(known))} "
                    f"It has: {', '.join(known) or 'none'}."
                )
            default = known[key].default
            numbers = (int, float) if isinstance(default, float) else type(default)
            if not isinstance(value, numbers) or isinstance(value, bool) != isinstance(
                default, bool
            ):
                raise UserError(
                    f"{self.name}: {key}={value!r} is not of the type of its default, {default!r}."
                )
        self.settings = self.Settings(**settings)

    @abstractmethod
    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Learn from patients.

        Args:
            train: to learn from.
            val: to tell when to stop; may have no patients.
            seed: of everything random.
            device: where networks are trained.
            progress: show a bar.
        """

    @abstractmethod
    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Fresh patients, without splits; the same seed gives the same ones.

        Its schema is that of the train cohort, without the parts that are not covered.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learnt into an empty folder that exists; JSON, Parquet, safetensors."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, **settings: Any) -> "Baseline":
        """What ``save`` wrote, ready to sample."""
