"""What nurses and laboratories do, how often, and which series each act measures."""

from dataclasses import dataclass

CAREVUE, METAVISION = 0, 1

# Series that are measured together.
GROUPS: dict[str, tuple[str, ...]] = {
    "Pressure": (
        "Systolic blood pressure",
        "Diastolic blood pressure",
        "Mean blood pressure",
    ),
    "Glasgow": ("Eye opening", "Motor response", "Verbal response", "Glasgow total"),
    "Chemistry": (
        "Blood urea nitrogen",
        "Creatinine",
        "Anion gap",
        "Bicarbonate",
        "Chloride",
        "Potassium",
        "Glucose",
    ),
    "Count": (
        "Hematocrit",
        "Hemoglobin",
        "Platelets",
        "White blood cell count",
        "Red blood cell count",
        "Mean corpuscular volume",
    ),
    "Enzymes": ("Alanine aminotransferase", "Asparate aminotransferase", "Alkaline phosphate"),
    "Differential": ("Basophils", "Lymphocytes", "Monocytes", "Neutrophils"),
}


@dataclass(frozen=True)
class Activity:
    """Something that is done about once in so many hours, or together with another activity.

    Attributes:
        name: unique among the activities of a source.
        rate: expected number per hour; with ``of``, share of the occasions of that activity.
        carries: (series or group, route, probability) of each occasion. The route says by which
            items it is charted.
        of: the activity it goes with, at the same time unless ``delay`` is set.
        every: only in every so many hours of the clock.
        minutes: minutes past the hour, each as likely; none means any minute.
        boost: driver and weight: the rate is multiplied by exp(weight * driver).
        when: a state of the stay that is needed: "ventilated", "adult" or "young".
        daily: whether it follows the hours of the laboratory, with a peak before the morning round.
        first: how many times more often in the first two hours of the stay.
        delay: longest delay in minutes after the activity it goes with.
        sources: the charting systems in which it is done.
    """

    name: str
    rate: float
    carries: tuple[tuple[str, str, float], ...]
    of: str | None = None
    every: int = 1
    minutes: tuple[int, ...] = ()
    boost: tuple[str, float] | None = None
    when: str = "adult"
    daily: bool = False
    first: float = 1.0
    delay: int = 0
    sources: tuple[int, ...] = (CAREVUE, METAVISION)


CV, MV = (CAREVUE,), (METAVISION,)

