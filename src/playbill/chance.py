"""Numbers of chance that come from names alone: the same names draw the same numbers, in whatever batches they come.

A hash a name and a mix of 64 bits a number: a hash of its own for each number would take longer than what it decides.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

_GOLDEN, _64_BITS = 0x9E3779B97F4A7C15, 2**64 - 1
GOLDEN = np.uint64(_GOLDEN)


def hashed(text: str) -> int:
    """Return 64 bits of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@lru_cache(maxsize=1 << 17, typed=True)
def hashed_id(value: int | str) -> int:
    """Return 64 bits of an id; the number 1 is another id than the text "1"."""
    return hashed(f"{'s' if isinstance(value, str) else 'i'}{value}")


def mix64(x: np.ndarray) -> np.ndarray:
    """Return uint64 numbers with every bit depending on all bits; a bijection.

    Source: G. Steele, D. Lea, C. Flood (2014), Fast splittable pseudorandom number generators: the end of SplitMix64.
    """
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def numbers(keys: np.ndarray, count: int) -> np.ndarray:
    """Return [n, count] float64 in [0, 1): the first numbers of the generators SplitMix64 that start at n keys."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    return in_unit(mix64(keys[:, None] + steps))


def few_numbers(key: int, count: int) -> list[float]:
    """Return the same of one key: few of them take less time one by one than in arrays."""
    found = []
    for step in range(1, count + 1):
        x = (key + step * _GOLDEN) & _64_BITS
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _64_BITS
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _64_BITS
        found.append(((x ^ x >> 31) >> 11) * 2.0**-53)
    return found


def in_unit(x: np.ndarray) -> np.ndarray:
    """Return uint64 numbers as float64 in [0, 1), by their upper 53 bits."""
    found: np.ndarray = (x >> np.uint64(11)) * 2.0**-53
    return found
