"""The mark that a simulation leaves beside its raw files."""

from pathlib import Path

MARK_FILE = "simulation.json"


def is_simulated(path: Path) -> bool:
    """Whether a simulation wrote a folder; the files' names are those of the real database."""
    return (path / MARK_FILE).is_file()
