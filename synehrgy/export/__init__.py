"""Models for other tools: as transformers loads them, with a card that says what they are."""

from synehrgy.export.hf import export_hf, import_hf

__all__ = ["export_hf", "import_hf"]
