"""What the files about the package say agrees."""

import re

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import synehrgy
from synehrgy.files import REPOSITORY
from synehrgy.provenance import versions

VERSION = synehrgy.__version__


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def project() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads(text_of("pyproject.toml"))


def test_the_version_is_the_same_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert versions()["synehrgy"] == VERSION
    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == VERSION
    # What is not released yet may stand above it.
    headings = re.findall(r"^## \[(.*?)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert next(name for name in headings if name != "Unreleased") == VERSION


def test_the_package_takes_its_version_from_there():
    content = project()
    assert content["project"]["dynamic"] == ["version"]
    assert content["tool"]["hatch"]["version"] == {"path": "synehrgy/__init__.py"}
    assert f'__version__ = "{VERSION}"' in text_of("synehrgy/__init__.py")


def test_the_citation_has_what_its_format_asks_for():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= citation.keys()
    assert citation["authors"] == [{"name": "SynEHRgy developers"}]
    assert citation["license"] == project()["project"]["license"]
    paper = citation["preferred-citation"]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    # The same as in the README.
    assert f"author  = {{{' and '.join(names)}}}" in text_of("README.md")
    assert paper["title"].split(": ")[1] in text_of("README.md")
    assert paper["url"] in text_of("README.md")


def test_what_the_tests_run_with_is_what_the_package_asks_for():
    """Each dependency is pinned, within its range."""
    lines = [line.split("#")[0].strip() for line in text_of("requirements.txt").splitlines()]
    pinned = {}
    for line in filter(None, lines):
        name, version = line.split("==")
        pinned[canonicalize_name(name)] = version
    content = project()["project"]
    for text in [*content["dependencies"], *content["optional-dependencies"]["dev"]]:
        asked = Requirement(text)
        assert asked.specifier.contains(pinned[canonicalize_name(asked.name)]), text


def test_each_supported_python_is_named():
    content = project()
    named = [c.split(" :: ")[-1] for c in content["project"]["classifiers"] if ":: 3." in c]
    assert named == ["3.10", "3.11", "3.12", "3.13"]
    assert content["project"]["requires-python"] == f">={named[0]}"
    # Checks are for the oldest.
    assert content["tool"]["mypy"]["python_version"] == named[0]
    assert content["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"
