"""`playbill serve`: starts a server, swaps the bundle of the one that runs, or stops it.

The process that starts the server owns it: Ray and HAProxy end with it. `detach=true` puts that process into the
background. `<home>/serve.lock` is held while it lives, and `<home>/serve.json` says where it is.
"""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from playbill.bundle.manifest import check_version
from playbill.errors import ConfigError, PlaybillError
from playbill.serving import load, processes, running
from playbill.serving.figures.snapshots import FOLDER
from playbill.serving.guard import check_exposure, is_loopback
from playbill.serving.ingress import environment, find_haproxy
from playbill.serving.journal import PIPE, open_pipe
from playbill.serving.keys import Scope, make_key
from playbill.serving.layout import composed, cpus
from playbill.serving.settings import Emit, ServeSettings
from playbill.serving.watch_settings import LogForm
from playbill.state.settings import state_place
from playbill.state.store import Store
from playbill.tables.files import write_atomic

console = Console(stderr=True, highlight=False, soft_wrap=True)


def run(settings: ServeSettings) -> None:
    """Start, swap or stop, or write a file for a cluster."""
    if settings.emit is not Emit.none:
        from playbill.serving import emit

        path = escape(str(emit.write(settings)))
        console.print(f"wrote [bold]{path}[/]; nobody who wrote this has run such a file on a cluster")
        return
    home = Path(settings.home).absolute()
    settings = replace(settings, home=str(home), state=str(state_place(home, settings.state)))
    with processes.exclusive(home / "serve.lock") as mine:
        if mine:
            running.sweep(home)
            if settings.stop:
                console.print(f"no server runs from {home}")
                return
            if not settings.detach:
                required, remark = check_exposure(home, settings.host, settings.insecure)
                if remark:
                    console.print(f"[bold red]{escape(remark)}[/]")
                follow = settings.follow and settings.bundle == "current"
                _own(replace(settings, bundle=_check(settings), follow=follow), required)
                return
    if mine:  # the lock is free again, for the process in the background to take
        _detach(settings)
    elif settings.stop:
        running.stop(home)
        console.print("stopped")
    else:
        _swap(settings)


def _check(settings: ServeSettings) -> str:
    """Return the version to serve, after trying what would make a start fail later and less clearly."""
    if settings.narrator.url is not None:
        settings.narrator.key()
    path = load.bundle_path(settings.home, settings.bundle)
    for name, port in settings.ports().items():
        # replicas look for a free port in their range themselves
        host = settings.host if name == "port" else settings.figures_host
        if name != "replica_ports" and not processes.port_is_free(host, port):
            raise PlaybillError(
                f"{name} {port} is taken on {host}; stop what listens there, or give another: {name}=<port>"
            )
    with Store.open(state_place(settings.home, settings.state), settings=settings.store) as store:
        load.open_engine(path, store, require_gpu=settings.require_gpu)
        if store.declared is None:
            console.print("[yellow]the state is empty: nobody is known, and events are refused until `playbill ingest`")
    return path.name


def _own(settings: ServeSettings, keys_required: bool) -> None:
    """Run the server until SIGINT or SIGTERM; SIGUSR1 swaps its bundle."""
    from playbill.serving.ray_local import local_ray

    home, haproxy = Path(settings.home), find_haproxy(settings, console)
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    key, text = make_key("owner", [Scope.admin])  # of this run, in no file but serve.json
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop during the start cleans up as well
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pb-")))
        variables = {**environment(settings, haproxy, scratch), FOLDER: str(scratch / "figures")}
        if settings.watch.log is LogForm.json:
            open_pipe(scratch / "lines")
            variables[PIPE] = str(scratch / "lines")
        ray = local_ray(
            cpus(settings),
            settings.object_store_mb,
            variables,
            settings.metrics_port,
            outside=not is_loopback(settings.figures_host),
        )
        mark = stack.enter_context(ray)
        from playbill.serving import app

        stack.callback(app.shutdown)
        stack.callback(_deafen)
        with console.status("starting"):
            # HAProxy alone is to be reached; what stands behind it is for it
            app.start(settings, settings.host if haproxy is None else "127.0.0.1")
            app.deploy(settings, settings.bundle, keys_required, key, settings.follow)
            health = running.await_bundle(settings, settings.bundle, text)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, _: told.put(number))
        found = running.Running(pid=os.getpid(), mark=mark, scratch=str(scratch), settings=settings, key=text)
        write_atomic(running.record(home), msgspec.json.encode(found), mode=0o600)
        behind = "HAProxy" if haproxy else "Ray Serve's Python proxy"
        beside = f", {settings.ranker.replicas} of the ranker" if composed(settings) else ""
        beside += f", the index in {settings.shards} parts" if settings.shards else ""
        _print(f"[bold]{running.url(settings)}[/], {settings.replicas} replicas behind {behind}{beside}", health)
        console.print(f"stop it with Ctrl-C, or playbill serve home={settings.home} stop=true")
        while told.get() == signal.SIGUSR1:
            try:
                version, *pinned = running.wanted(home).read_text().split()
                app.deploy(settings, check_version(version), keys_required, key, settings.follow and not pinned)
            except Exception as error:  # whoever asked for the swap sees that it does not come
                console.print(f"the swap failed: {error}", markup=False)
        console.print("stopping")
    running.record(home).unlink(missing_ok=True)
    console.print("stopped")


