"""Ids as LMDB keys: an int and a string that look alike stay apart, ints sort by value."""

from __future__ import annotations

import hashlib

_OFFSET = 1 << 63
_LONGEST = 500  # LMDB takes keys of at most 511 bytes


def id_key(value: int | str) -> bytes:
    """Return the key of an id: `i` + 8 bytes big-endian, `s` + utf-8, or `h` + sha256 of a long text."""
    if isinstance(value, int):
        return b"i" + (value + _OFFSET).to_bytes(8, "big")
    text = value.encode("utf-8", "surrogatepass")
    return b"s" + text if len(text) <= _LONGEST else b"h" + hashlib.sha256(text).digest()


def sequence_key(sequence: int) -> bytes:
    """Return the key of a place in the log: 8 bytes big-endian, so that keys sort as numbers."""
    return sequence.to_bytes(8, "big")
