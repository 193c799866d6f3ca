"""Settings of `playbill campaign report`."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError
from playbill.measure.experiments.settings import Correction


@dataclass(slots=True, kw_only=True)
class CampaignReportSettings:
    """`playbill campaign report monday tables=my_shop` says what a campaign did, against who was held out.

    Everybody who was dealt counts as they were dealt, whoever got no message after all included: receivers are never
    held against the others. Needs a campaign that was decided with a holdout, and tables with what people did since.
    Written to <home>/campaigns/<name>/report/: reading.json, reading.txt, reading.png and report.html.
    """

    home: str = "var"
    """Folder of everything Playbill writes."""
    name: str = ""
    """Name of a campaign that `playbill campaign run` decided."""
    tables: str = "ml-100k"
    """Name of a source prepared since, with the events of the days after."""
    metrics: str = ""
    """YAML file with metrics of your own beside opens, clicks, buyers, revenue_per_recipient and unsubscribes."""
    days: float = 0.0
    """Count so many days from the moment of the run; 0: as each metric declares it."""
    pre_days: float = 28.0
    """Days before the run whose figures narrow the intervals against the campaign's holdout (CUPED); 0: none."""
    until: str = ""
    """End of the log, ISO 8601; empty: the last event in it."""
    segments: list[str] = field(default_factory=list)
    """Columns of the users table by whose values the effects are read too; protected ones only in an audit."""
    audit: bool = False
    """Allow protected columns among the segments: to see whom it served, never to choose whom to serve."""
    least_segment: int = 200
    """People of both arms that a segment needs to be read."""
    correction: Correction = Correction.bh
    """Against false discoveries over segments and metrics: bh (Benjamini-Hochberg) or by (Benjamini-Yekutieli)."""
    delivered: str = ""
    """File (parquet or csv) of what the sender did: user_id, and sent, true or false."""
    level: float = 0.95
    """Nominal coverage of the intervals."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"level: expected 0.5 to below 1, got {self.level}")
        for name in ("days", "pre_days"):
            if not 0 <= getattr(self, name) < 36_500:
                raise ConfigError(f"{name}: expected 0 to 36500, got {getattr(self, name)}")
