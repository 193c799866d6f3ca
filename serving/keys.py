"""API keys: what one is, and the file of a home that knows them.

A key is `pb_`, an id of 12 hex digits that is no secret and finds the key in the file, `_`, and a secret of 256 random
bits. The file holds sha256 of the whole text. A fast hash is enough here, where it would not be for passwords: slow
ones (scrypt, argon2) make up for secrets that people choose and that a list of a billion guesses would hold. One of
2^256 equally likely secrets is not guessed at any speed, and a slow hash would cost a request more than its slate.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import stat
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec

from playbill.errors import ConfigError
from playbill.tables.files import alone, write_atomic

FILE = "keys.json"
FORMAT = 1
_TEXT = re.compile(r"pb_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class Scope(Enum):
    """What a key may do. None of them includes another."""

    recommend = "recommend"  # ask for slates
    events = "events"  # report what people did
    items = "items"  # change the catalogue: withdraw creatives
    admin = "admin"  # see the bundle, and health in full


class Key(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One key, without its secret.

    Attributes:
        id: the part of the key that finds it.
        name: of whoever uses it; one that is not revoked has its name to itself.
        sha256: of the key's whole text, in hex.
        scopes: what it may do.
        rate: requests a second, over all replicas together; null: as many as the server can take.
        burst: requests that may come at once after a pause; null: one second's worth.
        created_at, revoked_at: ISO 8601, UTC.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{12}$")]
    name: Annotated[str, msgspec.Meta(pattern=f"^{_NAME}$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1)]
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    created_at: str
    revoked_at: str | None = None


class _File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    keys: list[Key]


def keys_path(home: Path | str) -> Path:
    """Return where a home keeps its keys."""
    return Path(home) / FILE


def make_key(name: str, scopes: list[Scope], rate: float | None = None, burst: int | None = None) -> tuple[Key, str]:
    """Return a new key and its text, which nothing can tell again.

    Raises:
        ConfigError: bad name, no scopes, or rate or burst out of range.
    """
    found = secrets.token_hex(6)
    text = f"pb_{found}_{secrets.token_urlsafe(32)}"
    given = Key(
        id=found, name=name, sha256=digest(text), scopes=list(dict.fromkeys(scopes)), rate=rate, burst=burst,
        created_at=_now(),
    )  # fmt: skip
    try:
        return msgspec.convert(msgspec.to_builtins(given), Key), text
    except msgspec.ValidationError as error:
        raise ConfigError(f"key {name!r}: {error}") from None


def digest(text: str) -> str:
    """Return what is kept of a key: sha256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def id_of(text: str) -> str | None:
    """Return the id in a key's text, None where it is no key."""
    found = _TEXT.fullmatch(text)
    return found[1] if found else None


def read_keys(path: Path) -> list[Key] | None:
    """Return the keys of a file, revoked ones included; None where there is no file.

    Raises:
        ConfigError: it cannot be read, is no such file, or others than its owner may write it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o022:
                # whoever may write it may make a key; reading it gives nothing away, and mounted secrets are 0444
                raise ConfigError(f"{path} may be written by others (mode {mode:04o}); run: chmod 600 {path}")
            found = msgspec.json.decode(file.read(), type=_File)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}; put back what `playbill keys` wrote") from error
    if found.format_version != FORMAT:
        raise ConfigError(f"{path} has format {found.format_version}, this Playbill reads {FORMAT}; upgrade")
    return found.keys


def add_key(path: Path, name: str, scopes: list[Scope], rate: float | None, burst: int | None) -> tuple[Key, str]:
    """Make a key, keep it in the file, and return it and its text.

    Raises:
        ConfigError: a living key has the name, or what `make_key` and `read_keys` refuse.
    """
    made, text = make_key(name, scopes, rate, burst)
    with alone(path):
        keys = read_keys(path) or []
        if any(k.name == name and k.revoked_at is None for k in keys):
            raise ConfigError(f"there is a key {name!r} already; revoke it first, or give the new one another name")
        _write(path, [*keys, made])
    return made, text


def revoke_key(path: Path, name: str) -> Key:
    """Let the key of that name open nothing from now on; it stays in the file, with the moment.

    Raises:
        ConfigError: no living key has the name; lists those there are.
    """
    with alone(path):
        keys = read_keys(path) or []
        living = {k.name: k for k in keys if k.revoked_at is None}
        if name not in living:
            raise ConfigError(f"no key {name!r} to revoke; there are: {', '.join(living) or 'none'}")
        revoked = msgspec.structs.replace(living[name], revoked_at=_now())
        _write(path, [revoked if k.id == revoked.id else k for k in keys])
    return revoked


def _write(path: Path, keys: list[Key]) -> None:
    data = msgspec.json.encode(_File(format_version=FORMAT, keys=keys))
    write_atomic(path, msgspec.json.format(data, indent=1) + b"\n", mode=0o600)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
