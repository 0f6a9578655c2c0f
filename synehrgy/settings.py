"""Every setting of every command: its type, its default and what it means.

These dataclasses are the schemas that Hydra checks the files in ``configs/`` and the command line
against, and the text of ``--help``.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from synehrgy.errors import UserError, nearest


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    alias: str | None = None,
    is_name: bool = False,
    is_path: bool = False,
    keyword: str | None = None,
    by_group: bool = False,
    holds_rest: bool = False,
    is_text: bool = False,
) -> Any:
    """A field with its meaning, its allowed values and a short name for the command line.

    ``is_name`` marks the name of a folder, which must not lead elsewhere; ``is_path`` a path, which
    is relative to the working directory in which the command was given, ``keyword`` a word that is
    no path all the same, ``by_group`` one whose default stands in the files of a group,
    ``holds_rest`` a mapping that takes the keys which its group does not have, ``is_text`` texts
    that may look like numbers.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "alias": alias,
        "is_name": is_name,
        "is_path": is_path,
        "keyword": keyword,
        "by_group": by_group,
        "holds_rest": holds_rest,
        "is_text": is_text,
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def group(kind: type) -> Any:
    """A nested group of settings."""
    return field(default_factory=kind)


BIN_TYPES = ("uniform", "quantile", "raw")
CLOCKS = ("clock", "gap")
LONG_RECORDS = ("continue", "truncate")
VALUE_DECODINGS = ("empirical", "uniform", "center")
RARE_CODES = ("drop", "parent", "keep")

# Published edges (SynEHRgy, arXiv 2411.13428): years of age, and hours between time points.
AGE_EDGES = [18.0, *(float(years) for years in range(20, 91, 5))]
GAP_EDGES = [
    *(0.0, 0.5, 1.5, 2.5, 3.5, 6.5, 10.5, 16.5, 26.5, 48.0),
    *(48.1, 60.1, 80.1, 110.1, 150.1, 200.1),
]


# What may not change between the admissions of a patient, where the cohort has such a covariate.
WITHIN_PATIENT = {"age": "rising", "gender": "constant"}


@dataclass
class VariableSettings:
    """Exceptions for one series; null: as for all."""

    bin_type: str | None = setting(None, "bins of this series", choices=BIN_TYPES)
    n_bins: int | None = setting(None, "bins of this series, at most", minimum=1)
    outlier_rule: bool | None = setting(None, "leave far tails out of its fit")
    edges: list[float] | None = setting(None, "its bin edges, instead of fitted ones")


@dataclass
class TokenSettings:
    """How records become tokens."""

    bin_type: str = setting(
        "uniform",
        "continuous values: bins of equal width, of equal counts, or the digits themselves",
        choices=BIN_TYPES,
    )
    n_bins: int = setting(10, "bins per continuous series, at most", minimum=1)
    outlier_rule: bool = setting(True, "leave far tails out when bin edges are fitted")
    variables: dict[str, VariableSettings] = setting(
        {}, "exceptions by series or covariate: '{Heart Rate: {bin_type: raw}}'"
    )
    covariate_edges: dict[str, list[float] | None] = setting(
        {"age": AGE_EDGES}, "bin edges of covariates, instead of fitted ones; null: fitted"
    )
    time: str = setting(
        "clock",
        "time points: to the minute without drift, or as published, the bin of each gap",
        choices=CLOCKS,
    )
    gap_edges: list[float] = setting(
        GAP_EDGES, "bin edges of the time between two time points, in hours, for time=gap"
    )
    long_records: str = setting(
        "continue",
        "records longer than the context: go on in further segments, or are cut as published",
        choices=LONG_RECORDS,
    )
    rare_codes: str = setting(
        "drop",
        "codes rarer than min_code_count: drop, to their ICD parent, keep",
        choices=RARE_CODES,
    )
    min_code_count: int = setting(6, "codes that occur less often than this are rare", minimum=1)
    count_codes_in: str = setting(
        "train",
        "where codes are counted: the train split, or all as published",
        choices=("train", "all"),
    )
    within_patient: dict[str, str] = setting(
        WITHIN_PATIENT, "covariates that are rising, constant or free over a patient's admissions"
    )


