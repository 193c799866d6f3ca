"""The shards of a job, each made by a process of its own with Ray Data: what a batch and a campaign do alike.

Ray Data's own checkpoints are as coarse as its blocks, and its writers name files as they like: here the names are
ours, and a part that is there is done. A killed run loses the parts that were being written, and nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from playbill.errors import PlaybillError
from playbill.serving import processes
from playbill.tables.files import write_atomic

# a worker has one core: threads of its own tables would only take it from the others'
_ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal", "POLARS_MAX_THREADS": "1"}


def make_parts(
    folder: Path,
    rows: list[dict[str, object]],
    maker: type,
    arguments: Sequence[Any],
    *,
    total: int,
    workers: int,
    object_store_mb: int,
    doing: str,
    console: Console,
) -> None:
    """Let workers make what is missing; this process does where one is enough, without a Ray to wait for.

    Args:
        folder: of the job; notes who works on it, see `end_leftovers`.
        rows: what is to be made, `user_ids` (list) among each one's fields.
        maker: made once in each worker of `arguments`; called with a row it writes its part, and returns a row with
            `users`, how many it did.
        total: people of the whole job, those of parts that are there included.
        workers: processes; 0: one a core.
        doing: for the progress bar, such as "scoring users".
    Raises:
        PlaybillError: a part failed; says why. What is done stays.
    """
    workers = min(len(rows), workers or len(os.sched_getaffinity(0)))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting Ray" if workers > 1 else doing, total=total)
        # a row is what Ray Data takes, a dict of anything: its user_ids are a list
        progress.advance(task, total - sum(len(r["user_ids"]) for r in rows))  # type: ignore[arg-type,misc]  # json: a list
        try:
            if workers == 1:
                with closing(maker(*arguments)) as one:
                    for row in rows:
                        progress.advance(task, int(one(row)["users"]))
                return
            from playbill.serving.ray_local import local_ray

            # its core says as an error what holds for every pool of workers: that their arguments must outlive them
            with local_ray(workers + 1, object_store_mb, _ENVIRONMENT) as mark:
                write_atomic(folder / ".owner", mark.encode())
                progress.update(task, description=f"{doing}, {workers} workers")
                for done in _made(rows, maker, arguments, workers):
                    progress.advance(task, int(done["users"]))
        except Exception as error:
            raise PlaybillError(f"{_cause(error)}; what is done stays, run it again to go on") from error
    (folder / ".owner").unlink()


def end_leftovers(folder: Path) -> None:
    """End the workers of a run that was killed: they may still be writing."""
    owner = folder / ".owner"
    if owner.exists():
        processes.end(owner.read_text(), patience_s=0)
        owner.unlink()


def _cause(error: BaseException) -> str:
    """Return the error at the bottom of what Ray wrapped around it."""
    inner = getattr(error, "cause", None) or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else f"{type(error).__name__}: {error}"


def _made(rows: list[dict[str, object]], maker: type, arguments: Sequence[Any], workers: int) -> Any:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # one block a row: Ray Data merges small blocks, and hands a whole block to one worker
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        maker, fn_constructor_args=tuple(arguments), compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=1
    )
    return dataset.iter_rows()
