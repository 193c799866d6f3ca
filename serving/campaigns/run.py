"""`playbill campaign run`: one set of decisions for each recipient of a campaign, in shards, resumable."""

from __future__ import annotations

import io
import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from rich.table import Table

from playbill.bundle.open import open_bundle
from playbill.campaign.audience import People, check_columns, check_declared, read_people
from playbill.campaign.blocks import check_blocks
from playbill.campaign.brand import tokens_of
from playbill.campaign.copy_file import read_copy, sendable
from playbill.campaign.decide import recipients
from playbill.campaign.draws import wave_of
from playbill.campaign.offer_run import KEPT, Settled, decide_offers, keep, kept
from playbill.campaign.offers import ABOUT
from playbill.campaign.offers import read_model as read_offer_model
from playbill.campaign.restraint import REASONS, Contact, denials, read_contact, who_denied, with_events_since
from playbill.campaign.settings import Campaign
from playbill.campaign.subject_file import FILES, check_variants, read_chances
from playbill.campaign.variants import Choice
from playbill.errors import ConfigError, PlaybillError, TableError
from playbill.serving import load, parts, processes
from playbill.serving.campaigns.folder import (
    ASIDE,
    DECISIONS,
    ROWS,
    CampaignPlan,
    Success,
    begin,
    make_plan,
    read_plan,
    read_success,
    write_json,
)
from playbill.serving.campaigns.preview import write_preview
from playbill.serving.campaigns.settings import CampaignRunSettings
from playbill.serving.campaigns.shards import RowWriter, has_contact, put_contact, read_shard
from playbill.serving.shard_work import end_leftovers, make_parts
from playbill.state.settings import parse_moment, state_place
from playbill.state.store import Store
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder

GONE = "gone_since.parquet"
console = Console(stderr=True, highlight=False, soft_wrap=True)


def run(settings: CampaignRunSettings) -> None:
    """Decide what is missing of a campaign."""
    began = time.perf_counter()
    home = Path(settings.home).absolute()
    settings = replace(settings, home=str(home), state=str(state_place(home, settings.state)))
    campaign = settings.campaign
    folder = home / "campaigns" / _label(campaign, settings.wave)
    with ExitStack() as stack:
        if not stack.enter_context(processes.exclusive(folder.with_name(f".{folder.name}.lock"))):
            raise PlaybillError(f"campaign {campaign.name!r} is being decided in {home}; wait, or name another")
        _wait_for_others(folder, stack)
        end_leftovers(folder)
        before = None if settings.force else read_plan(folder)
        if before is not None and settings.bundle == "current":
            # another may have been published since; a run ends with the one that it began with
            settings = replace(settings, bundle=before.bundle)
        before_waves = home / "campaigns" / campaign.name if settings.wave > 1 else None
        subjects = _choice(campaign, "subject", campaign.subjects, before_waves)
        heroes = _choice(campaign, "hero", campaign.heroes, before_waves) if campaign.heroes else None
        tables = home / "tables" / settings.tables
        people = in_wave(read_people(tables, campaign.audience), campaign, settings.wave)
        named = [token.column for token in campaign.tokens]
        check_columns(tables, named, "tokens")
        for where, column in (("window", campaign.window.segment), ("waves", campaign.waves.segment)):
            check_columns(tables, [column] if column else [], f"{where}.segment")
        check_blocks(campaign, open_bundle(load.bundle_path(home, settings.bundle)))
        asked = [kind.declared for kind in campaign.sensitive if kind.declared is not None]
        check_declared(tables, asked, "sensitive")
        times = find_send_times(settings.home, settings.bundle, settings.send_times)
        model = find_offers(settings.home, settings.bundle, campaign, settings.offers)
        if settings.force and folder.exists():
            shutil.rmtree(folder)  # not before all that is asked for was found to be possible
        plan = _plan(settings, folder, people, subjects, heroes, times, model)
        todo = parts.missing(folder / ROWS, plan)
        if not todo and read_success(folder) is not None:
            console.print(f"{folder} is decided: {plan.num_users} recipients")
            return
        if len(todo) < plan.num_parts:
            console.print(f"going on: {plan.num_parts - len(todo)} of {plan.num_parts} shards are decided")
        if len(todo) == plan.num_parts:  # whatever it looked at before it was killed, others may have decided since
            shutil.rmtree(folder / ".contact", ignore_errors=True)
            (folder / KEPT).unlink(missing_ok=True)
        if todo and not has_contact(folder / ".contact", plan):
            _put_contact(settings, folder, plan, people)
        if model is not None and kept(folder, plan.run) is None:
            # waves are parts of one audience by a hash: each has its part of the budget, and all together no more
            budget = None if campaign.offers.budget is None else campaign.offers.budget / campaign.waves.count
            part = replace(campaign, offers=replace(campaign.offers, budget=budget))
            written_to, denied = _written_to(settings, folder, plan, people)
            settled = decide_offers(part, read_offer_model(model), tables, written_to, plan.at, denied)
            keep(folder, plan.run, settled)
            _tell_offers(settled)
        if todo:
            # a run that goes on draws by what was believed when it began
            subjects = replace(subjects, chances=plan.chances)
            heroes = None if heroes is None else replace(heroes, chances=plan.hero_chances)
            _decide(settings, folder, plan, people, subjects, heroes, times, todo)
        success = _finish(folder, plan, people, campaign, settings.preview)
        gone = _gone_since(settings, folder, plan)
    _tell(folder, success, time.perf_counter() - began)
    if gone:
        console.print(
            f"{gone:,} of them have unsubscribed, or taken a consent back, since the moment that this was decided for: "
            f"leave out who stands in {folder / GONE} when you send"
        )


