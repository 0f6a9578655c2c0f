"""All metrics of all rows, with progress; what is finished is kept and not computed again."""

import hashlib
import json
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from synehrgy.errors import UserError
from synehrgy.evaluation.metric import ROWS, SYNTHETIC, Bench, Found, Metric, Scale, Score
from synehrgy.evaluation.rows import fingerprint
from synehrgy.files import read_json, write_json
from synehrgy.provenance import versions

_PLAN = "plan.json"
# What of a run decides about attacks that know the model.
_OF_RUN = ("model.safetensors", "config.yaml", "tokenizer.json", "canaries.parquet")


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        real, synthetic: names of the cohorts.
        scores: one row per score and row of the comparison: metric, group, score, row, value, low,
            high (its 95 % interval), light (``good``, ``fair``, ``poor`` or missing).
        tables: by name; each with a column ``row``, the name of what was measured.
        skipped: metrics that could not be measured, and why.
        seconds: that each metric took.
        patients: how many each row has, and ``equal``: in comparisons of equally many.
    """

    real: str
    synthetic: str
    scores: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    skipped: dict[str, str]
    seconds: dict[str, float]
    patients: dict[str, int]

    def value(self, score: str, row: str = "synthetic") -> float:
        """One score; NaN if it is not there."""
        rows = self.scores[(self.scores["score"] == score) & (self.scores["row"] == row)]
        return float(rows["value"].iloc[0]) if len(rows) else float("nan")

    def summary(self) -> pd.DataFrame:
        """The synthetic patients' scores, without those in published form, and where they stand.

        Returns:
            One row per score: group, score, synthetic, low, high, light and a column for each other
            row of the comparison.
        """
        mine = self.scores[~self.scores["score"].str.startswith("published/")]
        others = mine.pivot(index="score", columns="row", values="value")
        columns = ["group", "score", "value", "low", "high", "light"]
        of_synthetic = mine.loc[mine["row"] == SYNTHETIC, columns]
        table = of_synthetic.rename(columns={"value": SYNTHETIC})
        shown = [row for row in ROWS if row in others and row != SYNTHETIC]
        return table.merge(others[shown], left_on="score", right_index=True, how="left")

    def _repr_html_(self) -> str:
        return str(self.summary().to_html(index=False, na_rep="", float_format="{:.4g}".format))


def compare(
    bench: Bench,
    metrics: Sequence[Metric],
    keep: Path | None = None,
    progress: bool = True,
    rows: Collection[str] = tuple(ROWS),
) -> Evaluation:
    """Measure.

    Args:
        bench: what to compare.
        metrics: what to measure.
        keep: a folder for what is finished. What it holds of the same comparison is not computed
            again; what it holds of another is thrown away.
        progress: show a bar.
        rows: those to measure, of ``bench.rows``.

    Raises:
        ValueError: a metric that returns a score without a scale.
    """
    kept = None if keep is None else _Kept(keep, bench)
    skipped: dict[str, str] = {}
    seconds: dict[str, float] = {}
    found: dict[tuple[str, str], Found] = {}
    todo = []
    for metric in metrics:
        why = metric.lacks(bench)
        if why is None:
            measured = [row for row in ROWS if row in rows and row in bench.rows]
            todo += [(metric, row) for row in measured if row in metric.rows]
        else:
            skipped[metric.name] = why
    with tqdm(total=len(todo), disable=not progress, unit="step", desc="Evaluating") as bar:
        for metric, row in todo:
            bar.set_postfix_str(f"{metric.name}, {row}")
            done = None if kept is None else kept.read(metric, row)
            if done is None:
                began = time.perf_counter()
                result = metric.measure(bench, row)
                _check(metric, result)
                tables = {name: _plain(table) for name, table in result.tables.items()}
                result = replace(result, tables=tables)
                done = (result, time.perf_counter() - began)
                if kept is not None:
                    kept.write(metric, row, *done)
            found[metric.name, row] = done[0]
            seconds[metric.name] = seconds.get(metric.name, 0.0) + done[1]
            bar.update()
    scales = {metric.name: metric.scales for metric in metrics}
    groups = {metric.name: metric.group for metric in metrics}
    return Evaluation(
        real=bench.train.schema.name,
        synthetic=bench.rows["synthetic"].schema.name,
        scores=_scores(found, scales, groups),
        tables=_tables(found),
        skipped=skipped,
        seconds=seconds,
        patients={n: len(row) for n, row in bench.rows.items()} | {"equal": bench.n_equal},
    )


def _check(metric: Metric, found: Found) -> None:
    unknown = sorted(set(found.scores) - set(metric.scales))
    if unknown:
        raise ValueError(f"{metric.name}: score {unknown[0]!r} has no scale.")


def _scores(
    found: dict[tuple[str, str], Found],
    scales: dict[str, dict[str, Scale]],
    groups: dict[str, str],
) -> pd.DataFrame:
    rows = []
    for (metric, row), result in found.items():
        for name, score in result.scores.items():
            scale = scales[metric][name]
            reference = scale.reference
            if isinstance(reference, str):
                other = found.get((metric, reference))
                of_other = None if other is None else other.scores.get(name)
                reference = float("nan") if of_other is None else of_other.value
            light = scale.light(score.value, reference, score.low, score.high)
            facts = (metric, groups[metric], name, row, score.value, score.low, score.high, light)
            rows.append(facts)
    columns = ["metric", "group", "score", "row", "value", "low", "high", "light"]
    return pd.DataFrame(rows, columns=columns)


def _tables(found: dict[tuple[str, str], Found]) -> dict[str, pd.DataFrame]:
    parts: dict[str, list[pd.DataFrame]] = {}
    for (_, row), result in found.items():
        for name, table in result.tables.items():
            marked = table.copy()
            marked.insert(0, "row", row)
            parts.setdefault(name, []).append(marked)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


class _Kept:
    """Finished results of one comparison, in a folder."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        plan = json.loads(json.dumps(_plan(bench)))
        if folder.exists() and _read_plan(folder) != plan:
            if any(folder.iterdir()) and not (folder / _PLAN).exists():
                raise UserError(
                    f"{folder} was not written by an evaluation, and will not be replaced. Choose "
                    "another folder to keep results in."
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _PLAN).exists():
            write_json(folder / _PLAN, plan)
        self.folder = folder

    def read(self, metric: Metric, row: str) -> tuple[Found, float] | None:
        """What was found and the seconds that it took; None if it is not there."""
        file = self._file(metric, row)
        if not file.exists():
            return None
        noted = read_json(file)
        if noted["settings"] != repr(vars(metric)):
            return None
        scores = {
            name: Score(*(np.nan if x is None else x for x in numbers))
            for name, numbers in noted["scores"].items()
        }
        tables = {
            name: _plain(pd.read_parquet(self.folder / parquet))
            for name, parquet in noted["tables"].items()
        }
        return Found(scores, tables), noted["seconds"]

    def write(self, metric: Metric, row: str, found: Found, seconds: float) -> None:
        """The tables first: with its note a result is complete."""
        tables = {}
        for i, (name, table) in enumerate(found.tables.items()):
            tables[name] = f"{metric.name}--{row}--{i}.parquet"
            table.to_parquet(self.folder / tables[name], index=False)
        scores = {
            name: [None if np.isnan(x) else x for x in (score.value, score.low, score.high)]
            for name, score in found.scores.items()
        }
        note: dict[str, Any] = {
            "scores": scores,
            "tables": tables,
            "seconds": seconds,
            "settings": repr(vars(metric)),
        }
        write_json(self._file(metric, row), note)

    def _file(self, metric: Metric, row: str) -> Path:
        return self.folder / f"{metric.name}--{row}.json"


def _read_plan(folder: Path) -> Any:
    file = folder / _PLAN
    return read_json(file) if file.exists() else None


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """All text in one type: Parquet does not keep which of several it was."""
    texts = [str(name) for name in table.select_dtypes(["string", "category"])]
    return table.astype(dict.fromkeys(texts, object))


def _hash(files: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()


def code_hash() -> str:
    """A hash of the program of the evaluation: results of another one are not those of this."""
    return _hash(sorted(Path(__file__).parent.rglob("*.py")))


def _plan(bench: Bench) -> dict[str, Any]:
    """All that the results depend on."""
    of_run = [] if bench.run is None else [bench.run / name for name in _OF_RUN]
    return {
        "rows": {name: fingerprint(row.cohort) for name, row in bench.rows.items()},
        "effort": asdict(bench.effort),
        "seed": bench.seed,
        "has_splits": bench.has_splits,
        "shown": [row for row in bench.rows if bench.may_show(row)],
        "uncut": {
            name: fingerprint(whole.cohort)
            for name, whole in bench.uncut.items()
            if whole is not bench.rows.get(name)
        },
        "run": {file.name: _hash([file]) for file in of_run if file.exists()},
        "code": code_hash(),
        "versions": versions(),
    }
