"""What can go wrong between us and the output: one family of exceptions, each message naming the output."""

from __future__ import annotations


class StoreError(Exception):
    """The output cannot be read or written as asked; the message says which output and what to do."""

    exit_code = 2


class CommitConflict(StoreError):
    """Two writers committed different bytes under one key, so the run is not deterministic (or the key is
    claimed by another run). Nothing has been overwritten."""

    exit_code = 1


class DamagedFile(StoreError):
    """A file of an output does not hold what it should, or is gone; the message names it and what to do."""

    exit_code = 1


class WriteError(StoreError):
    """A file could not be written (a full disk, say); what was there before is whole."""

    exit_code = 1
