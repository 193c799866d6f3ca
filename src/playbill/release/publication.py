"""The record of what was published: `bundles/published.jsonl`, a line each time, which only grows."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

RECORD = "published.jsonl"


class Publication(msgspec.Struct, kw_only=True):
    """One line of `bundles/published.jsonl`, which only grows.

    Attributes:
        previous: the bundle that was current before, None for the first.
        gate_passed: rules as a file of conf/gate/ has them or stricter, beside the bundle that was in use.
        rules: by which it was judged, and every change to them; empty where it was not judged.
        forced: why it went out nevertheless; empty when it passed.
        trial: what a trial beside the bundle in use came to, in words; empty where there was none.
    """

    at: str
    bundle: str
    previous: str | None
    gate_passed: bool
    rules: str = ""
    forced: str = ""
    trial: str = ""


def was_in_use(bundles: Path, version: str) -> bool:
    """Return whether a bundle was ever the current one, or tried beside it, as far as the record says."""
    try:
        lines = (bundles / RECORD).read_bytes().splitlines()
    except FileNotFoundError:
        return False
    return any(msgspec.json.decode(line, type=Publication).bundle == version for line in lines if line.strip())


def remember(bundles: Path, line: Publication) -> None:
    """Add a line to the record of what was published."""
    # one write of one line in append mode: two publishers cannot mix theirs
    descriptor = os.open(bundles / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, msgspec.json.encode(line) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
