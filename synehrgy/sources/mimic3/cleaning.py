"""How the raw text of a measurement becomes a number: one SQL expression for each rule.

The expressions read ``value`` (text), ``parsed`` (the same as a finite number, or null),
``valueuom`` (unit as charted, or null), ``position`` (of the level the text spells, or null) and
``fahrenheit`` (whether the item's label says so). Null means that the text cannot be read.
"""

# "120/80": both pressures in one text.
_PAIR = r"'^\s*(\d+\.?\d*)\s*/\s*(\d+\.?\d*)\s*$'"

CLEANING = {
    "number": "parsed",
    "level": "position",
    "systolic": f"coalesce(parsed, TRY_CAST(regexp_extract(value, {_PAIR}, 1) AS DOUBLE))",
    "diastolic": f"coalesce(parsed, TRY_CAST(regexp_extract(value, {_PAIR}, 2) AS DOUBLE))",
    # Above 1 it is a percentage, unless the unit says that it is a pressure.
    "oxygen_fraction": (
        "CASE WHEN parsed > 1 AND NOT coalesce(valueuom ILIKE '%torr%', false)"
        " THEN parsed / 100 ELSE parsed END"
    ),
    # Nobody inspires oxygen in torr: what is charted with that unit are fractions, too.
    "oxygen_percentage": "CASE WHEN parsed > 1 THEN parsed / 100 ELSE parsed END",
    "oxygen_saturation": "CASE WHEN parsed <= 1 THEN parsed * 100 ELSE parsed END",
    "temperature": "CASE WHEN parsed >= 79 THEN (parsed - 32) * 5 / 9 ELSE parsed END",
    # The charted unit ("Deg. F", "?C") knows better than the item; and nobody is as hot as 79 °C.
    "temperature_stated": (
        "CASE WHEN parsed >= 79 OR CASE upper(right(trim(valueuom), 1))"
        " WHEN 'F' THEN true WHEN 'C' THEN false ELSE fahrenheit END"
        " THEN (parsed - 32) * 5 / 9 ELSE parsed END"
    ),
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
