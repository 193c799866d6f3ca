"""`playbill batch`: scores an audience with Ray Data, one row of the dataset a part, each written by its worker."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from playbill.errors import PlaybillError
from playbill.serving import load, parts, processes
from playbill.serving.audience import read_audience
from playbill.serving.parts import Plan
from playbill.serving.settings import BatchSettings
from playbill.serving.shard_work import end_leftovers, make_parts
from playbill.state.settings import parse_moment, state_place
from playbill.state.store import Store

console = Console(stderr=True, highlight=False, soft_wrap=True)


def run(settings: BatchSettings) -> None:
    """Make what is missing of a batch."""
    began = time.perf_counter()
    home = Path(settings.home).absolute()
    settings = replace(settings, home=str(home), state=str(state_place(home, settings.state)))
    folder = Path(settings.home) / "batch" / settings.name
    with processes.exclusive(folder.with_name(f".{settings.name}.lock")) as mine:
        if not mine:
            raise PlaybillError(f"a batch {settings.name!r} is being made from {settings.home}; wait, or name another")
        end_leftovers(folder)
        if settings.force and folder.exists():
            shutil.rmtree(folder)
        users = read_audience(settings.home, settings.tables, settings.audience)
        plan = _plan(settings, folder, users)
        todo = parts.missing(folder, plan)
        if not todo and parts.read_success(folder) is not None:
            console.print(f"{folder} is up to date: {plan.num_users} users in {plan.num_parts} parts")
            return
        if len(todo) < plan.num_parts:
            console.print(f"going on: {plan.num_parts - len(todo)} of {plan.num_parts} parts are there")
        if todo:
            from playbill.serving.slates import SlateWriter

            make_parts(
                folder,
                parts.split(users, plan, todo),
                SlateWriter,
                (settings.home, str(folder), plan, settings.require_gpu, settings.state, settings.store),
                total=plan.num_users,
                workers=settings.workers,
                object_store_mb=settings.object_store_mb,
                doing="scoring users",
                console=console,
            )
        success = parts.finish(folder, plan)
    rungs = ", ".join(f"{count} on {rung}" for rung, count in success.rungs.items())
    console.print(
        f"[bold]{folder}[/]: {success.rows} users ({rungs}) in {success.parts} parts, bundle {plan.bundle}, "
        f"{time.perf_counter() - began:.1f} s"
    )


def _plan(settings: BatchSettings, folder: Path, users: pa.Array) -> Plan:
    """Return the plan to follow: that of the folder where it was begun for the same, else a new one."""
    with Store.open(state_place(settings.home, settings.state), settings=settings.store) as store:
        state_version = store.version
    given = parse_moment(settings.at)
    plan = parts.make_plan(
        name=settings.name,
        bundle=load.bundle_path(settings.home, settings.bundle).name,
        k=settings.k,
        surface=settings.surface,
        at=time.time_ns() // 1000 if given is None else given,
        state_version=state_version,
        users=users,
        shard_users=settings.shard_users,
    )
    before = parts.read_plan(folder)
    if before is not None and before.asked == plan.asked and given in (None, before.at):
        # one that is not finished goes on, though events came in meanwhile; a finished one is only good for its state
        if parts.read_success(folder) is None or before.state_version == state_version:
            return before
    parts.begin(folder, plan)
    return plan
