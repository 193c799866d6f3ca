"""What can go wrong, as one tree.

    PlaybillError
    ├── ConfigError            a setting is unknown, missing or out of range
    ├── SourceError            raw data could not be fetched, or is not what it claims to be
    ├── TableError             rows break the contract of the five tables (carries the faults)
    ├── FeatureError           arrays, vocabularies or a feature spec do not fit each other
    ├── TrainingError          a training run cannot start, go on, or be trusted
    ├── ParityError            an exported graph answers differently from the model it came from
    ├── SearchError            an index misses its recall floor, or is asked for what it cannot do
    ├── BundleError            a bundle is incomplete, altered, too new, or in the wrong state
    ├── CreativeError          creatives, choices among them, or what is believed of them do not fit each other
    ├── BlendError             saved scores do not fit each other, or a member has seen what a blend is fitted on
    ├── MeasureError           a log, or a list of recommendations, cannot be measured
    ├── WorldError             a simulated service cannot be built from its parameters, or read back
    ├── GateError              a bundle failed its release gate
    ├── StateError             the store cannot hold or give back what it was asked for
    ├── ProviderError          a required device or execution provider is not there
    ├── FilterError            a condition over columns cannot be understood: points at the character
    ├── EndpointError          a model that writes sentences does not answer, or not as such a model does
    ├── RefusedError           a server that was asked did not do it: status, field and reason
    └── RequestError           a request cannot be understood: names the field

Every message says what was expected, what was found, and what to do.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence


class PlaybillError(Exception):
    """The root: `except PlaybillError` catches what Playbill raises on purpose."""


class ConfigError(PlaybillError, ValueError):
    """A setting is unknown, missing or out of range."""


class SourceError(PlaybillError):
    """Raw data could not be fetched, or is not what it claims to be."""


class TableError(PlaybillError, ValueError):
    """Rows break the contract of the five tables.

    Attributes:
        faults: of a validation, in groups (`tables.faults.FaultGroup`); empty for an error that is no validation's.
    """

    def __init__(self, message: str, faults: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class FeatureError(PlaybillError, ValueError):
    """Arrays, vocabularies or a feature spec do not fit each other."""


class TrainingError(PlaybillError):
    """A training run cannot start, go on, or be trusted."""


class ParityError(PlaybillError):
    """An exported graph answers differently from the model it came from."""


class SearchError(PlaybillError):
    """An index misses its recall floor, or is asked for what it cannot do."""


class BundleError(PlaybillError):
    """A bundle is incomplete, altered, too new, or in the wrong state."""


class CreativeError(PlaybillError, ValueError):
    """Creatives, choices among them, or what is believed of them do not fit each other."""


class BlendError(PlaybillError, ValueError):
    """Saved scores do not fit each other, or a member has seen what a blend is fitted on."""


class MeasureError(PlaybillError, ValueError):
    """A log, or a list of recommendations, cannot be measured."""


class WorldError(PlaybillError, ValueError):
    """A simulated service cannot be built from its parameters, or read back."""


class GateError(PlaybillError):
    """A bundle failed its release gate."""


class StateError(PlaybillError):
    """The store cannot hold or give back what it was asked for."""


class ProviderError(PlaybillError):
    """A required device or execution provider is not there."""


class FilterError(PlaybillError, ValueError):
    """A condition over columns cannot be understood.

    Attributes:
        at: 0-based character of its text; the message counts from 1 and shows the place.
        reason: what was expected and what was found.
    """

    def __init__(self, text: str, at: int, reason: str) -> None:
        low, high = max(0, at - 40), at + 30
        shown = "".join(c if c.isprintable() else " " for c in text[low:high])
        before, after = "…" if low else "", "…" if high < len(text) else ""
        pointer = " " * (len(before) + at - low) + "^"
        super().__init__(f"character {at + 1}: {reason}\n  {before}{shown}{after}\n  {pointer}")
        self.at = at
        self.reason = reason


class EndpointError(PlaybillError):
    """A model that writes sentences does not answer, or not as such a model does."""


class RefusedError(PlaybillError):
    """A server that was asked did not do it.

    Attributes:
        status: of HTTP.
        field: that is to blame; empty where none is.
        reason: in the server's words.
        retry_after_s: seconds after which to try again.
    """

    def __init__(self, message: str, status: int, field: str, reason: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.status, self.field, self.reason, self.retry_after_s = status, field, reason, retry_after_s


class RequestError(PlaybillError, ValueError):
    """A request cannot be understood.

    Attributes:
        field: path of the offending field, such as `context.hour`.
        reason: what was expected and what was found.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def trace(error: BaseException) -> str:
    """Return where an error and its causes came from, for a log: places and types, never the messages.

    What went wrong while a person was answered may quote that person (`KeyError: 'somebody@example.org'`).
    """
    lines: list[str] = []
    now: BaseException | None = error
    while now is not None:
        lines[:0] = [*traceback.format_tb(now.__traceback__), f"{type(now).__module__}.{type(now).__qualname__}\n"]
        now = now.__cause__ or (None if now.__suppress_context__ else now.__context__)
    return "".join(lines).rstrip()