@dataclass
class TokenOverrides:
    """What training may ask to be different from the tokens at hand; null: as preprocessed."""

    bin_type: str | None = setting(
        None, "retokenise with these bins; null: as preprocessed", choices=BIN_TYPES
    )
    n_bins: int | None = setting(None, "likewise: bins per series", minimum=1)
    outlier_rule: bool | None = setting(None, "likewise: leave far tails out of the fit")
    variables: dict[str, VariableSettings] = setting(
        {}, "likewise: exceptions by series, if any are given"
    )
    time: str | None = setting(None, "likewise: how time points are written", choices=CLOCKS)
    long_records: str | None = setting(
        None, "likewise: what becomes of records longer than the context", choices=LONG_RECORDS
    )
    rare_codes: str | None = setting(
        None, "likewise: what becomes of rare codes", choices=RARE_CODES
    )
    min_code_count: int | None = setting(None, "likewise: rarest code kept", minimum=1)


@dataclass
class PreprocessSettings(TokenSettings):
    """Extraction from raw tables, then tokens."""

    profile: str = setting(
        "paper",
        "item sets and cleaning: as published, or with clinical faults corrected",
        choices=("paper", "clinical"),
    )
    memory_limit: str = setting("4GB", "memory that the extraction may use; the rest goes to disk")
    threads: int | None = setting(None, "threads of the extraction; null: all cores", minimum=1)


@dataclass
class SimulationSettings:
    """The simulated hospital, for data=simulated."""

    n_patients: int = setting(
        3000, "patients to simulate; about seven in ten are in the cohort", minimum=1
    )
    seed: int = setting(0, "another seed gives other patients of the same distribution", minimum=0)
    noise_share: float = setting(
        0.0,
        "share of chart rows that no series uses; about 0.83 in the real database",
        minimum=0.0,
        maximum=0.95,
    )
    processes: int = setting(1, "processes that simulate", minimum=1)


@dataclass
class MedsSettings:
    """How a MEDS dataset is read, for data=meds."""

    mapping: str | None = setting(
        None,
        "what its codes mean: mimic3, mimic4 or a YAML file; null: the one that an export of ours "
        "has in it. docs/meds.md explains it",
    )
    worker: int | None = setting(
        None,
        "extract only this worker's share of the shards; the same command without it joins them",
        minimum=0,
    )
    n_workers: int = setting(1, "workers that share the shards", minimum=1)


@dataclass
class DataSettings:
    """Where patients come from."""

    name: str = setting(MISSING, "name of the data set", is_name=True, by_group=True)
    source: str = setting(
        MISSING,
        "how its raw files are read; cohort: it is one already, as of another hospital",
        choices=("mimic3", "mimic4", "eicu", "simulated", "tables", "meds", "cohort"),
        by_group=True,
    )
    raw_dir: str | None = setting(None, "folder of the raw files", is_path=True)
    split_dir: str | None = setting(
        None,
        "folder of testset.csv and valset.csv; benchmark: those of mimic3-benchmarks, downloaded; "
        "null: split by a hash of the patient",
        is_path=True,
        keyword="benchmark",
    )
    url: str | None = setting(
        None,
        "address at which the raw files are open to all: without raw_dir they are downloaded",
        is_text=True,
    )
    download_dir: str | None = setting(None, "where downloaded raw files go", is_path=True)
    declaration: str | None = setting(
        None,
        "data=tables: the file that says which table and column is what; null: tables.yaml in "
        "data.raw_dir",
        is_path=True,
    )
    path: str = setting(MISSING, "folder of the cohort and its tokens", is_path=True, by_group=True)
    simulation: SimulationSettings = group(SimulationSettings)
    meds: MedsSettings = group(MedsSettings)