def _label(campaign: Campaign, wave: int) -> str:
    count = campaign.waves.count
    if (count == 1) != (wave == 0) or wave > count:
        what = f"in {count} waves: wave=1 to wave={count}" if count > 1 else "at once, without wave="
        raise ConfigError(f"wave: campaign {campaign.name!r} is sent {what}; got wave={wave}")
    return f"{campaign.name}-wave{wave:02}" if wave else campaign.name


def in_wave(people: People, campaign: Campaign, wave: int) -> People:
    """Return the people of one wave, by a hash of their ids; everybody where there are none.

    Raises:
        TableError: nobody is in it.
    """
    if not wave:
        return people
    number = [wave_of(campaign, user) for user in people.user_ids.to_list()]
    mine = people.user_ids.filter(pl.Series(number) == wave)
    if not len(mine):
        raise TableError(f"wave: nobody of {len(people.user_ids)} recipients is in wave {wave}; declare fewer")
    return replace(people, user_ids=mine)


def _choice(campaign: Campaign, kind: str, path: str, waves: Path | None) -> Choice:
    """Return the variants of a file that may be sent, and what is believed of them; say which may not.

    Args:
        kind: subject or hero.
        waves: where it stands what is believed since an earlier wave; None before the second.
    Raises:
        ConfigError: none may be sent, a token that nothing fills in, or what is believed is about others.
    """
    where = "subjects" if kind == "subject" else "heroes"
    found, refused = sendable(read_copy(Path(path)))
    if not found:
        why = "; ".join(refused) or "nobody approved one; `playbill campaign copy` shows them"
        raise ConfigError(f"campaign.{where}: {path}: none may be sent: {why}")
    for fault in refused:
        console.print(f"[yellow]left out:[/] {fault}")
    known = {token.name for token in campaign.tokens}
    for variant in found:
        unknown = sorted(tokens_of(variant.text) - known)
        if unknown:
            raise ConfigError(
                f"campaign.tokens: {kind} {variant.name} of {path} asks for {{{unknown[0]}}}, and "
                "nothing says what stands there; name its column and its default"
            )
    chances = None if waves is None else read_chances(waves, kind)
    if chances is not None and waves is not None:
        check_variants(chances, found, waves / FILES[kind])
    return Choice(found, chances)


def find_send_times(home: str, bundle: str, given: str | None) -> Path | None:
    """Return the folder of the send times; None where nobody learned any.

    Raises:
        ConfigError: a folder was given that holds none.
        BundleError: none was given, and there is no such bundle.
    """
    if given is not None:
        folder = Path(given).absolute()
        if not (folder / "send_time.npz").is_file():
            raise ConfigError(f"send_times: {folder} holds no send_time.npz; it is a run of `playbill train-campaign`")
        return folder
    carried = load.bundle_path(home, bundle) / "campaign"
    return carried if (carried / "send_time.npz").is_file() else None


def find_offers(home: str, bundle: str, campaign: Campaign, given: str | None) -> Path | None:
    """Return the folder of the offer model; None where the campaign makes no offers.

    Raises:
        ConfigError: no model there.
        BundleError: none was given, and there is no such bundle.
    """
    if not campaign.offers.levels:
        return None
    folder = Path(given).absolute() if given is not None else load.bundle_path(home, bundle) / "campaign"
    if not (folder / ABOUT).is_file():
        raise ConfigError(
            f"campaign.offers: {folder} holds no {ABOUT}; run `playbill train-offers` and say offers=<its folder>, or "
            "export it with the bundle"
        )
    return folder


