"""Draws of a campaign: of a hash of its name, its seed and the person, so that a run that is repeated draws alike."""

from __future__ import annotations

import hashlib

from playbill.campaign.settings import Campaign


def uniform(campaign: Campaign, what: str, user_id: int | str) -> float:
    """Return a number in [0, 1) that is always the same of one campaign, seed, purpose and person."""
    return int.from_bytes(digest(campaign, what, user_id)[:6], "little") / 2**48


def wave_of(campaign: Campaign, user_id: int | str) -> int:
    """Return in which of its waves, 1 and on, a campaign writes to somebody."""
    return int(uniform(campaign, "wave", user_id) * campaign.waves.count) + 1


def digest(campaign: Campaign, what: str, user_id: int | str) -> bytes:
    """Return 16 bytes; a person of the id 1 is another than one of the id "1"."""
    kind = "s" if isinstance(user_id, str) else "i"
    text = f"{campaign.name}\0{campaign.seed}\0{what}\0{kind}\0{user_id}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
