"""The items of MIMIC-III's charts and laboratory that the simulator writes."""

from dataclasses import dataclass

from synehrgy.sources.simulator.activities import CAREVUE, METAVISION

CHART, LAB, OUTPUT = "CHARTEVENTS", "LABEVENTS", "OUTPUTEVENTS"


@dataclass(frozen=True)
class Item:
    """How one item charts a series.

    Attributes:
        itemid, label, unit: as in D_ITEMS and D_LABITEMS.
        table: the table of its rows.
        source: charting system, none for the laboratory.
        series, route: what it charts (see ``activities``); no series: an item that nothing uses.
        share: of the measurements by this route that it charts.
        style: how the number is written (see ``text``).
        decimals: decimals of the value.
        scale, offset: the charted value is ``scale`` times the value + ``offset``.
        reference: range outside which the laboratory flags a value.
        category: as in D_ITEMS or D_LABITEMS.
    """

    itemid: int
    label: str
    table: str
    source: int | None
    series: str
    route: str = ""
    unit: str | None = None
    share: float = 1.0
    style: str = "short"
    decimals: int = 0
    scale: float = 1.0
    offset: float = 0.0
    reference: tuple[float, float] | None = None
    category: str | None = None


def _carevue(itemid: int, label: str, series: str, route: str = "", **more: object) -> Item:
    return Item(itemid, label, CHART, CAREVUE, series, route, **more)  # type: ignore[arg-type]


def _metavision(itemid: int, label: str, series: str, route: str = "", **more: object) -> Item:
    more.setdefault("category", "Routine Vital Signs")
    return Item(itemid, label, CHART, METAVISION, series, route, **more)  # type: ignore[arg-type]


def _lab(
    itemid: int,
    label: str,
    series: str,
    unit: str | None,
    decimals: int,
    low: float,
    high: float,
    route: str = "",
    **more: object,
) -> Item:
    more.setdefault("category", "Chemistry")
    return Item(
        itemid, label, LAB, None, series, route, unit, style="fixed", decimals=decimals,
        reference=(low, high), **more,  # type: ignore[arg-type]
    )  # fmt: skip


_SBP, _DBP, _MBP = "Systolic blood pressure", "Diastolic blood pressure", "Mean blood pressure"
_F = {"scale": 1.8, "offset": 32.0}

