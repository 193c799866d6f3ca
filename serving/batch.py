"""`playbill batch`: scores an audience with Ray Data, one row of the dataset a part, each part written by its worker.

Ray Data's own checkpoints are as coarse as its blocks, and its writers name files as they like: here the names are
ours, and a part that is there is done. A killed run loses the parts that were being written, and nothing else.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from playbill.errors import PlaybillError
from playbill.serving import load, parts, processes
from playbill.serving.audience import read_audience
from playbill.serving.parts import Plan
from playbill.serving.settings import BatchSettings
from playbill.state.settings import parse_moment, state_place
from playbill.state.store import Store
from playbill.tables.files import write_atomic

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
        _end_leftovers(folder)
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
            _score(settings, folder, plan, parts.split(users, plan, todo))
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


def _score(settings: BatchSettings, folder: Path, plan: Plan, rows: list[dict[str, object]]) -> None:
    from playbill.serving.ray_local import local_ray

    workers = min(len(rows), settings.workers or len(os.sched_getaffinity(0)))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting Ray", total=plan.num_users)
        # a row is what Ray Data takes, a dict of anything: its user_ids are a list
        progress.advance(task, plan.num_users - sum(len(r["user_ids"]) for r in rows))  # type: ignore[arg-type,misc]  # json: a list
        # its core says as an error what holds for every pool of workers: that their arguments must outlive them
        with local_ray(workers + 1, settings.object_store_mb, {"RAY_BACKEND_LOG_LEVEL": "fatal"}) as mark:
            write_atomic(folder / ".owner", mark.encode())
            progress.update(task, description=f"scoring users, {workers} workers")
            try:
                for done in _scored(settings, folder, plan, rows, workers):
                    progress.advance(task, int(done["users"]))
            except Exception as error:
                raise PlaybillError(f"{_cause(error)}; what is done stays, run it again to go on") from error
    (folder / ".owner").unlink()


def _end_leftovers(folder: Path) -> None:
    """End the workers of a run that was killed: they may still be writing."""
    owner = folder / ".owner"
    if owner.exists():
        processes.end(owner.read_text(), patience_s=0)
        owner.unlink()


def _cause(error: BaseException) -> str:
    """Return the error at the bottom of what Ray wrapped around it."""
    inner = getattr(error, "cause", None) or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else f"{type(error).__name__}: {error}"


def _scored(settings: BatchSettings, folder: Path, plan: Plan, rows: list[dict[str, object]], workers: int) -> Any:
    import ray.data

    from playbill.serving.slates import SlateWriter

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # one block a row: Ray Data merges small blocks, and hands a whole block to one worker
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        SlateWriter,
        fn_constructor_args=(settings.home, str(folder), plan, settings.require_gpu, settings.state, settings.store),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    return dataset.iter_rows()
