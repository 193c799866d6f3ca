"""Settings of `playbill campaign run`, and what `playbill campaign plan` shares with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.campaign.settings import Block, Campaign
from playbill.serving.settings import at_least
from playbill.state.settings import StoreSettings, parse_moment


@dataclass(slots=True, kw_only=True)
class CampaignDeclared:
    """What a run and a plan of it are told alike: the declaration, and what it is decided with."""

    home: str = "var"
    """Folder of everything Playbill writes."""
    state: str | None = None
    """Folder of the store, or redis://host:port/0?prefix=shop for servers on several machines; null: <home>/state."""
    tables: str = "ml-100k"
    """Name of a source prepared with `playbill prepare`: consent, time zones and what was sent before stand there."""
    bundle: str = "current"
    """Version of a published bundle; `current` is what `playbill publish` pointed to last."""
    campaign: Campaign = field(
        default_factory=lambda: Campaign(name="campaign", blocks=[Block(name="picks")], subjects="subjects.json")
    )
    """The declaration: whom, which blocks, which hours, whom to leave alone."""
    send_times: str | None = None
    """Folder of a run of `playbill train-campaign`; null: what the bundle carries in campaign/, if it does."""
    offers: str | None = None
    """Folder of a run of `playbill train-offers`; null: what the bundle carries in campaign/. A run asks for it where
    the campaign declares levels of offers."""
    at: str | None = None
    """Moment that is decided for: ISO 8601 or UTC microseconds; null: when the run first began, or now for a plan."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """Limits of the store, and how Redis is reached."""


@dataclass(slots=True, kw_only=True)
class CampaignRunSettings(CampaignDeclared):
    """`playbill campaign run campaign=monday` decides for each recipient whether, what, when, with which subject.

    Written to <home>/campaigns/<campaign.name>/: rows/ (a row a recipient), decisions/ (the contract's table),
    aside.parquet (rows of the audience that are nobody), preview.html, and last success.json with the counts by reason.
    It sends nothing. A run that was killed goes on where it stopped; a finished one is left as it is.
    """

    wave: int = 0
    """Of a campaign with campaign.waves.count above 1, which one: 1, 2 ...; 0 of one that is sent at once."""
    shard_users: int = 2048
    """Recipients in one output file, which is also the unit of work that a killed run may lose."""
    workers: int = 0
    """Processes; 0: one a core."""
    preview: int = 20
    """Recipients shown in preview.html, drawn evenly; 0 writes none."""
    force: bool = False
    """Decide again what is already there."""
    require_gpu: bool = False
    """Refuse to start when a model would run on the CPU."""
    object_store_mb: int = 100
    """Shared memory of Ray, in MB."""

    def __post_init__(self) -> None:
        at_least(self, 1, "shard_users")
        at_least(self, 0, "workers", "preview", "wave")
        at_least(self, 76, "object_store_mb")
        parse_moment(self.at)
