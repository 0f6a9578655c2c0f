"""A model is exported, loaded, turned back and sampled from, as a user does it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synehrgy.cohort import read_cohort
from synehrgy.export.__main__ import main
from synehrgy.files import REPOSITORY, read_json
from tests.conftest import train_overrides

PAGE = REPOSITORY / "docs" / "sharing.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python (?:-m )?([\w.]+) (.*)$", TEXT, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(*arguments, cwd, code=0):
    """A command as a user types it; its output and, after it, its errors."""
    home = Path(cwd) / "huggingface"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == code, result.stdout + result.stderr
    if code:
        assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def here(cohort_folder, tmp_path_factory):
    """A working directory with a run ``demo``, trained for an epoch."""
    path = tmp_path_factory.mktemp("sharing")
    given = [*train_overrides(cohort_folder, path / "saved_models"), "data=cohort"]
    given += ["run_name=demo", "train.epochs=1", "wandb.mode=disabled"]
    said = run(REPOSITORY / "train.py", *given, cwd=path)
    assert f"Model: {path / 'saved_models' / 'demo'}" in said
    return path


def test_the_commands_of_the_page(here):
    """All in order, then what is loaded and what comes back."""
    said = []
    for program, text in COMMANDS:
        arguments = shlex.split(text)
        if program == "evaluate.py":
            continue
        if program == "synehrgy.export":
            arguments = ["-m", program, *arguments, "--saved-models", "saved_models"]
            if "--check" in arguments:
                pytest.importorskip("transformers")
        else:
            arguments = [REPOSITORY / program, *arguments, "n_samples=5", "device=cpu"]
            arguments += ["paths.saved_models=saved_models", "paths.synthetic=synthetic"]
        said.append(run(*arguments, cwd=here))
    first, checked, back, generated = said
    assert "Model for transformers: exported/demo (SynehrgyForCausalLM, with its code)" in first
    assert "bin edges and quantiles of real values and codes of real patients" in first
    assert "read exported/demo/README.md before anybody else gets it" in first
    assert "Next, if the terms of its data allow it: hf upload <user>/<name> exported/demo" in first
    assert "It holds bin edges of real values" in checked
    assert "Model: saved_models/copy\nNext: python generate.py model=copy" in back
    assert "paths.saved_models=saved_models" in back
    assert "Synthetic patients:" in generated
    assert read_cohort(here / "synthetic" / "copy").n_patients == 5
    names = ("model.safetensors", "model.json", "run.json", "metrics.jsonl")
    for name in names:
        a, b = (here / "saved_models" / run_name / name for run_name in ("demo", "copy"))
        assert a.read_bytes() == b.read_bytes(), name


def test_the_commands_of_the_readme(here, monkeypatch):
    monkeypatch.chdir(here)
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    python -m synehrgy\.export (.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    shutil.copytree("saved_models/demo", "readme/first")
    for command in commands:
        assert main([*shlex.split(command), "--saved-models", "readme"]) == 0
    weights = [Path("readme", name, "model.safetensors").read_bytes() for name in ("first", "copy")]
    assert weights[0] == weights[1]


def test_its_python(here):
    pytest.importorskip("transformers")
    if not (here / "exported" / "demo").exists():
        main(["hf", str(here / "saved_models" / "demo"), str(here / "exported" / "demo")])
    assert len(PYTHON) == 1
    said = run("-c", PYTHON[0], cwd=here)
    words = read_json(here / "exported" / "demo" / "tokenizer.json")["model"]["vocab"]
    record = [line for line in said.splitlines() if line in words]
    assert record[0] == "<s>"
    assert record[-1] == "</s>" or len(record) == 160


def test_a_run_is_given_by_name_or_by_folder(here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(here)
    for i, (name, *more) in enumerate(
        [
            ("demo", "--saved-models", "saved_models"),
            ("saved_models/demo",),
            (str(here / "saved_models" / "demo"),),
        ]
    ):
        assert main(["hf", name, str(tmp_path / str(i)), *more]) == 0
    monkeypatch.chdir(here / "saved_models")
    assert main(["hf", "./demo", str(tmp_path / "3")]) == 0
    cards = {(tmp_path / str(i) / "README.md").read_bytes() for i in range(4)}
    assert len(cards) == 1
    assert b"# demo\n" in cards.pop()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hf", "dmeo", "out"], "saved_models. Did you mean 'demo'?"),
        (["hf", "demo", "taken"], "was not written by this program, so it is not replaced"),
        (["from_hf", "taken", "copy"], "taken is no folder of 'export hf'"),
        (["from_hf", "saved", "a/b"], "a name has letters, digits"),
        (["from_hf", "saved", "demo"], "There is already a run in saved_models/demo"),
        (["hf", "demo", "saved"], "saved holds a model that was exported before"),
    ],
)
def test_mistakes_are_answered_in_words(arguments, says, here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    (here / "taken").mkdir(exist_ok=True)
    (here / "taken" / "thesis.tex").touch()
    at = ["--saved-models", "saved_models"]
    if not (here / "saved").exists():
        assert main(["hf", "demo", "saved", *at]) == 0
    before = sorted(here.rglob("*"))
    assert main([*arguments, *at]) == 1
    assert says in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_an_error_has_no_traceback(tmp_path):
    said = run("-m", "synehrgy.export", "from_hf", "demo", "a/b", cwd=tmp_path, code=1)
    assert said.startswith("Error: run_name='a/b': a name has letters")
    assert "--no-values" in run("-m", "synehrgy.export", "hf", "--help", cwd=tmp_path)


def test_no_transformers_is_needed_but_to_check(here, monkeypatch, capsys):
    """As where it is not installed."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.chdir(here)
    run_folder = "saved_models/demo"
    assert main(["hf", run_folder, "without"]) == 0
    assert main(["hf", run_folder, "checked", "--check"]) == 1
    assert "pip install transformers, or export without --check" in capsys.readouterr().err
    assert not (here / "checked").exists()


def test_overwriting_leaves_files_of_others(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    command = ["hf", "saved_models/demo", "mine"]
    assert main(command) == 0
    (here / "mine" / "README.md").write_text("edited")
    assert main(command) == 1
    assert (here / "mine" / "README.md").read_text() == "edited"
    (here / "mine" / ".git").mkdir()
    assert main([*command, "--overwrite"]) == 1
    assert (here / "mine" / "README.md").read_text() == "edited"
    shutil.rmtree(here / "mine" / ".git")
    assert main([*command, "--overwrite"]) == 0
    assert "edited" not in (here / "mine" / "README.md").read_text()
