"""The subjects of a campaign, or its heads, in one file: what was proposed, by whom, and what somebody approved.

    {"format": 1, "facts": ["..."], "rules": {...}, "variants": [
      {"name": "v1", "text": "...", "proposed_by": "model m", "state": "proposed"},
      {"name": "v2", "text": "...", "proposed_by": "ada", "state": "approved", "approved_by": "ada", "at": "...",
       "sha256": "of text, facts and rules as they were approved"}]}

Nothing is sent but what `sendable` returns: approved, unchanged since in text, facts and rules, and keeping the rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from playbill.campaign.brand import BrandRules, faults
from playbill.errors import ConfigError
from playbill.tables.files import write_atomic


class Variant(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One subject, or one head of a message: its line, and in `image` where its picture is. Attributes: as above; `at`
    in ISO 8601, UTC."""

    name: str
    text: str
    image: str = ""
    proposed_by: str
    state: Literal["proposed", "approved", "rejected"]
    approved_by: str = ""
    rejected_by: str = ""
    at: str = ""
    sha256: str = ""


class Copy(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    format: Literal[1] = 1
    facts: list[str]
    rules: BrandRules
    variants: list[Variant] = []

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"variants: {twice} stand there twice; give each a name of its own")


def read_copy(path: Path) -> Copy:
    """Return what a file holds.

    Raises:
        ConfigError: there is none, or it is no such file; names the field.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Copy)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; write its facts and rules first") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from None


def write_copy(path: Path, copy: Copy) -> None:
    """Write the file in one step."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(copy), indent=1) + b"\n")


def propose(path: Path, texts: Sequence[str], by: str, images: Sequence[str] = ()) -> list[str]:
    """Add variants to a file, see `add`."""
    copy = read_copy(path)
    found = add(copy, texts, by, images)
    write_copy(path, copy)
    return found


def add(copy: Copy, texts: Sequence[str], by: str, images: Sequence[str] = ()) -> list[str]:
    """Add variants as proposed, those that keep the rules; return the faults of the others.

    Args:
        by: who wrote them.
        images: of heads, one for each text; none for subjects.
    """
    found = list[str]()
    number = len(copy.variants)
    for text, image in zip(texts, images or [""] * len(texts), strict=True):
        if any((variant.text, variant.image) == (text, image) for variant in copy.variants):
            continue
        number += 1
        while any(variant.name == f"v{number}" for variant in copy.variants):
            number += 1
        wrong = faults(f"v{number}: {text[:60]}", text, copy.rules, copy.facts)
        found += wrong
        if not wrong:
            copy.variants.append(Variant(name=f"v{number}", text=text, image=image, proposed_by=by, state="proposed"))
    return found


def decide(path: Path, name: str, by: str, approve: bool) -> None:
    """Approve a variant, or reject it.

    Args:
        by: the person who decides.
    Raises:
        ConfigError: no such variant, nobody decides, or it breaks a rule; the file stays as it is.
    """
    copy = read_copy(path)
    judge(copy, name, by, approve)
    write_copy(path, copy)


def judge(copy: Copy, name: str, by: str, approve: bool) -> None:
    """Approve a variant, or reject it. Args, Raises: `decide`; it stays as it is then."""
    found = [variant for variant in copy.variants if variant.name == name]
    if not found:
        raise ConfigError(f"no variant {name!r}; there are {', '.join(v.name for v in copy.variants) or 'none'}")
    if not by.strip():
        raise ConfigError(f"variant {name!r}: expected the name of whoever decides, got none")
    [variant] = found
    wrong = faults(name, variant.text, copy.rules, copy.facts)
    if approve and wrong:
        raise ConfigError("; ".join(wrong))
    variant.state = "approved" if approve else "rejected"
    variant.approved_by, variant.rejected_by = (by, "") if approve else ("", by)
    variant.sha256 = _digest(copy, variant) if approve else ""
    variant.at = datetime.now(UTC).isoformat(timespec="seconds")


def sendable(copy: Copy) -> tuple[list[Variant], list[str]]:
    """Return the variants that may be sent, and of each other approved one why it may not."""
    may: list[Variant] = []
    why: list[str] = []
    for variant in copy.variants:
        if variant.state != "approved":
            continue
        wrong = faults(variant.name, variant.text, copy.rules, copy.facts)
        if not variant.approved_by or variant.sha256 != _digest(copy, variant):
            wrong.append(
                f"variant {variant.name!r}: text, facts or rules are not those that were approved; decide again"
            )
        why += wrong
        if not wrong:
            may.append(variant)
    return may, why


def _digest(copy: Copy, variant: Variant) -> str:
    """Return the hash of all that an approval is about."""
    return hashlib.sha256(
        msgspec.json.encode(
            [
                variant.name,
                variant.text,
                *([variant.image] if variant.image else []),
                variant.approved_by,
                copy.facts,
                copy.rules,
            ],
            order="sorted",
        )
    ).hexdigest()
