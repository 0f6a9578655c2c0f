"""Models for other tools: as transformers loads them, with a card that says what they are."""
