"""The report of an evaluation: one file that opens anywhere, and the files beside it."""

import hashlib
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synehrgy.evaluation.compare import Evaluation, compare
from synehrgy.evaluation.metric import Bench, Effort, Found, Metric, Scale, Score
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.evaluation.metrics.examples import Examples
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.report import write_report
from synehrgy.evaluation.report.figures import DRAWINGS
from synehrgy.evaluation.report.judgement import (
    interval,
    judged,
    short,
    thresholds_in_words,
    verdicts,
)
from synehrgy.evaluation.report.latex import escaped
from synehrgy.evaluation.rows import bench_of
from tests.cohorts import cohorts, small_cohort

NAN = float("nan")
NASTY = '<b>"5 & 6"</b>'
MEANING = "How <far> off it is."
SCALES = {
    "fake/close": Scale("Close", MEANING, "low", (0.0, 1.0), 0.0, 0.1, 0.2),
    "fake/high": Scale(NASTY, MEANING, "high", (0.0, 1.0), "test", 0.1, 0.2),
    "fake/near": Scale("Near", MEANING, "near", (0.0, 1.0), 0.5, 0.1, 0.1),
    "fake/open": Scale("Open", MEANING, "low", (0.0, np.inf), 0.0),
    "published/fake/r": Scale("Old r", MEANING, "high", (-1.0, 1.0), "test"),
}
# Elements that HTML does not close.
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Fake(Metric):
    name = "fake"
    title = NASTY
    group = "fidelity"
    scales: ClassVar = SCALES

    def measure(self, bench, row):
        raise NotImplementedError


class Privacy(Fake):
    name = "leaks"
    title = "Leaks"
    group = "privacy"
    scales: ClassVar = {
        "leaks/auroc": Scale("Attack", "Who it names.", "low", (0.0, 1.0), 0.5, 0.05, 0.1)
    }


def evaluation(values=None, tables=None, **more) -> Evaluation:
    """An evaluation with the given values by (score, row)."""
    values = {
        ("fake/close", "synthetic"): 0.15,
        ("fake/close", "test"): 0.05,
        ("fake/high", "synthetic"): 0.3,
        ("fake/high", "test"): 0.9,
        ("fake/near", "synthetic"): 0.45,
        ("fake/open", "synthetic"): 4321.0,
        ("published/fake/r", "synthetic"): 0.99,
        ("published/fake/r", "test"): 0.98,
        ("leaks/auroc", "synthetic"): 0.5,
        ("leaks/auroc", "train"): 1.0,
    } | (values or {})
    scales = SCALES | Privacy.scales
    rows = []
    for (score, row), value in values.items():
        reference = scales[score].reference
        if isinstance(reference, str):
            reference = values.get((score, reference), NAN)
        metric, group = ("leaks", "privacy") if "leaks" in score else ("fake", "fidelity")
        light = scales[score].light(value, reference)
        rows.append((metric, group, score, row, value, value - 0.01, value + 0.01, light))
    columns = ["metric", "group", "score", "row", "value", "low", "high", "light"]
    facts = {
        "real": "real",
        "synthetic": NASTY,
        "scores": pd.DataFrame(rows, columns=columns),
        "tables": tables or {},
        "skipped": {},
        "seconds": {"fake": 1.0},
        "patients": {"synthetic": 30, "test": 20, "train": 50, "equal": 20},
    }
    return Evaluation(**(facts | more))


