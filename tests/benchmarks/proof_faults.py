"""Faults under load: for each, how many requests failed, for how long, and whether an acknowledged event was lost.

    python tests/benchmarks/proof_faults.py home=var [rate=60] [seconds=20] [only=A,B] [seed=0]

A real `playbill serve` (two replicas behind HAProxy) is asked in an open loop, a fifth of it events, and five seconds
in something breaks. Needs a home with the demo's published bundle; its state is not touched. Faults:

    replica      kill -9 of one of two replicas          controller   kill -9 of Ray Serve's controller
    proxy        kill -9 of HAProxy                      disk         the disk of the store is full for five seconds
    redis        redis-server killed, back after 3 s     redis-hangs  it stops for three seconds (SIGSTOP)
    clock        it steps back an hour (libfaketime)     slow         100 callers that send a byte a second
    half-open    300 connections that go silent          bodies       10 MB, json 10,000 deep, broken UTF-8, filters
                                                                      and an `exclude` of 100,000 items
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fault_shop import PORTS, Shop, kept, post, under_load
from record import machine, record
from redis_process import RedisProcess, find_server

AT_S = 5.0
Fault = Callable[[threading.Event], dict[str, Any] | None]


def main(arguments: list[str]) -> int:
    """Break things, print and record."""
    given = {"home": "var", "rate": "60", "seconds": "20", "only": "", "seed": "0"}
    given |= dict(a.split("=", 1) for a in arguments)
    started, source = machine(), Path(given["home"]).absolute()
    wanted = given["only"].split(",") if given["only"] else []
    figures: dict[str, Any] = {"rate": float(given["rate"]), "seconds": float(given["seconds"]), "faults": {}}
    for setting, faults in (("folder", ON_FOLDER), ("small-disk", ON_DISK), ("redis", ON_REDIS), ("clock", ON_CLOCK)):
        mine = [name for name in faults if not wanted or name in wanted]
        if not mine:
            continue
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pb-faults-")))
            try:
                place = stack.enter_context(SETTINGS[setting](source, folder))
            except RuntimeError as missing:
                figures["faults"] |= {name: {"left_out": str(missing)} for name in mine}
                print(f"{', '.join(mine)}: left out: {missing}", flush=True)
                continue
            told: list[str] = []
            for name in mine:
                fault = faults[name](place)
                found, known = under_load(
                    name, float(given["rate"]), float(given["seconds"]), int(given["seed"]), fault, AT_S
                )
                told += known
                figures["faults"][name] = found
                _print(name, found)
                assert _well(60), f"the server did not come back after {name}"
            figures["faults"][mine[-1]]["events_kept"] = kept(place.shop.state, told)
            print(f"events after {', '.join(mine)}: {figures['faults'][mine[-1]]['events_kept']}", flush=True)
    print(f"written to {record('faults', figures, started)}")
    return 0


class Place:
    """A shop, and what lies under it."""

    def __init__(
        self, shop: Shop, redis: RedisProcess | None = None, disk: Path | None = None, clock: Path | None = None
    ):
        self.shop, self.redis, self.disk, self.clock = shop, redis, disk, clock


@contextmanager
def on_folder(source: Path, folder: Path) -> Iterator[Place]:
    """Give a shop whose store is a folder."""
    shop = Shop(source, folder)
    try:
        yield Place(shop)
    finally:
        shop.close()


@contextmanager
def on_small_disk(source: Path, folder: Path) -> Iterator[Place]:
    """Give a shop whose store lies on a disk of its own, in memory; needs the right to mount one."""
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", disk], capture_output=True).returncode:
        raise RuntimeError("a disk of its own cannot be mounted here")
    try:
        shop = Shop(source, folder, state=str(disk / "state"))
        try:
            yield Place(shop, disk=disk)
        finally:
            shop.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


@contextmanager
def on_redis(source: Path, folder: Path) -> Iterator[Place]:
    """Give a shop whose store is a Redis of its own."""
    if find_server() is None:
        raise RuntimeError("there is no redis-server here")
    redis = RedisProcess()
    try:
        shop = Shop(source, folder, state=redis.url("faults"))
        try:
            yield Place(shop, redis=redis)
        finally:
            shop.close()
    finally:
        redis.close()


@contextmanager
def on_clock(source: Path, folder: Path) -> Iterator[Place]:
    """Give a shop whose processes read their time of day through libfaketime."""
    found = importlib.util.find_spec("libfaketime")  # not imported: only its file is wanted
    if found is None or found.origin is None:
        raise RuntimeError("libfaketime is not installed; it comes with the extra dev")
    [library] = Path(found.origin).parent.rglob("libfaketime.so.1")
    clock = folder / "clock"
    clock.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "0",
    }
    shop = Shop(source, folder, env=env)
    try:
        yield Place(shop, clock=clock)
    finally:
        shop.close()


def kill(title: str) -> Callable[[Place], Fault]:
    """Return a fault that kills one process of the server."""

    def of(place: Place) -> Fault:
        def fault(over: threading.Event) -> dict[str, Any]:
            victims = place.shop.pids(title)
            os.kill(victims[0], signal.SIGKILL)
            return {"killed": f"1 of {len(victims)} {title}"}

        return fault

    return of


def fill_disk(place: Place) -> Fault:
    """Return a fault that leaves no byte free for five seconds, and sends more than the store has room for."""

    def fault(over: threading.Event) -> dict[str, Any]:
        assert place.disk is not None
        ballast, deliveries = place.disk / "ballast", Counter[str]()
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass
        until, n = time.monotonic() + 5, 0
        while time.monotonic() < until:
            events = [
                {"event_id": f"bulk-{n}-{i}", "event": "rate", "user_id": i + 1, "item_id": n % 1000 + 1, "value": 3}
                for i in range(500)
            ]
            deliveries[_status({"events": events}, "/v1/events")] += 1
            n += 1
        ballast.unlink()
        after = _status({"events": events}, "/v1/events")
        return {"full_s": 5, "deliveries_of_500_events": dict(deliveries), "first_delivery_after": after}

    return fault


def redis_away(place: Place) -> Fault:
    """Return a fault that kills redis-server and starts it again after three seconds."""

    def fault(over: threading.Event) -> dict[str, Any]:
        assert place.redis is not None
        place.redis.kill()
        over.wait(3)
        place.redis.start()
        return {"away_s": 3}

    return fault


def redis_hangs(place: Place) -> Fault:
    """Return a fault that stops redis-server for three seconds."""

    def fault(over: threading.Event) -> dict[str, Any]:
        assert place.redis is not None
        pid = place.redis.pid
        os.kill(pid, signal.SIGSTOP)
        over.wait(3)
        os.kill(pid, signal.SIGCONT)
        return {"stopped_s": 3}

    return fault


def step_clock(place: Place) -> Fault:
    """Return a fault that sets the server's clock back an hour."""

    def fault(over: threading.Event) -> dict[str, Any]:
        assert place.clock is not None
        place.clock.write_text("-3600\n")
        over.wait()
        line = http.client.HTTPConnection("127.0.0.1", PORTS["port"], timeout=10)
        line.request("POST", "/v1/recommend", json.dumps({"user_id": 1}))
        behind_s = time.time() - json.loads(line.getresponse().read())["at"] / 1e6
        line.close()
        return {"stepped_s": -3600, "a_slates_clock_is_behind_s": round(behind_s)}

    return fault


