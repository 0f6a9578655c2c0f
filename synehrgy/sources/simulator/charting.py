"""When which series is measured: the activities of a stay, hour by hour."""

from dataclasses import dataclass

import numpy as np

from synehrgy.sources.simulator.activities import ACTIVITIES, DRAW_HOURS, GROUPS, Activity
from synehrgy.sources.simulator.chance import Bools, Float, Ints, ragged
from synehrgy.sources.simulator.conditions import DRIVERS
from synehrgy.sources.simulator.items import ITEMS
from synehrgy.sources.simulator.people import DAY, HOUR, People
from synehrgy.sources.simulator.physiology import Course

MEASURED = tuple(dict.fromkeys(item.series for item in ITEMS))
ROUTES = tuple(dict.fromkeys(["", *(item.route for item in ITEMS)]))

# Where a time point lies: in the unit, elsewhere in the hospital, outside of any admission.
IN_UNIT, ON_WARD, OUTSIDE = 0, 1, 2

# Lines and tubes: share of adult stays, with and without a ventilator, that have an arterial line.
ARTERIAL_SHARE = (0.28, 0.80)
SECOND_LINE_SHARE = 0.03
LINE_HOURS = (40.0, 0.8)  # median and spread of the logarithm
TUBE_HOURS = (26.0, 1.2)
CUFF_BESIDE_LINE = 0.05
MANUAL_SHARE = 0.0015
CELSIUS_SHARE = (0.33, 0.12)  # by charting system
INR_SHARE = 0.985
ON_ARRIVAL = (("Weight", 0.8), ("Height", 0.35))
# On the ward and before the admission: draws a day, number of visits, what they carry.
WARD_DRAWS = 1.3
WARD_DAYS = 40
OUTSIDE_VISITS = 3.0
WARD_CARRIES = (
    ("Chemistry", 0.95), ("Count", 0.9), ("Calcium", 0.7), ("Phosphate", 0.7),
    ("Prothrombin time", 0.4), ("Enzymes", 0.2), ("Bilirubin", 0.2), ("Albumin", 0.15),
    ("Differential", 0.25),
)  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """What is measured in a block.

    Time points, one per (stay, time): row of the stay, place in the course's hours, seconds since
    1970, and where. Cells, one per measurement: the point, the series (row of ``MEASURED``) and
    the route (row of ``ROUTES``).
    """

    stay: Ints
    hour: Ints
    time: Ints
    place: Ints
    point: Ints
    series: Ints
    route: Ints
    intubated: Bools


class _Draft:
    """Cells as they are drawn: hour, time, place, series and route of each."""

    def __init__(self) -> None:
        self.parts: list[tuple[Ints, ...]] = []

    def add(self, hour: Ints, time: Ints, place: int, name: str, route: str | Ints) -> None:
        codes = np.full(len(hour), ROUTES.index(route)) if isinstance(route, str) else route
        for series in GROUPS.get(name, (name,)):
            row = np.full(len(hour), MEASURED.index(series))
            self.parts.append((hour, time, np.full(len(hour), place), row, codes))

    def columns(self) -> list[Ints]:
        return [np.concatenate(column) for column in zip(*self.parts, strict=True)]


def draw_chart(rng: np.random.Generator, people: People, course: Course) -> Chart:
    """Draw all time points and cells of a block."""
    draft = _Draft()
    n = len(people.admission)
    young = people.young[people.patient[people.admission]]
    tube = _hours_of(rng, people.ventilated, TUBE_HOURS, n)
    tube = np.where(people.dies_in_unit & people.ventilated, np.inf, tube)
    intubated = course.hour < tube[course.stay]
    states = {"adult": ~young[course.stay], "young": young[course.stay], "ventilated": intubated}
    pressure = _pressure_routes(rng, people, course)
    celsius = rng.random(n) < np.array(CELSIUS_SHARE)[people.source]
    thermometer = np.where(celsius, ROUTES.index("celsius"), ROUTES.index("fahrenheit"))
    occasions: dict[str, list[tuple[Ints, Ints]]] = {}
    for activity in ACTIVITIES:
        mask = states[activity.when] & np.isin(people.source, activity.sources)[course.stay]
        if activity.of is None:
            hour, time = _occasions(rng, activity, course, mask)
        else:
            hour, time = _with_others(rng, activity, course, mask, occasions[activity.of])
        occasions.setdefault(activity.name, []).append((hour, time))
        for name, route, share in activity.carries:
            chosen = np.flatnonzero(rng.random(len(hour)) < share)
            h, t = hour[chosen], time[chosen]
            if name == "Pressure" and not route:
                draft.add(h, t, IN_UNIT, name, pressure[h])
                lined = np.flatnonzero(
                    (pressure[h] == ROUTES.index("arterial"))
                    & (rng.random(len(h)) < CUFF_BESIDE_LINE)
                )
                draft.add(h[lined], t[lined], IN_UNIT, name, "cuff")
            elif name == "Temperature" and not route:
                draft.add(h, t, IN_UNIT, name, thermometer[course.stay[h]])
            else:
                draft.add(h, t, IN_UNIT, name, route)
            if name == "Prothrombin time":
                both = rng.random(len(h)) < INR_SHARE
                draft.add(h[both], t[both], IN_UNIT, "INR", route)
    # Taken once, on arrival.
    for name, share in ON_ARRIVAL:
        arrived = course.first[~young & (rng.random(n) < share)]
        minutes = people.intime[course.stay[arrived]] // 60 + rng.integers(1, 40, len(arrived))
        draft.add(arrived, 60 * minutes, IN_UNIT, name, "admission")
    _elsewhere(rng, draft, people, course)
    return _assemble(draft, people, course, intubated)


