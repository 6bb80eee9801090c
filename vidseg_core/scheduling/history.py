"""The last decisions of a segment and the two numbers that DVRL's policy reads from them.

DVRL section 3.2: KAR, the share of keys among past decisions, and LKD, the distance to the last key; section
4.2 takes the last 90 decisions. Both describe the history *before* the decision at hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

HISTORY_LENGTH = 90


class DecisionHistory:
    """Key or not, for the last 90 decided frames of one segment. It starts empty."""

    __slots__ = ("_decisions", "_keys")

    def __init__(self, decisions: Iterable[bool] = ()) -> None:
        self._decisions: deque[bool] = deque((bool(d) for d in decisions), maxlen=HISTORY_LENGTH)
        self._keys = sum(self._decisions)

    def add(self, is_key: bool) -> None:
        if len(self._decisions) == HISTORY_LENGTH:
            self._keys -= self._decisions[0]
        self._decisions.append(is_key)
        self._keys += is_key

    @property
    def kar(self) -> float:
        """Keys / decisions of the history, in [0, 1]; 0 when nothing has been decided yet."""
        return self._keys / len(self._decisions) if self._decisions else 0.0

    @property
    def decisions(self) -> tuple[bool, ...]:
        """Oldest first."""
        return tuple(self._decisions)
