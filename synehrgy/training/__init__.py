"""Tokens to a trained model: batches, loop, schedule, checkpoints, tracking."""