# Inside the repository, whatever the working directory.
DEFAULT_PATHS = {
    "saved_models": "saved_models",
    "synthetic": "data/synthetic",
    "results": "Results",
}


def _default_path(name: str) -> str:
    return f"${{repo:{DEFAULT_PATHS[name]}}}"


@dataclass
class PathSettings:
    """Where results go."""

    saved_models: str = setting(
        _default_path("saved_models"), "one folder per trained model", is_path=True
    )
    synthetic: str = setting(
        _default_path("synthetic"), "one folder per synthetic cohort", is_path=True
    )
    results: str = setting(_default_path("results"), "one folder per evaluation", is_path=True)


@dataclass
class ModelSettings:
    """Shape of the GPT."""

    name: str = setting(MISSING, "name of the shape", by_group=True)
    n_layer: int = setting(4, "transformer blocks", minimum=1)
    n_head: int = setting(4, "attention heads", minimum=1)
    n_embd: int = setting(384, "width of the residual stream", minimum=1)
    dropout: float = setting(0.1, "dropout probability in training", minimum=0.0, maximum=0.9)
    n_kv_head: int | None = setting(
        None,
        "heads of keys and values, each shared by several of queries: a smaller cache to sample "
        "from; null: n_head",
        minimum=1,
    )
    positions: str = setting(
        "learned", "positions: learned, or rotary", choices=("learned", "rotary")
    )
    norm: str = setting("layer", "layer norm or RMS norm", choices=("layer", "rms"))
    mlp: str = setting("gelu", "feed-forward network", choices=("gelu", "relu2", "swiglu"))
    qk_norm: bool = setting(False, "normalise queries and keys")
    bias: bool = setting(True, "biases in linear layers and norms")
    tied: bool = setting(True, "output layer with the weights of the token embedding")
    shared: bool = setting(
        False,
        "tokens that are alike (bins of a series, codes of a category) share a part of their "
        "embedding in training",
    )


@dataclass
class HyperParameters:
    """Optimisation."""

    n_ctx: int = setting(
        1024,
        "context in tokens; longer records go on in further segments (preprocess.long_records)",
        minimum=16,
    )
    mini_batch: int = setting(64, "records or segments per forward pass, at most", minimum=1)
    n_accum: int = setting(2, "an optimiser step has n_accum * mini_batch of them", minimum=1)
    max_tokens: int | None = setting(
        None,
        "tokens per forward pass, at most: bounds the memory, changes no step; null: 8,192 on "
        "a CPU, 65,536 on a GPU",
        minimum=16,
    )
    precision: str = setting(
        "auto",
        "type of the products: bf16 where the device is fast at it, or one of them",
        choices=("auto", "fp32", "bf16"),
    )
    compile: str = setting(
        "auto",
        "compile the model: auto does so on a GPU",
        choices=("auto", "True", "False"),
    )
    parallel: str = setting(
        "ddp",
        "with torchrun: each process holds all weights, or trains a share of them (fsdp, for large "
        "models)",
        choices=("ddp", "fsdp"),
    )
    lr: float = setting(MISSING, "peak learning rate", above=0.0, by_group=True)
    min_lr_ratio: float = setting(
        0.0, "learning rate at the end, as a share of the peak", minimum=0.0, maximum=1.0
    )
    warmup: float = setting(
        0.02, "share of all steps in which the rate rises", minimum=0.0, maximum=1.0
    )
    weight_decay: float = setting(0.01, "weight decay of the matrices", minimum=0.0)
    optimiser: str = setting(
        MISSING,
        "adamw, or muon for the matrices of the blocks (and AdamW for the rest)",
        choices=("adamw", "muon"),
        by_group=True,
    )


@dataclass
class LossSettings:
    """What the model is asked to predict."""

    soft_labels: bool = setting(
        False,
        "spread the target of a value bin over its neighbours, in training only",
        alias="soft_labels",
    )
    n_next: int = setting(
        1, "tokens ahead that it learns to predict, in training only; the losses add up", minimum=1
    )


