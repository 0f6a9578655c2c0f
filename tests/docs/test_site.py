"""The site builds without a warning; its links, its list of settings and its messages are true."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import yaml

from synehrgy.baselines import baselines
from synehrgy.cli import GROUPS
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.files import REPOSITORY
from synehrgy.settings import CONFIGS, walk
from tests.docs.pages import PAGES

DOCS = REPOSITORY / "docs"
CONFIG = DOCS / "site" / "mkdocs.yml"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    pytest.importorskip("mkdocs", reason="the site needs pip install -e '.[docs]'")
    out = tmp_path_factory.mktemp("site") / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(CONFIG), "-d", str(out)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def test_every_page_is_built(site):
    built = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    pages = {name.removeprefix("docs/").removesuffix(".md") for name in PAGES if "/" in name}
    assert built == {*pages, "404"}
    # What makes the site is not part of it.
    assert {path.name for path in (site / "site").iterdir()} == {"extra.css"}


def test_pages_are_rendered_as_on_github(site):
    """A table or list that needs a blank line before it would be a paragraph of dashes."""
    for file in site.rglob("*.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", file.read_text(encoding="utf-8"), re.DOTALL):
            assert not re.search(r"(^|\n)(\||- |\d+\. |#+ |```)", paragraph), (file, paragraph)


def test_the_reference_has_the_docstrings(site):
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "Judge synthetic patients by real ones." in text
    assert 'id="synehrgy.SynEHRgy.generate"' in text
    names = re.findall(r"(?m)^::: (.*)$", "\n".join(PAGES.values()))
    everything = "".join(
        file.read_text(encoding="utf-8") for file in (site / "reference").glob("*.html")
    )
    assert len(names) > 40
    assert not [name for name in names if f'id="{name}"' not in everything]


def test_nothing_is_fetched_from_elsewhere(site):
    """A page about patients opens without telling anybody."""
    for file in site.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]*)", file.read_text("utf-8")
        )
        assert not fetched, file


def test_the_built_site_is_not_committed():
    config = yaml.safe_load(re.sub(r"!!python\S+ \{.*\}", "x", CONFIG.read_text(encoding="utf-8")))
    built = (CONFIG.parent / config["site_dir"]).resolve()
    first = built.relative_to(REPOSITORY).parts[0]
    assert f"{first}/" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").split()


# Links, as GitHub follows them.


def anchors(text: str) -> set[str]:
    """Of the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?s)```.*?```", "", text))
    plain = [re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"(?s)```.*?```|`[^`]*`", "", PAGES[page])
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert file.exists(), target
        if anchor:
            name = file.resolve().relative_to(REPOSITORY).as_posix()
            assert anchor in anchors(PAGES[name]), target


def test_every_metric_and_generator_has_its_place():
    table = PAGES["docs/evaluation.md"]
    scored = [metric.name for metric in all_metrics() if metric.scales]
    assert [name for name in scored if f"`{name}`" not in table] == []
    assert [name for name in baselines() if f"`{name}`" not in PAGES["docs/comparison.md"]] == []


def module_of_the_site(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_built(text: str, page: str = "meds.md") -> str:
    """What the site makes of a text before it becomes HTML."""
    place = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    return module_of_the_site("github").on_page_markdown(text, page=place, config=None)


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("meds.md", "[it](../README.md#try-it)", "[it](index.md)"),
        ("metrics/codes.md", "[it](../../README.md)", "[it](../index.md)"),
        ("metrics/codes.md", "[training](../training.md)", "[training](../training.md)"),
        ("meds.md", "[the rules](../synehrgy/a.yaml)", "the rules (`synehrgy/a.yaml`)"),
        ("meds.md", "[`synehrgy/a.yaml`](../synehrgy/a.yaml)", "`synehrgy/a.yaml`"),
    ],
)
def test_links_out_of_the_documentation(page, link, becomes):
    """GitHub has the file and the site has not."""
    assert as_built(f"See {link}.", page) == f"See {becomes}."


def test_lists_and_tables_need_no_blank_line():
    """On GitHub they begin right below a line of text."""
    assert as_built("Rules:\n- a\n- b\n") == "Rules:\n\n- a\n- b\n"
    assert as_built("Rules:\n| a |\n|---|\n") == "Rules:\n\n| a |\n|---|\n"
    code = "```yaml\nlist:\n- a\n```\n\n    text:\n- b\n"
    assert as_built(code) == code


# The list of settings.


def test_the_page_of_settings_is_that_of_the_code():
    """If not: ``python docs/site/settings_page.py``."""
    assert PAGES["docs/reference/settings.md"] == module_of_the_site("settings_page").page()


def test_the_page_of_settings_has_every_key_with_its_meaning():
    sections = dict(
        section.split("\n", 1)
        for section in re.split(r"(?m)^## ", PAGES["docs/reference/settings.md"])[1:]
    )
    for command, config in CONFIGS.items():
        rows = sections[config.__doc__.partition(": ")[0]].splitlines()
        cells = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in rows}
        named = {name.strip("`"): row for names, row in cells.items() for name in names.split(", ")}
        for key, item in walk(config).items():
            assert len(named[key]) == 4, key
            first = re.split(r"[*<\[|\\]", item.metadata["help"])[0]
            assert first in named[key][3]
            assert all(f"`{choice}`" in named[key][2] for choice in item.metadata["choices"] or ())
            alias = item.metadata["alias"]
            assert alias is None or alias in named
        assert all(group in named for group in GROUPS[command])
    assert "`preprocess.variables.<name>.bin_type`" in sections["preprocess.py"]


# Messages.


def texts_of_the_code() -> list[str]:
    """Every text of the package, with a blank for what is filled in; docstrings are none."""
    found = []
    for file in (REPOSITORY / "synehrgy").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                # A text that stands alone is a docstring. ast.walk comes to it later.
                node.value.value = ""
    return found


def is_said(message: str, texts: list[str]) -> bool:
    """Whether some text has the parts of a message in their order."""

    def has_all(text: str) -> bool:
        at = 0
        for part in message.split("…"):
            at = text.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return True

    return any(map(has_all, texts))


def messages() -> list[str]:
    """The first cell of each row of the tables on the page about messages."""
    page = PAGES["docs/troubleshooting.md"]
    cells = re.findall(r"(?m)^\| (`.*?`) \| ", page)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


def test_messages_are_those_of_the_code():
    texts = texts_of_the_code()
    assert len(messages()) > 50
    assert [message for message in messages() if not is_said(message, texts)] == []


def test_a_message_that_nobody_says_is_found():
    texts = texts_of_the_code()
    assert not is_said("… holds no real patients. Run first: …", texts)
    # Words of a docstring are no message.
    assert not is_said("The one kind of error that is meant for", texts)


def test_the_picture_reads_on_any_background():
    """All text stands on a box of the picture's own, and nothing is fetched."""
    root = ET.parse(DOCS / "figures" / "pipeline.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{svg}title") is not None
    boxes = [
        [float(box.get(side)) for side in ("x", "y", "width", "height")]
        for box in root.iter(f"{svg}rect")
    ]
    texts = list(root.iter(f"{svg}text"))
    assert len(texts) > 20
    for text in texts:
        x, y = float(text.get("x")), float(text.get("y"))
        assert any(
            left < x < left + width and top < y <= top + height
            for left, top, width, height in boxes
        ), text.text
    assert not root.findall(f".//{svg}image")
