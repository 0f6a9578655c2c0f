"""Other generators behind one interface: fitted on a cohort, they sample another.

Modules of this package with a ``Baseline`` are found by themselves.
"""

import importlib
import inspect
import pkgutil
from functools import cache

from synehrgy.baselines.baseline import CODES, PARTS, SERIES, STAYS, Baseline

__all__ = ["CODES", "PARTS", "SERIES", "STAYS", "Baseline", "baselines"]


@cache
def baselines() -> dict[str, type[Baseline]]:
    """All that there are, by name."""
    found: dict[str, type[Baseline]] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        here = importlib.import_module(f"{__name__}.{module.name}")
        for _, item in inspect.getmembers(here, inspect.isclass):
            if item.__module__ != here.__name__ or inspect.isabstract(item):
                continue
            if issubclass(item, Baseline):
                found[item.name] = item
    return dict(sorted(found.items()))
