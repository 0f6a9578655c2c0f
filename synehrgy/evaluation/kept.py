"""What is computed of patients once, and forgotten with them."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

from synehrgy.evaluation.patients import Patients

T = TypeVar("T")


def kept(compute: Callable[[Patients], T]) -> Callable[[Patients], T]:
    """Compute a view of patients once. It must not hold the patients themselves."""
    found: WeakKeyDictionary[Patients, T] = WeakKeyDictionary()

    @wraps(compute)
    def once(patients: Patients) -> T:
        if patients not in found:
            found[patients] = compute(patients)
        return found[patients]

    return once
