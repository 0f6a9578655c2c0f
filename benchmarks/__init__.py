"""One module per stage: our way beside the usual one, in the same run."""
