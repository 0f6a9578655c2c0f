"""How numbers are written in the raw tables: each value as (way of writing, whole number)."""

from functools import lru_cache

import numpy as np
import pyarrow as pa

from synehrgy.sources.simulator.chance import Ints
from synehrgy.sources.simulator.items import FILLERS, ITEMS, LAB_FILLERS
from synehrgy.sources.simulator.quirks import CHART_TEXTS, LAB_TEXTS, URINE_NEGATIVE

# Levels by item, from the lowest.
_VERBAL_CAREVUE = ("1 No Response", "2 Incomp sounds", "3 Inapprop words", "4 Confused",
                   "5 Oriented", "1.0 ET/Trach")  # fmt: skip
_REFILL = ("Normal <3 secs", "Abnormal >3 secs", "Brisk", "Delayed")
LEVELS: dict[int, tuple[str, ...]] = {
    184: ("1 No Response", "2 To pain", "3 To speech", "4 Spontaneously"),
    454: ("1 No Response", "2 Abnorm extensn", "3 Abnorm flexion", "4 Flex-withdraws",
          "5 Localizes Pain", "6 Obeys Commands"),
    723: _VERBAL_CAREVUE,
    220739: ("None", "To Pain", "To Speech", "Spontaneously"),
    223901: ("No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws",
             "Localizes Pain", "Obeys Commands"),
    223900: ("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused",
             "Oriented", "No Response-ETT"),
    115: _REFILL[:2],
    8377: _REFILL[:2],
    3348: _REFILL[2:],
}  # fmt: skip
# Counted like no response.
_UNTESTABLE = ("1.0 ET/Trach", "No Response-ETT")

TEXTS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [*CHART_TEXTS, *LAB_TEXTS, URINE_NEGATIVE]
        + [text for filler in (*FILLERS, *LAB_FILLERS) for text in filler.texts]
    )
)
TEXT_PLACE = {text: i for i, text in enumerate(TEXTS)}

# Ways of writing: nothing, a text, a pair of pressures, then those of the items.
EMPTY, TEXT, PAIR = 0, 1, 2
PAIR_BASE = 1000
_ways: dict[tuple[str, int], int] = {}


def _way(style: str, detail: int) -> int:
    return _ways.setdefault((style, detail), len(_ways) + PAIR + 1)


ITEM_WAY = np.array(
    [_way(i.style, i.itemid if i.style == "level" else i.decimals) for i in ITEMS], dtype=np.int64
)
WHOLE = _way("short", 0)
HUNDREDTHS = _way("short", 2)
_WAY_NAMES = {way: name for name, way in _ways.items()}

_SHIFT = 2**40
_MIDDLE = 2**39


def _write(way: int, number: int) -> tuple[str | None, float | None]:
    """Text and number of one value, as the raw tables have them in VALUE and VALUENUM."""
    if way == EMPTY:
        return None, None
    if way == TEXT:
        return TEXTS[number], None
    if way == PAIR:
        return f"{number // PAIR_BASE}/{number % PAIR_BASE}", None
    style, detail = _WAY_NAMES[way]
    if style == "level":
        level = LEVELS[detail][number]
        if level in _REFILL:
            return level, None
        return level, 1.0 if level in _UNTESTABLE else number + 1.0
    value = number / 10**detail
    if style == "fixed":
        return f"{value:.{detail}f}", value
    if style == "single":
        # CareVue kept numbers in single precision and shows it.
        value = float(np.float32(value))
        text = f"{value:.17g}"
    else:
        text = f"{value:.{detail}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    if text.startswith(("0.", "-0.")):
        text = text.replace("0.", ".", 1)
    return text, value


@lru_cache(maxsize=2**18)
def _remembered(key: int) -> tuple[str | None, float | None]:
    return _write(key // _SHIFT, key % _SHIFT - _MIDDLE)


def write_values(way: Ints, number: Ints) -> tuple[pa.Array, pa.Array]:
    """VALUE (dictionary of texts) and VALUENUM (double) of many values.

    Args:
        way: how to write each value, shape [n].
        number: the value as a whole number in units of its last decimal; the place of a text or
            a level; for a pair ``systolic * PAIR_BASE + diastolic``. Shape [n].
    """
    encoded = pa.array(way * _SHIFT + number + _MIDDLE).dictionary_encode()
    written = [_remembered(key) for key in encoded.dictionary.to_pylist()]
    # Different numbers can have the same text, and a dictionary must not have it twice.
    place: dict[str, int] = {}
    unique = [0 if text is None else place.setdefault(text, len(place)) for text, _ in written]
    indices = encoded.indices.to_numpy()
    texts = pa.array(list(place), pa.string())
    at = np.array(unique, dtype=np.int32)[indices]
    values = pa.DictionaryArray.from_arrays(pa.array(at, mask=way == EMPTY), texts)
    numbers = np.array([np.nan if x is None else x for _, x in written])[indices]
    return values, pa.array(numbers, from_pandas=True)
