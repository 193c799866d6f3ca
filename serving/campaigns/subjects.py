"""`playbill campaign subjects`: what was opened and clicked of the waves so far, and which subject and which hero the
next one gives to whom."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from playbill.campaign.adaptive import estimates
from playbill.campaign.copy_file import read_copy, sendable
from playbill.campaign.delays import MOST_H, fit_delays, revealed
from playbill.campaign.settings import Campaign
from playbill.campaign.subject_file import ANYBODY, Chances, chance_of, read_chances, write_chances
from playbill.campaign.thompson import Tally, believed, chances, tally
from playbill.campaign.variants import PREFIX
from playbill.errors import ConfigError, PlaybillError
from playbill.serving.campaigns.folder import ROWS, read_plan, read_success, waves_of
from playbill.state.settings import StoreSettings, parse_moment, state_place
from playbill.state.store import Store
from playbill.tables.files import write_atomic

HOUR_US = 3_600_000_000
console = Console(soft_wrap=True, highlight=False)


@dataclass(slots=True, kw_only=True)
class CampaignSubjectsSettings:
    """`playbill campaign subjects autumn` reads what was opened, between two waves or after the last,
    and what was clicked where the campaign has heroes.

    Writes <home>/campaigns/<name>/subjects.json, which the next wave's run draws its subjects by, and
    subjects_report.json: what each subject's open rate would be, had everybody been sent it, with intervals that hold
    although the choice followed what was seen; heroes.json and heroes_report.json likewise, of clicks. Until 72 hours
    after the last message the reports are early.
    """

    home: str = "var"
    """Folder of everything Playbill writes."""
    state: str | None = None
    """Folder of the store whose events are read, or redis://host:port/0?prefix=shop; null: <home>/state."""
    name: str = ""
    """Name of the campaign."""
    open_event: str = "open"
    """Event that says that a message was opened."""
    click_event: str = "message_click"
    """Event that says that something in a message was clicked, for heroes; clicks in the shop are another thing."""
    machine_s: float = 120.0
    """Openings and clicks so soon after arrival are a mail program's, and count nothing; a later one does."""
    at: str | None = None
    """Moment of looking: ISO 8601 or UTC microseconds; null: now."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """Limits of the store, and how Redis is reached."""

    def __post_init__(self) -> None:
        parse_moment(self.at)
        if not 0 <= self.machine_s <= 3600:
            raise ConfigError(f"machine_s: expected 0 to 3600, got {self.machine_s:g}")


_Answer = tuple[int, str]


@dataclass(frozen=True, slots=True)
class _Sent:
    """n messages: wave, variant (row of the names), segment (row of them) [n] int64, age_h, delay_h (inf) [n] float64,
    chance [n, V] of every variant when each was decided on."""

    wave: np.ndarray
    variant: np.ndarray
    segment: np.ndarray
    age_h: np.ndarray
    delay_h: np.ndarray
    chance: np.ndarray


def run(settings: CampaignSubjectsSettings) -> dict[str, Chances]:
    """Look at what became of subjects and heroes, say so, and write it.

    Raises:
        ConfigError: no name.
        PlaybillError: no wave is decided.
    """
    if not settings.name:
        raise ConfigError("name: expected the name of a campaign: playbill campaign subjects NAME")
    home = Path(settings.home).absolute()
    folder = home / "campaigns" / settings.name
    waves = [p for p in (folder, *waves_of(folder)) if read_success(p) is not None]
    if not waves:
        raise PlaybillError(
            f"nothing of campaign {settings.name!r} is decided in {home}; run `playbill campaign run` first"
        )
    plan = read_plan(waves[0])
    assert plan is not None  # it is decided
    campaign = msgspec.convert(plan.declaration, Campaign)
    given = parse_moment(settings.at)
    at = time.time_ns() // 1000 if given is None else given
    asked = {"subject": (campaign.subjects, settings.open_event)}
    if campaign.heroes:
        asked["hero"] = (campaign.heroes, settings.click_event)
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
        answered = {kind: _moments(store, event, at) for kind, (_, event) in asked.items()}
    return {
        kind: _look(settings, campaign, kind, Path(path), folder, waves, answered[kind], at)
        for kind, (path, _) in asked.items()
    }


def _look(
    settings: CampaignSubjectsSettings,
    campaign: Campaign,
    kind: str,
    path: Path,
    folder: Path,
    waves: list[Path],
    answered: dict[int | str, list[_Answer]],
    at: int,
) -> Chances:
    """Learn of the variants of one kind, say so, and write it.

    Args:
        path: of their file; `folder` where what is believed of them stands.
        answered: when each person opened, or clicked, something, and of which decision, see `_moments`.
    """
    variants = [v.name for v in sendable(read_copy(path))[0]]
    sent, segments = _messages(settings, campaign, kind, waves, variants, answered, at)
    before = read_chances(folder, kind)
    opened = sent.delay_h <= np.minimum(sent.age_h, MOST_H)
    share = fit_delays(sent.delay_h[opened], sent.age_h[opened], None if before is None else np.asarray(before.share))
    seen = tally(sent.segment, sent.variant, opened, revealed(share, sent.age_h), (len(segments), len(variants)))
    chance = chances(*believed(seen), campaign.waves.floor)
    whole = Tally(seen.opened.sum(0, keepdims=True), seen.messages.sum(0, keepdims=True))
    anybody = chances(*believed(whole), campaign.waves.floor)[0]
    by_segment = dict(zip(segments, chance.tolist(), strict=True)) if campaign.waves.segment else {}
    found = Chances(
        version=1 if before is None else before.version + 1,
        variants=variants,
        column=campaign.waves.segment or "",
        chance={**by_segment, ANYBODY: anybody.tolist()},
        share=share.tolist(),
        messages=np.bincount(sent.variant, minlength=len(variants)).tolist(),
        opened=np.bincount(sent.variant[opened], minlength=len(variants)).tolist(),
    )
    write_chances(folder, found, kind)
    _report(folder, kind, sent, opened, found, anybody)
    return found


def _moments(store: Store, name: str, at: int) -> dict[int | str, list[_Answer]]:
    """Return the moments of one event of each person, ascending, with the decision that each names or ""."""
    found: dict[int | str, list[_Answer]] = {}
    for _, _, event in store.events():
        if event.event == name and event.user_id is not None and event.at is not None and event.at <= at:
            decision = "" if event.decision_id is None else str(event.decision_id)
            found.setdefault(event.user_id, []).append((event.at, decision))
    return {user: sorted(moments) for user, moments in found.items()}


def _delay(answers: Sequence[_Answer], came: int, soonest: int, requests: Collection[str]) -> float:
    """Return after how many hours a message was answered, infinite where it was not.

    An answer that names a decision is of the message that it was decided for; one that names none is of every message
    that had come by then.

    Args:
        came, soonest: UTC microseconds, when the message came, and from when on a person may have answered.
        requests: under which its decisions stand, see `decisions_of`.
    """
    for moment, decision in answers:
        of_whom = (decision.rpartition(":")[0], decision.rpartition(":")[0].rpartition(":")[0])
        if moment >= soonest and (not decision or any(request in requests for request in of_whom)):
            return (moment - came) / HOUR_US
    return np.inf


def _messages(
    settings: CampaignSubjectsSettings,
    campaign: Campaign,
    kind: str,
    waves: list[Path],
    variants: list[str],
    answered: dict[int | str, list[_Answer]],
    at: int,
) -> tuple[_Sent, list[str]]:
    """Return the messages that have arrived, of variants that may still be sent, and the names of the segments."""
    parts, matrices = [], []
    for number, folder in enumerate(waves):
        plan = read_plan(folder)
        assert plan is not None  # it is decided
        known = plan.chances if kind == "subject" else plan.hero_chances
        rows = pl.scan_parquet(folder / ROWS / "part-*.parquet").filter(
            pl.col("send") & pl.col(PREFIX[kind]).is_in(variants)
        )
        message = pl.concat_str(pl.lit(f"{campaign.name}:"), pl.col("user_id").cast(pl.String))
        # people may be of another segment by now; what they were sent was drawn for the one that they were of
        wanted = {
            "variant": pl.col(PREFIX[kind]),
            "segment": pl.col(f"{PREFIX[kind]}_segment"),
            "send_at": pl.col("send_at").dt.epoch("us"),
        }
        requests = pl.concat_list(message, *(f"{block.name}_request_id" for block in campaign.blocks))
        mine = rows.select("user_id", **wanted, requests=requests).filter(pl.col("send_at") < at).collect()
        matrices.append(_as_decided(known, mine["segment"].to_list(), variants))
        parts.append(mine.with_columns(wave=pl.lit(number)))
    whole = pl.concat(parts)
    segments = sorted(set(whole["segment"].to_list())) or [""]
    arrived = whole["send_at"].to_numpy()
    first = arrived + round(settings.machine_s * 1e6)
    delays = [
        _delay(answered.get(user, ()), came, soonest, requests)
        for user, came, soonest, requests in zip(
            whole["user_id"].to_list(), arrived.tolist(), first.tolist(), whole["requests"].to_list(), strict=True
        )
    ]
    return _Sent(
        wave=whole["wave"].to_numpy().astype(np.int64),
        variant=np.asarray([variants.index(v) for v in whole["variant"]], np.int64),
        segment=np.asarray([segments.index(s) for s in whole["segment"]], np.int64),
        age_h=(at - arrived) / HOUR_US,
        delay_h=np.asarray(delays, np.float64),
        chance=np.concatenate(matrices),
    ), segments


def _as_decided(known: Chances | None, segments: list[str], variants: list[str]) -> np.ndarray:
    """Return [n, V], the chance that each variant had for n people of a wave; 0 of one that could not be sent then."""
    if known is None:
        return chance_of(None, segments, len(variants))
    whole = chance_of(known, segments, len(known.variants))
    found = np.zeros((len(segments), len(variants)))
    for place, name in enumerate(variants):
        if name in known.variants:
            found[:, place] = whole[:, known.variants.index(name)]
    return found


def _report(folder: Path, kind: str, sent: _Sent, opened: np.ndarray, found: Chances, chance: np.ndarray) -> None:
    """Print and write what each variant did: only messages that had all the time to be opened are estimated from."""
    ripe = sent.age_h >= MOST_H
    every = ripe & (sent.chance > 0).all(1)
    told = None
    if every.sum() >= 100:
        told = estimates(
            sent.wave[every], sent.variant[every], opened[every], sent.chance[every], len(found.variants),
            sent.segment[every],
        )  # fmt: skip
    name_of_all, did = ("subjects", "opened") if kind == "subject" else ("heroes", "clicked")
    table = Table(title=f"{folder.name}: {name_of_all} after look {found.version}", title_justify="left")
    for name in (kind, "messages", did, "next time", f"share {did}, had everybody got it", "best with"):
        table.add_column(name, justify="left" if name == kind else "right")
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(found.variants):
        row: dict[str, Any] = {
            kind: name, "messages": found.messages[place], "opened": found.opened[place],
            "next_chance": float(chance[place]),
        }  # fmt: skip
        shown = "not yet"
        if told is not None:
            rate, error = float(told.rate[place]), float(told.error[place])
            row |= {
                "rate": rate,
                "low": rate - 1.96 * error,
                "high": rate + 1.96 * error,
                "best": float(told.best[place]),
            }
            shown = f"{rate:.4f} [{row['low']:.4f} {row['high']:.4f}]"
        table.add_row(name, f"{row['messages']:,}", f"{row['opened']:,}", f"{row['next_chance']:.3f}", shown,
                      "" if told is None else f"{row['best']:.3f}")  # fmt: skip
        rows.append(row)
    method = "adaptively weighted, Hadad et al. 2021; level 0.95; of messages 72 hours old or more"
    report = {"campaign": folder.name, "version": found.version, "early": bool((~ripe).any()), "method": method,
              "estimated_from": int(every.sum()), name_of_all: rows}  # fmt: skip
    write_atomic(folder / f"{name_of_all}_report.json", msgspec.json.format(msgspec.json.encode(report)))
    console.print(table)
    console.print(f"written to {folder}")
