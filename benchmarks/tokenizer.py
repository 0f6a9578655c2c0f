"""The tokenizer: speed beside a plain loop, and what is lost between a cohort and its tokens.

    python -m benchmarks.tokenizer data/processed/simulated data/processed/mimic3_demo

For each cohort: tokens per second of encoding and decoding, on one core, beside the usual way, a
loop over patients, rows and tokens; the Kolmogorov-Smirnov distance between the train split and
the same encoded and decoded, per series, for each way of decoding; what the clock costs in tokens
and saves in hours of drift; the share of tokens that training sees. Then the cost of the
constraint of sampling beside a step of the model. One JSON line is printed, tables go to stderr,
and all figures are kept in benchmarks/results/tokenizer.json.
"""

import argparse
import bisect
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.machine import cpu_name
from synehrgy.cohort import Cohort, read_cohort
from synehrgy.files import write_json
from synehrgy.generation.constraint import Constraint, RecordState
from synehrgy.generation.sampler import Sampling, draw, probabilities
from synehrgy.model import GPT, Cache, GPTConfig
from synehrgy.provenance import versions
from synehrgy.settings import VALUE_DECODINGS, TokenSettings
from synehrgy.tokenizer import Records, Tokenizer, decode, encode, find_faults
from synehrgy.tokenizer.grammar import START
from synehrgy.tokenizer.quantities import Bins
from synehrgy.tokenizer.segments import cut_records

RESULTS = Path(__file__).parent / "results" / "tokenizer.json"
# A series with fewer values has too few for the distance to mean much.
LEAST_VALUES = 1000
CONTEXT = 1024


def usual_encode(tokenizer: Tokenizer, cohort: Cohort) -> list[list[int]]:
    """Tokens of every patient by a loop over patients, stays and rows.

    For a tokenizer with bins and the clock; gives the same tokens as ``encode``.
    """
    number = {text: i for i, text in enumerate(tokenizer.vocabulary)}
    codes = dict(list(cohort.codes.groupby("stay_id")))
    measurements = dict(list(cohort.measurements.groupby("stay_id")))
    sequences = []
    for _, stays in cohort.stays.groupby("subject_id"):
        words = ["<s>"]
        for _, stay in stays.iterrows():
            words += _usual_facts(tokenizer, stay)
            listed = codes.get(stay["stay_id"])
            words += [*_usual_codes(tokenizer, number, listed), "</code>"]
            series, minute = _usual_series(tokenizer, measurements.get(stay["stay_id"]))
            words += [*series, "</ts>"]
            if not np.isnan(stay["los_hours"]):
                left = max(0, int(stay["los_hours"] * 60 + 1e-6) - minute)
                words += _usual_duration("discharge +", left)
            words.append("</adm>")
        sequences.append([number[word] for word in [*words, "</s>"]])
    return sequences


def _usual_bin(numbers: Bins, value: float) -> str:
    place = min(max(bisect.bisect_left(numbers.edges, value) - 1, 0), len(numbers.edges) - 2)
    return f"({numbers.edges[place]:.6g}, {numbers.edges[place + 1]:.6g}]"


def _usual_facts(tokenizer: Tokenizer, stay: "pd.Series[Any]") -> list[str]:
    words = []
    for covariate in tokenizer.schema.covariates:
        value, numbers = stay[covariate.name], tokenizer.covariate_numbers.get(covariate.name)
        text = value if numbers is None else _usual_bin(numbers, value)  # type: ignore[arg-type]
        words.append(f"{covariate.name}={'missing' if pd.isna(value) else text}")
    words.append("</covar>")
    for label in tokenizer.schema.labels_of("outcome"):
        words.append(f"{label.column}={stay[label.column]}")
    for label in tokenizer.schema.labels_of("phenotype"):
        if stay[label.column] == 1:
            words.append(label.column)
    return [*words, "</label>"]


def _usual_codes(
    tokenizer: Tokenizer, number: dict[str, int], listed: pd.DataFrame | None
) -> list[str]:
    words: list[str] = []
    if listed is None:
        return words
    for system in tokenizer.codes:
        for _, row in listed.iterrows():
            word = f"{system}:{row['code']}"
            if row["system"] == system and word in number and word not in words:
                words.append(word)
    return words