def _deafen() -> None:
    """Ignore a second Ctrl-C, which would leave half of the server behind, and Ray's words about a task it killed."""
    sys.stdout = io.StringIO()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _detach(settings: ServeSettings) -> None:
    """Start a process in the background that owns the server; return when it answers."""
    home = Path(settings.home)
    log = home / "serve.log"
    with log.open("wb") as output, console.status(f"starting, log in {log}"):
        owner = subprocess.Popen(
            [sys.executable, "-m", "playbill.serving.serve", msgspec.json.encode(replace(settings, detach=False))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        there = processes.wait_until(
            lambda: running.record(home).exists() or owner.poll() is not None, settings.start_timeout_s + 30
        )
    if not there:
        owner.send_signal(signal.SIGTERM)
    if not there or owner.poll() is not None:
        raise PlaybillError(f"the server did not start: {log.read_text(errors='replace').strip()[-2000:]}")
    sys.stderr.write(log.read_text(errors="replace"))


def _swap(settings: ServeSettings) -> None:
    """Let the server that runs answer from another bundle."""
    found = running.read(Path(settings.home))
    if found is None:
        raise PlaybillError(f"a server from {settings.home} is starting or stopping; try again in a few seconds")
    _refuse_changes(settings, found.settings)
    path = load.bundle_path(settings.home, settings.bundle)
    now = running.health(found.settings, found.key)
    if now is not None and now["bundle"] == path.name:
        _print(f"[bold]{running.url(found.settings)}[/] runs already", now)
        return
    with Store.open(state_place(settings.home, settings.state), settings=settings.store) as store:
        load.open_engine(path, store, require_gpu=settings.require_gpu)  # a bad bundle is refused here, not in there
    with console.status(f"swapping to {path.name}"):
        health = running.swap(Path(settings.home), found, path.name, pinned=settings.bundle != "current")
    _print(f"[bold]{running.url(found.settings)}[/] swapped from {'?' if now is None else now['bundle']}", health)


def _refuse_changes(wanted: ServeSettings, running_with: ServeSettings) -> None:
    """Raise ConfigError when a setting differs that only a new start can change."""
    ignored = {"bundle", "detach", "stop", "start_timeout_s", "follow"}
    changed = [text for name, text in _differences(running_with, wanted) if name.split(".")[0] not in ignored]
    if changed:
        raise ConfigError(
            f"a server runs from {wanted.home} with other settings ({', '.join(changed)}): stop it first, with "
            f"playbill serve home={wanted.home} stop=true, or give the same"
        )


def _differences(before: Any, after: Any, within: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that differs, as one would give it, and the name with both values."""
    for f in fields(before):
        name, old, new = within + f.name, getattr(before, f.name), getattr(after, f.name)
        if is_dataclass(old) and type(old) is type(new):
            yield from _differences(old, new, name + ".")
        elif old != new:
            yield name, f"{name} {_said(old)} -> {_said(new)}"


def _said(value: Any) -> str:
    return "null" if value is None else str(value.value if isinstance(value, Enum) else value)


def _print(headline: str, health: dict[str, Any]) -> None:
    console.print(headline)
    console.print(
        f"bundle [bold]{health['bundle']}[/], state {health['state_version']}, rungs {', '.join(health['rungs'])}"
    )
    for name, where in health["models"].items():
        console.print(f"{name} on {where['device']} ({where['provider']})")


if __name__ == "__main__":  # the process in the background, see `_detach`
    try:
        run(msgspec.json.decode(sys.argv[1], type=ServeSettings))
    except PlaybillError as error:
        console.print(f"{type(error).__name__}: {error}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
