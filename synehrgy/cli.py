"""The command line: composes a configuration with Hydra, runs one function, reports in words."""

import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field
from pathlib import Path
from typing import Any

import hydra
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synehrgy.commands import Outcome
from synehrgy.errors import UserError, nearest
from synehrgy.files import CONFIG_DIR, INSTALLED, workspace
from synehrgy.settings import CONFIGS, check, resolve_paths, walk

# The groups of files in configs/ that each command chooses from.
GROUPS = {
    "preprocess": ["data"],
    "train": ["data", "model"],
    "generate": ["data"],
    "evaluate": [],
    "baseline": ["data"],
    "comparison": ["data"],
}

# Those that are no script at the top of the repository.
MODULES = {"baseline": "-m synehrgy.baselines", "comparison": "-m synehrgy.comparison"}

EXAMPLES = {
    "preprocess": [
        "python preprocess.py data=mimic3 data.raw_dir=/path/to/mimic-iii",
        "python preprocess.py data=mimic3_demo",
        "python preprocess.py data=mimic4 data.raw_dir=/path/to/mimic-iv",
        "python preprocess.py data=eicu data.raw_dir=/path/to/eicu",
        "python preprocess.py data=meds data.raw_dir=/path/to/meds data.meds.mapping=mimic4",
        "python preprocess.py data=tables data.raw_dir=/path/to/tables",
    ],
    "train": [
        "python train.py data=mimic3 run_name=synehrgy-mimic",
        "python train.py data=mimic3_demo run_name=first model=gpt_tiny train.epochs=5",
    ],
    "generate": [
        "python generate.py model=synehrgy-mimic n_samples=30000 batch_size=1024",
        "python generate.py model=first n_samples=100 format=csv",
        "python generate.py model=first condition.age=70-80 condition.gender=F "
        "condition.labels=[in_hospital_mortality]",
        "python generate.py model=forecaster mode=forecast condition.hours=24 n_resample=100",
    ],
    "evaluate": [
        "python evaluate.py model=synehrgy-mimic",
        "python evaluate.py synthetic=/path/to/cohort real=/path/to/cohort",
    ],
    "baseline": [
        "python -m synehrgy.baselines name=marginals data=mimic3",
        "python -m synehrgy.baselines name=halo data=mimic3 n_samples=30000 method.epochs=20",
    ],
    "comparison": [
        "python -m synehrgy.comparison data=simulated data.simulation.n_patients=8000",
        "python -m synehrgy.comparison data=mimic3 names=[synehrgy,halo] others={mine:/a/cohort}",
    ],
}

OmegaConf.register_new_resolver("repo", lambda path: str(workspace() / path), replace=True)
for _command, _config in CONFIGS.items():
    ConfigStore.instance().store(name=f"{_command}_schema", node=_config)


