"""The futures of real stays: from their first hours, or from all earlier admissions, many times."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Cohort
from synehrgy.cohort.futures import in_window
from synehrgy.errors import UserError
from synehrgy.generation.sampler import Requests
from synehrgy.tokenizer import Records, Tokenizer
from synehrgy.tokenizer.forecast import PROMPT_SHARE, Forecasts
from synehrgy.tokenizer.grammar import END_CODES
from synehrgy.tokenizer.segments import Cutter

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """A stay whose futures are asked for.

    Attributes:
        prompt: what is known, as the model is asked.
        before: the record up to the covariates of the stay.
        window: what is known of its series.
        n_before: earlier stays of the patient.
        n_steps: time points in the window.
    """

    prompt: Ints
    before: Ints
    window: Ints
    n_before: int
    n_steps: int


class Futures(Requests):
    """Patients that are futures of real stays: ``n_each`` of each, one after the other.

    What is known of a stay stands before its labels and codes when a model is asked that was
    trained to forecast (``mode=fcast``), and in its usual place in the record. Any other model
    reads plain records, and can go on from the covariates of a stay, ``hours=0``.

    Args:
        tokenizer: the model's.
        records: of the real patients.
        hours: that are known of each stay; only stays with a time point after them are asked about.
        n_each: futures of each stay.
        n_ctx: context of the model.
        forecaster: whether the model was trained to forecast.
        n_stays: at most so many stays, evenly spread over all; None: all.

    Attributes:
        source, nth: int64 [stays]; number of the record of each, and which of its stays it is.
        asked: of each.

    Raises:
        UserError: no such stay.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        records: Records,
        hours: float,
        n_each: int,
        n_ctx: int,
        forecaster: bool = True,
        n_stays: int | None = None,
    ):
        super().__init__(tokenizer)
        self.hours, self.n_each = hours, n_each
        forecasts = Forecasts.of(tokenizer, records, np.arange(len(records)))
        every = np.arange(len(forecasts))
        stays = every[forecasts.goes_on(every, np.full(len(every), float(hours)))]
        if not len(stays):
            remedy = " Give fewer condition.hours." if hours > 0 else ""
            raise UserError(
                f"No stay has a measurement after {hours:g} hours, so there is nothing to "
                f"forecast.{remedy}"
            )
        if n_stays is not None and n_stays < len(stays):
            stays = stays[np.arange(n_stays) * len(stays) // n_stays]
        known = np.full(len(stays), float(hours))
        self.source = forecasts.record[stays]
        self.nth = stays - np.searchsorted(forecasts.record, self.source)
        first, until = forecasts.known_steps(stays, known)
        window_end = forecasts.window_end(stays, known)
        pieces = forecasts.pieces(tokenizer, stays, known, n_ctx)
        whole, *_ = pieces.assemble(records)
        starts = np.cumsum(pieces.sizes.sum(axis=1)) - pieces.sizes.sum(axis=1)
        self.asked = []
        for i, stay in enumerate(stays):
            record = records[int(self.source[i])].astype(np.int64)
            before = record[: forecasts.covariates_end[stay]]
            prompt = whole[starts[i] : starts[i] + pieces.given[i]]
            if not forecaster:
                prompt = _shortened(tokenizer, before, int(PROMPT_SHARE * n_ctx))
            window = record[forecasts.codes_end[stay] : window_end[i]]
            n_steps = int(until[i] - first[i])
            self.asked.append(Asked(prompt, before, window, int(self.nth[i]), n_steps))

    def __len__(self) -> int:
        return len(self.asked) * self.n_each

    def prompt(self, patient: int, attempt: int) -> Ints:
        """What is known of the stay, as the model was trained to be asked."""
        return self.asked[patient // self.n_each].prompt

    def record(self, patient: int, tokens: Ints) -> Ints:
        """The record of the patient, with what is known of the stay in its usual place."""
        asked = self.asked[patient // self.n_each]
        answer = tokens[len(asked.prompt) :]
        ends = np.flatnonzero(answer == self.tokenizer.token(END_CODES))
        cut = int(ends[0]) + 1 if len(ends) else len(answer)
        window = asked.window if len(ends) else asked.window[:0]
        return np.concatenate([asked.before, answer[:cut], window, answer[cut:]])

    def questions(self, cohort: Cohort, patients: Ints) -> pd.DataFrame:
        """What patients are futures of, as in ``cohort.futures.QUESTIONS``, by their numbers.

        Args:
            cohort: the real one that the records are of, in the same order.
            patients: their numbers, which stand as subject_id.
        """
        stay_index = cohort.stays["stay_index"].to_numpy()
        row = np.flatnonzero(stay_index == 0)[self.source] + self.nth
        source = cohort.stays.iloc[row[patients // self.n_each]]
        return pd.DataFrame(
            {
                "subject_id": patients,
                "source_subject_id": source["subject_id"].to_numpy(),
                "source_stay_id": source["stay_id"].to_numpy(),
                "hours": float(self.hours),
                "sample": (patients % self.n_each).astype(np.int32),
            }
        )

    def unknown_part(self, cohort: Cohort, patients: Ints) -> Cohort:
        """Decoded futures without what was known: earlier stays, and the window of the series.

        Args:
            cohort: the futures of these patients, in order.
            patients: their numbers.
        """
        asked = [self.asked[patient // self.n_each] for patient in patients]
        nth = np.array([one.n_before for one in asked])
        n_steps = np.array([one.n_steps for one in asked])
        stays = cohort.stays
        first = stays["stay_index"].to_numpy() == 0
        future = np.cumsum(first) - 1
        index = stays["stay_index"].to_numpy() - nth[future]
        kept = stays[index >= 0].assign(stay_index=index[index >= 0].astype(np.int32))
        ids = kept["stay_id"]
        rows = cohort.measurements[cohort.measurements["stay_id"].isin(ids)]
        points = rows.groupby("stay_id", observed=True)["hours"].rank(method="dense")
        known = pd.Series(np.where(index == 0, n_steps[future], 0), index=stays["stay_id"])
        is_new = points.to_numpy() > known.loc[rows["stay_id"]].to_numpy()
        if self.tokenizer.has_clock:
            # A model may place its next time point too early.
            of_asked = known.index[index == 0]
            too_early = rows["stay_id"].isin(of_asked) & in_window(rows["hours"], self.hours)
            is_new &= ~too_early.to_numpy()
        rows = rows[is_new]
        codes = cohort.codes[cohort.codes["stay_id"].isin(ids)]
        return replace(
            cohort,
            stays=kept.reset_index(drop=True),
            codes=codes.reset_index(drop=True),
            measurements=rows.reset_index(drop=True),
        )


def _shortened(tokenizer: Tokenizer, record: Ints, room: int) -> Ints:
    """A beginning of a record as the context that goes on with it would hold it."""
    if len(record) <= room:
        return record
    cutter = Cutter(tokenizer, room)
    cuts = cutter.cuts(record)
    for cut in cuts[np.searchsorted(cuts, len(record) - room) :]:
        head = cutter.head(record, int(cut))
        if len(head) + len(record) - cut <= room:
            return np.concatenate([head, record[cut:]])
    raise UserError("The context is too short for the end of an earlier stay and the next one.")
