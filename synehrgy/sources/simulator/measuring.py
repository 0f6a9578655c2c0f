"""What is measured: the values of all cells, those that follow from others included."""

from functools import cache

import numpy as np

from synehrgy.sources.simulator.chance import Bools, Float, Ints, interpolate, normal_quantile
from synehrgy.sources.simulator.charting import MEASURED, Chart
from synehrgy.sources.simulator.people import People
from synehrgy.sources.simulator.physiology import SERIES_NAMES, SERIES_ROW, Course
from synehrgy.sources.simulator.scale import SCALE
from synehrgy.sources.simulator.series import PROBABILITIES, SERIES

# Pulse pressure is never less than this, mmHg; the mean lies this far up between the two.
LEAST_PULSE = 8.0
MEAN_PRESSURE = (0.315, 0.05)
# Haemoglobin and red cells follow the haematocrit: ratio and relative noise.
HEMATOCRIT_PER_HEMOGLOBIN = 2.95
RELATIVE_NOISE = 0.02
# INR = (prothrombin time / normal time) ** sensitivity, from a patient's reagent; those of the
# years of CareVue were the less even.
NORMAL_PROTHROMBIN = 12.9
SENSITIVITY = ((1.30, 2.00), (1.22, 1.30))
# Sedation of those with a tube, in standard deviations of consciousness.
SEDATION = 1.0
# Normal numbers above which a component reaches the next level, eye, motor and verbal from one on.
EYE_CUTS = (-1.0, -0.65, -0.15)
MOTOR_CUTS = (-1.15, -1.05, -0.95, -0.6, -0.15)
VERBAL_CUTS = (-1.15, -0.95, -0.8, -0.15)
# Verbal response cannot be tested with a tube; charted as this level.
UNTESTABLE = 5
ABNORMAL_REFILL = 1.1
URINE_PH = (5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.5, 6.0, 6.5, 7.0)
URINE_GLUCOSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 100.0, 250.0, 1000.0)


@cache
def _knots(name: str) -> tuple[Float, Float]:
    series = SERIES[name]
    values = np.array(series.values, dtype=np.float64)
    if series.log:
        values = np.log(values)
    return normal_quantile(np.array(PROBABILITIES)), values


