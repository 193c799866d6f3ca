"""Moments and windows as people write them in settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from playbill.errors import ConfigError

DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_us(text: str, field: str) -> int:
    """Return an ISO 8601 moment (UTC unless it names a zone) in microseconds since 1970.

    Raises:
        ConfigError: not such a moment; names the field.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError(f"{field}={text!r} is not a moment such as 2025-03-01 or 2025-03-01T18:30:00Z") from error
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def window_us(text: str, field: str) -> tuple[int, int]:
    """Return a window written `START..END`, END not included, in microseconds since 1970.

    Raises:
        ConfigError: not such a window, or one that ends before it begins; names the field.
    """
    start, dots, end = text.partition("..")
    if not dots:
        raise ConfigError(f"{field}={text!r} is not a window such as 2025-03-01..2025-04-01")
    low, high = moment_us(start, field), moment_us(end, field)
    if high <= low:
        raise ConfigError(f"{field}={text!r} ends before it begins")
    return low, high


def iso(at_us: int) -> str:
    """Return microseconds since 1970 as an ISO 8601 moment in UTC, to the minute."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%MZ")