class Page(HTMLParser):
    """Checks that elements close in order, and collects what there is."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def written(folder, found, metrics=None, **more) -> Page:
    write_report(folder, found, metrics or [Fake(), Privacy()], **more)
    return Page((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def bench() -> Bench:
    effort = Effort(n_resamples=10, quick=True)
    return bench_of(small_cohort(60), small_cohort(40, seed=1), effort=effort)


def test_the_page_says_what_was_found(tmp_path):
    page = written(tmp_path, evaluation(), made="2025-01-31", facts={"Seed": "17"})
    for said in ("2025-01-31", "17", "30 patients", NASTY, MEANING, "1 good, 1 fair, 1 poor"):
        assert said in page.text
    # The worst of a group comes first, with its value and what it should be.
    assert "0.3, where held-out real patients have 0.9" in page.text
    assert "4,321" in page.text
    assert "Nothing of this was judged." in page.text


def test_every_light_is_a_word_and_a_shape(tmp_path):
    written(tmp_path, evaluation())
    text = (tmp_path / "report.html").read_text()
    found = re.findall(r'<span class="light (good|fair|poor)"><svg.*?</svg>(\w+)</span>', text)
    assert {light for light, _ in found} == {"good", "fair", "poor"}
    assert all(word == light.capitalize() for light, word in found)
    shapes = {re.search(f'light {light}"><svg[^>]*>(.*?)</svg>', text)[1] for light, _ in found}
    assert len(shapes) == 3


def test_names_are_escaped(tmp_path):
    tables = {
        "codes_per_stay": pd.DataFrame(
            {"row": ["synthetic"] * 2, "system": "$x$ <i>", "n": [1, 2], "train": 0.5}
        ).assign(measured=0.5)
    }
    page = written(tmp_path, evaluation(tables=tables, skipped={"fake": NASTY}), facts={NASTY: "x"})
    assert "i" not in {tag for tag, attributes in page.tags if not attributes}
    assert NASTY in page.text
    assert NASTY not in (tmp_path / "report.html").read_text()


def test_the_page_loads_nothing(tmp_path, bench):
    page = written(tmp_path, compare(bench, [Examples()], progress=False), [Examples()])
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    for image in images:
        assert image["src"].startswith("data:image/svg+xml;base64,")
        assert image["alt"]
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"url\(|@import|src=\"http|href=\"http", text)


def test_links_lead_somewhere(tmp_path):
    page = written(tmp_path, evaluation())
    assert len(set(page.ids)) == len(page.ids)
    targets = [a["href"] for tag, a in page.tags if tag == "a"]
    assert targets
    for target in targets:
        known = target[1:] in page.ids if target[0] == "#" else (tmp_path / target).is_file()
        assert known, target


def test_published_scores_stand_apart(tmp_path):
    page = written(tmp_path, evaluation())
    assert page.text.count("Old r") == 1
    assert page.text.index("As published The same") < page.text.index("Old r")
    assert not (tmp_path / "tables" / "scores_fidelity.tex").read_text().count("Old r")
    assert (
        "0.990" in (tmp_path / "tables" / "scores_published.tex").read_text()
        or "0.99" in (tmp_path / "tables" / "scores_published.tex").read_text()
    )


def test_what_is_left_out_is_said(tmp_path):
    found = evaluation(skipped={"leaks": "the cohorts have no labels"})
    assert "Leaks : the cohorts have no labels." in written(tmp_path, found).text


def test_an_evaluation_without_anything(tmp_path):
    found = evaluation()
    empty = replace(found, scores=found.scores[:0], seconds={}, patients={})
    page = written(tmp_path, empty)
    assert page.text.count("Nothing of this was judged.") == 4
    assert (tmp_path / "tables" / "scores.csv").exists()
    assert not (tmp_path / "figures").exists()


def test_undefined_scores(tmp_path):
    found = evaluation({("fake/close", "synthetic"): NAN, ("fake/high", "test"): NAN})
    page = written(tmp_path, found)
    assert "not defined" in page.text
    assert "nan" not in page.text.lower()
    assert "0 good, 0 fair, 0 poor" not in page.text
    assert "1 good, 0 fair, 0 poor" in page.text


def test_files_beside_the_page(tmp_path, bench):
    found = compare(bench, [Examples()], progress=False)
    table = pd.DataFrame({"row": ["synthetic"], "new": [1.5]})
    found = replace(evaluation(), tables=found.tables | {"unknown_table": table})
    page = written(tmp_path, found, [Fake(), Privacy(), Examples()])
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert (tmp_path / "figures" / f"examples.{kind}").read_bytes().startswith(start)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables" / "unknown_table.csv"), table)
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv")
    assert scores["value"].tolist() == found.scores["value"].tolist()
    assert "unknown_table.csv" in page.text
    assert "Example patients" in page.text


def test_tables_of_latex(tmp_path):
    written(tmp_path, evaluation())
    text = (tmp_path / "tables" / "scores_fidelity.tex").read_text()
    for part in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\textless{}b\textgreater{}",
        r"5 \& 6",
    ):
        assert part in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    lines = [line for line in text.splitlines() if line.rstrip().endswith(r"\\")]
    # Of every line, as many columns: the score, synthetic and held-out patients.
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {2}
    assert len(lines) == 1 + 4
    assert escaped("a_b 50%") == r"a\_b 50\%"


def test_the_same_evaluation_gives_the_same_bytes(tmp_path, bench):
    found = compare(bench, [Examples()], progress=False)
    found = replace(evaluation(), tables=found.tables)
    digests = []
    for name in ("one", "two"):
        written(tmp_path / name, found, [Fake(), Privacy(), Examples()], made="today")
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in files])
    assert len(digests[0]) > 8
    assert digests[0] == digests[1]


def test_settings_of_figures_do_not_stay(tmp_path, bench):
    import matplotlib

    before = dict(matplotlib.rcParams)
    written(tmp_path, compare(bench, [Examples()], progress=False), [Examples()])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.name)
def test_no_figure_without_its_table(drawing):
    assert drawing.draw({}) is None


def test_figures_have_names_of_their_own():
    names = [drawing.name for drawing in DRAWINGS]
    assert len(set(names)) == len(names)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(list(SCALES)), st.floats(0, 1), min_size=1))
def test_a_group_is_as_good_as_its_worst_light(values):
    rows = {(score, row): x for score, x in values.items() for row in ("synthetic", "test")}
    found = evaluation(rows)
    scores = judged(found.scores, SCALES | Privacy.scales)
    verdict = {v.group: v for v in verdicts(scores)}["fidelity"]
    lights = scores[(scores["row"] == "synthetic") & (scores["group"] == "fidelity")]
    order = ["good", "fair", "poor"]
    assert verdict.light == max(lights["light"].dropna(), key=order.index)
    assert sum(verdict.counts.values()) == lights["light"].notna().sum()
    # Severity says the same as the light.
    for light, severity in lights[["light", "severity"]].dropna().itertuples(index=False):
        assert light == ("good" if severity <= 1e-6 else "fair" if severity <= 1 + 1e-6 else "poor")


@pytest.mark.parametrize(
    ("x", "text"),
    [
        *[(0.0, "0"), (-0.0, "0"), (0.123456, "0.123"), (-0.5, "\u22120.5"), (23468.0, "23,468")],
        *[(1e-5, "0.00001"), (NAN, ""), (np.inf, "∞"), (1e-12, "0"), (999.9, "999.9")],
    ],
)
def test_numbers_for_people(x, text):
    assert short(x) == text


@settings(max_examples=200)
@given(st.floats(-1e9, 1e9))
def test_numbers_have_no_exponents_and_are_right(x):
    text = short(x)
    assert "e" not in text
    back = float(text.replace(",", "").replace("\u2212", "-"))
    assert back == pytest.approx(x, rel=0.006, abs=5e-7)


def test_intervals_show_digits_that_differ():
    assert interval(0.4231, 0.5172) == "0.423 to 0.517"
    assert interval(0.9701, 0.9702) == "0.970100 to 0.970200"
    assert interval(NAN, 1.0) == ""
    assert interval(-0.001, 0.5) == "0 to 0.50"


def test_thresholds_are_told():
    assert thresholds_in_words(SCALES["fake/close"]) == {
        "good": "at most 0.1 above it",
        "fair": "at most 0.2 above it",
        "poor": "more than 0.2 above it",
    }
    assert thresholds_in_words(SCALES["fake/near"])["fair"] == ""
    assert thresholds_in_words(SCALES["fake/open"]) == {}


class TestExamples:
    def test_synthetic_patients_are_shown(self, bench):
        found = Examples().measure(bench, "synthetic")
        series, facts = found.tables["examples_series"], found.tables["examples_facts"]
        assert not found.scores
        assert set(facts["patient"]) == {1, 2, 3}
        cohort = bench.rows["synthetic"].cohort
        for _, rows in series.groupby("patient"):
            # Each is one stay of the cohort, value by value.
            keys = ["hours", "variable"]
            stays = cohort.measurements.merge(rows[keys], on=keys)["stay_id"].value_counts()
            assert stays.iloc[0] == len(rows)

    def test_real_patients_are_not(self, bench):
        assert not Examples().measure(bench, "test").tables

    def test_unless_asked_for(self, bench):
        shown = Examples().measure(replace(bench, show_real=True), "test")
        assert len(shown.tables["examples_facts"])

    def test_or_simulated(self, bench):
        test = replace(bench.rows["test"].cohort, provenance={"simulated": True})
        simulated = replace(bench, rows=bench.rows | {"test": Patients(test)})
        assert len(Examples().measure(simulated, "test").tables["examples_facts"])


@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cohort=cohorts())
def test_examples_of_any_cohort_have_a_report(tmp_path, cohort):
    rows = {"synthetic": Patients(cohort), "test": Patients(cohort)}
    bench = Bench(Patients(cohort), rows, show_real=True)
    found = compare(bench, [Examples()], progress=False)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    written(tmp_path / "out", found, [Examples()])
    assert (tmp_path / "out" / "figures" / "examples.svg").exists()


def test_a_metric_of_the_package_is_read_with_its_own_scales(tmp_path, bench):
    """What a metric returns is what the page says, end to end."""

    class Answer(Metric):
        name, title, group = "answer", "Answer", "utility"
        scales: ClassVar = {
            "answer/n": Scale("Number", "Which it is.", "high", (0, 100), 42.0, 1.0, 2.0)
        }

        def measure(self, bench, row):
            return Found({"answer/n": Score(41.5, 40.1, 42.9)})

    page = written(tmp_path, compare(bench, [Answer()], progress=False), [Answer()])
    assert "41.5 40.1 to 42.9" in page.text
    assert "1 good, 0 fair, 0 poor" in page.text


def test_tables_of_the_metrics_are_those_that_figures_are_made_of(bench):
    """A column that a metric renames would make its figure vanish without a word."""
    names = {"across", "co_observation", "codes", "consistency", "correlation", "dynamics"}
    names |= {"manifold", "series", "structure"}
    known = [metric for metric in all_metrics() if metric.name in names]
    assert {metric.name for metric in known} == names
    tables = compare(bench, [*known, Examples()], progress=False).tables
    for drawing in DRAWINGS:
        if drawing.metric in names:
            assert drawing.draw(tables) is not None, drawing.name