ITEMS: tuple[Item, ...] = (
    # CareVue, until 2008.
    _carevue(211, "Heart Rate", "Heart Rate", unit="BPM"),
    _carevue(455, "NBP [Systolic]", _SBP, "cuff", unit="mmHg"),
    _carevue(8441, "NBP [Diastolic]", _DBP, "cuff", unit="mmHg"),
    _carevue(456, "NBP Mean", _MBP, "cuff", unit="mmHg", style="single", decimals=4),
    _carevue(51, "Arterial BP [Systolic]", _SBP, "arterial", unit="mmHg"),
    _carevue(8368, "Arterial BP [Diastolic]", _DBP, "arterial", unit="mmHg"),
    _carevue(52, "Arterial BP Mean", _MBP, "arterial", unit="mmHg"),
    _carevue(6701, "Arterial BP #2 [Systolic]", _SBP, "second", unit="mmHg"),
    _carevue(8555, "Arterial BP #2 [Diastolic]", _DBP, "second", unit="mmHg"),
    _carevue(6702, "Arterial BP Mean #2", _MBP, "second", unit="mmHg"),
    _carevue(442, "Manual BP [Systolic]", _SBP, "manual", unit="mmHg"),
    _carevue(3313, "BP Cuff [Systolic]", _SBP, "young", unit="mmHg"),
    _carevue(8502, "BP Cuff [Diastolic]", _DBP, "young", unit="mmHg"),
    _carevue(3312, "BP Cuff [Mean]", _MBP, "young", unit="mmHg"),
    _carevue(618, "Respiratory Rate", "Respiratory rate", unit="BPM"),
    _carevue(615, "Resp Rate (Total)", "Respiratory rate", "ventilator", unit="BPM"),
    _carevue(614, "Resp Rate (Spont)", "Respiratory rate", "ventilator", unit="BPM", share=0.5),
    _carevue(3603, "Resp Rate", "Respiratory rate", "young", unit="BPM"),
    _carevue(646, "SpO2", "Oxygen saturation", unit="%"),
    _carevue(834, "SaO2", "Oxygen saturation", "young", unit="%"),
    _carevue(676, "Temperature C", "Temperature", "celsius", unit="Deg. C", style="single",
             decimals=1),
    _carevue(679, "Temperature F (calc)", "Temperature", "celsius", unit="Deg. F", style="single",
             decimals=2, **_F),
    _carevue(678, "Temperature F", "Temperature", "fahrenheit", unit="Deg. F", style="single",
             decimals=1, **_F),
    _carevue(677, "Temperature C (calc)", "Temperature", "fahrenheit", unit="Deg. C",
             style="single", decimals=4),
    _carevue(3655, "Temp Skin [C]", "Temperature", "young", unit="Deg. C", style="single",
             decimals=1),
    _carevue(3654, "Temp Rectal [F]", "Temperature", "rectal", unit="Deg. F", style="single",
             decimals=1, **_F),
    _carevue(184, "Eye Opening", "Eye opening", style="level"),
    _carevue(454, "Motor Response", "Motor response", style="level"),
    _carevue(723, "Verbal Response", "Verbal response", style="level"),
    _carevue(198, "GCS Total", "Glasgow total", unit="points"),
    _carevue(3420, "FIO2", "Fraction inspired oxygen", scale=100.0),
    _carevue(3422, "FIO2 [Meas]", "Fraction inspired oxygen", scale=100.0, share=0.1),
    _carevue(189, "FiO2 (Analyzed)", "Fraction inspired oxygen", unit="torr", style="single",
             decimals=2, share=0.02),
    _carevue(807, "Fingerstick Glucose", "Glucose", "finger"),
    _carevue(811, "Glucose (70-105)", "Glucose", "copy"),
    _carevue(1529, "Glucose", "Glucose", "copy", share=0.8),
    _carevue(780, "Arterial pH", "pH", "copy", decimals=2),
    _carevue(1126, "Art.pH", "pH", "copy", decimals=2, share=0.95),
    _carevue(860, "Venous pH", "pH", "venous", unit="pH", style="single", decimals=2),
    _carevue(115, "Capillary Refill [Right]", "Capillary refill rate", style="level"),
    _carevue(8377, "Capillary Refill [Left]", "Capillary refill rate", style="level", share=0.93),
    _carevue(3348, "Capillary Refill", "Capillary refill rate", "young", style="level"),
    _carevue(763, "Daily Weight", "Weight", unit="kg", style="single", decimals=1),
    _carevue(3580, "Present Weight  (kg)", "Weight", "young", unit="kg", style="single",
             decimals=3),
    _carevue(3581, "Present Weight  (lb)", "Weight", "young", style="single", decimals=0,
             scale=2.2046),
    _carevue(3582, "Present Weight  (oz)", "Weight", "young", style="single", decimals=0,
             scale=35.274),
    # MetaVision, from 2008.
    _metavision(220045, "Heart Rate", "Heart Rate", unit="bpm"),
    _metavision(220179, "Non Invasive Blood Pressure systolic", _SBP, "cuff", unit="mmHg"),
    _metavision(220180, "Non Invasive Blood Pressure diastolic", _DBP, "cuff", unit="mmHg"),
    _metavision(220181, "Non Invasive Blood Pressure mean", _MBP, "cuff", unit="mmHg"),
    _metavision(220050, "Arterial Blood Pressure systolic", _SBP, "arterial", unit="mmHg"),
    _metavision(220051, "Arterial Blood Pressure diastolic", _DBP, "arterial", unit="mmHg"),
    _metavision(220052, "Arterial Blood Pressure mean", _MBP, "arterial", unit="mmHg"),
    _metavision(225309, "ART BP Systolic", _SBP, "second", unit="mmHg"),
    _metavision(225310, "ART BP Diastolic", _DBP, "second", unit="mmHg"),
    _metavision(225312, "ART BP mean", _MBP, "second", unit="mmHg"),
    _metavision(224167, "Manual Blood Pressure Systolic Left", _SBP, "manual", unit="mmHg"),
    _metavision(224643, "Manual Blood Pressure Diastolic Left", _DBP, "manual", unit="mmHg"),
    _metavision(220210, "Respiratory Rate", "Respiratory rate", unit="insp/min"),
    _metavision(224690, "Respiratory Rate (Total)", "Respiratory rate", "ventilator",
                unit="insp/min", category="Respiratory"),
    _metavision(224689, "Respiratory Rate (spontaneous)", "Respiratory rate", "ventilator",
                unit="insp/min", share=0.9, category="Respiratory"),
    _metavision(220277, "O2 saturation pulseoxymetry", "Oxygen saturation", unit="%",
                category="Respiratory"),
    _metavision(223761, "Temperature Fahrenheit", "Temperature", "fahrenheit", unit="?F",
                decimals=1, **_F),
    _metavision(223762, "Temperature Celsius", "Temperature", "celsius", unit="?C", decimals=1),
    _metavision(220739, "GCS - Eye Opening", "Eye opening", style="level", category="Neurological"),
    _metavision(223901, "GCS - Motor Response", "Motor response", style="level",
                category="Neurological"),
    _metavision(223900, "GCS - Verbal Response", "Verbal response", style="level",
                category="Neurological"),
    _metavision(223835, "Inspired O2 Fraction", "Fraction inspired oxygen", scale=100.0,
                category="Respiratory"),
    _metavision(225664, "Glucose finger stick", "Glucose", "finger", category="Labs"),
    _metavision(220621, "Glucose (serum)", "Glucose", "copy", unit="mg/dL", category="Labs"),
    _metavision(226537, "Glucose (whole blood)", "Glucose", "gas", unit="mg/dL", category="Labs"),
    _metavision(220615, "Creatinine", "Creatinine", "copy", unit="mg/dL", decimals=1,
                category="Labs"),
    _metavision(227443, "HCO3 (serum)", "Bicarbonate", "copy", unit="mEq/L", category="Labs"),
    _metavision(220602, "Chloride (serum)", "Chloride", "copy", unit="mEq/L", category="Labs"),
    _metavision(225690, "Total Bilirubin", "Bilirubin", "copy", unit="mg/dL", decimals=1,
                category="Labs"),
    _metavision(223830, "PH (Arterial)", "pH", "copy", unit="units", decimals=2, category="Labs"),
    _metavision(220274, "PH (Venous)", "pH", "venous", unit="units", decimals=2, category="Labs"),
    _metavision(224639, "Daily Weight", "Weight", unit="kg", decimals=1, share=0.66,
                category="General"),
    _metavision(226512, "Admission Weight (Kg)", "Weight", "admission", unit="kg", decimals=1,
                category="General"),
    _metavision(226531, "Admission Weight (lbs.)", "Weight", "admission", decimals=1, scale=2.2046,
                category="General"),
    _metavision(226707, "Height", "Height", "admission", unit="Inch", scale=0.3937,
                category="General"),
    _metavision(226730, "Height (cm)", "Height", "admission", unit="cm", category="General"),
    # The laboratory.
    _lab(51006, "Urea Nitrogen", "Blood urea nitrogen", "mg/dL", 0, 6, 20),
    _lab(50912, "Creatinine", "Creatinine", "mg/dL", 1, 0.5, 1.2),
    _lab(50868, "Anion Gap", "Anion gap", "mEq/L", 0, 8, 20),
    _lab(50882, "Bicarbonate", "Bicarbonate", "mEq/L", 0, 22, 32),
    _lab(50902, "Chloride", "Chloride", "mEq/L", 0, 96, 108),
    _lab(50971, "Potassium", "Potassium", "mEq/L", 1, 3.3, 5.1),
    _lab(50931, "Glucose", "Glucose", "mg/dL", 0, 70, 105),
    _lab(50893, "Calcium, Total", "Calcium", "mg/dL", 1, 8.4, 10.2),
    _lab(50970, "Phosphate", "Phosphate", "mg/dL", 1, 2.7, 4.5),
    _lab(51221, "Hematocrit", "Hematocrit", "%", 1, 36, 48, category="Hematology"),
    _lab(51222, "Hemoglobin", "Hemoglobin", "g/dL", 1, 12, 16, category="Hematology"),
    _lab(51265, "Platelet Count", "Platelets", "K/uL", 0, 150, 440, category="Hematology"),
    _lab(51301, "White Blood Cells", "White blood cell count", "K/uL", 1, 4, 11,
         category="Hematology"),
    _lab(51279, "Red Blood Cells", "Red blood cell count", "m/uL", 2, 4.2, 5.4,
         category="Hematology"),
    _lab(51250, "MCV", "Mean corpuscular volume", "fL", 0, 82, 98, category="Hematology"),
    _lab(51146, "Basophils", "Basophils", "%", 1, 0, 2, category="Hematology"),
    _lab(51244, "Lymphocytes", "Lymphocytes", "%", 1, 18, 42, category="Hematology"),
    _lab(51254, "Monocytes", "Monocytes", "%", 1, 2, 11, category="Hematology"),
    _lab(51256, "Neutrophils", "Neutrophils", "%", 1, 50, 70, category="Hematology"),
    _lab(51274, "PT", "Prothrombin time", "sec", 1, 10.4, 13.4, category="Hematology"),
    _lab(51237, "INR(PT)", "INR", None, 1, 0.9, 1.1, category="Hematology"),
    _lab(50861, "Alanine Aminotransferase (ALT)", "Alanine aminotransferase", "IU/L", 0, 0, 40),
    _lab(50878, "Asparate Aminotransferase (AST)", "Asparate aminotransferase", "IU/L", 0, 0, 40),
    _lab(50863, "Alkaline Phosphatase", "Alkaline phosphate", "IU/L", 0, 39, 117),
    _lab(50885, "Bilirubin, Total", "Bilirubin", "mg/dL", 1, 0, 1.5),
    _lab(50862, "Albumin", "Albumin", "g/dL", 1, 3.4, 4.8),
    _lab(50813, "Lactate", "Lactate", "mmol/L", 1, 0.5, 2.0, category="Blood Gas"),
    _lab(50818, "pCO2", "Partial pressure of carbon dioxide", "mm Hg", 0, 35, 45,
         category="Blood Gas"),
    _lab(50820, "pH", "pH", "units", 2, 7.35, 7.45, "gas", category="Blood Gas"),
    _lab(50809, "Glucose", "Glucose", "mg/dL", 0, 70, 105, "gas", category="Blood Gas"),
    _lab(50817, "Oxygen Saturation", "Oxygen saturation", "%", 0, 0, 101, "gas",
         category="Blood Gas"),
    _lab(50822, "Potassium, Whole Blood", "Potassium", "mEq/L", 1, 3.5, 5.3, "gas",
         category="Blood Gas"),
    _lab(50806, "Chloride, Whole Blood", "Chloride", "mEq/L", 0, 100, 112, "gas",
         category="Blood Gas"),
    _lab(50810, "Hematocrit, Calculated", "Hematocrit", "%", 0, 36, 48, "gas",
         category="Blood Gas"),
    _lab(50811, "Hemoglobin", "Hemoglobin", "g/dL", 1, 12, 16, "gas", category="Blood Gas"),
    _lab(51491, "pH", "Urine pH", "units", 1, 5, 8, category="Hematology"),
    _lab(51478, "Glucose", "Urine glucose", "mg/dL", 0, 0, 1, category="Hematology"),
    # Every output is charted in one of two ways.
    Item(40055, "Urine Out Foley", OUTPUT, CAREVUE, "Urine", unit="ml"),
    Item(226559, "Foley", OUTPUT, METAVISION, "Urine", unit="mL", category="Output"),
)  # fmt: skip


