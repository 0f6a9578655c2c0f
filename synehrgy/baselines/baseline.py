"""What a baseline is: a generator that is fitted on a cohort and samples another."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, fields
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


def limited(
    default: float,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    divides: str | None = None,
) -> Any:
    """A number among the settings of a baseline, with its limits.

    Args:
        default: what it is if nobody says otherwise.
        minimum, above, maximum: what it must be at least, above, and at most.
        divides: the setting that must be a multiple of it.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "divides": divides}
    return field(default=default, metadata=limits)


class Baseline(ABC):
    """A generator of patients. A file in this package with such a class is all it takes.

    Attributes:
        name: by which it is chosen; the name of its module.
        title: for people.
        source: the paper that it is written from; None: it has none.
        covers: which of ``PARTS`` it generates. What it does not cover its cohorts do not have: no
            codes, no series, or one stay per patient.
        competes: whether it can be the best; the floor and the trap cannot.
        Settings: a dataclass of its settings, all with defaults; ``limited`` gives one limits.
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
            UserError: an unknown setting, a value of another type or beyond its limits.
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
        for key, item in known.items():
            if fault := self._fault(getattr(self.settings, key), item.metadata):
                raise UserError(f"{self.name}: {key}={getattr(self.settings, key)} {fault}.")

    def _fault(self, value: Any, limits: Mapping[str, Any]) -> str | None:
        """What is wrong with the value of a setting, if anything is."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        minimum, above, maximum, divides = (
            limits.get(key) for key in ("minimum", "above", "maximum", "divides")
        )
        if minimum is not None and value < minimum:
            return f"must be at least {minimum}"
        if above is not None and value <= above:
            return f"must be above {above}"
        if maximum is not None and value > maximum:
            return f"must be at most {maximum}"
        if divides is not None and getattr(self.settings, divides) % value:
            return f"must divide {divides}={getattr(self.settings, divides)}"
        return None

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
