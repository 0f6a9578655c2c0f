"""What tests that load models with transformers share."""

import os
import tempfile

import pytest

# Read when transformers is loaded: no test asks the network, nor leaves code in the home folder.
os.environ["HF_HUB_OFFLINE"] = "1"
_HOME = tempfile.TemporaryDirectory(prefix="huggingface-")
os.environ["HF_HOME"] = _HOME.name


@pytest.fixture(scope="session")
def transformers():
    """The module, silent."""
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity_error()
    module.logging.disable_progress_bar()
    return module
