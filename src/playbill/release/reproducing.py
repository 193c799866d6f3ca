"""`playbill reproduce NAME`: which job a protocol's name asks for."""

from __future__ import annotations

from playbill.errors import ConfigError
from playbill.release import reproduce, reproduce_answers, reproduce_lists
from playbill.release.protocols import PROTOCOLS
from playbill.release.ranking_protocols import RANKING_PROTOCOLS
from playbill.release.reproduce_lists import LISTS
from playbill.release.settings import ReproduceSettings


def run(settings: ReproduceSettings) -> int:
    """Rerun a published protocol, of retrieval or of ranking; return 1 where an aim is not reached.

    Raises:
        ConfigError: no such protocol.
        PlaybillError: a step failed; names the command to repeat it.
    """
    names = [*PROTOCOLS, *RANKING_PROTOCOLS, LISTS]
    if settings.name not in names:
        raise ConfigError(f"no protocol {settings.name!r}; there are: {', '.join(names)}")
    if settings.name == LISTS:
        return reproduce_lists.run(settings)
    if settings.name in RANKING_PROTOCOLS:
        return reproduce_answers.run(settings)
    return reproduce.run(settings)
