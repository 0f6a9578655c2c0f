"""A cohort in the folders of the mimic3-benchmarks, for programs that were written for these.

Harutyunyan et al., Scientific Data 6, 96 (2019); https://github.com/YerevaNN/mimic3-benchmarks
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from synehrgy.cohort.calendar import MORTALITY, ages, calendar, microseconds
from synehrgy.cohort.channels import CHANNELS, channel_of, check_series, numbers, texts
from synehrgy.cohort.io import read_parts, read_schema
from synehrgy.cohort.schema import Schema
from synehrgy.cohort.tables import Cohort
from synehrgy.errors import UserError
from synehrgy.files import new_folder

TASKS = ("in-hospital-mortality", "decompensation", "length-of-stay", "phenotyping")
EPS = 1e-6  # hours
FIRST_HOURS = 48.0  # what is known when mortality is predicted
SHORTEST_HOURS = 4  # no prediction of decompensation and length of stay before
DECOMPENSATION_HOURS = 24.0  # death within
SHUFFLE_SEED = 49297
LISTS = (
    "train/listfile.csv",
    "test/listfile.csv",
    "train_listfile.csv",
    "val_listfile.csv",
    "test_listfile.csv",
)
DIAGNOSES = "icd9_diagnosis"
GENDERS = {"F": "1", "M": "2"}  # others are 3, unknown is 0
# Titles that the benchmark spells in another way.
TITLES = {
    "Pneumonia (except tuberculosis or sexually transmitted)": (
        "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)"
    )
}


def export_benchmark(cohort: Path, path: Path) -> list[Path]:
    """Write a cohort folder as the data folder of the mimic3-benchmarks.

    ``root/{train,test}/<subject>/`` has ``stays.csv``, ``diagnoses.csv`` and, for stays with a
    value of the 17 channels, ``episode<n>.csv`` and ``episode<n>_timeseries.csv``. Each task has
    its series and ``listfile.csv`` in ``{train,test}/``, and beside them ``train_listfile.csv``,
    ``val_listfile.csv`` and ``test_listfile.csv``. There is no ``phenotyping`` without phenotypes.

    Train and val together are ``train``. Patients without a split, as in synthetic cohorts, are in
    ``train``, and the lists of val and test are empty: to train on synthetic and test on real
    patients, take these and ``test`` and ``val_listfile.csv`` of the real cohort's export.

    A cohort has no dates: those of ``stays.csv`` are made up (``calendar.py``). Nor does it know
    when a patient died in hospital; here it is at the end of the stay, so that decompensation is
    positive in its last 24 hours. Ethnicity is unknown.

    Args:
        cohort: the cohort folder.
        path: the folder to write; one of these folders and nothing else is replaced.

    Returns:
        The lists of the tasks.

    Raises:
        UserError: no cohort there, tables that break a rule, no label ``in_hospital_mortality``,
            a channel of another kind, level or unit, or ``path`` holds something else.
    """
    schema, _ = read_schema(cohort)
    check_benchmark(schema, str(cohort))
    tasks = [t for t in TASKS if t != "phenotyping" or schema.labels_of("phenotype")]
    lists: dict[str, list[pd.DataFrame]] = {task: [] for task in tasks}
    with new_folder(path, _is_ours) as folder:
        for task in ("root", *tasks):
            for side in ("train", "test"):
                (folder / task / side).mkdir(parents=True)
        for part in read_parts(cohort):
            episodes = _Episodes(part)
            _write_root(folder / "root", part, episodes)
            for task in tasks:
                lists[task].append(_write_task(folder / task, task, part, episodes))
        if not lists[tasks[0]]:
            raise UserError(f"{cohort} has no patient.")
        for task in tasks:
            _write_lists(folder / task, lists[task], _phenotypes(schema))
    return [Path(path) / task / name for task in tasks for name in LISTS]


def check_benchmark(schema: Schema, name: str) -> None:
    """Refuse a schema that the benchmark has no place for.

    Args:
        schema: of the patients.
        name: what to call them in the error.

    Raises:
        UserError: no label ``in_hospital_mortality``, or a channel of another kind, level or unit.
    """
    if MORTALITY not in (label.column for label in schema.labels):
        raise UserError(
            f"{name} has no label {MORTALITY!r}, which the tasks of the benchmark need."
        )
    check_series(schema)


def _is_ours(path: Path) -> bool:
    return (path / "root" / "train").is_dir() and {f.name for f in path.iterdir()} <= {
        "root",
        *TASKS,
    }


class _Lines:
    """Rows as CSV, of which any run is cut out without a loop over its rows."""

    def __init__(self, columns: dict[str, pa.Array], titles: dict[str, str] | None = None) -> None:
        self.header = (",".join((titles or {}).get(name, name) for name in columns) + "\n").encode()
        # Offsets of 64 bits: a part may have more than two gigabytes.
        empty, comma, newline = (pa.scalar(text, pa.large_string()) for text in ("", ",", "\n"))
        cells = [column.cast(pa.large_string()) for column in columns.values()]
        lines = pc.binary_join_element_wise(*cells, comma, null_handling="replace")
        lines = pc.binary_join_element_wise(lines, empty, newline)
        self.ends = np.append(0, np.cumsum(pc.binary_length(lines).to_numpy()))
        buffer = lines.buffers()[2]
        self.text = memoryview(buffer if buffer is not None else b"")

    def write(self, file: Path, first: int = 0, last: int | None = None) -> None:
        """Write the rows from ``first`` to before ``last``, or all, below the header."""
        end = self.ends[-1 if last is None else last]
        with file.open("wb") as out:
            out.write(self.header)
            out.write(self.text[self.ends[first] : end])


class _Episodes:
    """Time points of the stays of some patients at which any channel has a value.

    Attributes:
        episode, name: ``episode<n>`` and ``<subject>_episode<n>``, of each stay.
        side: ``train`` or ``test``, of each stay.
        stay: position of its stay, of each time point.
        hours: since admission, of each time point.
        start: first time point of each stay, and the end of the last.
        lines: the time points as CSV.
        first_value: first value of a series in each stay, for height and weight.
    """

    def __init__(self, cohort: Cohort) -> None:
        stays, measured = cohort.stays, cohort.measurements
        self.episode = "episode" + (stays["stay_index"] + 1).astype(str)
        self.name = stays["subject_id"].astype(str) + "_" + self.episode
        self.side = np.where(stays["split"] == "test", "test", "train")
        series = {channel_of(v.name): v for v in cohort.schema.variables}
        categories = measured["variable"].cat.categories
        is_channel = np.append([channel_of(name) in CHANNELS for name in categories], False)
        measured = measured[is_channel[measured["variable"].cat.codes.to_numpy()]]
        stay = pd.Index(stays["stay_id"]).get_indexer(pd.Index(measured["stay_id"]))
        hours = measured["hours"].to_numpy()
        new = np.ones(len(measured), dtype=bool)
        new[1:] = (np.diff(stay) != 0) | (np.diff(hours) != 0)
        point = np.cumsum(new) - 1
        self.stay, self.hours = stay[new], hours[new]
        self.start = np.searchsorted(self.stay, np.arange(len(stays) + 1))
        self.first_value = {}
        columns = {"Hours": pa.array(self.hours)}
        for channel in CHANNELS:
            values = np.full(len(self.hours), np.nan)
            columns[channel] = pa.nulls(len(values), pa.string())
            variable = series.get(channel)
            if variable is not None:
                mine = (measured["variable"] == variable.name).to_numpy()
                if variable.kind == "categorical":
                    words = np.full(len(values), None)
                    words[point[mine]] = texts(variable, measured["level"][mine])
                    columns[channel] = pa.array(words, pa.string())
                else:
                    values[point[mine]] = numbers(variable, measured["value"][mine])
                    columns[channel] = _known(values)
            if channel in ("Height", "Weight"):
                first = pd.Series(values).groupby(self.stay).first()
                self.first_value[channel] = first.reindex(range(len(stays))).to_numpy()
        self.lines = _Lines(columns)

    def before(self, limit: np.ndarray) -> np.ndarray:
        """Number of time points of each stay before a limit in hours; none if that is NaN."""
        mine = self.stay[self.hours < limit[self.stay]]
        return np.bincount(mine, minlength=len(limit))


def _write_root(folder: Path, cohort: Cohort, episodes: _Episodes) -> None:
    stays = cohort.stays
    dated, facts = _stay_lines(cohort, episodes)
    diagnoses, of_stay = _diagnosis_lines(cohort)
    first = np.flatnonzero(stays["stay_index"] == 0).tolist()
    for a, b in zip(first, [*first[1:], len(stays)], strict=True):
        home = folder / episodes.side[a] / str(stays["subject_id"].iloc[a])
        home.mkdir()
        dated.write(home / "stays.csv", a, b)
        listed = np.searchsorted(of_stay, [a, b]).tolist()
        diagnoses.write(home / "diagnoses.csv", listed[0], listed[1])
        for i in range(a, b):
            begin, end = episodes.start[i : i + 2].tolist()
            if begin < end:
                name = episodes.episode.iloc[i]
                facts.write(home / f"{name}.csv", i, i + 1)
                episodes.lines.write(home / f"{name}_timeseries.csv", begin, end)


def _stay_lines(cohort: Cohort, episodes: _Episodes) -> tuple[_Lines, _Lines]:
    """The stays as in ``stays.csv`` and as in the files of their episodes."""
    stays, dates = cohort.stays, calendar(cohort)
    los = _los(stays)
    dead = pa.array(stays[MORTALITY], pa.int8())
    left = dates.admission + microseconds(np.round(los * 3600) / 3600)
    died = np.where(stays[MORTALITY] == 1, left, np.datetime64("NaT"))
    gender = pd.Series(None, index=stays.index, dtype=object)
    for covariate in cohort.schema.covariates:
        if covariate.name.lower() in ("gender", "sex") and covariate.kind == "categorical":
            gender = stays[covariate.name].astype(object)
    age = pa.array(ages(cohort), from_pandas=True)
    none = pa.scalar(None, pa.string())
    admission, stay, days = _dates(dates.admission), pa.array(stays["stay_id"]), _known(los / 24)
    dated = {
        "SUBJECT_ID": pa.array(stays["subject_id"]),
        "HADM_ID": pa.array(stays["hadm_id"], pa.int64()),
        "ICUSTAY_ID": stay,
        "LAST_CAREUNIT": none,
        "DBSOURCE": none,
        "INTIME": admission,
        "OUTTIME": _dates(left),
        "LOS": days,
        "ADMITTIME": admission,
        "DISCHTIME": _dates(left),
        "DEATHTIME": _dates(died),
        "ETHNICITY": none,
        "DIAGNOSIS": none,
        "GENDER": _text(gender),
        "DOB": _dates(dates.birth),
        "DOD": _dates(died),
        "AGE": age,
        "MORTALITY_INUNIT": dead,
        "MORTALITY": dead,
        "MORTALITY_INHOSPITAL": dead,
    }
    facts = {
        "Icustay": stay,
        "Ethnicity": pa.scalar("0"),
        "Gender": pa.array(
            ["0" if pd.isna(x) else GENDERS.get(x, "3") for x in gender], pa.string()
        ),
        "Age": age,
        "Height": _known(episodes.first_value["Height"]),
        "Weight": _known(episodes.first_value["Weight"]),
        "Length of Stay": days,
        "Mortality": dead,
    }
    return _Lines(dated), _Lines(facts)


def _diagnosis_lines(cohort: Cohort) -> tuple[_Lines, np.ndarray]:
    """The ICD-9 diagnoses as in ``diagnoses.csv``, and the position of the stay of each."""
    codes = cohort.codes[cohort.codes["system"] == DIAGNOSES]
    of_stay = pd.Index(cohort.stays["stay_id"]).get_indexer(pd.Index(codes["stay_id"]))
    stays = cohort.stays.iloc[of_stay]
    groups = {
        code: title
        for label, title in _phenotypes(cohort.schema).items()
        for code in _codes_of(cohort.schema, label)
    }
    group = codes["code"].astype(object).map(groups)
    columns = {
        "SUBJECT_ID": pa.array(stays["subject_id"]),
        "HADM_ID": pa.array(stays["hadm_id"], pa.int64()),
        "SEQ_NUM": pa.array(codes.groupby("stay_id").cumcount() + 1),
        "ICD9_CODE": _text(codes["code"]),
        "SHORT_TITLE": pa.scalar(None, pa.string()),
        "LONG_TITLE": pa.scalar(None, pa.string()),
        "ICUSTAY_ID": pa.array(codes["stay_id"]),
        "HCUP_CCS_2015": _text(group),
        "USE_IN_BENCHMARK": pa.array(group.notna().astype("int8")),
    }
    return _Lines(columns), of_stay


def _phenotypes(schema: Schema) -> dict[str, str]:
    """Titles of the phenotypes by column, in the order of the benchmark: by title."""
    titles = {
        # Readers of the lists split at each comma.
        label.column: TITLES.get(label.title, label.title).replace(",", ";")
        for label in schema.labels_of("phenotype")
    }
    return dict(sorted(titles.items(), key=lambda item: item[1]))


def _codes_of(schema: Schema, column: str) -> list[str]:
    label = next(label for label in schema.labels if label.column == column)
    return label.definition.get(DIAGNOSES, [])


def _write_task(folder: Path, task: str, cohort: Cohort, episodes: _Episodes) -> pd.DataFrame:
    """Write the series of a task; returns its examples, of which the lists are made."""
    stays = cohort.stays
    los, died = _los(stays), stays[MORTALITY].to_numpy() == 1
    limit = los
    if task == "in-hospital-mortality":
        limit = np.where(los >= FIRST_HOURS - EPS, FIRST_HOURS, np.nan)
    n_points = episodes.before(limit + EPS)
    files = episodes.name + "_timeseries.csv"
    kept = np.flatnonzero(n_points)
    for i in kept:
        first = episodes.start[i]
        file = folder / episodes.side[i] / files.iloc[i]
        episodes.lines.write(file, first, first + n_points[i])
    times = los[kept]
    if task in ("decompensation", "length-of-stay"):
        # Each full hour from the fifth to the last that has begun, once anything was measured.
        start = np.floor(episodes.hours[episodes.start[kept]]).astype(int)
        start = np.maximum(start, SHORTEST_HOURS) + 1
        n_times = np.maximum(np.ceil(los[kept] + EPS).astype(int) - start, 0)
        begin = np.repeat(np.cumsum(n_times) - n_times, n_times)
        times = np.repeat(start, n_times) + np.arange(n_times.sum()) - begin
        kept = np.repeat(kept, n_times)
    examples = pd.DataFrame({"split": stays["split"].iloc[kept], "stay": files.iloc[kept]})
    if task == "in-hospital-mortality":
        return examples.assign(y_true=died[kept].astype("int8"))
    examples["period_length"] = times.astype("float64")
    if task == "length-of-stay":
        return examples.assign(y_true=los[kept] - times)
    if task == "decompensation":
        # The benchmark takes the time of death from a date, which has whole seconds.
        lived = np.round(los[kept] * 3600) / 3600
        soon = died[kept] & (lived - times < DECOMPENSATION_HOURS)
        return examples.assign(y_true=soon.astype("int8"))
    return examples.join(stays[list(_phenotypes(cohort.schema))])


def _write_lists(folder: Path, parts: list[pd.DataFrame], titles: dict[str, str]) -> None:
    examples = pd.concat(parts, ignore_index=True)
    split = examples.pop("split")
    keys = [key for key in ("stay", "period_length") if key in examples]
    test = examples[split == "test"].sort_values(keys).index.to_numpy()
    train = np.random.default_rng(SHUFFLE_SEED).permutation(np.flatnonzero(split != "test"))
    val = (split == "val").to_numpy()[train]
    for name, rows in zip(LISTS, (train, test, train[~val], train[val], test), strict=True):
        chosen = examples.iloc[rows]
        columns = {
            column: _six_decimals(chosen[column])
            if chosen[column].dtype == "float64"
            else pa.array(chosen[column])
            for column in chosen
        }
        _Lines(columns, titles).write(folder / name)


def _los(stays: pd.DataFrame) -> np.ndarray:
    return stays["los_hours"].to_numpy(dtype="float64", na_value=np.nan)


def _known(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)


def _dates(times: np.ndarray) -> pa.Array:
    return pa.array(times.astype("datetime64[s]"))


def _six_decimals(values: pd.Series) -> pa.Array:
    return pa.array(values, pa.float64()).cast(pa.decimal128(18, 6))


def _text(values: pd.Series) -> pa.Array:
    """Text with quotes where CSV needs them."""
    text = pa.array(values.astype(object), pa.string())
    quoted = pc.replace_substring(text, '"', '""')
    quoted = pc.binary_join_element_wise("", quoted, "", '"')
    return pc.if_else(pc.match_substring_regex(text, '[,"\r\n]'), quoted, text)