def compose(command: str, overrides: Sequence[str] = ()) -> Any:
    """The typed configuration of a command, from its files and overrides.

    Args:
        command: ``preprocess``, ``train``, ``generate``, ``evaluate``, ``baseline``
            or ``comparison``.
        overrides: as on the command line, such as ``["data=mimic3_demo", "run_name=first"]``.

    Returns:
        An instance of the command's dataclass in ``synehrgy.settings``.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of range, a missing value.
    """
    overrides = _plain_keys(command, overrides)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            return _typed(command, hydra_compose(_config_name(command), overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_in_words(error)) from error


def run(command: str, function: Callable[[Any], Outcome]) -> None:
    """Run a command: compose its configuration from ``sys.argv`` and call ``function`` with it.

    ``function`` returns the closing line, and the value that a sweep makes as small as it can.
    Errors meant for people are printed without a traceback; the exit status is then 1. Hydra's own
    flags (``--multirun``, ``--cfg job`` ...) work as in any Hydra program.
    """
    arguments = sys.argv[1:]
    # A stopped job of a cluster cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if {"--help", "-h"} & set(arguments):
            print(as_called(help_text(command)))
            return
        if any(argument.startswith("-") for argument in arguments):
            _run_by_hydra(command, function, arguments)
        else:
            _close(function(compose(command, arguments)))
    except (UserError, OSError) as error:
        sys.exit(as_called(f"Error: {error}"))
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    if "WORLD_SIZE" in os.environ:
        # Imported late: PyTorch is slow to come.
        from synehrgy.processes import leave

        leave()


def _close(outcome: Outcome) -> float | None:
    # Of several processes under torchrun, one speaks.
    if os.environ.get("RANK", "0") == "0":
        print(as_called(outcome.line))
    return outcome.value


def as_called(text: str) -> str:
    """A text with the commands as one calls them: an installed package has no scripts."""
    if not (INSTALLED or Path(sys.argv[0]).name.startswith("synehrgy-")):
        return text
    script = r"(?<![\w/.-])(?:python )?(preprocess|train|generate|evaluate)\.py\b"
    return re.sub(script, r"synehrgy-\1", text)


def _run_by_hydra(
    command: str, function: Callable[[Any], Outcome], arguments: Sequence[str]
) -> None:
    overrides = get_args_parser().parse_args(list(arguments)).overrides
    flags = [argument for argument in arguments if argument not in overrides]
    sys.argv[1:] = [*flags, *_plain_keys(command, overrides)]

    failed: list[Exception] = []

    @hydra.main(str(CONFIG_DIR), _config_name(command), version_base="1.3")
    def job(config: DictConfig) -> float | None:
        try:
            return _close(function(_typed(command, config)))
        except (UserError, OSError) as error:
            # Hydra would print a traceback of it.
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                sys.exit(as_called(f"Error: {error}"))
            # One bad trial does not end a sweep.
            print(as_called(f"Error: {error}"), file=sys.stderr)
            failed.append(error)
            return math.inf

    job()
    if failed:
        sys.exit(f"{len(failed)} of the runs failed.")


def program_of(command: str) -> str:
    """What stands after ``python``."""
    return MODULES.get(command, f"{command}.py")


def _config_name(command: str) -> str:
    return f"config{command.capitalize()}"


def _typed(command: str, composed: DictConfig) -> Any:
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        item = walk(CONFIGS[command])[missing[0]]
        name = item.metadata["alias"] or missing[0]
        raise UserError(f"{name}=... is needed: {item.metadata['help']}.")
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(_in_words(error)) from error
    check(config)
    resolve_paths(config)
    return config


def _plain_keys(command: str, overrides: Sequence[str]) -> list[str]:
    """Check each key of the overrides against the settings and spell short names out."""
    settings = walk(CONFIGS[command])
    aliases = {
        item.metadata["alias"]: key for key, item in settings.items() if item.metadata["alias"]
    }
    given: dict[str, tuple[str, str]] = {}
    plain: list[str] = []
    for text in overrides:
        override, text = _parse(text, settings)
        key = override.key_or_group
        value = text.split("=", 1)[-1]
        full = _entry(aliases.get(key, key), settings)
        # The name of the command may stand before its settings: generate.value_decoding.
        without = _entry(full.removeprefix(f"{command}."), settings)
        if full not in settings and _mapping_of(full, settings) is None:
            known = without in settings or _mapping_of(without, settings) is not None
            full = without if known else full
        if not key.startswith("hydra"):
            if full in GROUPS[command]:
                _check_choice(full, value)
            elif full not in settings and _mapping_of(full, settings) is None:
                valid = [a for a in aliases if a not in settings] + GROUPS[command] + [*settings]
                raise UserError(
                    f"{key!r} is no setting of {program_of(command)}.{nearest(key, valid)} "
                    f"All settings: python {program_of(command)} --help"
                )
            # Of a key given twice the last counts, as in Hydra; two names for it are a mistake.
            before, other = given.get(full, (key, value))
            if before != key and other != value:
                raise UserError(f"{before}={other} and {key}={value} are the same setting.")
            given[full] = (key, value)
        # The short name may also be that of a group of files, which Hydra would look into.
        text = text.replace(key, full, 1)
        if full in settings and "=" in text:
            is_list = "list[str]" in str(settings[full].type)
            if is_list or settings[full].metadata["is_text"]:
                text = f"{full}={_as_text(value, is_list)}"
        mapping = _mapping_of(full, settings)
        if mapping is not None and "=" in text:
            plain += _mapping_overrides(mapping, full, value, settings[mapping], plain)
        else:
            plain.append(text)
    return plain


def _as_text(value: str, is_list: bool) -> str:
    """A text or a list of texts, none of which Hydra may take for a number, as 3E0331 would be."""
    if "'" in value or '"' in value or value == "null":
        return value
    if not is_list:
        return f"'{value}'"
    parts = [part.strip() for part in value.strip("[]").split(",")]
    return "[{}]".format(",".join(f"'{part}'" for part in parts if part))


def _entry(key: str, settings: dict[str, Field[Any]]) -> str:
    """The full name of a key that a mapping holds for its group: condition.age of covariates."""
    if key in settings or _mapping_of(key, settings) is not None:
        return key
    for name, item in settings.items():
        prefix = name.rpartition(".")[0] + "."
        if item.metadata["holds_rest"] and key.startswith(prefix):
            return f"{name}.{key.removeprefix(prefix)}"
    return key


def _mapping_overrides(
    mapping: str, key: str, value: str, item: Field[Any], before: Sequence[str]
) -> list[str]:
    """Overrides that set a mapping, or an entry of it, as Hydra takes them.

    Hydra lets an entry be new only when it is told so, adds to a mapping where a whole one is given
    instead of replacing it, and takes an entry with parts (variables.pH.n_bins) only as a whole.
    """
    entry, *parts = key.removeprefix(mapping).removeprefix(".").split(".")
    if not entry:
        defaults = item.default_factory() if callable(item.default_factory) else {}
        dropped = [f"~{mapping}.{name}" for name in defaults]
        return [*(text for text in dropped if text not in before), f"++{mapping}={value}"]
    if not parts:
        if "Settings" in str(item.type) and not value.startswith("{"):
            raise UserError(f"{key}={value}: give its settings, such as {key}.n_bins=20.")
        return [f"++{key}={value}"]
    for part in reversed(parts):
        value = f"{{{part}: {value}}}"
    return [f"++{mapping}={{{entry}: {value}}}"]


def _parse(text: str, settings: dict[str, Field[Any]]) -> tuple[Override, str]:
    """An override as Hydra reads it, and its text, in which an unusual path is now quoted."""
    parser = OverridesParser.create()
    key, _, value = text.partition("=")
    is_mapping = value and _mapping_of(key.lstrip("+"), settings) is not None
    try:
        plain = f"{key}={_plain_names(key, value)}" if is_mapping else text
        return parser.parse_override(plain), plain
    except HydraException as error:
        if not value or key not in settings or not settings[key].metadata["is_path"]:
            hint = ""
            if (mapping := _mapping_of(key.lstrip("+"), settings)) is not None:
                hint = (
                    " A name with blanks, ':', '=' or ',' goes into braces and quotes: "
                    f"\"{mapping}={{'A name': ...}}\"."
                )
            raise UserError(f"{text!r} is not of the form key=value ({error}).{hint}") from None
    # Blanks, brackets, a leading ~: the shell knows them, Hydra's grammar does not.
    text = "{}='{}'".format(key, value.replace("\\", "\\\\").replace("'", "\\'"))
    return parser.parse_override(text), text


def _plain_names(key: str, value: str) -> str:
    """A mapping with its quoted names as Hydra reads them, which knows no quotes in that place."""

    def plain(found: re.Match[str]) -> str:
        name, colon = found[2], found[3]
        if colon is None:
            return found[0]
        if odd := re.search(r"[^\w\s/\\+.$%*@?|()\[\]{}:=,-]", name, re.ASCII):
            raise UserError(
                f"{key}: a name with {odd[0]!r}, such as {name!r}, cannot be given on the command "
                "line. Write it into the file of settings in configs/."
            )
        return re.sub(r"[\s\\()\[\]{}:=,]", r"\\\g<0>", name) + colon

    return re.sub(r"""(['"])(.*?)\1(\s*:)?""", plain, value)


def _mapping_of(key: str, settings: dict[str, Field[Any]]) -> str | None:
    """The mapping that a key is, or is an entry of, as preprocess.covariate_edges.age is."""
    mappings = (name for name, item in settings.items() if "dict[" in str(item.type))
    return next((name for name in mappings if f"{key}.".startswith(f"{name}.")), None)


def _check_choice(name: str, value: str) -> None:
    choices = sorted(file.stem for file in (CONFIG_DIR / name).glob("*.yaml"))
    for choice in value.split(","):
        choice = choice.strip("'\"")
        if choice not in choices:
            raise UserError(
                f"{name}={choice}: there is no configs/{name}/{choice}.yaml."
                f"{nearest(choice, choices)}"
            )


def _in_words(error: Exception) -> str:
    """The first line of a configuration error, with the key that it is about."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    message = str(cause).strip().split("\n")[0]
    key = getattr(cause, "full_key", None)
    return f"{key}: {message}" if key else message


def help_text(command: str) -> str:
    """What ``--help`` prints: purpose, settings with defaults and meanings, examples."""
    config = CONFIGS[command]
    rows: list[tuple[str, str, str]] = []
    for name in GROUPS[command]:
        choices = sorted(file.stem for file in (CONFIG_DIR / name).glob("*.yaml"))
        rows.append((name, "", f"one of {', '.join(choices)}"))
    for key, item in walk(config).items():
        meaning = item.metadata["help"]
        if item.metadata["choices"]:
            meaning += f" ({' | '.join(item.metadata['choices'])})"
        if item.metadata["alias"] and item.metadata["alias"] != key:
            key = item.metadata["alias"]
        rows.append((key, "<by group>" if item.metadata["by_group"] else _default(item), meaning))
    width = max(len(key) + len(value) + 1 for key, value, _ in rows)
    lines = [f"{key}={value}".ljust(width + 2) + meaning for key, value, meaning in rows]
    return "\n".join(
        [
            f"{config.__doc__}",
            "",
            f"Usage: python {program_of(command)} key=value ...",
            "",
            *(f"  {line}" for line in lines),
            "",
            "Examples:",
            *(f"  {example}" for example in EXAMPLES[command]),
            "",
            "Print the whole configuration with --cfg job."
            + (" Sweep over values with --multirun." if command == "train" else ""),
        ]
    )


def _default(item: Field[Any]) -> str:
    if item.default is NO_DEFAULT:
        return "..."
    if item.default is None:
        return "null"
    return (
        "<needed>"
        if item.default == "???"
        else re.sub(r"\$\{repo:(.*)\}", r"\1", str(item.default))
    )