@dataclass(frozen=True)
class Filler:
    """An item that no series uses: a text of a few, or a whole number from a range."""

    itemid: int
    label: str
    source: int | None
    texts: tuple[str, ...] = ()
    span: tuple[int, int] | None = None
    unit: str | None = None
    category: str | None = None


FILLERS: tuple[Filler, ...] = (
    Filler(742, "calprevflg", CAREVUE, span=(1, 1), unit="kg"),
    Filler(212, "Heart Rhythm", CAREVUE, ("Normal Sinus", "Sinus Tachy", "Atrial Fib", "Paced")),
    Filler(128, "Code Status", CAREVUE, ("Full Code", "Do Not Resuscita", "CPR Not Indicate")),
    Filler(161, "Ectopy Type", CAREVUE, ("None", "PVC's", "PAC's")),
    Filler(159, "Ectopy Frequency", CAREVUE, ("None", "Rare", "Occasional", "Frequent")),
    Filler(550, "Precautions", CAREVUE, ("Universal", "Contact")),
    Filler(1125, "Service Type", CAREVUE, ("MICU", "SICU", "CCU", "CSRU")),
    Filler(1484, "Risk for Falls", CAREVUE, ("Yes", "No")),
    Filler(5815, "HR Alarm [Low]", CAREVUE, span=(40, 60), unit="BPM"),
    Filler(8549, "HR Alarm [High]", CAREVUE, span=(110, 140), unit="BPM"),
    Filler(5820, "SpO2 Alarm [Low]", CAREVUE, span=(85, 92), unit="%"),
    Filler(5819, "Resp Alarm [Low]", CAREVUE, span=(6, 10), unit="BPM"),
    Filler(581, "Previous WeightF", CAREVUE, span=(48, 130), unit="kg"),
    Filler(113, "CVP", CAREVUE, span=(2, 22), unit="mmHg"),
    Filler(674, "Temp. Site", CAREVUE, ("Oral", "Axillary", "Rectal", "Blood")),
    Filler(432, "Level of Conscious", CAREVUE, ("Alert", "Arouse to Voice", "Arouse to Pain")),
    Filler(637, "Side Rails", CAREVUE, ("Side Rails Up", "All rails up")),
    Filler(374, "Impaired Skin Site#1", CAREVUE, ("Arm, Right Lower", "Arm, Left Lower")),
    Filler(190, "FiO2 Set", CAREVUE, (".40000000596046448", ".5", ".60000002384185791"),
           unit="torr"),
    Filler(220048, "Heart Rhythm", METAVISION, ("SR (Sinus Rhythm)", "ST (Sinus Tachycardia) ",
           "AF (Atrial Fibrillation)"), category="Routine Vital Signs"),
    Filler(224650, "Ectopy Type 1", METAVISION, ("None", "PVCs", "PACs"),
           category="Routine Vital Signs"),
    Filler(227969, "Safety Measures_U_1", METAVISION, ("Adequate lighting", "Bed locked in low"),
           category="Restraint/Support Systems"),
    Filler(224080, "Head of Bed", METAVISION, ("30 Degrees", "45 Degrees"), category="Treatments"),
    Filler(224084, "Activity", METAVISION, ("Bedrest", "Chair"), category="Treatments"),
    Filler(224082, "Turn", METAVISION, ("Side to Side", "Self"), category="Treatments"),
    Filler(224093, "Position", METAVISION, ("Right Side", "Left Side", "Back"),
           category="Treatments"),
    Filler(223753, "Riker-SAS Scale", METAVISION, ("Calm/Cooperative", "Sedated", "Agitated"),
           category="Pain/Sedation"),
    Filler(223792, "Pain Management", METAVISION, ("Repositioned", "PO Meds"),
           category="Pain/Sedation"),
    Filler(223986, "RUL Lung Sounds", METAVISION, ("Clear", "Diminished", "Rhonchi"),
           category="Pulmonary"),
    Filler(220046, "Heart rate Alarm - High", METAVISION, span=(110, 140), unit="bpm",
           category="Alarms"),
    Filler(220047, "Heart Rate Alarm - Low", METAVISION, span=(40, 60), unit="bpm",
           category="Alarms"),
    Filler(224695, "Peak Insp. Pressure", METAVISION, span=(12, 38), unit="cmH2O",
           category="Respiratory"),
)  # fmt: skip

LAB_FILLERS: tuple[Filler, ...] = (
    Filler(50983, "Sodium", None, span=(128, 150), unit="mEq/L", category="Chemistry"),
    Filler(50960, "Magnesium", None, span=(1, 3), unit="mg/dL", category="Chemistry"),
    Filler(51248, "MCH", None, span=(25, 35), unit="pg", category="Hematology"),
    Filler(51249, "MCHC", None, span=(31, 36), unit="%", category="Hematology"),
    Filler(51277, "RDW", None, span=(12, 20), unit="%", category="Hematology"),
)
