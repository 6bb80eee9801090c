"""Losses, loops and recipes of training, and their Ray Train glue."""