def _hours_of(
    rng: np.random.Generator, has: Bools, parameters: tuple[float, float], n: int
) -> Float:
    median, spread = parameters
    return np.where(has, median * np.exp(spread * rng.standard_normal(n)), 0.0)


def _pressure_routes(rng: np.random.Generator, people: People, course: Course) -> Ints:
    """How blood pressure is taken in each hour, as a row of ``ROUTES``."""
    n = len(people.admission)
    lined = rng.random(n) < np.array(ARTERIAL_SHARE)[people.ventilated.astype(int)]
    hours = _hours_of(rng, lined, LINE_HOURS, n)
    second = rng.random(n) < SECOND_LINE_SHARE
    line = np.where(second, ROUTES.index("second"), ROUTES.index("arterial"))[course.stay]
    manual = rng.random(len(course.hour)) < MANUAL_SHARE
    cuff = np.where(manual, ROUTES.index("manual"), ROUTES.index("cuff"))
    return np.where(course.hour < hours[course.stay], line, cuff)


def _occasions(
    rng: np.random.Generator, activity: Activity, course: Course, mask: Bools
) -> tuple[Ints, Ints]:
    rate = np.full(len(mask), activity.rate)
    clock = course.clock // HOUR % 24
    if activity.boost is not None:
        driver, weight = activity.boost
        rate *= np.exp(weight * course.drivers[DRIVERS.index(driver)].clip(-3, 3) - weight**2 / 2)
    if activity.daily:
        rate *= (np.array(DRAW_HOURS) / np.mean(DRAW_HOURS))[clock]
    rate[course.hour < 2] *= activity.first
    hit = np.flatnonzero(mask & (rng.random(len(mask)) < rate) & (clock % activity.every == 0))
    minutes = np.array(activity.minutes or range(60))
    return hit, course.clock[hit] + 60 * minutes[rng.integers(0, len(minutes), len(hit))]


def _with_others(
    rng: np.random.Generator,
    activity: Activity,
    course: Course,
    mask: Bools,
    others: list[tuple[Ints, Ints]],
) -> tuple[Ints, Ints]:
    hour = np.concatenate([h for h, _ in others])
    time = np.concatenate([t for _, t in others])
    share = np.full(len(hour), activity.rate)
    if activity.boost is not None:
        driver, weight = activity.boost
        value = course.drivers[DRIVERS.index(driver), hour].clip(-3, 3)
        share *= np.exp(weight * value - weight**2 / 2)
    share[course.hour[hour] < 2] *= activity.first
    chosen = mask[hour] & (rng.random(len(hour)) < share)
    chosen &= course.clock[hour] // HOUR % activity.every == 0
    hour, time = hour[chosen], time[chosen]
    if activity.delay:
        time = time + 60 * rng.integers(3, activity.delay + 1, len(time))
    return hour, time


def _elsewhere(rng: np.random.Generator, draft: _Draft, people: People, course: Course) -> None:
    """Draws on the ward before and after intensive care, and visits before the first admission."""
    m = len(people.admitted)
    stays = np.bincount(people.admission, minlength=m)
    last = np.cumsum(stays) - 1
    opening, closing = last - stays + 1, last
    hours = np.bincount(course.stay, minlength=len(people.admission))
    visits = rng.poisson(OUTSIDE_VISITS, m) * (people.admitted == _first_of(people)[people.patient])
    spells: tuple[tuple[Ints, Ints, Ints, Ints, int], ...] = (
        (people.admitted, people.intime[opening], course.first[opening], stays * 0, ON_WARD),
        (people.outtime[closing], people.discharged, course.first[closing] + hours[closing] - 1,
         stays * 0, ON_WARD),
        (people.admitted - 200 * DAY, people.admitted - DAY, course.first[opening], visits,
         OUTSIDE),
    )  # fmt: skip
    for begin, end, hour, number, place in spells:
        span = np.maximum(end - begin, 0)
        draws = rng.poisson(WARD_DRAWS * np.minimum(span / DAY, WARD_DAYS))
        owner, _ = ragged(number if place == OUTSIDE else draws)
        time = begin[owner] + (rng.random(len(owner)) * span[owner]).astype(np.int64)
        time = time // 60 * 60
        # A draw on the very minute of arrival belongs to the unit.
        valid = (time > begin[owner]) & (time < end[owner])
        owner, time = owner[valid], time[valid]
        for name, share in WARD_CARRIES:
            chosen = rng.random(len(owner)) < share
            draft.add(hour[owner[chosen]], time[chosen], place, name, "")
            if name == "Prothrombin time":
                draft.add(hour[owner[chosen]], time[chosen], place, "INR", "")


def _first_of(people: People) -> Ints:
    """Time of each patient's first admission."""
    first = np.full(len(people.male), np.iinfo(np.int64).max)
    np.minimum.at(first, people.patient, people.admitted)
    return first


def _assemble(draft: _Draft, people: People, course: Course, intubated: Bools) -> Chart:
    hour, time, place, series, route = draft.columns()
    stay = course.stay[hour]
    kept = (place != IN_UNIT) | ((time >= people.intime[stay]) & (time <= people.outtime[stay]))
    hour, time, place, series, route, stay = (
        column[kept] for column in (hour, time, place, series, route, stay)
    )
    # One number for a cell, so that one sort finds what was drawn twice.
    moment = stay * 2**36 + time
    _, first, point = np.unique(moment, return_index=True, return_inverse=True)
    cells = (point * len(MEASURED) + series) * len(ROUTES) + route
    cells = np.unique(cells)
    return Chart(
        stay=stay[first],
        hour=hour[first],
        time=time[first],
        place=place[first],
        point=cells // (len(MEASURED) * len(ROUTES)),
        series=cells // len(ROUTES) % len(MEASURED),
        route=cells % len(ROUTES),
        intubated=intubated,
    )
