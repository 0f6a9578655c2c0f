"""Synthetic electronic health records from irregular intensive-care data."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synehrgy.evaluation.api import evaluate
    from synehrgy.generation.api import SynEHRgy

__version__ = "0.1.0"
__all__ = ["SynEHRgy", "evaluate"]


def __getattr__(name: str) -> Any:
    # Not at once: a command that only shows its help need not wait for PyTorch.
    if name == "SynEHRgy":
        from synehrgy.generation.api import SynEHRgy

        return SynEHRgy
    if name == "evaluate":
        from synehrgy.evaluation.api import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
