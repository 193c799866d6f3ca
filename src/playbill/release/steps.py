"""What the jobs of `playbill reproduce` share: other jobs as steps, and the folder of the results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from playbill.errors import PlaybillError
from playbill.release.record import checkout
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


def results_folder(settings: ReproduceSettings, home: Path) -> Path:
    """Return where the json goes: as told, else beside the other results of a checkout, else into the job's folder."""
    root = checkout()
    if settings.results is not None:
        return Path(settings.results)
    return home if root is None else root / "tests" / "benchmarks" / "results"
