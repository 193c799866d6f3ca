"""What a campaign declares of itself: to whom, by which channels, when, with which blocks, and who is left alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from playbill.campaign.offer_settings import Offers
from playbill.engine.types import MAX_K
from playbill.errors import ConfigError, FilterError
from playbill.filters.check import moment_us
from playbill.filters.read import read

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(slots=True, kw_only=True)
class Audience:
    """Whom a campaign is about; neither field: everybody in the users table."""

    file: str | None = None
    """Parquet file with a column user_id."""
    filter: str | None = None
    """Condition over columns of the users table, such as "country = 'IT' and orders > 2"."""
    items: str | None = None
    """Column of the file that lists each recipient's own items, such as `items` of an audience of baskets: what blocks
    of a surface that puts a given list in order (`rerank`) show."""


@dataclass(slots=True, kw_only=True)
class Block:
    """Items of a message, by the same engine that answers online."""

    name: str
    """Of its columns in the rows; a plain word."""
    k: int = 6
    """Items wanted."""
    least: int = 1
    """Items without which the message is not sent; 0: it goes out without the block."""
    surface: str = "slate"
    """Surface of the bundle's policy; `rerank` shows the items that the audience gives each recipient."""
    filter: str | None = None
    """Condition over columns of the items table that every item meets."""
    novelty_days: float = 0.0
    """Days in which the person must have done nothing with an item; more counts where the surface hides less."""


@dataclass(slots=True, kw_only=True)
class QuietHours:
    """Local hours in which nothing may arrive, from one to before the other, over midnight too; equal: none."""

    from_hour: int = 21
    """0..23."""
    to_hour: int = 8
    """0..23."""


@dataclass(slots=True, kw_only=True)
class Cap:
    """At most so many messages in so many days, those of all campaigns together."""

    most: int
    """Messages."""
    days: float
    """Before the moment of the decision; what was decided on for later counts too."""
    channel: str | None = None
    """Channel that it is about; null: all together."""


@dataclass(slots=True, kw_only=True)
class Fatigue:
    """People who were written to again and again and opened nothing are left alone."""

    sends: int = 0
    """Messages within the days, none of which was followed by an open; 0: nobody is left alone for it."""
    days: float = 90.0
    """Before the run."""
    open_event: str = "open"
    """Name of the event that says that a message was read."""
    machine_s: float = 120.0
    """Seconds after arrival within which a mail program opens; of people nearly all of whose mails were opened so soon,
    such openings are no reading."""


@dataclass(slots=True, kw_only=True)
class Sensitive:
    """Items of one kind that stand in no message of people who did not ask for it, such as those about an illness."""

    filter: str
    """Condition over columns of the items table, such as "categories contains 'health'"."""
    declared: str | None = None
    """Column of the users table, true for people who said themselves that they want such items; never one that somebody
    else found out. null: nobody did."""


@dataclass(slots=True, kw_only=True)
class Token:
    """What the sender puts into a subject or a body for each recipient, where it says {name}."""

    name: str
    """A plain word, such as first_name."""
    column: str
    """Of the users table; none that is protected or sensitive."""
    default: str
    """For people of whom the column says nothing."""


@dataclass(slots=True, kw_only=True)
class Waves:
    """A campaign that is sent in waves learns between them which subject is opened, and which hero clicked: `playbill
    campaign subjects`."""

    count: int = 1
    """Waves, each a run with wave=1, 2 ...: who is in which is a matter of a hash."""
    floor: float = 0.02
    """Least probability of every subject and every hero that may be sent, for everybody."""
    segment: str | None = None
    """Column of the users table by whose values variants may do differently; none that is protected or sensitive."""


@dataclass(slots=True, kw_only=True)
class Holdouts:
    """Who is left without for the sake of proof: by a hash of the id, so the same people every time."""

    everywhere: float = 0.0
    """Share of all people whom no campaign and no experiment touches."""
    salt: str = "holdout"
    """Of that share; the one of the plan of experiments, so that both leave the same people alone."""
    campaign: float = 0.0
    """Share of this campaign's recipients who are not sent it."""


@dataclass(slots=True, kw_only=True)
class Window:
    """Hours in which messages may arrive, by each person's own clock."""

    start: str | None = None
    """ISO 8601, UTC unless it says otherwise; null: the moment of the run."""
    days: float = 7.0
    """After the start, 7 at most: every hour of the week is met once."""
    weekdays: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4, 5, 6])
    """0 is Monday."""
    hours: list[int] = field(default_factory=lambda: list(range(24)))
    """Local, 0..23; quiet hours are taken from them."""
    timezone: str = "UTC"
    """Of people who state none that is known."""
    segment: str | None = None
    """Column of the users table by which people of whom little is known are taken to be like."""
    explore: float = 0.05
    """Probability that the hour is drawn from all that may be, in place of the best."""