@dataclass
class TrainSettings:
    """The training loop."""

    epochs: int = setting(20, "passes over the train split, at most", minimum=1)
    ratio: float = setting(
        1.0, "share of the patients of the train split to train on", above=0.0, maximum=1.0
    )
    patience: int = setting(5, "epochs without a better validation loss before it stops", minimum=1)
    gclip: float = setting(1.0, "largest norm of the gradient", above=0.0)
    save_minutes: float = setting(
        10.0, "a checkpoint to resume from after so long, besides one per epoch", minimum=0.0
    )
    label_shuffle: bool = setting(
        False, "phenotypes in a new random order in each epoch", alias="label_shuffle"
    )
    ts_shuffle: bool = setting(
        False, "values of a time point in a new random order in each epoch", alias="ts_shuffle"
    )
    code_shuffle: bool = setting(
        False,
        "codes of a stay in a new random order, within their system, in each epoch",
        alias="code_shuffle",
    )
    ignore_ts: bool = setting(False, "train without the series", alias="ignore_ts")
    mask_prob: float = setting(
        0.0,
        "share of input tokens that are hidden, anew in each epoch; their targets stay",
        minimum=0.0,
        maximum=1.0,
        alias="mask_prob",
    )
    canaries: int = setting(
        0,
        "made-up patients to train on as well, so that an evaluation can measure what is memorised",
        minimum=0,
    )
    canary_repeats: int = setting(
        1, "how often each of them stands among the training records", minimum=0
    )


@dataclass
class GuaranteeSettings:
    """Differential privacy of each patient of the train split."""

    epsilon: float | None = setting(
        None,
        "train with differential privacy: how much a patient may change what becomes likely, as "
        "the factor exp(epsilon); null: without",
        minimum=0.01,
        maximum=50.0,
    )
    delta: float | None = setting(
        None,
        "chance that this does not hold; null: a tenth of one over the number of patients",
        above=0.0,
        maximum=0.01,
    )
    clip: float = setting(
        1.0, "largest norm of the gradient of one patient; what is longer is shortened", above=0.0
    )
    noise_seed: int | None = setting(
        None,
        "seed of the noise, to repeat a run; null: from the operating system. Who knows it can "
        "take the noise away, so a run with a seed has no guarantee",
        minimum=0,
    )


@dataclass
class WandbSettings:
    """Weights & Biases; online only when WANDB_API_KEY is set (in the environment or in .env)."""

    project: str = setting("synehrgy", "project to log to")
    mode: str = setting(
        "online",
        "online if there is a key, offline (a folder to upload later, no key needed), disabled",
        choices=("online", "offline", "disabled"),
    )


@dataclass
class PreprocessConfig:
    """preprocess.py: raw tables to a cohort and its tokens."""

    overwrite: bool = setting(False, "replace a cohort of other raw files")
    data: DataSettings = group(DataSettings)
    preprocess: PreprocessSettings = group(PreprocessSettings)
    paths: PathSettings = group(PathSettings)


@dataclass
class TrainConfig:
    """train.py: tokens to a model."""

    run_name: str = setting(
        MISSING, "name of the run and of its folder in paths.saved_models", is_name=True
    )
    seed: int = setting(0, "seed of the weights, the order of records and dropout", minimum=0)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1")
    overwrite: bool = setting(False, "replace a run of the same name")
    resume: bool = setting(False, "go on with a run of the same name that was stopped")
    mode: str = setting(
        "generate",
        "what the model is for: whole patients, or fcast, the future of stays from their beginning",
        choices=("generate", "fcast"),
    )
    use_pretrained: str | None = setting(
        None,
        "run to start from: its weights where shapes and tokens agree, as for another hospital",
        is_name=True,
    )
    use_tokenizer: str | None = setting(
        None,
        "run whose tokenizer to take, instead of one that is fitted to these patients",
        is_name=True,
    )
    data: DataSettings = group(DataSettings)
    preprocess: TokenOverrides = group(TokenOverrides)
    model: ModelSettings = group(ModelSettings)
    hparams: HyperParameters = group(HyperParameters)
    train: TrainSettings = group(TrainSettings)
    loss: LossSettings = group(LossSettings)
    privacy: GuaranteeSettings = group(GuaranteeSettings)
    wandb: WandbSettings = group(WandbSettings)
    paths: PathSettings = group(PathSettings)