class Values:
    """The values at all time points of a block, worked out for the points that are asked for."""

    def __init__(
        self, rng: np.random.Generator, people: People, course: Course, chart: Chart
    ) -> None:
        self.chart, self.course = chart, course
        self.noise = rng.standard_normal((len(SERIES_NAMES), len(chart.stay)), dtype=np.float32)
        low, high = np.array(SENSITIVITY)[people.source].T
        self.sensitivity = low + (high - low) * rng.random(len(low))

    def normal(self, name: str, point: Ints) -> Float:
        """Standard normal number of a series at some time points."""
        row = SERIES_ROW[name]
        z = self.course.level[row, self.chart.hour[point]]
        z = z + np.float32(SERIES[name].noise) * self.noise[row, point]
        median, below, above = SCALE[name]
        return np.asarray((z - median) / np.where(z < median, below, above))

    def plain(self, name: str, point: Ints) -> Float:
        """Value of a series that follows no other."""
        series = SERIES[name]
        value = interpolate(self.normal(name, point), *_knots(name))
        if series.log:
            value = np.exp(value)
        return np.asarray(np.clip(value, *series.limits))

    def of(self, name: str, point: Ints) -> Float:
        """Value of any measured series; levels as their place in the list of levels."""
        special = _SPECIAL.get(name)
        return special(self, point) if special is not None else self.plain(name, point)

    def intubated(self, point: Ints) -> Bools:
        """Whether a tube is in the airway, at each time point."""
        return self.chart.intubated[self.chart.hour[point]]

    def diastolic(self, point: Ints) -> Float:
        """Diastolic blood pressure in mmHg, below the systolic one."""
        systolic = self.plain("Systolic blood pressure", point)
        return np.minimum(self.plain("Diastolic blood pressure", point), systolic - LEAST_PULSE)

    def mean_pressure(self, point: Ints) -> Float:
        """Mean blood pressure in mmHg, between diastolic and systolic."""
        low, high = self.diastolic(point), self.plain("Systolic blood pressure", point)
        share, spread = MEAN_PRESSURE
        noise = self.noise[SERIES_ROW["Weight"], point].clip(-3, 3)
        return low + (share + spread * noise) * (high - low)

    def hemoglobin(self, point: Ints) -> Float:
        """Hemoglobin in g/dL, which follows the hematocrit."""
        noise = 1 + RELATIVE_NOISE * self.noise[SERIES_ROW["Height"], point]
        return self.plain("Hematocrit", point) / HEMATOCRIT_PER_HEMOGLOBIN * noise

    def red_cells(self, point: Ints) -> Float:
        """Red blood cells in m/uL, from hematocrit and mean volume."""
        noise = 1 + RELATIVE_NOISE * self.noise[SERIES_ROW["Weight"], point]
        volume = self.plain("Mean corpuscular volume", point)
        return 10 * self.plain("Hematocrit", point) / volume * noise

    def inr(self, point: Ints) -> Float:
        """INR, from the prothrombin time and the stay's reagent."""
        ratio = self.plain("Prothrombin time", point) / NORMAL_PROTHROMBIN
        return np.maximum(ratio ** self.sensitivity[self.chart.stay[point]], 0.8)

    def consciousness(self, point: Ints) -> Float:
        """Hidden number behind the Glasgow components; sedation lowers it."""
        return self.normal("Consciousness", point) - SEDATION * self.intubated(point)

    def eye(self, point: Ints) -> Float:
        """Eye opening, as its place in the list of levels."""
        return np.searchsorted(EYE_CUTS, self.consciousness(point)).astype(float)

    def motor(self, point: Ints) -> Float:
        """Motor response, as its place in the list of levels."""
        # The limbs answer better than the eyes, and not always alike.
        shift = 0.25 + 0.2 * self.noise[SERIES_ROW["Height"], point]
        return np.searchsorted(MOTOR_CUTS, self.consciousness(point) + shift).astype(float)

    def verbal(self, point: Ints) -> Float:
        """Verbal response, as its place in the list of levels; none with a tube."""
        shift = 0.15 * self.noise[SERIES_ROW["Weight"], point]
        spoken = np.searchsorted(VERBAL_CUTS, self.consciousness(point) + shift)
        return np.where(self.intubated(point), UNTESTABLE, spoken)

    def glasgow(self, point: Ints) -> Float:
        """Glasgow total, 3 to 15: the sum of the three components."""
        verbal = self.verbal(point)
        spoken = np.where(verbal == UNTESTABLE, 0, verbal)
        return self.eye(point) + self.motor(point) + spoken + 3

    def refill(self, point: Ints) -> Float:
        """Capillary refill: 1 where it is delayed, else 0."""
        return (self.normal("Capillary refill rate", point) > ABNORMAL_REFILL).astype(np.float64)

    def urine_ph(self, point: Ints) -> Float:
        """pH of urine."""
        return self._one_of(URINE_PH, "pH", point)

    def urine_glucose(self, point: Ints) -> Float:
        """Glucose of urine in mg/dL."""
        return self._one_of(URINE_GLUCOSE, "Glucose", point)

    def _one_of(self, values: tuple[float, ...], name: str, point: Ints) -> Float:
        cuts = normal_quantile(np.arange(1, len(values)) / len(values))
        return np.array(values)[np.searchsorted(cuts, self.noise[SERIES_ROW[name], point])]


_SPECIAL = {
    "Diastolic blood pressure": Values.diastolic,
    "Mean blood pressure": Values.mean_pressure,
    "Hemoglobin": Values.hemoglobin,
    "Red blood cell count": Values.red_cells,
    "INR": Values.inr,
    "Eye opening": Values.eye,
    "Motor response": Values.motor,
    "Verbal response": Values.verbal,
    "Glasgow total": Values.glasgow,
    "Capillary refill rate": Values.refill,
    "Urine pH": Values.urine_ph,
    "Urine glucose": Values.urine_glucose,
}


def measure(rng: np.random.Generator, people: People, course: Course, chart: Chart) -> Float:
    """The value of every cell of a chart, shape [cell], float64."""
    values = Values(rng, people, course, chart)
    measured = np.empty(len(chart.point))
    order = np.argsort(chart.series, kind="stable")
    bounds = np.searchsorted(chart.series[order], np.arange(len(MEASURED) + 1))
    for i, name in enumerate(MEASURED):
        mine = order[bounds[i] : bounds[i + 1]]
        measured[mine] = values.of(name, chart.point[mine])
    return measured
