"""Models for other tools, and back.

``python -m synehrgy.export hf <run> <folder>``
``python -m synehrgy.export from_hf <folder> <run name>``
"""

import argparse
import shlex
import sys
from pathlib import Path

from synehrgy.cli import as_called
from synehrgy.errors import UserError
from synehrgy.files import read_yaml, workspace
from synehrgy.settings import DEFAULT_PATHS, GenerateConfig, check

SAVED_MODELS, RESULTS = (workspace() / DEFAULT_PATHS[name] for name in ("saved_models", "results"))


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and export or import; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        print(as_called(_export(options) if options.command == "hf" else _import(options)))
    except (UserError, OSError) as error:
        print(as_called(f"Error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m synehrgy.export", description="Models for other tools, and back."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    hf = commands.add_parser("hf", help="write a model as transformers loads it, with a card")
    hf.add_argument("run", help="name of a trained run, or its folder")
    hf.add_argument("folder", type=Path, help="folder to write")
    hf.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of evaluations, for the card"
    )
    hf.add_argument(
        "--no-values",
        action="store_true",
        help="leave out the quantiles of real values; generated ones are spread over their bin",
    )
    hf.add_argument(
        "--check", action="store_true", help="load it with transformers and compare the logits"
    )
    back = commands.add_parser("from_hf", help="turn such a folder into a run again")
    back.add_argument("folder", type=Path, help="folder that 'hf' wrote, or a copy of it")
    back.add_argument("run", help="name of the run to write")
    for command in (hf, back):
        command.add_argument(
            "--saved-models", type=Path, default=SAVED_MODELS, help="one folder per trained run"
        )
        command.add_argument("--overwrite", action="store_true", help="replace an earlier one")
    return parser


def _export(options: argparse.Namespace) -> str:
    # Not at once: who asks for help need not wait for PyTorch.
    from synehrgy.export.hf import CARD_FILE, export_hf

    # A name has no slash.
    is_folder = "/" in options.run or Path(options.run).name != options.run
    run = Path(options.run) if is_folder else options.saved_models / options.run
    facts = export_hf(
        run,
        options.folder,
        results=options.results,
        values=not options.no_values,
        checked=options.check,
        overwrite=options.overwrite,
    )
    code = "with its code" if facts.architecture.has_code else "no code of its own"
    lines = [f"Model for transformers: {options.folder} ({facts.architecture.model_class}, {code})"]
    upload = f"hf upload <user>/<name> {shlex.quote(str(options.folder))} --private"
    if facts.is_simulated:
        return "\n".join([*lines, f"Next: {upload}"])
    values = "bin edges and quantiles" if facts.values else "bin edges"
    lines += [
        f"It holds {values} of real values and codes of real patients, and may repeat records: "
        f"read {options.folder / CARD_FILE} before anybody else gets it.",
        f"Next, if the terms of its data allow it: {upload}",
    ]
    return "\n".join(lines)


def _import(options: argparse.Namespace) -> str:
    # Before it is part of a path, where a slash would lead elsewhere.
    check(GenerateConfig(run_name=options.run))
    from synehrgy.export.hf import import_hf
    from synehrgy.training.checkpoint import CONFIG_FILE

    run = import_hf(options.folder, options.saved_models / options.run, overwrite=options.overwrite)
    elsewhere = (
        ""
        if options.saved_models == SAVED_MODELS
        else f" paths.saved_models={shlex.quote(str(options.saved_models))}"
    )
    forecasts = read_yaml(run / CONFIG_FILE)["mode"] == "fcast"
    ask = "mode=forecast data.path=<a cohort>" if forecasts else "n_samples=1000"
    return f"Model: {run}\nNext: python generate.py model={run.name} {ask}{elsewhere}"


if __name__ == "__main__":
    sys.exit(main())
