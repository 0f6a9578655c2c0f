"""Where cohorts come from."""

from collections.abc import Callable
from pathlib import Path

from synehrgy.errors import UserError
from synehrgy.settings import DataSettings, PreprocessSettings


def make_cohort(
    data: DataSettings,
    settings: PreprocessSettings,
    complete: Callable[[Path], None] | None = None,
) -> str:
    """Extract the cohort of a data set into ``data.path``.

    Args:
        data: where it comes from and goes to.
        settings: how it is extracted.
        complete: called with the folder of the cohort just before it appears at ``data.path``,
            to add files that must appear together with it.

    Returns:
        What was extracted, as text.

    Raises:
        UserError: no folder of raw files given, or files that cannot be used.
    """
    from synehrgy.sources.mimic3 import extract

    if data.raw_dir is None:
        raise UserError(
            f"data.raw_dir=<folder of the raw files of {data.name}> is needed; "
            f"configs/data/{data.name}.yaml says where to get them."
        )
    split_dir = None if data.split_dir is None else Path(data.split_dir)
    summary = extract(
        Path(data.raw_dir),
        Path(data.path),
        name=data.name,
        split_dir=split_dir,
        profile=settings.profile,
        memory_limit=settings.memory_limit,
        threads=settings.threads,
        complete=complete,
    )
    return str(summary)
