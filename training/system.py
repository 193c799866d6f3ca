"""What a training uses of its machine: cores, memory, and how fast it goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

COLUMNS = ("seconds", "cores", "memory_mib", "peak_memory_mib", "samples_per_second")


class SystemUse:
    """Measures this process from one call to the next; its children that ended are counted in."""

    def __init__(self) -> None:
        self._begun = self._at = time.monotonic()
        self._cpu = _cpu_s()

    def since(self, samples_per_second: float) -> dict[str, float]:
        """Return COLUMNS: wall seconds since the start, mean cores in use since the last call, memory in MiB."""
        now, cpu = time.monotonic(), _cpu_s()
        cores = (cpu - self._cpu) / max(now - self._at, 1e-9)
        self._at, self._cpu = now, cpu
        status = Path("/proc/self/status").read_text()
        return {
            "seconds": round(now - self._begun, 2),
            "cores": round(cores, 3),
            "memory_mib": _mib(status, "VmRSS:"),
            "peak_memory_mib": _mib(status, "VmHWM:"),
            "samples_per_second": round(samples_per_second, 1),
        }


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _mib(status: str, name: str) -> float:
    kib = status.partition(name)[2].split(maxsplit=1)[0]
    return round(int(kib) / 1024, 1)
