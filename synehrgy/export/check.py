"""Whether transformers makes of an exported folder what it was made of."""

import importlib
from pathlib import Path
from typing import Any

import torch

from synehrgy.errors import UserError
from synehrgy.export.architectures import Architecture
from synehrgy.export.words import words_of
from synehrgy.training.checkpoint import Run

# Rounding of float32; logits are of the size of 10.
TOLERANCE = 1e-3

# Token ids to compare the logits of: [records, tokens], of a shorter context fewer.
_RECORDS, _TOKENS = 4, 128


def loader_of() -> Any:
    """The module ``transformers``, silent.

    Raises:
        UserError: it is not installed.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"--check loads the folder with transformers, which cannot be imported ({error}). "
            "pip install transformers, or export without --check."
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@torch.inference_mode()
def check_export(folder: Path, run: Run, architecture: Architecture, transformers: Any) -> None:
    """Load the model and the tokenizer of a folder and compare them with those of the run.

    Raises:
        UserError: something else comes out.
    """
    module = transformers
    if architecture.has_code:
        # The same file that is in the folder.
        module = importlib.import_module("synehrgy.export.modeling_synehrgy")
    model = getattr(module, architecture.model_class).from_pretrained(folder).eval()
    config = run.model.config
    generator = torch.Generator().manual_seed(0)
    shape = (_RECORDS, min(config.n_ctx, _TOKENS))
    tokens = torch.randint(config.vocab_size, shape, generator=generator)
    off = float((model(tokens).logits - run.model(tokens)).abs().max())
    # Also where a logit is no number.
    if not off <= TOLERANCE:
        raise UserError(
            f"transformers {transformers.__version__} computes other logits than this program: "
            f"they differ by {off:.2g}. Nothing was written."
        )
    words = words_of(run.tokenizer)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    if theirs("\n".join(words))["input_ids"] != [*range(len(words))]:
        raise UserError(
            f"transformers {transformers.__version__} numbers the tokens in another way than this "
            "program. Nothing was written."
        )