def _usual_series(tokenizer: Tokenizer, rows: pd.DataFrame | None) -> tuple[list[str], int]:
    words: list[str] = []
    minute = 0
    if rows is None:
        return words, minute
    order = {name: i for i, name in enumerate(tokenizer.variables)}
    for hours, point in rows.groupby("hours"):
        values = []
        for _, row in point.iterrows():
            numbers = tokenizer.variable_numbers.get(row["variable"])
            text = row["level"] if numbers is None else _usual_bin(numbers, row["value"])  # type: ignore[arg-type]
            values.append((order[row["variable"]], f"{row['variable']}={text}"))
        now = int(float(hours) * 60 + 1e-6)  # type: ignore[arg-type]
        words += [word for _, word in sorted(values)] + _usual_duration("+", now - minute)
        minute = now
    return words, minute


def _usual_duration(sign: str, minutes: int) -> list[str]:
    if minutes == 0:
        return [f"{sign}0 min"]
    words = [f"{sign}7 d"] * (minutes // 10080)
    for length, unit, most in ((1440, "d", 7), (60, "h", 24), (1, "min", 60)):
        part = minutes // length % most
        words += [f"{sign}{part} {unit}"] if part else []
    return words


def usual_decode(tokenizer: Tokenizer, records: Records) -> tuple[pd.DataFrame, ...]:
    """Tables from tokens by a loop over tokens, a frame per patient; numbers drawn uniformly."""
    rng = np.random.default_rng(0)
    patients: list[tuple[pd.DataFrame, ...]] = []
    n_stays = 0
    for i in range(len(records)):
        words = [tokenizer.vocabulary[token] for token in records[i].tolist()]
        tables = _usual_patient(tokenizer, words, n_stays, rng)
        n_stays += len(tables[0])
        patients.append(tuple(pd.DataFrame(rows) for rows in tables))
    return tuple(pd.concat(frames, ignore_index=True) for frames in zip(*patients, strict=True))


def _usual_patient(
    tokenizer: Tokenizer, words: list[str], stay_id: int, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], ...]:
    minutes = {"d": 1440, "h": 60, "min": 1}
    stays, codes, measurements = [], [], []
    stay: dict[str, Any] = {}
    open_: list[dict[str, Any]] = []
    elapsed, closed = 0, False
    for text in words:
        name, _, value = text.partition("=")
        system, _, code = text.partition(":")
        if text == "<s>" or text.startswith("</"):
            if text == "</adm>":
                stays.append({"stay_id": stay_id, **stay})
                stay, elapsed, stay_id = {}, 0, stay_id + 1
        elif text.startswith(("+", "discharge +")):
            amount, unit = text.removeprefix("discharge ")[1:].split()
            elapsed, closed = elapsed + int(amount) * minutes[unit], True
        elif system in tokenizer.codes:
            codes.append({"stay_id": stay_id, "system": system, "code": code})
        elif name in tokenizer.variables:
            if closed:
                open_, closed = [], False
            row: dict[str, Any] = {"stay_id": stay_id, "variable": name}
            if value.startswith("("):
                low, high = map(float, value[1:-1].split(","))
                row["value"] = rng.uniform(low, high)
            else:
                row["level"] = value
            open_.append(row)
            measurements.append(row)
        else:
            stay[name] = value or 1
        if closed:
            for row in open_:
                row["hours"] = elapsed / 60
    return stays, codes, measurements


