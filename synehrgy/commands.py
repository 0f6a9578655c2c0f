"""What the commands do. Each returns what it has to say in the end.

Imports are inside the functions, so that ``--help`` and errors in settings answer at once.
"""

import shlex
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from synehrgy.files import CONFIG_DIR, read_json, workspace
from synehrgy.settings import (
    DEFAULT_PATHS,
    BaselineConfig,
    ComparisonConfig,
    EvaluateConfig,
    GenerateConfig,
    PreprocessConfig,
    TrainConfig,
)


@dataclass(frozen=True)
class Outcome:
    """What a command ends with.

    Attributes:
        line: what was written, where, and what to run next.
        value: what a sweep makes as small as it can: the validation loss of a training.
    """

    line: str
    value: float | None = None


def preprocess(config: PreprocessConfig) -> Outcome:
    """Raw tables to a cohort, its tokenizer and its tokens, in ``data.path``.

    With ``data=cohort`` the cohort is there already, and only gets its tokens.
    """
    from synehrgy.cohort import read_schema
    from synehrgy.sources import make_cohort, refuse_other_cohort
    from synehrgy.tokenizer import check_settings, preprocess_tokens, tokens_report

    if config.data.source == "cohort":
        schema, _ = read_schema(Path(config.data.path))
        check_settings(schema, settings=config.preprocess)
        print(tokens_report(preprocess_tokens(Path(config.data.path), config.preprocess)))
        return Outcome(
            f"Tokens: {config.data.path}\n"
            f"Next: python train.py data=cohort run_name=<a name>{_elsewhere(config)}"
        )
    refuse_other_cohort(config)
    stores = []

    def add_tokens(folder: Path) -> None:
        stores.append(preprocess_tokens(folder, config.preprocess))

    declared = partial(check_settings, settings=config.preprocess)
    summary = make_cohort(config.data, config.preprocess, declared, add_tokens)
    if summary is None:
        return Outcome(
            f"A share of the shards: {config.data.path}.shards\n"
            "Next: when all workers have finished, the same command without data.meds.worker"
        )
    print(summary)
    print(tokens_report(stores[0]))
    return Outcome(
        f"Cohort and tokens: {config.data.path}\n"
        f"Next: python train.py data={_known_data(config)} run_name=<a name>{_elsewhere(config)}"
    )


def train(config: TrainConfig) -> Outcome:
    """Tokens to a model, in ``paths.saved_models/<run_name>``."""
    from synehrgy.training.checkpoint import RUN_FILE
    from synehrgy.training.loop import train as train_model

    folder = train_model(config)
    ask = "n_samples=1000"
    if config.mode == "fcast":
        ask = "mode=forecast condition.hours=24"
    return Outcome(
        f"Model: {folder}\n"
        f"Next: python generate.py model={config.run_name} {ask}{_elsewhere(config)}",
        read_json(folder / RUN_FILE)["val_loss"],
    )


def generate(config: GenerateConfig) -> Outcome:
    """A model to synthetic patients, in ``paths.synthetic/<run_name>``."""
    from synehrgy.generation.generate import generate as generate_patients

    folder = generate_patients(config)
    what = "Futures" if config.mode == "forecast" else "Synthetic patients"
    return Outcome(
        f"{what}: {folder}\nNext: python evaluate.py model={folder.name}{_elsewhere(config)}"
    )


def evaluate(config: EvaluateConfig) -> Outcome:
    """A synthetic cohort against a real one, in ``paths.results/<run_name>``."""
    from synehrgy.evaluation.evaluate import REPORT_FILE, evaluate_run, summary

    folder, found = evaluate_run(config)
    print(summary(found))
    return Outcome(f"Results: {folder}\nNext: open {folder / REPORT_FILE}")


def baseline(config: BaselineConfig) -> Outcome:
    """Patients of another generator, in ``paths.synthetic/<run_name>``."""
    from synehrgy.baselines.run import run_baseline

    folder = run_baseline(config)
    return Outcome(
        f"Synthetic patients: {folder}\n"
        f"Next: python evaluate.py model={folder.name}{_elsewhere(config)}"
    )


def comparison(config: ComparisonConfig) -> Outcome:
    """All generators on one cohort, in ``paths.results/<run_name>``."""
    from synehrgy.comparison.compare import run_comparison

    folder = run_comparison(config)
    print((folder / "comparison.md").read_text(encoding="utf-8"))
    # Without any score of the table there is no figure.
    shown = next(f for f in ("comparison.png", "scores.csv") if (folder / f).exists())
    return Outcome(f"Comparison: {folder}\nNext: open {folder / shown}")


def _known_data(config: PreprocessConfig) -> str:
    """The file in configs/data/ by which the next command finds what this one has made."""
    name = config.data.name
    return name if (CONFIG_DIR / "data" / f"{name}.yaml").is_file() else "cohort"


def _elsewhere(config: PreprocessConfig | TrainConfig | GenerateConfig | BaselineConfig) -> str:
    """The paths that are not where the next command looks by itself, as its overrides."""
    given = asdict(config.paths)
    default = {key: str(workspace() / path) for key, path in DEFAULT_PATHS.items()}
    if isinstance(config, PreprocessConfig):
        given["data.path"] = config.data.path
        if _known_data(config) != "cohort":
            default["data.path"] = str(workspace() / "data" / "processed" / config.data.name)
    return "".join(
        f" {key if '.' in key else f'paths.{key}'}={shlex.quote(path)}"
        for key, path in given.items()
        if path != default.get(key)
    )
