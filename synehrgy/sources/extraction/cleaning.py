"""How the raw text of a measurement becomes a number: one SQL expression for each rule.

The expressions read ``value`` (text), ``parsed`` (the same as a finite number, or null),
``valueuom`` (unit as charted, or null), ``item_unit`` (of the item, where it is not that of the
series, or null) and ``position`` (of the level the text spells, or null). Null means that the text
cannot be read.
"""

from synehrgy.sources.extraction.resources import Conversion, ItemSet
from synehrgy.sources.reading import sql_text

# "120/80": both pressures in one text.
_PAIR = r"'^\s*(\d+\.?\d*)\s*/\s*(\d+\.?\d*)\s*$'"

CLEANING = {
    "number": "parsed",
    "level": "position",
    "systolic": f"coalesce(parsed, TRY_CAST(regexp_extract(value, {_PAIR}, 1) AS DOUBLE))",
    "diastolic": f"coalesce(parsed, TRY_CAST(regexp_extract(value, {_PAIR}, 2) AS DOUBLE))",
}

# Which of several values of a series at the same time is kept, as an aggregate of ``number`` (a
# cleaned number) and ``text`` (the raw text, kept only where this rule needs it).
DUPLICATES = {
    "highest": "max(number)",
    "lowest": "min(number)",
    "median": "median(number)",
    # The number of the greatest text even if that is null: then the value falls away.
    "greatest_text": "arg_max_null(number, text)",
}


def cleaned(item_set: ItemSet) -> str:
    """The number of a raw row of a series, in the unit of the series."""
    read = CLEANING[item_set.clean]
    cases = [f"WHEN {_is_other(c, read)} THEN {_converted(c, read)}" for c in item_set.convert]
    return f"CASE {' '.join(cases)} ELSE {read} END" if cases else read


def _is_other(conversion: Conversion, read: str) -> str:
    """Whether a row's number is in the other unit."""
    bounds = ((">", conversion.above), (">=", conversion.at_least), ("<=", conversion.at_most))
    reasons = [f"{read} {sign} {bound}" for sign, bound in bounds if bound is not None]
    if conversion.stated:
        # The charted unit knows better than the item.
        endings = " ".join(
            f"WHEN ends_with(lower(trim(valueuom)), {sql_text(ending)})"
            f" THEN {str(name == conversion.unit).lower()}"
            for name, ending in conversion.endings
        )
        of_item = f"coalesce(item_unit = {sql_text(conversion.unit)}, false)"
        reasons.append(f"CASE {endings} ELSE {of_item} END")
    condition = f"({' OR '.join(reasons)})"
    if conversion.unless:
        text = sql_text(f"%{conversion.unless}%")
        condition += f" AND NOT coalesce(valueuom ILIKE {text}, false)"
    return condition


def _converted(conversion: Conversion, read: str) -> str:
    """The number in the unit of the series."""
    return f"({read} + {conversion.add}) * {conversion.times} / {conversion.over}"
