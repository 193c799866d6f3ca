"""Where a benchmark's figures go: printed, and written with the machine, the commit and the versions they belong to."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
_PACKAGES = ("playbill", "torch", "torchrec", "onnxruntime", "faiss-cpu", "ray", "numpy", "lmdb")


def machine() -> dict[str, Any]:
    """Return the processor, its cores, memory in GiB, system and Python of this machine."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.M)
    return {
        "cpu": name.group(1) if name else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """Return the checkout's commit, with `+` when files differ from it, or `unknown` outside a checkout."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent
    )
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, cwd=RESULTS.parent)
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else "unknown"


def record(theme: str, figures: dict[str, Any], started: dict[str, Any]) -> Path:
    """Write `results/<theme>_<cores>-cores_<yyyymm>.json` and return its path.

    Args:
        theme: what was measured, such as `engine`.
        figures: the measurement; units stand in the names.
        started: `machine()` as it was before the measurement, so that the load it began under is on record.
    """
    now = datetime.now(UTC)
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    whole = {
        "theme": theme,
        "at": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": started,
        "versions": versions,
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{theme}_{started['cores']}-cores_{now:%Y%m}.json"
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(whole, indent=1) + "\n")
    beside.replace(path)
    return path
