"""How long a request waited before a replica saw it: what stands in front notes when it came."""

from __future__ import annotations

import time

from starlette.datastructures import Headers

WAIT_SHARE = 0.8  # of a deadline: who has waited longer could not be answered well in time, and is told to come again
ARRIVED = "x-playbill-arrived"  # milliseconds since 1970, by the clock of this machine
_MOST_MS = 60_000.0


def waited_ms(headers: Headers) -> float:
    """Return the milliseconds between the arrival of a request and now, 0 where nobody noted it.

    What a caller writes there itself, past the ingress, can only shorten its own time; what no clock could have said
    counts as nothing.
    """
    given = headers.get(ARRIVED)
    if given is None or len(given) > 16 or not (given.isascii() and given.isdecimal()):
        return 0.0
    waited = time.time() * 1e3 - int(given)
    return waited if 0 < waited < _MOST_MS else 0.0
