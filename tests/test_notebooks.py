"""The notebooks run from top to bottom, and are committed as they ran."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from synehrgy.baselines import baselines
from synehrgy.files import REPOSITORY
from tests.baselines.fast import FAST

RESULTS = REPOSITORY / "Results.ipynb"
TUTORIAL = REPOSITORY / "Tutorial.ipynb"


def read(path):
    return nbformat.read(path, as_version=4)


def run(notebook):
    """As from the folder of the repository."""
    place = {"metadata": {"path": str(REPOSITORY)}}
    NotebookClient(notebook, timeout=600, resources=place).execute()


def text_of(output):
    parts = [output.get("text", ""), *output.get("data", {}).values()]
    return "".join(part for part in parts if isinstance(part, str))


def pictures(notebook):
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.fixture(scope="module")
def executed(simulated_folder, tmp_path_factory):
    """The notebook on the results, with fewer generators that learn for seconds."""
    place = tmp_path_factory.mktemp("notebook")
    notebook = read(RESULTS)
    cell = next(cell for cell in notebook.cells if cell.source.startswith("DATA = "))
    paths = {"saved_models": "models", "synthetic": "synthetic", "results": "Results"}
    more = [f"data.path={simulated_folder}"]
    more += [f"paths.{key}={place / folder}" for key, folder in paths.items()]
    names = ["synehrgy", "marginals", "bootstrap"]
    methods = {"synehrgy": FAST["synehrgy"]}
    cell.source += (
        f'\nDATA, GENERATORS, METHODS, MORE = "cohort", {names!r}, {methods!r}, {more!r}\n'
        'MORE += ["n_samples=200", "metrics=[codes,series,distances,consistency]"]'
    )
    run(notebook)
    return notebook


def test_results_run_at_a_reduced_size(executed):
    shown = "".join(text_of(o) for cell in executed.cells for o in cell.get("outputs", []))
    for name in ("synehrgy", "marginals", "bootstrap"):
        assert baselines()[name].title in shown
    # Prevalence of codes, histograms of series, and the comparison as a whole.
    assert len(pictures(executed)) >= 3


def test_the_tutorial_runs_at_a_reduced_size(tmp_path):
    notebook = read(TUTORIAL)
    cell = next(cell for cell in notebook.cells if cell.source.startswith("N_PATIENTS = "))
    paths = {"saved_models": "models", "synthetic": "synthetic", "results": "Results"}
    more = [f"paths.{key}={tmp_path / folder}" for key, folder in paths.items()]
    cell.source += (
        f'\nN_PATIENTS, EPOCHS, N_SYNTHETIC, N_FUTURES, MODEL = 250, 1, 40, 2, "gpt_tiny"'
        f"\nFOLDER, MORE = {str(tmp_path)!r}, {more!r}"
    )
    run(notebook)
    shown = "".join(text_of(o) for cell in notebook.cells for o in cell.get("outputs", []))
    assert "all with septicemia: True" in shown
    assert (tmp_path / "Results" / "tutorial" / "report.html").exists()
    assert len(pictures(notebook)) >= 7


@pytest.mark.parametrize("path", [RESULTS, TUTORIAL], ids=lambda path: path.stem)
def test_notebooks_are_committed_as_they_ran(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not re.search(r"/(home|root|work|tmp|Users)/", text_of(output))


def test_results_are_those_of_every_generator():
    shown = "".join(text_of(o) for cell in read(RESULTS).cells for o in cell.get("outputs", []))
    for kind in baselines().values():
        assert kind.title in shown


def test_patients_can_be_simulated_and_extracted_in_a_notebook(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from synehrgy.cohort import read_cohort\n"
                "from synehrgy.sources import simulated_cohort\n"
                f"folder = {str(tmp_path / 'cohort')!r}\n"
                "read_cohort(simulated_cohort(folder, 30, seed=0)).n_patients"
            )
        ]
    )
    run(notebook)
    assert int(text_of(notebook.cells[0].outputs[-1])) > 10
