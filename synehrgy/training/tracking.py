"""Where the numbers of a run go: metrics.jsonl always, Weights & Biases when a key is there."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dotenv import dotenv_values

from synehrgy.files import workspace
from synehrgy.settings import WandbSettings


class Tracker:
    """Writes one JSON line per epoch; used as a context manager.

    Args:
        file: the JSON lines; an earlier file is replaced.
        done: metrics of the epochs before, for a training that is resumed.
        wandb: project and mode. By default Weights & Biases is used if ``WANDB_API_KEY`` is set
            in the environment or in ``.env``; ``offline`` needs no key, ``disabled`` never uses it.
        name, config: of the run there.
    """

    def __init__(
        self,
        file: Path,
        wandb: WandbSettings,
        name: str,
        config: dict[str, Any],
        done: Sequence[dict[str, Any]] = (),
    ):
        self._file = file.open("w", encoding="utf-8")
        for metrics in done:
            self._write(metrics)
        self._wandb: Any = None
        key = os.environ.get("WANDB_API_KEY") or wandb_key()
        if key:
            os.environ["WANDB_API_KEY"] = key
        if wandb.mode == "offline" or (key and wandb.mode == "online"):
            self._wandb = _start_wandb(wandb, name, config, file.parent)

    def log(self, **metrics: float) -> None:
        """Record the metrics of one epoch."""
        self._write(metrics)
        if self._wandb is not None:
            self._wandb.log(metrics, step=int(metrics["epoch"]))

    def summarise(self, **facts: Any) -> None:
        """What is known of the run in the end: its result and where it is."""
        if self._wandb is not None:
            self._wandb.summary.update(facts)

    def _write(self, metrics: dict[str, Any]) -> None:
        # JSON has no word for what is not finite, as the loss of a diverged training.
        content = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        self._file.write(json.dumps(content, allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(error is not None))


def _start_wandb(settings: WandbSettings, name: str, config: dict[str, Any], folder: Path) -> Any:
    import wandb

    try:
        return wandb.init(
            project=settings.project,
            # Else as WANDB_MODE says, which a cluster may set for all.
            mode="offline" if settings.mode == "offline" else None,
            name=name,
            config=config,
            dir=str(folder),
            # Configuration and metrics, and nothing else of this machine or of what is printed.
            settings=wandb.Settings(
                init_timeout=30,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )
    except wandb.Error as error:
        # Hours of training must not depend on somebody else's server.
        print(f"Not logging to Weights & Biases: {error}")
        return None


def wandb_key() -> str | None:
    """The key in ``.env``, of the working directory or else of the repository."""
    for folder in (Path.cwd(), workspace()):
        key = dotenv_values(folder / ".env").get("WANDB_API_KEY")
        if key:
            return key
    return None
