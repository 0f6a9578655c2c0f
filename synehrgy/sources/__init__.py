"""Where cohorts come from."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from synehrgy.cohort import Schema, is_cohort, read_schema
from synehrgy.errors import UserError
from synehrgy.settings import DataSettings, PreprocessConfig, PreprocessSettings

if TYPE_CHECKING:
    from synehrgy.sources.extraction import Hospital


def make_cohort(
    data: DataSettings,
    settings: PreprocessSettings,
    declared: Callable[[Schema], None] | None = None,
    complete: Callable[[Path], None] | None = None,
) -> str:
    """Extract the cohort of a data set into ``data.path``; simulate its raw files first if asked.

    Args:
        data: where it comes from and goes to.
        settings: how it is extracted.
        declared: called with the schema before the events are read, to refuse it at once.
        complete: called with the folder of the cohort just before it appears at ``data.path``,
            to add files that must appear together with it.

    Returns:
        What was extracted, as text.

    Raises:
        UserError: no folder of raw files given, or files that cannot be used.
    """
    from synehrgy.sources.extraction import extract

    if data.raw_dir is None:
        raise UserError(
            f"data.raw_dir=<folder of the raw files of {data.name}> is needed; "
            f"configs/data/{data.name}.yaml says where to get them."
        )
    if data.source == "simulated":
        from synehrgy.sources.simulator import simulate

        simulate(data.raw_dir, **asdict(data.simulation))
    split_dir = None if data.split_dir is None else Path(data.split_dir)
    summary = extract(
        _hospital(data.source),
        Path(data.raw_dir),
        Path(data.path),
        name=data.name,
        split_dir=split_dir,
        profile=settings.profile,
        memory_limit=settings.memory_limit,
        threads=settings.threads,
        declared=declared,
        complete=complete,
    )
    return str(summary)


def _hospital(source: str) -> "Hospital":
    """The database that the raw files of a source are of."""
    from synehrgy.sources.eicu import EICU
    from synehrgy.sources.mimic3 import MIMIC3
    from synehrgy.sources.mimic4 import MIMIC4

    # Simulated files have the form of MIMIC-III.
    return {"mimic3": MIMIC3, "simulated": MIMIC3, "mimic4": MIMIC4, "eicu": EICU}[source]


def refuse_other_cohort(config: PreprocessConfig) -> None:
    """Refuse to replace a cohort that was made of other raw files, unless ``overwrite=True``.

    Raises:
        UserError: names both folders of raw files.
    """
    path = Path(config.data.path)
    if config.overwrite or not is_cohort(path):
        return
    made_of = read_schema(path)[1].get("config", {}).get("raw_dir")
    if config.data.raw_dir is not None and made_of != config.data.raw_dir:
        raise UserError(
            f"{path} holds a cohort of {made_of}, not of {config.data.raw_dir}. overwrite=True "
            "replaces it; data.path=<folder> writes elsewhere."
        )


def simulated_cohort(
    path: str | Path, n_patients: int, seed: int, profile: str = "paper", progress: bool = True
) -> Path:
    """Fresh patients of the simulated hospital as a cohort: with another seed, the oracle.

    A generator trained on simulated patients can at best be as good as these, which come from the
    very distribution. Their raw files are not kept.

    Args:
        path: folder of the cohort to write.
        n_patients: patients to simulate; about seven in ten are in the cohort.
        seed: other than that of the training data.
        profile: of the extraction, as for the training data.
        progress: whether to show progress bars.

    Returns:
        ``path``.
    """
    from synehrgy.sources.mimic3 import extract
    from synehrgy.sources.simulator import simulate

    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        raw = Path(folder) / "raw"
        simulate(raw, n_patients=n_patients, seed=seed, progress=progress)
        extract(raw, path, name=path.name, profile=profile, progress=progress)
    return path
