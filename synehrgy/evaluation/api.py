"""The evaluation from Python: two cohorts in, what was found out."""

from collections.abc import Collection, Sequence
from pathlib import Path

from synehrgy.cohort import Cohort, read_cohort
from synehrgy.errors import UserError, nearest
from synehrgy.evaluation.compare import Evaluation, compare
from synehrgy.evaluation.metric import ROWS, Effort, Metric
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.evaluation.rows import bench_of

PRESETS = {
    "quick": Effort(max_patients=1500, n_resamples=50, n_seeds=2, quick=True),
    "full": Effort(),
    "all": Effort(),
}


def evaluate(
    real: Cohort | Path | str,
    synthetic: Cohort | Path | str,
    *,
    oracle: Cohort | Path | str | None = None,
    run: Path | str | None = None,
    preset: str = "full",
    metrics: Sequence[str] = (),
    split: str = "test",
    max_patients: int | None = None,
    seed: int = 0,
    show_real: bool = False,
    rows: Collection[str] = tuple(ROWS),
    keep: Path | str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Judge synthetic patients by real ones.

    Args:
        real: the real cohort or its folder, with the splits that the generator was made with.
            Without splits its patients are parted into two halves by chance, and what needs
            patients that the generator cannot have seen is left out.
        synthetic: the patients to judge.
        oracle: fresh patients of the true distribution, such as simulated ones of another seed.
        run: the folder of the model that made them, for attacks that know the model.
        preset: ``quick``, ``full``, or ``all``, which trains shadow models.
        metrics: names of those to compute; empty: all of the preset.
        split: the real patients that no model was trained on.
        max_patients: of each cohort, at most; None: as the preset says.
        seed: of everything random.
        show_real: show some real patients beside synthetic ones; simulated ones always are.
        rows: of the comparison, to measure only some; lights need those that they refer to.
        keep: a folder for finished metrics, from which an interrupted call goes on.
        progress: show a bar.

    Returns:
        What was found; shown as a summary at the end of a notebook cell.

    Raises:
        UserError: cohorts of other schemas, without patients, or unknown names.
    """
    if preset not in PRESETS:
        raise UserError(f"Unknown preset {preset!r}.{nearest(preset, list(PRESETS))}")
    effort = PRESETS[preset]
    if max_patients is not None and max_patients < 2:
        raise UserError(f"max_patients={max_patients}: must be at least 2.")
    if max_patients is not None:
        effort = Effort(max_patients, effort.n_resamples, effort.n_seeds, effort.quick)
    chosen = chosen_metrics(preset, metrics)
    bench = bench_of(
        _cohort(real),
        _cohort(synthetic),
        None if oracle is None else _cohort(oracle),
        effort=effort,
        held_out=split,
        seed=seed,
        run=None if run is None else Path(run),
        show_real=show_real,
    )
    return compare(bench, chosen, None if keep is None else Path(keep), progress, rows)


def chosen_metrics(preset: str, names: Sequence[str] = ()) -> list[Metric]:
    """The metrics of a preset, or those of the given names.

    Raises:
        UserError: an unknown name.
    """
    known = {metric.name: metric for metric in all_metrics()}
    for name in names:
        if name not in known:
            raise UserError(f"Unknown metric {name!r}.{nearest(name, list(known))}")
    if names:
        return [metric for metric in known.values() if metric.name in names]
    quick, costly = preset == "quick", preset == "all"
    return [m for m in known.values() if (m.quick or not quick) and (costly or not m.costly)]


def _cohort(given: Cohort | Path | str) -> Cohort:
    return given if isinstance(given, Cohort) else read_cohort(Path(given))
