"""Everything that the documentation tells people to type is understood, and run.

A command that is new in any page is run here, in a small world in which everything that pages name
is at its place. Another test may run it instead, and what no test can run is listed with its
reason; it is still taken apart as the program would.
"""

import argparse
import importlib
import importlib.util
import os
import pkgutil
import re
import shlex
import shutil
import sys

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch.distributed.run import get_args_parser as torchrun_parser

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

import tests.cli
from synehrgy import commands
from synehrgy.cli import MODULES, compose, help_text
from synehrgy.files import REPOSITORY
from tests.cli.test_road import raw_patients
from tests.cohorts import small_cohort, write
from tests.docs.pages import PAGES, TYPED, Typed, typed
from tests.sources.hospital import write_hospital
from tests.sources.raw_database import write_database

COMMANDS = [item for item in TYPED if item.kind == "command"]
SCRIPTS = {"preprocess": "preprocess.py", "train": "train.py"}
SCRIPTS |= {"generate": "generate.py", "evaluate": "evaluate.py"}
NAMES = {program: name for name, program in {**SCRIPTS, **MODULES}.items()}

# What no test runs. Each is taken apart all the same.
NOT_RUN = {
    r"make ": "installs; its commands are taken from the Makefile and understood",
    r"pip install": "installs",
    r"(git clone|source) ": "a checkout and its environment",
    r"(srun|sbatch) ": "a cluster",
    r"torchrun ": "several GPUs; tests/training/test_parallel.py has several processes",
    r"python -m benchmarks\.": "minutes to hours; the tests of each room run its parts",
    r"python -m synehrgy\.comparison .*methods=": "an hour; test_comparison_docs.py runs less",
    r"python train.py --multirun": "several runs; tests/cli/test_road.py runs a sweep",
    r"python train.py .*use_tokenizer=": "two hospitals of one form; test_private.py has them",
    r".* preset=all": "trains eight shadow models",
    r".* \.\.\.$": "a part of a command",
    r".* --(help|cfg)": "tests/cli/test_road.py prints both",
    r"python (-m )?[\w.]+$": "the name of a program",
}
# A page whose Python is run by a test of what it is about.
PYTHON_ELSEWHERE = {"docs/metrics/report.md": ("tests/evaluation/test_report.py", "write_report(")}


def run_elsewhere() -> tuple[dict[str, set[str]], set[str]]:
    """Commands by page that other tests run, and pages whose Python they run.

    These tests are modules of tests/cli that have a PAGE and its COMMANDS.
    """
    found: dict[str, set[str]] = {}
    python = set(PYTHON_ELSEWHERE)
    for module in pkgutil.iter_modules(tests.cli.__path__):
        text = (REPOSITORY / "tests" / "cli" / f"{module.name}.py").read_text(encoding="utf-8")
        if re.search(r"(?m)^PAGE = ", text):
            here = importlib.import_module(f"tests.cli.{module.name}")
            page = here.PAGE.relative_to(REPOSITORY).as_posix()
            found[page] = {bare(" ".join(command)) for command in here.COMMANDS}
            if "```python" in text:
                python.add(page)
    return found, python


def bare(text: str) -> str:
    """A command without what the tests leave out of it."""
    return re.sub(r"^(?:python (?:-m )?)?(\w+)\.py ", r"\1 ", re.sub(r"^python -m ", "", text))


ELSEWHERE, PYTHON_RUN_ELSEWHERE = run_elsewhere()


def is_run_elsewhere(item: Typed) -> bool:
    if item.kind == "python":
        return item.page in PYTHON_RUN_ELSEWHERE
    # What one page has from another is run with that.
    return any(bare(item.text) in commands for commands in ELSEWHERE.values())


def why_not_run(text: str) -> str | None:
    return next((why for start, why in NOT_RUN.items() if re.match(start, text)), None)


def words_of(text: str) -> list[str]:
    """The words of a command, with something for each ``<place>`` to fill in."""
    text = re.sub(r"<(\w+)\|[^<>]*>", r"\1", text)
    text = re.sub(r"<([^<>]+)>", lambda found: found[1].replace(" ", "-"), text)
    return shlex.split(text.removesuffix(" ..."))


class Understood(Exception):
    """The program took its arguments."""


def parse(module: str, arguments: list[str]) -> None:
    """Let a module with argparse parse its command line, and do nothing."""
    has_main = (REPOSITORY / module.replace(".", "/") / "__main__.py").exists()
    program = importlib.import_module(f"{module}.__main__" if has_main else module)
    whole = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        whole(self, args, namespace)
        raise Understood

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Understood):
            program.main()


