"""A trained model to synthetic patients."""