ACTIVITIES: tuple[Activity, ...] = (
    # Nursing rounds, about hourly.
    Activity(
        "round", 0.93,
        (
            ("Heart Rate", "", 0.985),
            ("Pressure", "", 0.955),
            ("Respiratory rate", "", 0.945),
            ("Oxygen saturation", "", 0.93),
        ),
        minutes=(0,), boost=("shock", 0.03), sources=CV,
    ),
    Activity(
        "round", 0.94,
        (
            ("Heart Rate", "", 0.985),
            ("Pressure", "", 0.86),
            ("Respiratory rate", "", 0.965),
            ("Oxygen saturation", "", 0.935),
        ),
        minutes=(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3), boost=("shock", 0.03), sources=MV,
    ),
    Activity(
        "extra round", 0.12,
        (
            ("Heart Rate", "", 0.97),
            ("Pressure", "", 0.95),
            ("Respiratory rate", "", 0.90),
            ("Oxygen saturation", "", 0.90),
        ),
        minutes=(15, 30, 30, 45, 20, 40), boost=("shock", 0.3), first=3.0,
    ),
    Activity("pressure check", 0.10, (("Pressure", "", 1.0),), boost=("shock", 0.3), sources=MV),
    Activity(
        "breathing check", 0.05,
        (("Respiratory rate", "", 0.7), ("Oxygen saturation", "", 0.9)), boost=("respiratory", 0.3),
    ),
    Activity(
        "assessment", 0.95, (("Glasgow", "", 1.0), ("Temperature", "", 0.70)), of="round",
        every=4, sources=CV,
    ),
    Activity(
        "assessment", 0.62, (("Glasgow", "", 1.0), ("Temperature", "", 0.75)), of="round",
        every=4, sources=MV,
    ),
    Activity("assessment later", 0.145, (("Glasgow", "", 1.0),), of="round", delay=25, sources=MV),
    Activity("extra assessment", 0.05, (("Glasgow", "", 1.0),), of="round", sources=CV),
    Activity("temperature", 0.21, (("Temperature", "", 1.0),), of="round", sources=CV),
    Activity("temperature", 0.16, (("Temperature", "", 1.0),), of="round", sources=MV),
    Activity("capillary refill", 0.023, (("Capillary refill rate", "", 1.0),), of="assessment",
             sources=CV),
    Activity("fingerstick", 0.13, (("Glucose", "finger", 1.0),), of="round",
             boost=("glycaemia", 0.55)),
    Activity("fingerstick apart", 0.03, (("Glucose", "finger", 1.0),), boost=("glycaemia", 0.55)),
    Activity("ventilator check", 0.26,
             (("Fraction inspired oxygen", "", 1.0), ("Respiratory rate", "ventilator", 0.9)),
             of="round", when="ventilated", sources=CV),
    Activity("ventilator check", 0.40,
             (("Fraction inspired oxygen", "", 1.0), ("Respiratory rate", "ventilator", 0.9)),
             of="round", when="ventilated", sources=MV),
    Activity("oxygen", 0.035, (("Fraction inspired oxygen", "", 1.0),), of="round",
             boost=("respiratory", 0.5)),
    Activity("weight", 0.016, (("Weight", "", 1.0),), of="round", first=3.0),
    # The laboratory. A panel shares one time.
    Activity(
        "draw", 0.053,
        (("Chemistry", "", 0.93), ("Count", "", 0.83), ("Calcium", "", 0.81),
         ("Phosphate", "", 0.83), ("Prothrombin time", "", 0.60), ("Enzymes", "", 0.20),
         ("Bilirubin", "", 0.20), ("Albumin", "", 0.135), ("Differential", "", 0.115)),
        boost=("shock", 0.15), daily=True, first=5.0,
    ),
    Activity("blood check", 0.018,
             (("Hematocrit", "", 1.0), ("Hemoglobin", "", 0.20), ("Platelets", "", 0.10)),
             boost=("anaemia", 0.4)),
    Activity("electrolyte check", 0.013,
             (("Potassium", "", 1.0), ("Glucose", "", 0.3), ("Chloride", "", 0.10)),
             boost=("renal", 0.3)),
    Activity(
        "blood gas", 0.038,
        (("Partial pressure of carbon dioxide", "", 1.0), ("pH", "gas", 1.0),
         ("Lactate", "", 0.31), ("Glucose", "gas", 0.25), ("Oxygen saturation", "gas", 0.30),
         ("Potassium", "gas", 0.22), ("Chloride", "gas", 0.08), ("Hematocrit", "gas", 0.12),
         ("Hemoglobin", "gas", 0.12)),
        boost=("respiratory", 0.5), first=3.0,
    ),
    Activity("ventilated blood gas", 0.055,
             (("Partial pressure of carbon dioxide", "", 1.0), ("pH", "gas", 1.0),
              ("Lactate", "", 0.31), ("Glucose", "gas", 0.25), ("Oxygen saturation", "gas", 0.30),
              ("Potassium", "gas", 0.22), ("Chloride", "gas", 0.08), ("Hematocrit", "gas", 0.12),
              ("Hemoglobin", "gas", 0.12)),
             boost=("shock", 0.3), when="ventilated"),
    Activity("venous gas", 0.004, (("pH", "venous", 1.0),)),
    Activity("urinalysis", 0.006, (("Urine pH", "", 1.0), ("Urine glucose", "", 0.9)), first=4.0),
    # The nurse copies results into the chart, in CareVue under the time of the draw.
    Activity("copied chemistry", 0.80, (("Glucose", "copy", 1.0),), of="draw", sources=CV),
    Activity("copied gas", 0.80, (("pH", "copy", 1.0),), of="blood gas", sources=CV),
    Activity("copied ventilated gas", 0.80, (("pH", "copy", 1.0),), of="ventilated blood gas",
             sources=CV),
    Activity(
        "copied chemistry", 0.82,
        (("Creatinine", "copy", 1.0), ("Bicarbonate", "copy", 1.0), ("Chloride", "copy", 1.0),
         ("Glucose", "copy", 0.97), ("Bilirubin", "copy", 0.25)),
        of="draw", delay=45, sources=MV,
    ),
    Activity("copied gas", 0.72, (("pH", "copy", 1.0),), of="blood gas", delay=40, sources=MV),
    Activity("copied ventilated gas", 0.72, (("pH", "copy", 1.0),), of="ventilated blood gas",
             delay=40, sources=MV),
    # Newborns and children.
    Activity(
        "young round", 0.95,
        (("Heart Rate", "", 0.98), ("Respiratory rate", "young", 0.93),
         ("Oxygen saturation", "young", 0.93), ("Temperature", "young", 0.27)),
        minutes=(0, 0, 0, 30), when="young",
    ),
    Activity(
        "young assessment", 0.9,
        (("Pressure", "young", 0.33), ("Capillary refill rate", "young", 1.0)),
        of="young round", every=4, when="young",
    ),
    Activity("young weight", 0.9, (("Weight", "young", 1.0),), of="young round", every=12,
             when="young"),
    Activity("young draw", 0.008,
             (("Chemistry", "", 0.7), ("Count", "", 0.5), ("Bilirubin", "", 0.5)), daily=True,
             first=5.0, when="young"),
    Activity("young fingerstick", 0.04, (("Glucose", "finger", 1.0),), when="young"),
    # Emptied about hourly where there is a catheter; no series, but a table of its own.
    Activity("urine bag", 0.45, (("Urine", "", 1.0),), of="round"),
)  # fmt: skip

# Share of a day's draws by the hour of the clock, as seen in intensive care: before the round.
DRAW_HOURS = (
    0.7, 1.3, 1.8, 2.3, 2.9, 2.6, 1.5, 0.9, 0.6, 0.55, 0.55, 0.55,
    0.6, 0.6, 0.65, 0.65, 0.75, 0.65, 0.55, 0.45, 0.4, 0.4, 0.45, 0.6,
)  # fmt: skip
