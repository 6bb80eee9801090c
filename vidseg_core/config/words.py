"""Numbers with their nouns, as people write them."""

from __future__ import annotations

__all__ = ["count"]


def count(number: int, noun: str) -> str:
    """`1 clip`, `1,200 clips`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
