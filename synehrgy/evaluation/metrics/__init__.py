"""The metrics, one file each. A class in a new file here is found by itself."""

import importlib
import pkgutil
from abc import ABCMeta

from synehrgy.evaluation.metric import GROUPS, Metric


def all_metrics() -> list[Metric]:
    """One of each, by group and then by the name of its file."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        content = vars(importlib.import_module(f"{__name__}.{module.name}"))
        found += [
            kind()
            for kind in content.values()
            # In Python 3.10 list[int] passes for a type, not for an abstract one.
            if isinstance(kind, ABCMeta)
            and issubclass(kind, Metric)
            and kind.__module__ == f"{__name__}.{module.name}"
        ]
    return sorted(found, key=lambda metric: list(GROUPS).index(metric.group))