def _tell_offers(settled: Settled) -> None:
    made = settled.table.group_by("offer").len().sort("offer")
    shown = ", ".join(f"{name} {count:,}" for name, count in made.iter_rows())
    console.print(
        f"offers: {shown}; they cost {settled.expected:,.2f} as expected and {settled.worst:,.2f} at most; within "
        f"{100 * settled.plan.gap:.3f} % of the best plan there can be"
    )
    for line in settled.left_out:
        console.print(f"offers were not compared: {line}")
    for line in settled.flagged:
        console.print(f"[yellow]unequal offers, released all the same:[/] {line}")


def _plan(
    settings: CampaignRunSettings,
    folder: Path,
    people: People,
    subjects: Choice,
    heroes: Choice | None,
    times: Path | None,
    offers: Path | None,
) -> CampaignPlan:
    """Return the plan to follow: that of the folder where it was begun for the same, else a new one.

    Raises:
        PlaybillError: the folder was begun for something else.
    """
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
        state_version = store.version
    given = parse_moment(settings.at)
    before = read_plan(folder)
    plan = make_plan(
        settings.campaign,
        bundle=load.bundle_path(settings.home, settings.bundle).name,
        at=time.time_ns() // 1000 if given is None else given,
        state_version=state_version,
        users=people.user_ids.to_arrow().cast(pa.int64() if people.user_ids.dtype.is_integer() else pa.string()),
        shard_users=settings.shard_users,
        subjects=subjects,
        heroes=heroes,
        given=people.given,
        send_times=times,
        offers=offers,
        tables=read_folder(Path(settings.home) / "tables" / settings.tables).fingerprint,
    )
    nothing_yet = not any(folder.glob("*/part-*.parquet")) and not (folder / KEPT).is_file()
    if before is None or (nothing_yet and read_success(folder) is None):
        begin(folder, plan)
        return plan
    other = [name for name, value in plan.asked.items() if before.asked.get(name) != value]
    other += [] if given in (None, before.at) else ["at"]
    if other:
        raise PlaybillError(
            f"campaign {settings.campaign.name!r} was begun with another {', '.join(other)}: what it decided may have "
            "been sent; give this one a name of its own (campaign.name=...), or begin anew with force=true"
        )
    return before


def _decide(
    settings: CampaignRunSettings,
    folder: Path,
    plan: CampaignPlan,
    people: People,
    subjects: Choice,
    heroes: Choice | None,
    times: Path | None,
    todo: list[int],
) -> None:
    arrow = people.user_ids.to_arrow()
    users = arrow.cast(pa.int64() if people.user_ids.dtype.is_integer() else pa.string())
    make_parts(
        folder,
        parts.split(users, plan, todo),
        RowWriter,
        (
            settings.home,
            str(folder),
            plan,
            subjects,
            heroes,
            None if times is None else str(times),
            settings.require_gpu,
            settings.state,
            settings.store,
        ),
        total=plan.num_users,
        workers=settings.workers,
        object_store_mb=settings.object_store_mb,
        doing="deciding for recipients",
        console=console,
    )


def _put_contact(settings: CampaignRunSettings, folder: Path, plan: CampaignPlan, people: People) -> None:
    home, campaign = Path(settings.home), settings.campaign
    others = sorted(
        p for p in (home / "campaigns").glob(f"*/{DECISIONS}/part-*.parquet") if p.parts[-3] != campaign.name
    )
    tables = home / "tables" / settings.tables
    contact = read_contact(tables, campaign, plan.at, others, with_users=False)
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
        contact = with_events_since(contact, store, campaign, plan.at)
    contact = replace(contact, given=people.given)
    users = pl.scan_parquet(tables / "users.parquet")
    put_contact(folder / ".contact", contact, plan, people.user_ids, range(plan.num_parts), users)


def _written_to(
    settings: CampaignRunSettings, folder: Path, plan: CampaignPlan, people: People
) -> tuple[pl.Series, list[int | str]]:
    """Return whom nothing keeps from being written to that the tables know: money for offers is planned for them
    alone; and of which of them nothing may be known by the store. Whom the store alone keeps from being written to has
    an offer all the same, which nobody is told of: they may say otherwise before their shard is decided."""
    found, denied = [], list[int | str]()
    numbers = range(plan.num_parts)
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
        for number in track(numbers, "looking at recipients", console=console, transient=True):
            some = people.user_ids.slice(number * plan.shard_users, plan.shard_users)
            contact = read_shard(folder / ".contact", number)
            reason = recipients(settings.campaign, contact, None, some.to_list(), plan.at).found.reason
            mine = some.filter(pl.Series([not why for why in reason], dtype=pl.Boolean))
            found.append(mine)
            denied += who_denied(store, mine.to_list())
    return pl.concat(found), denied