@dataclass
class RealDataSettings:
    """Real patients, for what is taken from them; null: those that the model was trained on."""

    path: str | None = setting(
        None, "folder of the real cohort; null: the one that the model was trained on", is_path=True
    )
    # What else the files in configs/data say.
    name: str | None = setting(None, "name of the data set", is_name=True)
    source: str | None = setting(None, "how its raw files were read; decides nothing here")
    raw_dir: str | None = setting(None, "folder of its raw files; decides nothing here")
    url: str | None = setting(None, "where they are published; decides nothing here")
    download_dir: str | None = setting(None, "where they were downloaded to; decides nothing here")


@dataclass
class ConditionSettings:
    """What is wanted of synthetic patients; ``condition.<covariate>=...`` asks for covariates."""

    covariates: dict[str, Any] = setting(
        {},
        "of the first stay: condition.gender=F, condition.age=70-80, 70- or 72 (the bin of it)",
        holds_rest=True,
    )
    labels: list[str] = setting([], "labels that the first stay has")
    not_labels: list[str] = setting([], "labels that it does not have")
    codes_any: list[str] = setting(
        [], "codes of which it has one at least; '428*': all that begin so"
    )
    codes_all: list[str] = setting([], "codes that it has")
    codes_none: list[str] = setting([], "codes that it does not have")
    min_stays: int | None = setting(None, "stays of the patient, at least", minimum=1)
    max_stays: int | None = setting(None, "stays of the patient, at most", minimum=1)
    table: str | None = setting(
        None,
        "CSV or Parquet file, a row per wanted patient: columns are covariates and labels (0 or "
        "1), empty cells are free",
        is_path=True,
    )
    balance: str | None = setting(
        None,
        "label or code that a share of the patients has; weights.parquet undoes it",
        is_text=True,
    )
    share: float = setting(0.5, "of condition.balance", above=0.0, maximum=1.0)
    counterfactual: dict[str, Any] = setting(
        {},
        "pairs that share their random numbers; in the second this is changed: '{gender: F}'",
    )
    max_attempts: int = setting(10_000, "records begun for a patient, at most", minimum=1)
    split: str | None = setting(
        None,
        "split of the real patients that fix_covars takes from (train) and forecasts are of (test)",
        choices=("train", "val", "test"),
    )
    hours: float = setting(
        24.0, "mode=forecast: hours of each stay that are known; 0: earlier stays only", minimum=0.0
    )


