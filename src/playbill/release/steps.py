"""What the jobs of `playbill reproduce` share: other jobs as steps, tables, and the folder of the results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from playbill.errors import PlaybillError
from playbill.release.settings import ReproduceSettings


def playbill(*arguments: str) -> None:
    """Run another job in a process of its own.

    Raises:
        PlaybillError: it failed; names the command to repeat it.
    """
    command = [sys.executable, "-m", "playbill.cli", *arguments]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if "threads=1" in arguments else {})
    if code := subprocess.run(command, env=environment).returncode:
        raise PlaybillError(f"exit code {code} from: playbill {' '.join(arguments)}")


def see_tables(settings: ReproduceSettings, source: str, folder: str, home: Path) -> None:
    """Let a job's own home see the prepared tables of a source; prepare them where they are not there.

    Args:
        folder: where `settings.data` may hold the source's files; else they are fetched.
        home: the job's.
    Raises:
        PlaybillError: `settings.data` is no folder.
    """
    if settings.data is not None and not Path(settings.data).is_dir():
        raise PlaybillError(f"data={settings.data} is no folder; leave it away to fetch what is needed")
    if not (Path(settings.home) / "tables" / source).is_dir():
        here = None if settings.data is None else Path(settings.data) / folder
        given = [f"source.folder={here}"] if here is not None and here.is_dir() else []
        playbill("prepare", f"source={source}", f"home={settings.home}", *given)
    home.mkdir(parents=True, exist_ok=True)
    link = home / "tables"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(Path(settings.home).resolve() / "tables")


def results_folder(settings: ReproduceSettings, home: Path) -> Path:
    """Return where the json goes: as told, else into the job's folder."""
    return home if settings.results is None else Path(settings.results)