def _wait_for_others(folder: Path, stack: ExitStack) -> None:
    """Hold the lock of all campaigns of a home: of two that are decided at once neither would know whom the other
    writes to, and both would keep to a cap that is passed.

    Raises:
        PlaybillError: another one was killed half-way. Whom its other half writes to nobody knows before it is decided,
            and it is decided by what was known when it began: caps would be passed between the two.
    """
    said = "another campaign is being decided here: waiting, so that caps count what it sends"
    stack.enter_context(processes.exclusive(folder.with_name(".deciding.lock"), lambda: console.print(said)))
    begun = {p.parent for p in folder.parent.glob("*/plan.json") if any(p.parent.glob(f"{ROWS}/part-*.parquet"))}
    for other in sorted(p for p in begun - {folder} if read_success(p) is None):
        raise PlaybillError(
            f"campaign {other.name} is decided in part, and caps cannot count whom the rest of it writes to: run it to "
            f"its end first, or give it up by taking away {other}"
        )


def _finish(folder: Path, plan: CampaignPlan, people: People, campaign: Campaign, preview: int) -> Success:
    """Write what is written last, after checking that every recipient has one row."""
    _, reasons = parts.whole(folder / ROWS, plan, "reason")
    for stale in sorted((folder / DECISIONS).glob("part-*.parquet")):
        if not (folder / ROWS / stale.name).is_file():
            stale.unlink()
    buffer = io.BytesIO()
    people.aside.write_parquet(buffer)
    write_atomic(folder / ASIDE, buffer.getvalue())
    aside = people.aside.group_by("reason").len().sort("reason")
    success = Success(
        run=plan.run,
        recipients=plan.num_users,
        sent=reasons.get("", 0),
        held={reason: reasons[reason] for reason in REASONS if reasons.get(reason)},
        aside=dict(aside.iter_rows()),
    )
    shutil.rmtree(folder / ".contact", ignore_errors=True)
    if preview:
        write_preview(folder, campaign, success, preview)
    write_json(folder / "success.json", success)
    return success


def _gone_since(settings: CampaignRunSettings, folder: Path, plan: CampaignPlan) -> int:
    """Write whom a message is decided for and who unsubscribed, or took a consent back, after its moment, and return
    how many: rows stay as they were decided, so that a run that was killed ends with the same ones."""
    (folder / GONE).unlink(missing_ok=True)
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
        rows = pl.scan_parquet(folder / ROWS / "part-*.parquet").filter("send").select("user_id", "channel").collect()
        words = pl.DataFrame(schema={"user_id": rows.schema["user_id"], "at": pl.Int64, "away": pl.Boolean})
        nothing = Contact(pl.DataFrame(), words, pl.DataFrame())
        away = with_events_since(nothing, store, settings.campaign, time.time_ns() // 1000).unsubscribed
        # a word has a moment, which may lie after the campaign's though the store knew it; a consent is as of now
        reason: list[str | None] = [] if store.version != plan.state_version else [None] * len(rows)
        for some in rows[len(reason) :].iter_slices(10_000):
            reason += denials(store, settings.campaign.purpose, some["user_id"].to_list(), some["channel"].to_list())
    denied, left = pl.Series(reason, dtype=pl.String), pl.col("user_id").is_in(away.implode())
    gone = rows.with_columns(reason=pl.when(left).then(pl.lit("unsubscribed")).otherwise(denied))
    gone = gone.filter(pl.col("reason").is_not_null())
    if not len(gone):
        return 0
    buffer = io.BytesIO()
    gone.select("user_id", "reason").write_parquet(buffer)
    write_atomic(folder / GONE, buffer.getvalue())
    return len(gone)


def _tell(folder: Path, success: Success, took_s: float) -> None:
    table = Table(title=f"{folder.name}: {success.recipients:,} recipients", title_justify="left")
    table.add_column("")
    table.add_column("recipients", justify="right")
    table.add_row("sent", f"{success.sent:,}", style="bold")
    for reason, count in success.held.items():
        table.add_row(reason, f"{count:,}")
    for reason, count in success.aside.items():
        table.add_row(f"set aside: {reason}", f"{count:,}", style="dim")
    console.print(table)
    console.print(f"{folder} ({took_s:.1f} s)")
