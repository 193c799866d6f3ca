"""`playbill campaign plan`: whom a campaign would reach and what it could show, before anything is decided."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.progress import track

from playbill.campaign.audience import read_people
from playbill.campaign.copy_file import read_copy, sendable
from playbill.campaign.decide import hours_of, recipients
from playbill.campaign.offer_run import Settled, decide_offers
from playbill.campaign.offers import read_model as read_offer_model
from playbill.campaign.plan import plan_of
from playbill.campaign.restraint import allows, read_contact, with_events_since
from playbill.campaign.send_time import read_send_times
from playbill.engine.profile import PURPOSE
from playbill.errors import BundleError, ConfigError
from playbill.measure.campaigns.page import to_html
from playbill.measure.statement import Reading, to_json, to_png, to_text
from playbill.serving.campaigns.folder import DECISIONS
from playbill.serving.campaigns.run import find_offers, find_send_times
from playbill.serving.campaigns.settings import CampaignDeclared
from playbill.state.settings import parse_moment, state_place
from playbill.state.store import Store
from playbill.tables.consent import not_denied
from playbill.tables.files import atomic_folder

_TOGETHER = 4_096  # people looked at in one go


@dataclass(slots=True, kw_only=True)
class CampaignPlanSettings(CampaignDeclared):
    """`playbill campaign plan campaign=monday tables=my_shop` says what a campaign would do, and decides nothing.

    The audience after each reason to hold back (of everybody, not of a sample), opens and revenue to expect, what the
    holdout can show, and whom it would reach by protected group, for audits. Written to <home>/campaigns/<name>/plan/.
    """

    days: float = 14.0
    """Days that the report will count."""
    lift: float = 0.1
    """Relative lift: of buyers, that the smallest holdout is suggested for; of the best variant over the others, that
    waves are rehearsed with."""
    click_rate: float | None = None
    """Share of messages of which the hero is clicked, for what waves can tell of heroes; null: not known."""
    level: float = 0.95
    """Of intervals, and of the holdout's test."""

    def __post_init__(self) -> None:
        parse_moment(self.at)
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"level: expected 0.5 to below 1, got {self.level}")
        if not 0 < self.lift <= 10:
            raise ConfigError(f"lift: expected above 0, up to 10, got {self.lift}")
        if self.click_rate is not None and not 0 < self.click_rate < 1:
            raise ConfigError(f"click_rate: expected above 0, below 1, got {self.click_rate}")
        if not 1 / 24 <= self.days <= 3650:
            raise ConfigError(f"days: expected 1/24 to 3650, got {self.days}")


def run(settings: CampaignPlanSettings) -> Reading:
    """Plan a campaign, print it and write it."""
    home, campaign = Path(settings.home).absolute(), settings.campaign
    tables = home / "tables" / settings.tables
    given = parse_moment(settings.at)
    at = time.time_ns() // 1000 if given is None else given
    people = read_people(tables, campaign.audience)
    folder = home / "campaigns" / campaign.name
    try:
        found = find_send_times(str(home), settings.bundle, settings.send_times)
    except BundleError:
        found = None  # nothing is published yet: then nothing is known of hours
    model = None if found is None else read_send_times(found)
    decided = sorted(p for p in home.glob(f"campaigns/*/{DECISIONS}/part-*.parquet") if p.parts[-3] != campaign.name)
    contact = read_contact(tables, campaign, at, decided)
    rows, denied = [], list[int | str]()
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
        contact = with_events_since(contact, store, campaign, at)
        ids = people.user_ids.to_list()
        starts = range(0, len(ids), _TOGETHER)
        for low in track(starts, "looking at recipients", console=Console(stderr=True), transient=True):
            some = ids[low : low + _TOGETHER]
            who = recipients(campaign, contact, store, some, at)
            chance: list[float | None] = [None] * len(some)
            sent = [row for row, reason in enumerate(who.found.reason) if not reason]
            denied += [some[row] for row in sent if not not_denied(who.profiles[row].features, PURPOSE)]
            if model is not None and sent:
                theirs = who.users[sent]
                personal = allows(theirs, [who.profiles[row].features for row in sent], PURPOSE)
                zones = [who.zones[row] for row in sent]
                hours = hours_of(campaign, model, theirs, personal, [some[row] for row in sent], zones, who.weeks)
                for row, value in zip(sent, hours["open_probability"], strict=True):
                    chance[row] = float(value)
            given_ = {"user_id": who.users["user_id"], "reason": who.found.reason, "open_probability": chance}
            rows.append(pl.DataFrame(given_, schema_overrides={"open_probability": pl.Float64}))
    written_to = pl.concat(rows).filter(pl.col("reason") == "")["user_id"]
    settled, why = _settled(settings, home, tables, written_to, at, denied)
    copies = {"subject": campaign.subjects, **({"hero": campaign.heroes} if campaign.heroes else {})}
    found_of = {kind: _sendable(path) for kind, path in copies.items()}
    reading = plan_of(
        campaign, pl.concat(rows), tables, at, settings.days, settings.level,
        lift=settings.lift, settled=settled, why_no_offers=why,
        variants={kind: count for kind, count in found_of.items() if count}, click_rate=settings.click_rate,
    )  # fmt: skip
    with atomic_folder(folder / "plan") as out:
        png = to_png(reading)
        (out / "plan.json").write_bytes(to_json(reading))
        (out / "plan.txt").write_text(to_text(reading))
        (out / "plan.html").write_text(to_html(reading, png))
    console = Console(soft_wrap=True, highlight=False)
    console.print(to_text(reading), markup=False, end="")
    console.print(f"\nwritten to {folder / 'plan'}", markup=False)
    return reading


def _sendable(path: str) -> int:
    """Return how many variants of a file may be sent; a plan may be made before there are any."""
    return len(sendable(read_copy(Path(path)))[0]) if Path(path).is_file() else 0


def _settled(
    settings: CampaignPlanSettings,
    home: Path,
    tables: Path,
    user_ids: pl.Series,
    at: int,
    denied: Sequence[int | str],
) -> tuple[Settled | None, str]:
    """Return the offers that the run would settle, and why there are none; unequal ones are told, not refused."""
    campaign = settings.campaign
    if not campaign.offers.levels:
        return None, "no offers declared"
    try:
        folder = find_offers(str(home), settings.bundle, campaign, settings.offers)
    except BundleError:
        folder = None
    if folder is None:
        return None, "no bundle is published that carries a model of offers: `playbill train-offers` learns one"
    told = replace(campaign, offers=replace(campaign.offers, release_unequal=True))
    return decide_offers(told, read_offer_model(folder), tables, user_ids, at, denied), ""
