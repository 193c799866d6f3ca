"""Step 1, the end of it: the arrays of a batch, whatever stands in one of its profiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from playbill.bundle.open import Bundle
from playbill.engine.ladder import Ladder, first_line
from playbill.engine.profile import NOBODY, People, Person, encode_people
from playbill.engine.types import Request


def encode_batch(
    people: Sequence[Person], requests: Sequence[Request], bundle: Bundle, ladder: Ladder
) -> People | None:
    """Return the arrays of a batch. A profile that cannot be encoded is taken for nobody's, and its person's note says
    so; None where even that does not help."""
    spec, vocabularies = bundle.spec, bundle.vocabularies
    now = np.asarray([r.at for r in requests], np.int64)
    try:
        return encode_people(people, requests, now, spec, vocabularies)
    except Exception as error:  # whatever stands in a profile must not stop the others' answers
        ladder.fault("profile", error)
    for person, request, moment in zip(people, requests, now, strict=True):
        try:
            encode_people([person], [request], np.asarray([moment]), spec, vocabularies)
        except Exception as error:
            person.profile, person.version, person.past = NOBODY, 0, []
            person.note = f"the stored profile cannot be encoded: {first_line(error)}"
            request.context = {}
    try:
        return encode_people(people, requests, now, spec, vocabularies)
    except Exception as error:
        ladder.fault("profile", error)
        return None
