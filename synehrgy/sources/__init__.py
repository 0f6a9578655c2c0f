"""Where cohorts come from."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synehrgy.cohort import Schema, is_cohort, read_schema
from synehrgy.errors import UserError
from synehrgy.files import workspace
from synehrgy.settings import (
    DataSettings,
    PreprocessConfig,
    PreprocessSettings,
    SimulationSettings,
)

if TYPE_CHECKING:
    from synehrgy.sources.extraction import Hospital

# Where those who have no raw files of a source yet get them.
WHERE = {
    "mimic3": "MIMIC-III v1.4 needs credentials: https://physionet.org/content/mimiciii/1.4/",
    "mimic4": "MIMIC-IV needs credentials: https://physionet.org/content/mimiciv/3.1/",
    "eicu": "eICU-CRD v2.0 needs credentials: https://physionet.org/content/eicu-crd/2.0/",
}


def make_cohort(
    data: DataSettings,
    settings: PreprocessSettings,
    declared: Callable[[Schema], None] | None = None,
    complete: Callable[[Path], None] | None = None,
) -> str | None:
    """Extract the cohort of a data set into ``data.path``.

    Its raw files are downloaded or simulated first, where the settings say so.

    Args:
        data: where it comes from and goes to.
        settings: how it is extracted.
        declared: called with the schema before the events are read, to refuse it at once.
        complete: called with the folder of the cohort just before it appears at ``data.path``,
            to add files that must appear together with it.

    Returns:
        What was extracted, as text; None if that is only a worker's share, and no cohort yet.

    Raises:
        UserError: no folder of raw files given, files that cannot be used or downloaded.
    """
    data = _downloaded(data)
    if data.raw_dir is None:
        where = f" {WHERE[data.source]}." if data.source in WHERE else ""
        raise UserError(
            f"data.raw_dir=<folder of the raw files of {data.name}> is needed.{where} Without "
            "them: data=mimic3_demo downloads 100 open patients, data=simulated makes some up."
        )
    if data.source == "simulated":
        from synehrgy.sources.simulator import simulate

        simulate(data.raw_dir, **asdict(data.simulation))
    common: dict[str, Any] = {
        "name": data.name,
        "split_dir": None if data.split_dir is None else Path(data.split_dir),
        "memory_limit": settings.memory_limit,
        "threads": settings.threads,
        "declared": declared,
        "complete": complete,
    }
    raw_dir, path = Path(data.raw_dir), Path(data.path)
    if data.source == "tables":
        from synehrgy.sources.tables import extract_tables

        return str(extract_tables(raw_dir, path, declaration=data.declaration, **common))
    common["profile"] = settings.profile
    if data.source == "meds":
        from synehrgy.sources.meds import extract_meds

        found = extract_meds(raw_dir, path, **common, **asdict(data.meds))
        return None if found is None else str(found)
    from synehrgy.sources.extraction import extract

    return str(extract(_hospital(data.source), raw_dir, path, **common))


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
    raw_dir = _raw_dir(config.data)
    if raw_dir is not None and made_of != raw_dir:
        raise UserError(
            f"{path} holds a cohort of {made_of}, not of {raw_dir}. overwrite=True "
            "replaces it; data.path=<folder> writes elsewhere."
        )


def refuse_other_simulation(data: DataSettings) -> None:
    """Refuse simulated patients that are there if others are asked for.

    What is left at its default asks for nothing.

    Raises:
        UserError: names what differs.
    """
    made_with = read_schema(Path(data.path))[1].get("simulation") or {}
    by_default = SimulationSettings()
    for key, has in made_with.items():
        asked = getattr(data.simulation, key)
        if asked not in (has, getattr(by_default, key)):
            raise UserError(
                f"{data.path} holds patients that were simulated with {key}={has}, not {asked}. "
                f"Leave data.simulation.{key} out to take them, or write elsewhere: "
                "data.path=<folder> data.raw_dir=<folder>."
            )


def _raw_dir(data: DataSettings) -> str | None:
    """The folder of the raw files: the one given, or that of a download."""
    return data.download_dir if data.raw_dir is None and data.url is not None else data.raw_dir


def _downloaded(data: DataSettings) -> DataSettings:
    """The settings with folders in place of what is to be downloaded, once it is there."""
    from synehrgy.sources.mimic3.tables import RELEASE
    from synehrgy.sources.published import download_benchmark_lists, download_tables

    raw_dir, split_dir = _raw_dir(data), data.split_dir
    if data.raw_dir is None and data.url is not None:
        # The tables that are needed of each source.
        tables = {"mimic3": RELEASE.columns}
        if data.source not in tables:
            raise UserError(f"data.url={data.url}: data.source={data.source} is not downloaded.")
        if raw_dir is None:
            raise UserError("data.download_dir=<folder> is needed for what data.url has.")
        download_tables(data.url, Path(raw_dir), tables[data.source])
    if split_dir == "benchmark":
        if data.source in ("mimic4", "eicu"):
            raise UserError(
                "data.split_dir=benchmark lists patients of MIMIC-III. Leave it out for "
                f"data={data.source}: patients are split by a hash of their number."
            )
        split_dir = str(workspace() / "data" / "raw" / "mimic3-benchmarks")
        download_benchmark_lists(Path(split_dir))
    return replace(data, raw_dir=raw_dir, split_dir=split_dir)


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