def speed(tokenizer: Tokenizer, cohort: Cohort, usual_patients: int) -> dict[str, Any]:
    """Tokens per second, ours on the whole cohort, the usual way on its first patients."""
    records, encoding = _timed(lambda: encode(tokenizer, cohort))
    _, validating = _timed(lambda: find_faults(tokenizer, records))
    _, decoding = _timed(lambda: decode(tokenizer, records))
    few = cohort.select(subjects=cohort.stays["subject_id"].unique()[:usual_patients].tolist())
    sequences, usual_encoding = _timed(lambda: usual_encode(tokenizer, few))
    some = encode(tokenizer, few)
    if np.concatenate(sequences).tolist() != some.tokens.tolist():
        raise RuntimeError("The two ways do not give the same tokens.")
    tables, usual_decoding = _timed(lambda: usual_decode(tokenizer, some))
    if len(tables[2]) != len(decode(tokenizer, some).measurements):
        raise RuntimeError("The two ways do not give the same tables.")
    n, n_usual = len(records.tokens), len(some.tokens)
    result: dict[str, Any] = {"tokens": n}
    result["validate_tokens_per_second"] = round(n / validating)
    for stage, ours, usual in (
        ("encode", encoding, usual_encoding),
        ("decode", decoding, usual_decoding),
    ):
        result[f"{stage}_tokens_per_second"] = round(n / ours)
        result[f"{stage}_usual_tokens_per_second"] = round(n_usual / usual)
        result[f"{stage}_times_faster"] = round(n / ours / (n_usual / usual), 1)
    return result


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = function()
    return result, time.perf_counter() - began


