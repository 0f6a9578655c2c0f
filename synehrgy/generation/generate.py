"""From a configuration to a synthetic cohort on disk."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from synehrgy.cohort import Cohort, CohortWriter, export_csv, is_cohort, read_cohort
from synehrgy.device import compute_type, pick_device
from synehrgy.draws import Stream, uniforms
from synehrgy.errors import UserError
from synehrgy.files import write_json
from synehrgy.generation.constraint import Constraint
from synehrgy.generation.sampler import Sampling, sample
from synehrgy.model import GPT, Cache
from synehrgy.provenance import now, versions
from synehrgy.settings import GenerateConfig
from synehrgy.tokenizer import Tokenizer, decode, encode, label_contradictions
from synehrgy.tokenizer.grammar import END_LABELS
from synehrgy.training.checkpoint import Run, find_run, load_run

GENERATION_FILE = "generation.json"
CSV_FOLDER = "csv"

# Above every identifier of MIMIC-III, MIMIC-IV and eICU, so that a synthetic patient is never
# taken for a real one.
FIRST_ID = 1_000_000_000

# The cache of keys and values may take this share of the memory that is free.
_CACHE_SHARE = 0.5


def generate(config: GenerateConfig) -> Path:
    """Sample patients from a trained run and write them as a cohort.

    Writes ``<paths.synthetic>/<run>/``: the tables, generation.json (config, seed, versions,
    counts, seconds) and, with ``format=csv``, a folder of CSV files.

    Returns:
        The folder of the cohort.

    Raises:
        UserError: no such run, bins other than the model's, patients generated before.
    """
    folder = find_run(Path(config.paths.saved_models), config.run_name)
    out = Path(config.paths.synthetic) / config.run_name
    if is_cohort(out) and not config.overwrite:
        raise UserError(
            f"{out} already holds synthetic patients. overwrite=True replaces them; "
            "paths.synthetic=<folder> writes elsewhere."
        )
    device = pick_device(config.device)
    run = load_run(folder, device)
    if run.config.get("mode") == "fcast":
        raise UserError(
            f"{config.run_name!r} was trained to forecast (mode=fcast), not to make whole "
            "patients. Train a run with mode=generate."
        )
    bin_type = run.tokenizer.settings.bin_type
    if config.bin_type not in (None, bin_type):
        raise UserError(
            f"bin_type={config.bin_type}, but the run {config.run_name!r} was trained with "
            f"{bin_type} bins. Leave bin_type out, or train a run with "
            f"preprocess.bin_type={config.bin_type}."
        )
    run.model.to(compute_type(device))
    batch_size = min(config.batch_size, _rows_that_fit(run.model, device), config.n_samples)
    if batch_size < min(config.batch_size, config.n_samples):
        print(f"Sampling {batch_size} patients side by side: more may not fit in memory.")
    prompts = _real_covariates(run, config.seed) if config.fix_covars else None
    how = Sampling(config.temperature, config.top_k, config.top_p, config.repetition_penalty)

    counts: Counter[str] = Counter()
    started, began = now(), time.perf_counter()

    def complete(aside: Path) -> None:
        report = {
            "config": asdict(config),
            "seed": config.seed,
            "started": started,
            "seconds": round(time.perf_counter() - began, 1),
            "device": str(device),
            "versions": versions(),
            **counts,
        }
        write_json(aside / GENERATION_FILE, report)
        if config.format == "csv":
            export_csv(aside, aside / CSV_FOLDER)

    schema = replace(run.tokenizer.schema, name=config.run_name, source="synehrgy")
    provenance = {
        "model": config.run_name,
        "trained_on": run.tokenizer.schema.name,
        "config": asdict(config),
        "seed": config.seed,
        "versions": versions(),
    }
    next_stay = FIRST_ID
    with (
        CohortWriter(out, schema, provenance, complete) as writer,
        tqdm(total=config.n_samples, desc="generating", unit="patient") as bar,
    ):
        for sampled in sample(
            run.model,
            run.tokenizer,
            config.n_samples,
            batch_size=batch_size,
            how=how,
            seed=config.seed,
            prompts=prompts,
            max_segments=config.max_segments,
            rule_out_contradictions=config.label_contradictions == "rule_out",
            progress=lambda n: bar.update(n),
        ):
            numbers = sampled.records.subject_ids
            records = replace(sampled.records, subject_ids=numbers + FIRST_ID)
            cohort = decode(
                run.tokenizer,
                records,
                config.seed,
                int(numbers[0]),
                next_stay,
                config.value_decoding,
                independent=True,
            )
            writer.write(cohort.stays, cohort.codes, cohort.measurements)
            next_stay += len(cohort.stays)
            counts.update(
                records=len(records),
                tokens=len(records.tokens),
                segments=sampled.n_segments,
                forced_tokens=sampled.n_forced,
                records_closed_by_limit=sampled.n_closed,
            )
            counts.update(label_contradictions(run.tokenizer, records))
    print(summary(counts))
    return out


def summary(counts: Mapping[str, int]) -> str:
    """What was generated, and what the limits took from it, in words."""
    lines = [
        f"{counts['records']:,} patients, {counts['stays']:,} stays, {counts['tokens']:,} tokens "
        f"in {counts['segments']:,} contexts",
        f"stays with a code that contradicts their labels: {counts['codes_without_label']:,}; with "
        f"a label that none of their codes explains: {counts['label_without_codes']:,}",
    ]
    if counts["records_closed_by_limit"]:
        lines.append(
            f"{counts['records_closed_by_limit']:,} records were closed by the limit of their last "
            "context (max_segments) before the model ended them: train longer, or raise the limit"
        )
    return "\n".join(lines)


def _rows_that_fit(model: GPT, device: torch.device) -> int:
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    per_row = Cache.bytes_per_row(model.config, model.token_embedding.weight.dtype)
    return max(1, int(_CACHE_SHARE * free / per_row))


def _real_covariates(
    run: Run, seed: int
) -> Callable[[NDArray[np.int64]], Sequence[NDArray[np.int64]]]:
    """Prompts that state covariates and labels of real first admissions, drawn at random.

    They are read from the cohort that the model was trained on, because a model's folder holds no
    patient's data.
    """
    path = Path(run.config["data"]["path"])
    if not is_cohort(path):
        raise UserError(
            f"fix_covars=True draws from the cohort that the model was trained on, but {path} "
            "holds no cohort any more."
        )
    grammar = run.tokenizer.grammar
    constraint = Constraint(run.tokenizer, run.model.config.n_ctx, torch.device("cpu"))
    room = run.model.config.n_ctx - int(grammar.distance[grammar.index(END_LABELS)])
    if run.tokenizer.settings.long_records == "continue" and constraint.longest_opening > 0:
        room = constraint.longest_opening
    openings = [
        opening
        for opening in first_openings(run.tokenizer, read_cohort(path).select(split="train"))
        if len(opening) <= room
    ]
    if not openings:
        raise UserError(
            f"fix_covars=True: no real patient's covariates and labels leave room for a record in "
            f"the model's context of {run.model.config.n_ctx} tokens."
        )

    def prompts(patients: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
        u = uniforms(seed, Stream.PROMPT, patients, 0)
        return [openings[i] for i in (u * len(openings)).astype(np.int64)]

    return prompts


def first_openings(tokenizer: Tokenizer, cohort: Cohort) -> list[NDArray[np.int64]]:
    """The tokens of each patient from ``<s>`` to the labels of the first admission."""
    first = cohort.stays[cohort.stays["stay_index"] == 0].reset_index(drop=True)
    empty = replace(
        cohort, stays=first, codes=cohort.codes[:0], measurements=cohort.measurements[:0]
    )
    records = encode(tokenizer, empty)
    end = tokenizer.token(END_LABELS)
    openings = []
    for i in range(len(records)):
        record = records[i].astype(np.int64)
        openings.append(record[: int(np.flatnonzero(record == end)[0]) + 1])
    return openings
