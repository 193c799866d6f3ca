"""`playbill slates`: lists the files of the slate log, exports them, takes a person out of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from playbill.errors import PlaybillError
from playbill.serving.slatelog import files
from playbill.serving.slatelog.erase import Whom, erase
from playbill.serving.slatelog.export import FILE, export
from playbill.serving.slatelog.settings import Action, SlatesSettings


def run(settings: SlatesSettings) -> None:
    """List, export or erase.

    Raises:
        Damaged: a byte of a file is another than was written.
        PlaybillError: a file that a server writes still holds lines of somebody who is to be erased.
    """
    console, folder = Console(soft_wrap=True, highlight=False), files.folder_of(settings.home)
    if not folder.is_dir():
        raise PlaybillError(f"{folder} is not there: no server logged slates in {settings.home}")
    match settings.action:
        case Action.list:
            _list(folder, console)
        case Action.export:
            began, out = time.monotonic(), folder / "decisions"
            rows = export(files.closed(folder), out, settings.creatives)
            took_s = time.monotonic() - began
            console.print(f"slates: {rows:,} decisions in {out / FILE} ({took_s:.1f} s)", markup=False)
        case Action.erase:
            whom = Whom(settings.user_id, frozenset(settings.session_ids))
            lines, changed, still = erase(folder, whom)
            console.print(f"slates: {lines} lines erased from {changed} files in {folder}", markup=False)
            if still:
                raise PlaybillError(
                    f"{len(still)} files that a server writes still hold lines of theirs: run this again when they are "
                    f"closed, after watch.slates.file_minutes or a stop: {', '.join(path.name for path in still)}"
                )


def _list(folder: Path, console: Console) -> None:
    for path in sorted(folder.glob("*.jsonl.*")):
        size = path.stat().st_size
        if path.name.endswith(files.OPEN):
            console.print(f"{path.name}  {size / 1e6:.1f} MB, being written", markup=False)
            continue
        end = files.end_of(path)
        parts = [f"{size / 1e6:.1f} MB", f"{end.slates} slates", f"{_moment(end.first)} to {_moment(end.last)}"]
        parts += [f"{end.lost} bytes lost with their process"] if end.lost else []
        parts += [f"erased from {end.erased} times"] if end.erased else []
        console.print(f"{path.name}  {', '.join(parts)}", markup=False)


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="seconds") if at else "never"