def ks(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov distance of two samples; numbers are equal up to nine decimals."""
    one, other = (np.sort(np.round(x, 9)) for x in (one, other))
    grid = np.union1d(one, other)
    cdf = [np.searchsorted(x, grid, side="right") / len(x) for x in (one, other)]
    return float(np.abs(cdf[0] - cdf[1]).max())


def gaps(cohort: Cohort) -> NDArray[np.float64]:
    """Hours between time points, the first from admission, to the microsecond or so."""
    points = cohort.measurements[["stay_id", "hours"]].drop_duplicates()
    passed = points.groupby("stay_id")["hours"].diff().fillna(points["hours"])
    return np.round(passed.to_numpy(), 6)


def round_trip(train: Cohort, settings: TokenSettings) -> dict[str, dict[str, float]]:
    """Distance between a cohort and the same encoded and decoded, by what and way of decoding."""
    tokenizer = Tokenizer.fit(train, settings)
    records = encode(tokenizer, train)
    table: dict[str, dict[str, float]] = {}
    real = _samples(train)
    for how in VALUE_DECODINGS:
        back = _samples(decode(tokenizer, records, value_decoding=how))
        for name, values in real.items():
            table.setdefault(name, {"values": len(values)})[how] = round(ks(values, back[name]), 5)
    return table


def _samples(cohort: Cohort) -> dict[str, NDArray[np.float64]]:
    """Numbers of a cohort by what they are, of which there are enough to compare."""
    found = {
        c.name: cohort.stays[c.name].dropna().to_numpy()
        for c in cohort.schema.covariates
        if c.kind == "continuous"
    }
    found["gaps"] = gaps(cohort)
    for name, values in cohort.measurements.groupby("variable", observed=True)["value"]:
        found[str(name)] = values.dropna().to_numpy()
    return {name: values for name, values in found.items() if len(values) >= LEAST_VALUES}


def clocks(train: Cohort) -> dict[str, dict[str, float]]:
    """Tokens that each way of writing time takes, and how far time points go astray."""
    result = {}
    for time_ in ("clock", "gap"):
        tokenizer = Tokenizer.fit(train, TokenSettings(time=time_))
        records = encode(tokenizer, train)
        back = decode(tokenizer, records, independent=True)
        hours = (frame["hours"].to_numpy() for frame in (back.measurements, train.measurements))
        off = np.abs(np.subtract(*hours))
        is_time = tokenizer.grammar.is_time[tokenizer.kind_of]
        result[time_] = {
            "tokens": len(records.tokens),
            "tokens_of_time": int(is_time[records.tokens].sum()),
            "hours_off_99_percent": round(float(np.quantile(off, 0.99)), 4),
            "hours_off_most": round(float(off.max()), 4),
        }
    return result


def long_records(tokenizer: Tokenizer, records: Records) -> dict[str, Any]:
    """Share of the train split's tokens that training sees, with and without continuation."""
    train = np.flatnonzero(records.splits == 0)
    total = int(records.lengths[train].sum())
    cut = replace(tokenizer, settings=replace(tokenizer.settings, long_records="truncate"))
    result: dict[str, Any] = {"n_ctx": CONTEXT}
    for name, mine in (("continue", tokenizer), ("truncate", cut)):
        segments, seconds = _timed(partial(cut_records, mine, records, train, CONTEXT))
        result[name] = {
            "segments": len(segments),
            "share_seen": round(float((segments.stop - segments.start).sum() / total), 4),
            "share_of_heads": round(float(segments.head_lengths.sum() / total), 4),
            "seconds": round(seconds, 2),
        }
    return result


@torch.inference_mode()
def constraint_cost(tokenizer: Tokenizer, batch: int, steps: int = 30) -> dict[str, Any]:
    """Seconds of the constraint and of the model in a sampling step, at the paper's shape."""
    torch.manual_seed(0)
    n_tokens, cpu = len(tokenizer.vocabulary), torch.device("cpu")
    model = GPT(GPTConfig(n_tokens, CONTEXT)).eval()
    constraint = Constraint(tokenizer, CONTEXT, cpu, rule_out=True)
    state = RecordState(constraint, batch)
    # The kernel is compiled or loaded when it is first called.
    model.step(torch.zeros(1, dtype=torch.int64), Cache(model.config, 1, cpu, torch.float32, 1))
    cache = Cache(model.config, batch, cpu, torch.float32, capacity=steps)
    everyone = torch.ones(batch, dtype=torch.bool)
    tokens = torch.full((batch,), tokenizer.token(START))
    seconds = dict.fromkeys(("constraint", "model"), 0.0)
    for _ in range(steps):
        began = time.perf_counter()
        logits = model.logits(model.step(tokens, cache))
        seconds["model"] += time.perf_counter() - began
        began = time.perf_counter()
        state.advance(tokens, everyone)
        mask, _ = constraint.mask(state, cache.lengths, last_segment=~everyone)
        seconds["constraint"] += time.perf_counter() - began
        tokens = draw(probabilities(logits, mask, None, Sampling()), torch.rand(batch))
    return {
        "batch": batch,
        "vocabulary": n_tokens,
        "positions": steps,
        **{f"{name}_ms_per_step": round(1000 * s / steps, 2) for name, s in seconds.items()},
        "share_of_model_step": round(seconds["constraint"] / seconds["model"], 3),
    }


def _report(name: str, tables: dict[str, dict[str, dict[str, float]]]) -> None:
    for bin_type, table in tables.items():
        print(f"\n{name}, {bin_type} bins: KS distance after a round trip", file=sys.stderr)
        frame = pd.DataFrame(table).T
        frame["values"] = frame["values"].astype(int)
        print(frame.to_string(), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cohort", type=Path, nargs="+", help="folder of a cohort")
    parser.add_argument(
        "--usual-patients", type=int, default=60, help="patients for the usual way of encoding"
    )
    parser.add_argument("--batch", type=int, default=1024, help="records in a sampling step")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"stage": "tokenizer", "cohorts": []}
    for path in options.cohort:
        cohort = read_cohort(path)
        tokenizer, fitting = _timed(partial(Tokenizer.fit, cohort))
        train = cohort.select(split="train")
        tables = {
            bin_type: round_trip(train, TokenSettings(bin_type=bin_type, time="gap"))
            for bin_type in ("uniform", "quantile")
        }
        _report(cohort.schema.name, tables)
        result["cohorts"].append(
            {
                "cohort": cohort.schema.name,
                **cohort.counts(),
                "fit_seconds": round(fitting, 2),
                **speed(tokenizer, cohort, options.usual_patients),
                "clocks": clocks(train),
                "long_records": long_records(tokenizer, encode(tokenizer, cohort)),
                "worst_ks": {
                    bin_type: pd.DataFrame(table).T[[*VALUE_DECODINGS]].max().to_dict()
                    for bin_type, table in tables.items()
                },
                "ks": tables,
            }
        )
        result["cohorts"][-1]["constraint"] = constraint_cost(tokenizer, options.batch)
    result |= {"cpu": cpu_name(), "cores_used": 1, "versions": versions()}
    write_json(RESULTS, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
