"""The four commands. Each returns its closing line: what was written, where, and what is next.

Imports are inside the functions, so that ``--help`` and errors in settings answer at once.
"""

from pathlib import Path

from synehrgy.settings import EvaluateConfig, GenerateConfig, PreprocessConfig, TrainConfig


def preprocess(config: PreprocessConfig) -> str:
    """Raw tables to a cohort, its tokenizer and its tokens, in ``data.path``."""
    from synehrgy.sources import make_cohort
    from synehrgy.tokenizer import lengths_report, preprocess_tokens

    print(make_cohort(config.data, config.preprocess))
    print(lengths_report(preprocess_tokens(Path(config.data.path), config.preprocess).records))
    return f"Cohort and tokens: {config.data.path}\nNext: python train.py data={config.data.name}"


def train(config: TrainConfig) -> str:
    """Tokens to a model, in ``paths.saved_models/<run_name>``."""
    from synehrgy.training.loop import train as train_model

    folder = train_model(config)
    return f"Model: {folder}\nNext: python generate.py model={config.run_name} n_samples=1000"


def generate(config: GenerateConfig) -> str:
    """A model to synthetic patients, in ``paths.synthetic/<run_name>``."""
    from synehrgy.generation.generate import generate as generate_patients

    folder = generate_patients(config)
    return f"Synthetic patients: {folder}\nNext: python evaluate.py model={config.run_name}"


def evaluate(config: EvaluateConfig) -> str:
    """A synthetic cohort against a real one, in ``paths.results/<run_name>``."""
    from synehrgy.evaluation.evaluate import REPORT_FILE, summary
    from synehrgy.evaluation.evaluate import evaluate as evaluate_cohort

    folder, found = evaluate_cohort(config)
    print(summary(found))
    return f"Results: {folder}\nNext: open {folder / REPORT_FILE}"
