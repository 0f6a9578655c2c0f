"""What is wrong with real charts: how often, and how it looks. Shares are of the rows meant."""

# Text where a number belongs, and rows without a value.
CHART_TEXT_SHARE = 0.0004
CHART_TEXTS = ("ERROR", ".", "unable to obtain", "see note", "-")
LAB_TEXT_SHARE = 0.0008
LAB_TEXTS = (
    "UNABLE TO REPORT",
    "HEMOLYZED, NOT REPORTED",
    "NotDone",
    "<5",
    "GREATER THAN 10",
    "LESS THAN 0.4",
    "COMPUTER NETWORK FAILURE. TEST NOT RESULTED.",
)
URINE_NEGATIVE = "NEG"
EMPTY_SHARE = (0.0030, 0.0)  # by charting system

# Slips of the keyboard: the charted number times ten, times a hundred, nought, a lost sign, or all
# nines.
ABSURD_SHARE = 0.0004
ABSURD_NINES = 999_999

# A second row at the same time, off by a little.
DUPLICATE_SHARE = 0.004
DUPLICATE_SPREAD = 0.03
# "120/80" in the systolic item of CareVue.
PAIR_SHARE = 0.001
# A percentage charted as a fraction, a temperature in the other unit.
FRACTION_SHARE = 0.03
OTHER_UNIT_SHARE = 0.0008

MISSING_STAY_SHARE = 0.002
MISSING_ADMISSION_SHARE = {"CHARTEVENTS": 0.0003, "LABEVENTS": 0.004, "OUTPUTEVENTS": 0.0005}
WARNING_SHARE = 0.019
ERROR_SHARE = 0.0017
DISCONTINUED_SHARE = 0.0033
RESULT_STATUS_SHARES = (0.026, 0.0024)  # Final, Manual
