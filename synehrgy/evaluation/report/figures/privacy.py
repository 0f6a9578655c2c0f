"""Figures of attacks."""

from typing import TYPE_CHECKING, Any

from synehrgy.evaluation.metric import SYNTHETIC, TEST, TRAIN
from synehrgy.evaluation.report.figures.drawing import (
    WIDE,
    Tables,
    drawn,
    figure_of,
    grid_of,
    in_order,
    name_of,
    rows_of,
)
from synehrgy.evaluation.report.style import CYCLE, MUTED, ROW_COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn(
    "attack_roc",
    "model_attacks",
    "Attacks",
    "Of the patients that the model was trained on, the share that an attack names (up), at the "
    "share of others that it names by mistake (right). On the dotted line it only guesses; what "
    "counts is the left end, where it is right about a few patients and hardly ever wrong.",
)
def _attack_roc(tables: Tables) -> "Figure | None":
    curves = []
    for name in sorted(tables):
        table = rows_of(tables, name, ["attack", "fpr", "tpr"], SYNTHETIC)
        if table is not None and name.endswith("_roc"):
            curves += [(_attack(a), part) for a, part in table.groupby("attack", sort=False)]
    if not curves:
        return None
    figure = figure_of(7.4, 4.6)
    place = figure.subplots()
    floor = min(float(part["fpr"][part["fpr"] > 0].min()) for _, part in curves)
    place.plot([floor, 1], [floor, 1], color=MUTED, linewidth=1, linestyle=":", label="Guessing")
    lines = ("-", "--", "-.")
    for i, (name, part) in enumerate(curves):
        part = part.sort_values("fpr")
        style: dict[str, Any] = {
            "color": CYCLE[i % len(CYCLE)],
            "linestyle": lines[i // len(CYCLE) % 3],
        }
        place.plot(
            part["fpr"].clip(lower=floor),
            part["tpr"].clip(lower=floor / 2),
            **style,
            linewidth=1.5,
            label=name_of(name, 34),
        )
    place.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor / 2, 1.1))
    place.set(xlabel="False positives, share of others", ylabel="True positives, share of members")
    figure.legend(loc="outside right upper")
    return figure


def _attack(name: object) -> str:
    """The name of an attack for people."""
    bare = str(name).removeprefix("published/")
    text = bare.replace("/", ": ").replace("_", " ")
    as_published = "" if bare == str(name) else ", as published"
    return text[:1].upper() + text[1:] + as_published


@drawn(
    "shared_runs",
    "memorisation",
    "Longest runs shared with a released record",
    "Share of patients of whom so many values in a row, or more, are in one synthetic record. What "
    "is memorised is where train patients lie above held-out ones.",
)
def _shared_runs(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "memorisation_runs", ["length", "train", "test"], SYNTHETIC)
    if table is None or not (table[["train", "test"]] > 0).any(axis=None):
        return None
    figure = figure_of(5.6, 3.4)
    place = figure.subplots()
    for column, row, name in (("test", TEST, "Held-out patients"), ("train", TRAIN, "Train")):
        shown = table[table[column] > 0].sort_values("length")
        style: dict[str, Any] = {"color": ROW_COLOURS[row], "markersize": 3.5, "label": name}
        place.plot(shown["length"], shown[column], "o-", **style)
    place.set(xscale="log", yscale="log", xlabel="values in a row, at least")
    lengths = table.loc[(table[["train", "test"]] > 0).any(axis=1), "length"]
    place.set_xticks(lengths, [f"{length:g}" for length in lengths])
    place.set_xticks([], minor=True)
    place.set_ylabel("share of patients")
    place.legend()
    return figure


@drawn(
    "distances",
    "distances",
    "Distance to the closest record",
    "Of synthetic patients, to the closest train and the closest held-out patient. For comparison "
    "with other work only: this misses most leaks.",
)
def _distances(tables: Tables) -> "Figure | None":
    table = rows_of(tables, "distances_closest", ["kind", "distance", "train", "test"], SYNTHETIC)
    if table is None:
        return None
    kinds = in_order(table["kind"])[:3]
    figure, axes = grid_of(len(kinds), 3, min(WIDE / len(kinds), 5.2), 2.7)
    for place, kind in zip(axes, kinds, strict=True):
        mine = table[table["kind"].astype(str) == kind].sort_values("distance")
        for column, row in (("test", TEST), ("train", TRAIN)):
            name = "to train" if row == TRAIN else "to held-out"
            style: dict[str, Any] = {"color": ROW_COLOURS[row], "linewidth": 1.4, "where": "mid"}
            place.step(mine["distance"], mine[column], label=name, **style)
        place.set(title=name_of(kind).capitalize(), xlabel="distance", ylim=(0, None))
    axes[0].set_ylabel("share of synthetic patients")
    axes[0].legend()
    return figure
