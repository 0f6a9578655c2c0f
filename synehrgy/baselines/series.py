"""Series as arrays of equal steps, for networks that know no others, and back."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from synehrgy.cohort import Cohort, Schema, Variable

Floats = NDArray[np.float32]

# Quantiles by which continuous series become normal scores.
_N_QUANTILES = 501


@dataclass
class SeriesGrid:
    """Steps of equal length, and what was learnt of the values of each series.

    A continuous series is one channel of normal scores (by its own quantiles, so that each is about
    standard normal and comes back within the range that it was seen in); a categorical one has a
    channel of 0 and 1 for each level.

    Attributes:
        schema: declares the series.
        step: hours of a step.
        n_steps: of a stay, from admission on; what comes later is left out.
        quantiles: of each continuous series, ascending; empty of one without values.
        offsets: hours since the beginning of a step at which values are charted, to draw from.
    """

    schema: Schema
    step: float
    n_steps: int
    quantiles: dict[str, list[float]]
    offsets: list[float]

    @classmethod
    def fit(cls, cohort: Cohort, n_steps: int, step: float = 1.0) -> "SeriesGrid":
        """Learn quantiles and minutes from a cohort."""
        rows = cohort.measurements
        quantiles = {}
        for variable in cohort.schema.variables_of("continuous"):
            values = rows.loc[rows["variable"] == variable.name, "value"].to_numpy(np.float64)
            at = np.linspace(0, 1, _N_QUANTILES)
            quantiles[variable.name] = np.quantile(values, at).tolist() if len(values) else []
        hours = rows[["stay_id", "hours"]].drop_duplicates()["hours"].to_numpy(np.float64)
        offsets = np.sort(hours % step)[:: max(len(hours) // 1000, 1)].tolist() or [0.0]
        return cls(cohort.schema, step, n_steps, quantiles, offsets)

    @property
    def n_channels(self) -> int:
        """Channels of all series."""
        return sum(_width(variable) for variable in self.schema.variables)

    @property
    def channels(self) -> list[slice]:
        """The channels of each series, in declared order."""
        ends = np.cumsum([0, *(_width(variable) for variable in self.schema.variables)])
        return [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def encode(self, cohort: Cohort) -> tuple[Floats, NDArray[np.bool_]]:
        """The stays of a cohort, in its order.

        Returns:
            values: [stays, steps, channels], 0 where there is no value; of several values in a step
                the last.
            observed: whether a step has a value [stays, steps, series].
        """
        rows = cohort.measurements
        order = pd.Index(cohort.stays["stay_id"])
        stay = order.get_indexer(pd.Index(rows["stay_id"]))
        step = (rows["hours"].to_numpy(np.float64) // self.step).astype(np.int64)
        keep = step < self.n_steps
        names = rows["variable"].astype(object).to_numpy()
        levels = rows["level"].astype(object).to_numpy()
        numbers = rows["value"].to_numpy(np.float64)
        shape = (len(cohort.stays), self.n_steps)
        values = np.zeros((*shape, self.n_channels), dtype=np.float32)
        observed = np.zeros((*shape, len(self.schema.variables)), dtype=bool)
        for i, (variable, mine) in enumerate(
            zip(self.schema.variables, self.channels, strict=True)
        ):
            some = keep & (names == variable.name)
            its_stay, its_step = stay[some], step[some]
            observed[its_stay, its_step, i] = True
            if variable.kind == "continuous":
                values[its_stay, its_step, mine.start] = self._scores(variable.name, numbers[some])
            else:
                level = pd.Index(variable.levels).get_indexer(pd.Index(levels[some]))
                # Time ascends within a stay: of several in a step the last stays.
                values[its_stay, its_step, mine] = np.eye(len(variable.levels), dtype=np.float32)[
                    level
                ]
        return values, observed

    def decode(
        self, values: Floats, observed: NDArray[np.bool_], rng: np.random.Generator
    ) -> pd.DataFrame:
        """Measurements as ``records.assemble`` takes them; ``stay`` is the row of ``values``.

        Args:
            values: [stays, steps, channels]; of a categorical series the greatest channel counts.
            observed: which of them there are [stays, steps, series].
            rng: of the minute of each step, the same for all series of a stay.
        """
        minute = rng.choice(np.asarray(self.offsets), size=observed.shape[:2])
        parts = []
        for i, (variable, mine) in enumerate(
            zip(self.schema.variables, self.channels, strict=True)
        ):
            stay, step = np.nonzero(observed[:, :, i])
            part: dict[str, object] = {
                "stay": stay,
                "hours": step * self.step + minute[stay, step],
                "variable": variable.name,
            }
            found = values[stay, step, mine]
            if variable.kind == "continuous":
                part |= {"value": self._values(variable.name, found[:, 0]), "level": None}
            else:
                level = np.array(variable.levels, dtype=object)[found.argmax(axis=1)]
                part |= {"value": np.nan, "level": level}
            parts.append(pd.DataFrame(part).astype({"value": "float64", "level": object}))
        columns = ["stay", "hours", "variable", "value", "level"]
        filled = [part for part in parts if len(part)]
        return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)

    def _scores(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Normal scores; of equal quantiles the middle one, so that ties come back as they are."""
        quantiles = np.asarray(self.quantiles[name])
        if not len(quantiles):
            return np.zeros(len(values))
        # Where several quantiles are equal, interp gives the last: the mean of both directions.
        up = np.interp(values, quantiles, np.linspace(0, 1, len(quantiles)))
        down = 1 - np.interp(-values, -quantiles[::-1], np.linspace(0, 1, len(quantiles)))
        edge = 0.5 / len(quantiles)
        return np.asarray(ndtri(np.clip((up + down) / 2, edge, 1 - edge)))

    def _values(self, name: str, scores: Floats) -> NDArray[np.float64]:
        quantiles = np.asarray(self.quantiles[name])
        share = ndtr(scores.astype(np.float64))
        if not len(quantiles):
            return np.zeros(len(scores))
        found = np.interp(share, np.linspace(0, 1, len(quantiles)), quantiles)
        return np.asarray(np.round(found, 6))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"schema": self.schema.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SeriesGrid":
        """What ``to_dict`` gave."""
        schema = Schema.from_dict(content["schema"], "grid of series")
        return cls(**(content | {"schema": schema}))


def _width(variable: Variable) -> int:
    return max(len(variable.levels), 1)
