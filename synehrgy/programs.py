"""The commands as programs: ``synehrgy-train`` where it is installed, ``python train.py`` here."""

from functools import partial

from synehrgy import commands
from synehrgy.cli import run

preprocess = partial(run, "preprocess", commands.preprocess)
train = partial(run, "train", commands.train)
generate = partial(run, "generate", commands.generate)
evaluate = partial(run, "evaluate", commands.evaluate)