def slow_callers(place: Place) -> Fault:
    """Return a fault: a hundred callers that send their request a byte a second."""

    def fault(over: threading.Event) -> dict[str, Any]:
        request = post("/v1/recommend", {"user_id": 1, "k": 20})
        lines = [_connect() for _ in range(100)]
        for byte in request:
            for line in lines:
                _try(lambda line=line, byte=byte: line.sendall(bytes([byte])))
            if over.wait(1):
                break
        for line in lines:
            line.close()
        return {"slow_callers": len(lines)}

    return fault


def half_open(place: Place) -> Fault:
    """Return a fault: connections that break off in the middle of a request and are neither closed nor used again."""

    def fault(over: threading.Event) -> dict[str, Any]:
        lines = []
        for n in range(300):
            line = _connect()
            _try(lambda line=line, n=n: line.sendall(post("/v1/recommend", {"user_id": 1})[: n % 120]))
            lines.append(line)
        over.wait()
        for line in lines:
            line.close()
        return {"half_open": len(lines)}

    return fault


def bad_bodies(place: Place) -> Fault:
    """Return a fault: what no server should be sent, one after the other until the load ends."""

    def fault(over: threading.Event) -> dict[str, Any]:
        many = list(range(1, 100_001))
        bodies = {
            "10 MB": b'{"user_id": 1, "context": {"x": "' + b"x" * 10_000_000 + b'"}}',
            "10,000 deep": b'{"user_id": 1, "context": {"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
            "10,000 deep, cut off": b'{"context":' * 10_000,
            "broken UTF-8": b'{"user_id": "\xff\xfe\xc3\x28"}',
            "a filter of 100,000 items": {"user_id": 1, "filter": f"item_id in ({', '.join(map(str, many))})"},
            "an exclude of 100,000 items": {"user_id": 1, "exclude": many},
            "a filter 1,000 deep": {"user_id": 1, "filter": "(" * 1_000 + "title = 'x'" + ")" * 1_000},
        }
        answers: dict[str, Counter[str]] = {name: Counter() for name in bodies}
        while not over.is_set():
            for name, body in bodies.items():
                answers[name][_status(body)] += 1
                if over.is_set():
                    break
        server_errors = sum(n for counts in answers.values() for status, n in counts.items() if status.startswith("5"))
        return {"bad_bodies": {n: dict(c) for n, c in answers.items()}, "server_errors_from_bad_input": server_errors}

    return fault