@dataclass(slots=True, kw_only=True)
class Campaign:
    """One campaign. Raises: ConfigError: a field is out of range; names it by its path."""

    name: str
    """Keys every draw and stands in every row; a plain word."""
    audience: Audience = field(default_factory=Audience)
    """See Audience."""
    blocks: list[Block] = field(default_factory=list)
    """In the order of the message; no item stands in two of them."""
    purpose: str = "marketing"
    """People must allow consent_<purpose> of the users table, where there is such a column."""
    channels: list[str] = field(default_factory=lambda: ["email"])
    """Best first: each person's is the first that they allow, by consent_<channel> and consent_<purpose>_<channel>."""
    quiet: QuietHours = field(default_factory=QuietHours)
    """See QuietHours."""
    caps: list[Cap] = field(default_factory=list)
    """See Cap."""
    holdouts: Holdouts = field(default_factory=Holdouts)
    """See Holdouts."""
    window: Window = field(default_factory=Window)
    """See Window."""
    fatigue: Fatigue = field(default_factory=Fatigue)
    """See Fatigue."""
    tokens: list[Token] = field(default_factory=list)
    """See Token."""
    sensitive: list[Sensitive] = field(default_factory=list)
    """See Sensitive."""
    waves: Waves = field(default_factory=Waves)
    """See Waves."""
    subjects: str = ""
    """File of subjects of which those that somebody approved may be sent; see campaign/copy_file.py."""
    heroes: str = ""
    """File of heads, a line and a picture each, as `subjects`; each recipient gets one, beside the artwork of items.
    Waves learn of them by clicks. Empty: the message has none."""
    offers: Offers = field(default_factory=Offers)
    """See Offers; without levels none is made."""
    unsubscribe_event: str = "unsubscribe"
    """Event after which a person is written to on no channel; single channels are told by consent."""
    subscribe_event: str = "subscribe"
    """Event after which they are written to again."""
    bought_events: list[str] = field(default_factory=lambda: ["purchase"])
    """Events whose item is not shown for `bought_days`."""
    bought_days: float = 90.0
    """See bought_events."""
    reasons: bool = False
    """Say of each item why it is there; models are asked again for that, and a run takes several times as long."""
    seed: int = 0
    """Another one draws subjects and hours anew; holdouts stay."""

    def __post_init__(self) -> None:
        _word("name", self.name)
        if self.audience.file is not None and self.audience.filter is not None:
            raise ConfigError("audience: file and filter are both given; give one of them")
        if self.audience.items is not None and self.audience.file is None:
            raise ConfigError("audience.items: names a column of audience.file, and there is no file")
        _condition("audience.filter", self.audience.filter)
        _blocks(self.blocks)
        _word("purpose", self.purpose)
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ConfigError(f"channels: expected one at least and each once, got {self.channels}")
        for at, channel in enumerate(self.channels):
            _word(f"channels[{at}]", channel)
        for name in ("from_hour", "to_hour"):
            _within(f"quiet.{name}", getattr(self.quiet, name), 0, 23)
        for at, cap in enumerate(self.caps):
            _within(f"caps[{at}].most", cap.most, 0, 1e6)
            _within(f"caps[{at}].days", cap.days, 1 / 24, 3650)
            if cap.channel is not None and cap.channel not in self.channels:
                raise ConfigError(f"caps[{at}].channel: {cap.channel!r} is none of {', '.join(self.channels)}")
        _within("fatigue.sends", self.fatigue.sends, 0, 1e6)
        _within("fatigue.days", self.fatigue.days, 1 / 24, 3650)
        _within("fatigue.machine_s", self.fatigue.machine_s, 0, 3600)
        for at, token in enumerate(self.tokens):
            _word(f"tokens[{at}].name", token.name)
            if not token.default.strip():
                raise ConfigError(
                    f"tokens[{at}].default: expected a text for people of whom nothing is known, got none"
                )
        for at, kind in enumerate(self.sensitive):
            _condition(f"sensitive[{at}].filter", kind.filter)
        _within("waves.count", self.waves.count, 1, 1000)
        _within("waves.floor", self.waves.floor, 0, 0.5)
        for name in ("everywhere", "campaign"):
            _within(f"holdouts.{name}", getattr(self.holdouts, name), 0, 1)
        if not self.holdouts.salt:
            raise ConfigError("holdouts.salt: expected a text, got an empty one")
        _window(self.window)
        if not self.subjects:
            raise ConfigError("subjects: expected the path of a file of subjects, got none")
        _within("bought_days", self.bought_days, 0, 36500)


def _blocks(blocks: list[Block]) -> None:
    names = [block.name for block in blocks]
    if not blocks or len(set(names)) < len(names):
        raise ConfigError(f"blocks: expected one at least, each with a name of its own, got {names}")
    for at, block in enumerate(blocks):
        _word(f"blocks[{at}].name", block.name)
        _within(f"blocks[{at}].k", block.k, 1, MAX_K)
        _within(f"blocks[{at}].least", block.least, 0, block.k)
        _within(f"blocks[{at}].novelty_days", block.novelty_days, 0, 36500)
        if not 1 <= len(block.surface) <= 64:
            raise ConfigError(f"blocks[{at}].surface: expected 1 to 64 characters, got {len(block.surface)}")
        _condition(f"blocks[{at}].filter", block.filter)


def _window(window: Window) -> None:
    if window.start is not None and moment_us(window.start) is None:
        raise ConfigError(f"window.start: expected a time such as 2026-11-23T06:00Z, got {window.start!r}")
    _within("window.days", window.days, 1 / 24, 7)
    _within("window.explore", window.explore, 0, 1)
    for name, most in (("weekdays", 6), ("hours", 23)):
        values = getattr(window, name)
        if not values:
            raise ConfigError(f"window.{name}: expected one at least, got none")
        for at, value in enumerate(values):
            _within(f"window.{name}[{at}]", value, 0, most)
    try:
        ZoneInfo(window.timezone)
    except (ValueError, OSError, KeyError):
        raise ConfigError(f"window.timezone: {window.timezone!r} is no IANA time zone, such as Europe/Rome") from None


def _word(path: str, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise ConfigError(f"{path}: expected a word of a-z, 0-9 and _, 40 characters at most, got {value!r}")


def _within(path: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{path}: expected {low:g} to {high:g}, got {value:g}")


def _condition(path: str, text: str | None) -> None:
    if text is not None:
        try:
            read(text)
        except FilterError as error:
            raise ConfigError(f"{path}: {error}") from error
