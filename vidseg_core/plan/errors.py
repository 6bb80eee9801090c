"""The one error of the package."""

from __future__ import annotations


class InputError(ValueError):
    """An input that leads nowhere or contradicts itself; the message names the spec and the fault."""

    exit_code = 2
