"""What is told of one request to logs and traces: what the server made of it, and nothing of who asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Seen:
    """A request that was answered.

    Attributes:
        began_ns: nanoseconds since 1970 of its arrival in this process.
        request_id: of the header, or made here; never that of the body.
        traceparent: header of W3C's trace context, as it came; empty without one.
        cause: why it was refused; empty where it was not.
        bundle, surface, rung, state_version: of the slate or page; empty, and -1, where there is none.
        late: steps that were passed over for want of time.
        times_ms: by stage, in the order in which they ended; `total` is all of it.
    """

    began_ns: int
    request_id: str
    traceparent: str
    method: str
    route: str
    status: int
    cause: str
    bundle: str
    surface: str
    rung: str
    state_version: int
    late: list[str]
    times_ms: Mapping[str, float]
