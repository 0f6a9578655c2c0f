"""What a private training promises, and the noise that it takes."""

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synehrgy.errors import UserError
from synehrgy.files import read_yaml
from synehrgy.settings import GuaranteeSettings, TrainConfig
from synehrgy.training.checkpoint import CONFIG_FILE, find_run

# Width of the steps in which the accountant holds the privacy loss. It rounds up, so a wider step
# costs a little noise and never privacy.
_ACCURACY = 1e-3

# The noise is the least that keeps to epsilon, up to so much.
_NOISE_TOLERANCE = 1e-3


# What takes a guarantee away, and why.
_SPOILS = {
    "privacy.noise_seed": "whoever knows the seed, which is in the folder of the run, can take the "
    "noise away",
    "train.canaries": "a canary has the form of a real patient, who so has a part in two records. "
    "It is a run for an audit",
}


@dataclass(frozen=True)
class Guarantee:
    """What holds for each patient of the train split, whoever the others are.

    With and without the patient, whatever is done with the trained weights comes out with
    probabilities that differ by a factor of exp(epsilon) at most, but for a chance of delta.

    Attributes:
        epsilon, delta: as above; what the steps come to, not only what was asked for.
        noise: standard deviation of the noise of a step, as a multiple of ``clip``.
        clip: largest norm of the gradient of a patient.
        rate: chance of a patient to be drawn for a step.
        steps: of the whole training.
    """

    epsilon: float
    delta: float
    noise: float
    clip: float
    rate: float
    steps: int

    @classmethod
    def of(cls, asked: GuaranteeSettings, n_patients: int, batch: int, steps: int) -> "Guarantee":
        """The least noise with which a training keeps to what is asked for.

        Args:
            asked: with an epsilon.
            n_patients: of the train split.
            batch: patients of a step, on average.
            steps: of the whole training.

        Raises:
            UserError: dp-accounting is not installed.
        """
        assert asked.epsilon is not None
        delta = asked.delta if asked.delta is not None else 1 / (10 * n_patients)
        rate = min(1.0, batch / n_patients)
        noise = _least_noise(asked.epsilon, delta, rate, steps)
        return cls(spent(noise, rate, steps, delta), delta, noise, asked.clip, rate, steps)

    def __str__(self) -> str:
        return (
            f"privacy: epsilon {self.epsilon:.3g}, delta {self.delta:.2g} for each patient; noise "
            f"of {self.noise:.3g} times the longest gradient, patients drawn for a step with "
            f"chance {self.rate:.3g}, {self.steps:,} steps"
        )


def _accounting() -> Any:
    """The library that adds up what steps cost; imported late, for it is only needed here.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("dp_accounting") is None:
        raise UserError(
            "privacy.epsilon needs dp-accounting, which adds up what each step costs: "
            "pip install dp-accounting"
        )
    import dp_accounting
    import dp_accounting.pld

    return dp_accounting


def _event(noise: float, rate: float, steps: int) -> Any:
    """A training as the accountant knows it: steps of the subsampled Gaussian mechanism."""
    library = _accounting()
    step = library.PoissonSampledDpEvent(rate, library.GaussianDpEvent(noise))
    return library.SelfComposedDpEvent(step, steps)


def _accountant() -> Any:
    return _accounting().pld.PLDAccountant(value_discretization_interval=_ACCURACY)


def spent(noise: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon of a training, with or without any one patient.

    By privacy loss distributions (Koskela et al., AISTATS 2020), rounded up.

    Args:
        noise: of a step, as a multiple of the longest gradient.
        rate: chance of a patient to be drawn for a step.
        steps: how many.
        delta: chance that it does not hold.
    """
    return float(_accountant().compose(_event(noise, rate, steps)).get_epsilon(delta))


def _least_noise(epsilon: float, delta: float, rate: float, steps: int) -> float:
    found = _accounting().calibrate_dp_mechanism(
        _accountant,
        lambda noise: _event(noise, rate, steps),
        epsilon,
        delta,
        tol=_NOISE_TOLERANCE,
    )
    return float(found)


def refuse_same_patients(config: TrainConfig) -> None:
    """Refuse what would let the patients into a private model by another door.

    Raises:
        UserError: what it starts from was itself made from the patients of this cohort.
    """
    if config.privacy.epsilon is None:
        return
    for key in ("use_pretrained", "use_tokenizer"):
        name = getattr(config, key)
        if name is None:
            continue
        folder = find_run(Path(config.paths.saved_models), name)
        if Path(read_yaml(folder / CONFIG_FILE)["data"]["path"]) == Path(config.data.path):
            raise UserError(
                f"{key}={name}: this run was trained on the cohort in {config.data.path}, too, so "
                "privacy.epsilon would not hold. Take a run of other patients, such as simulated "
                "ones."
            )


def in_words(guarantee: Guarantee, config: TrainConfig) -> str:
    """The guarantee of a run, and what in its folder is outside of it."""
    lines = [str(guarantee)]
    if config.use_tokenizer is None:
        lines.append(
            "  outside of it: the tokenizer, which is fitted to the patients (edges and quantiles "
            "of values, which codes there are). use_tokenizer=<run> takes that of others."
        )
    lines.append(
        "  outside of it: metrics.jsonl and the learning curve, which are counted from patients."
    )
    if (setting := _spoilt_by(config)) is not None:
        lines.append(f"Warning: with {setting} nothing is guaranteed: {_SPOILS[setting]}.")
    return "\n".join(lines)


def on_record(guarantee: Guarantee, config: TrainConfig) -> dict[str, Any]:
    """The guarantee of a run for its ``run.json``."""
    return {
        "unit": "patient",
        **asdict(guarantee),
        "covers_tokenizer": config.use_tokenizer is not None,
        "spoilt_by": _spoilt_by(config),
    }


def _spoilt_by(config: TrainConfig) -> str | None:
    """The setting because of which nothing is guaranteed after all."""
    if config.privacy.noise_seed is not None:
        return "privacy.noise_seed"
    return "train.canaries" if config.train.canaries else None