@dataclass
class GenerateConfig:
    """generate.py: a model to synthetic patients, or to futures of real ones."""

    run_name: str = setting(MISSING, "the trained run to sample from", alias="model", is_name=True)
    mode: str = setting(
        "generate",
        "whole patients, or forecast: futures of real stays",
        choices=("generate", "forecast"),
    )
    n_samples: int | None = setting(
        None,
        "patients to generate; null: 1000, or a row of condition.table each. mode=forecast: stays "
        "to ask about, at most; null: all of the split",
        minimum=1,
    )
    n_resample: int = setting(100, "mode=forecast: futures of each stay", minimum=1)
    batch_size: int = setting(256, "patients sampled side by side, at most", minimum=1)
    seed: int = setting(0, "seed of the patients", minimum=0)
    temperature: float = setting(1.0, "below 1 safer, above 1 more varied", above=0.0)
    top_k: int = setting(
        0,
        "keep only the k likeliest tokens at each step; 0: all, so that rare codes occur",
        minimum=0,
    )
    top_p: float = setting(
        1.0, "keep the likeliest tokens up to this probability", above=0.0, maximum=1.0
    )
    repetition_penalty: float = setting(
        1.0, "above 1: tokens that a record already has become less likely", minimum=1.0
    )
    bin_type: str | None = setting(
        None, "checked against the model's, when given", choices=BIN_TYPES
    )
    value_decoding: str = setting(
        "empirical",
        "numbers of a bin: as distributed in the train split, uniform as published, its center",
        choices=VALUE_DECODINGS,
    )
    max_segments: int = setting(
        64, "contexts that a long record may take, at most; the last one closes it", minimum=1
    )
    label_contradictions: str = setting(
        "rule_out",
        "labels that contradict the codes that define them: not sampled, or only counted",
        choices=("rule_out", "count"),
    )
    value_contradictions: str = setting(
        "settle",
        "values of one time point that contradict each other, as pressures in the wrong order: put "
        "right, or left as drawn",
        choices=("settle", "leave"),
    )
    compile: str = setting(
        "auto",
        "compile the model: auto does so on a GPU",
        choices=("auto", "True", "False"),
    )
    fix_covars: bool = setting(
        False, "take covariates and labels of the first stay from real patients (condition.split)"
    )
    condition: ConditionSettings = group(ConditionSettings)
    format: str = setting(
        "parquet",
        "besides the cohort: csv, meds, or benchmark (the folders of mimic3-benchmarks)",
        choices=("parquet", "csv", "meds", "benchmark"),
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1")
    overwrite: bool = setting(False, "replace synthetic patients made before")
    data: RealDataSettings = group(RealDataSettings)
    paths: PathSettings = group(PathSettings)


@dataclass
class EvaluateConfig:
    """evaluate.py: a synthetic cohort against a real one."""

    run_name: str | None = setting(
        None, "evaluate what this run generated", alias="model", is_name=True
    )
    synthetic: str | None = setting(
        None, "folder of a synthetic cohort, instead of model=", is_path=True
    )
    real: str | None = setting(
        None,
        "folder of the real cohort; null: the one that the model was trained on, or whose stays "
        "the futures continue",
        is_path=True,
    )
    oracle: str | None = setting(
        None,
        "folder of fresh patients of the real distribution, such as simulated ones of another "
        "seed: the best that a synthetic cohort can be",
        is_path=True,
    )
    split: str = setting(
        "test",
        "the real patients that no model was trained on; train is what all is compared with",
        choices=("val", "test"),
    )
    preset: str = setting(
        "full",
        "quick: less of everything; full; all: with attacks that train shadow models",
        choices=("quick", "full", "all"),
    )
    metrics: list[str] = setting(
        [], "only these, such as [codes,utility]; empty: all of the preset"
    )
    max_patients: int | None = setting(
        None, "of each cohort, at most; null: as the preset says", minimum=2
    )
    seed: int = setting(0, "seed of everything random", minimum=0)
    show_real: bool = setting(
        False,
        "show some real patients beside synthetic ones: the report is then as confidential as the "
        "data; simulated ones are always shown",
    )
    paths: PathSettings = group(PathSettings)


@dataclass
class BaselineConfig:
    """python -m synehrgy.baselines: another generator, fitted on a cohort, and its patients."""

    name: str = setting(MISSING, "which generator; docs/comparison.md describes them", is_name=True)
    run_name: str | None = setting(
        None,
        "name of its folders in paths.saved_models and paths.synthetic; null: name",
        is_name=True,
    )
    n_samples: int = setting(1000, "patients to generate", minimum=1)
    method: dict[str, Any] = setting(
        {}, "settings of the generator, such as method.epochs=5; unknown ones are refused with all"
    )
    seed: int = setting(0, "seed of everything random", minimum=0)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1")
    overwrite: bool = setting(False, "fit anew, and replace what is there")
    data: DataSettings = group(DataSettings)
    paths: PathSettings = group(PathSettings)


@dataclass
class ComparisonConfig:
    """python -m synehrgy.comparison: several generators on one cohort, in one table."""

    run_name: str = setting(
        "comparison",
        "name of the folder of results, and what those of each begin with",
        is_name=True,
    )
    names: list[str] = setting([], "generators, such as [synehrgy,halo]; empty: all that there are")
    methods: dict[str, dict[str, Any]] = setting(
        {}, "settings of generators by name: 'methods={halo: {epochs: 5}}'"
    )
    others: dict[str, Any] = setting(
        {}, "cohorts of other tools by a name each: 'others={mytool: /path/to/cohort}'"
    )
    n_samples: int | None = setting(
        None, "patients of each; null: as many as the train split has", minimum=2
    )
    oracle: str | None = setting(
        None,
        "folder of fresh patients of the real distribution; null: simulated, where the real "
        "patients are",
        is_path=True,
    )
    profile: str = setting(
        "clinical",
        "item sets and cleaning of a simulated cohort that is not there yet",
        choices=("paper", "clinical"),
    )
    preset: str = setting(
        "full", "how much is measured, as in evaluate.py", choices=("quick", "full")
    )
    metrics: list[str] = setting([], "only these, as in evaluate.py; empty: all")
    max_patients: int | None = setting(
        None, "of each cohort, at most, in the evaluation", minimum=2
    )
    seed: int = setting(0, "seed of everything random", minimum=0)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1")
    data: DataSettings = group(DataSettings)
    paths: PathSettings = group(PathSettings)


CONFIGS = {
    "preprocess": PreprocessConfig,
    "train": TrainConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "baseline": BaselineConfig,
    "comparison": ComparisonConfig,
}


def resolve_paths(config: Any) -> None:
    """Make every path absolute, so that it means the same wherever the result is used later."""
    for key, item in walk(type(config)).items():
        if not item.metadata["is_path"]:
            continue
        *groups, name = key.split(".")
        owner = config
        for part in groups:
            owner = getattr(owner, part)
        value = getattr(owner, name)
        if value is not None and value != item.metadata["keyword"]:
            # Not pathlib's, which fails for a "~name" that is nobody's home.
            home = os.path.expanduser(value)  # noqa: PTH111
            setattr(owner, name, str(Path(home).absolute()))


def walk(kind: Any, prefix: str = "") -> dict[str, Any]:
    """All settings below a dataclass as ``dotted key -> dataclass field``, in order."""
    found = {}
    for item in fields(kind):
        nested = item.type if isinstance(item.type, type) else None
        if nested is not None and is_dataclass(nested):
            found.update(walk(nested, f"{prefix}{item.name}."))
        else:
            found[prefix + item.name] = item
    return found


def check(config: Any, prefix: str = "") -> None:
    """Refuse values outside their allowed range.

    Args:
        config: an instance of a dataclass of settings.
        prefix: what its keys begin with, for the message.

    Raises:
        UserError: names the key, the value and what is allowed.
    """
    for key, item in walk(type(config)).items():
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        if value is None:
            continue
        if isinstance(value, dict):
            for name, entry in value.items():
                if is_dataclass(entry):
                    check(entry, f"{prefix}{key}.{name}.")
            continue
        limits = item.metadata
        key = prefix + key
        if limits["choices"] is not None and value not in limits["choices"]:
            hint = nearest(str(value), limits["choices"])
            raise UserError(
                f"{key}={value} is not one of {', '.join(limits['choices'])}."
                + (hint if hint.startswith(" Did") else "")
            )
        if limits["is_name"] and not re.fullmatch(r"\w[\w.+-]*", value):
            raise UserError(
                f"{key}={value!r}: a name has letters, digits and . _ - + only, and begins with "
                "a letter or digit."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value}: must be a finite number.")
        if limits["minimum"] is not None and value < limits["minimum"]:
            raise UserError(f"{key}={value}: must be at least {limits['minimum']}.")
        if limits["above"] is not None and value <= limits["above"]:
            raise UserError(f"{key}={value}: must be above {limits['above']}.")
        if limits["maximum"] is not None and value > limits["maximum"]:
            raise UserError(f"{key}={value}: must be at most {limits['maximum']}.")