def check_settings(name: str, arguments: list[str]) -> None:
    """Compose the settings of a command; of a sweep, those of its first run."""
    if "--help" in arguments:
        assert help_text(name)
        return
    overrides = get_args_parser().parse_args(arguments).overrides
    plain = []
    for text in overrides:
        override = OverridesParser.create().parse_override(text)
        if override.key_or_group.startswith("hydra"):
            group, _, choice = text.partition("=")
            if group in ("hydra/launcher", "hydra/sweeper"):
                assert any(choice.split("_")[0] in package for package in extras()["sweep"])
            continue
        if override.is_choice_sweep() or override.is_range_sweep():
            text = f"{override.key_or_group}={next(override.sweep_string_iterator())}"
        elif override.is_interval_sweep():
            text = f"{override.key_or_group}={override.value().start}"
        plain.append(text.replace("${hydra:job.num}", "0"))
    compose(name, plain)


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def makefile() -> str:
    return (REPOSITORY / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")


def understand(text: str) -> None:
    """Fail unless a command is one that its program takes."""
    words = words_of(text)
    if text.endswith(" ...") and words[0] != "torchrun":
        assert (REPOSITORY / words[1]).exists() or importlib.util.find_spec(words[2])
        return
    match words:
        case ["make", *targets]:
            assert all(re.search(rf"(?m)^{target}:", makefile()) for target in targets)
        case ["pip", "install", *packages]:
            names = set(packages) - {"-e", "-r", "--no-deps", "requirements.txt"}
            ours = {".", *(f".[{extra}]" for extra in extras())}
            assert all(name in ours or re.fullmatch(r"[A-Za-z][\w.-]+", name) for name in names)
        case ["git", "clone", _, "&&", "cd", _] | ["source", ".venv/bin/activate"]:
            pass
        case ["sbatch", script]:
            assert script.endswith(".sh")
        case ["srun", *command]:
            understand(shlex.join(command))
        case ["torchrun", option]:
            assert option in torchrun_parser().format_help()
        case ["torchrun", *arguments]:
            options = torchrun_parser().parse_args(arguments)
            if not text.endswith(" ..."):
                check_settings(NAMES[options.training_script], options.training_script_args)
        case ["python", "-m", module]:
            assert importlib.util.find_spec(module)
        case ["python", script]:
            assert (REPOSITORY / script).exists()
        case ["python", "-m", module, *arguments]:
            if f"-m {module}" in NAMES:
                check_settings(NAMES[f"-m {module}"], arguments)
            else:
                parse(module, arguments)
        case ["python", script, *arguments]:
            check_settings(NAMES[script], arguments)
        case _:
            pytest.fail(f"Nobody knows how to check {text!r}: add it to tests/docs.")


@pytest.mark.parametrize("text", sorted({item.text for item in COMMANDS}))
def test_commands_are_understood(text):
    understand(text)


def test_make_demo_is_understood():
    recipe = makefile().split("\ndemo: ")[1].split("\n\n")[0]
    found = re.findall(r"\$\(BIN\)/(python .*)", recipe)
    assert len(found) == 5
    for text in found:
        understand(text)


def test_what_is_not_run_is_there():
    for start in NOT_RUN:
        assert any(re.match(start, item.text) for item in COMMANDS), start
    for page, (module, word) in PYTHON_ELSEWHERE.items():
        assert any(item.page == page and item.kind == "python" for item in TYPED)
        assert word in (REPOSITORY / module).read_text(encoding="utf-8")
    assert {"docs/generation.md", "docs/comparison.md"} <= set(ELSEWHERE) & PYTHON_RUN_ELSEWHERE


# The small world.

SMALL = {
    "preprocess": ["preprocess.threads=1"],
    "train": [
        *("train.epochs=1", "model.n_layer=1", "model.n_embd=32", "hparams.n_ctx=512"),
        *("device=cpu", "wandb.mode=disabled", "overwrite=True"),
    ],
    "generate": ["n_samples=4", "max_segments=1", "device=cpu", "overwrite=True"],
    "evaluate": ["preset=quick"],
    "synehrgy.export": ["--saved-models", "saved_models", "--overwrite"],
    "synehrgy.sources.simulator": ["--n-patients", "80", "--processes", "1"],
}
FEWER = [
    (r"\bn_patients=\d+", "n_patients=80"),
    (r"\bn_resample=\d+", "n_resample=4"),
    (r"\.generate\(\d+, (.*)\)", r".generate(4, \1, max_segments=1)"),
    (r'(preset="quick")', r'\1, metrics=["codes", "consistency"]'),
]
PLACES = {
    "/path/to/mimic-iii-demo": "raw",
    "/path/to/mimic-iii": "raw",
    "/path/to/splits": "splits",
    "/path/to/tables": "tables",
    "/path/to/real/cohort": "data/processed/simulated",
    "/path/to/cohort": "data/synthetic/demo",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Raw tables, cohorts, a run and its patients under every name that a page has for them."""
    world = tmp_path_factory.mktemp("world")
    write_database(raw_patients(), world / "raw")
    write_hospital(world / "tables")
    (world / "splits").mkdir()
    for name, first in (("testset", 1), ("valset", 11)):
        lines = "".join(f"{subject},1\n" for subject in range(first, first + 10))
        (world / "splits" / f"{name}.csv").write_text(lines)
    real = small_cohort(120)
    # Stays that go on after the first day.
    real.measurements["hours"] *= 10
    real.stays["los_hours"] += 50
    write(real, world / "real")
    places = [f"data.path={world / 'real'}", f"paths.saved_models={world / 'models'}"]
    commands.train(compose("train", ["run_name=run", *places, *SMALL["train"]]))
    write(small_cohort(80, seed=1), world / "synthetic")
    return world


def is_of_futures(name: str) -> bool:
    return bool(re.fullmatch(r".*-\d+h", name))


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A working directory of one page."""
    words = {word for item in COMMANDS for word in words_of(item.text)}
    given = [word.partition("=")[::2] for word in words]
    cohorts = {f"data/processed/{value}" for key, value in given if key == "data"}
    cohorts |= {value for key, value in given if key in ("data.path", "oracle", "real")}
    cohorts |= {word for word, _ in given if re.search(r"^data/processed/|(^|-)cohort", word)}
    for folder in cohorts:
        if not folder.startswith("/"):
            shutil.copytree(world / "real", tmp_path / folder)
    runs = {value.strip('"') for key, value in given if key in ("model", "use_pretrained")}
    for run in {"run", *runs}:
        shutil.copytree(world / "models" / "run", tmp_path / "saved_models" / run)
        if not is_of_futures(run):
            shutil.copytree(world / "synthetic", tmp_path / "data" / "synthetic" / run)
    for folder in ("raw", "splits", "tables"):
        (tmp_path / folder).symlink_to(world / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(text: str, here) -> None:
    for place, folder in PLACES.items():
        text = text.replace(place, folder)
    for pattern, less in FEWER:
        text = re.sub(pattern, less, text)
    words = words_of(text)
    module = words[2] if words[1] == "-m" else None
    if module is not None:
        main = importlib.import_module(f"{module}.__main__").main
        assert main([*words[3:], *SMALL.get(module, [])]) in (0, None), text
        return
    name, arguments = NAMES[words[1]], words[2:]
    given = dict(argument.split("=", 1) for argument in arguments)
    folders = {"saved_models": "saved_models", "synthetic": "data/synthetic", "results": "Results"}
    more = [f"paths.{key}={here / folder}" for key, folder in folders.items()]
    data = given.get("data", "mimic3")
    if name in ("preprocess", "train") and "data.path" not in given:
        more.append(f"data.path={here / 'data' / 'processed' / data}")
    if name == "preprocess" and data != "cohort" and "data.raw_dir" not in given:
        raw = here / "data" / "raw" / "simulated" if data == "simulated" else here / "raw"
        more.append(f"data.raw_dir={raw}")
    if name == "preprocess" and data != "cohort":
        # It makes the cohort anew, of files that the one at its place was not made of.
        shutil.rmtree(given.get("data.path", here / "data" / "processed" / data))
    if name == "evaluate" and not is_of_futures(given.get("model", "")):
        more.append("metrics=[consistency]")
    outcome = getattr(commands, name)(compose(name, [*arguments, *SMALL[name], *more]))
    assert "Next: " in outcome.line, text


def to_run(page: str) -> list[Typed]:
    return [
        item
        for item in TYPED
        if item.page == page
        and not is_run_elsewhere(item)
        and not (item.kind == "command" and why_not_run(item.text))
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)])
def test_what_a_page_says_runs(page, here, monkeypatch):
    monkeypatch.setitem(os.environ, "WANDB_MODE", "disabled")
    names = {}
    for item in to_run(page):
        if item.kind == "command":
            run_command(item.text, here)
            continue
        block = item.text
        for pattern, less in FEWER:
            block = re.sub(pattern, less, block)
        exec(block, names)


def test_a_new_command_cannot_hide(tmp_path):
    """Fenced or indented, with a prompt or continued, or inside a sentence."""
    text = (
        "# A page\n    python train.py run_name=a\n\n"
        "```bash\n$ python train.py \\\n    run_name=b\n```\n\n"
        "Then `torchrun train.py\nrun_name=c`.\n"
        "```python\nx = 1\n```\n"
    )
    found = [(item.kind, " ".join(item.text.split())) for item in typed("page", text)]
    assert found == [
        ("command", "python train.py run_name=a"),
        ("command", "python train.py run_name=b"),
        ("command", "torchrun train.py run_name=c"),
        ("python", "x = 1"),
    ]
    with pytest.raises(BaseException, match="no setting"):
        understand("python train.py run_nam=a")