ON_FOLDER: dict[str, Callable[[Place], Fault]] = {
    "replica": kill("ray::ServeReplica"),
    "controller": kill("ray::ServeController"),
    "proxy": kill("haproxy"),
    "slow": slow_callers,
    "half-open": half_open,
    "bodies": bad_bodies,
}
ON_DISK: dict[str, Callable[[Place], Fault]] = {"disk": fill_disk}
ON_REDIS: dict[str, Callable[[Place], Fault]] = {"redis": redis_away, "redis-hangs": redis_hangs}
ON_CLOCK: dict[str, Callable[[Place], Fault]] = {"clock": step_clock}
SETTINGS = {"folder": on_folder, "small-disk": on_small_disk, "redis": on_redis, "clock": on_clock}


def _connect() -> socket.socket:
    return socket.create_connection(("127.0.0.1", PORTS["port"]), timeout=10)


def _try(send: Callable[[], None]) -> None:
    try:
        send()
    except OSError:  # the server hung up on them, as it may
        pass


def _status(body: Any, path: str = "/v1/recommend") -> str:
    """Return what a body is answered with: a status, or how the connection ended."""
    line = _connect()
    try:
        _try(lambda: line.sendall(post(path, body)))
        response = http.client.HTTPResponse(line)
        response.begin()
        return str(response.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        line.close()


def _well(timeout_s: float) -> bool:
    """Return whether ten slates in a row are answered within the time."""
    deadline, good = time.monotonic() + timeout_s, 0
    while good < 10 and time.monotonic() < deadline:
        try:
            good = good + 1 if _status({"user_id": 1, "k": 5}) == "200" else 0
        except OSError:
            good = 0
        time.sleep(0.1)
    return good == 10


def _print(name: str, found: dict[str, Any]) -> None:
    for kind in ("slates", "events"):
        of = found[kind]
        print(
            f"{name:12}{kind:8}{of['sent']:6} sent, {of['failed']:4} failed {of['by_status'] or ''} last after "
            f"{of['last_failure_after_s']} s; p50 {of['p50_ms']}, p99 {of['p99_ms']}, worst {of['worst_after_ms']} ms",
            flush=True,
        )
    more = {k: v for k, v in found.items() if k not in ("slates", "events")}
    print(f"{'':12}{more}", flush=True)


if __name__ == "__main__":
    if shutil.which("mount") is None:
        print("mount is not there: the fault of a full disk is left out", file=sys.stderr)
    sys.exit(main(sys.argv[1:]))
