"""kill -9 under load: is every acknowledged event there, once, and is every profile what the log folds to?

    python tests/benchmarks/proof_kill9.py [times=50] [seed=1] [kinds=lmdb,redis]

Two real servers take events over HTTP into one store, from senders that repeat what was not acknowledged. At random
moments one process is killed, a server or, where the store is on Redis, redis-server itself, and started again. After
each kill all that was acknowledged until then is looked up; at the end the log is folded anew.

Before that, without kills: how many syncs of the disk an event costs, as strace counts them, by how many send at once.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from record import machine, record
from redis_process import RedisProcess, find_server

from playbill.state.events import Declared
from playbill.state.store import Store
from playbill.tables.schema import EventKind

PEOPLE, ITEMS, SENDERS = 20, 40, 6
DECLARED = Declared(events=[EventKind(name="view")], user_id_type="int64", item_id_type="int64")


def serve(place: str, port: int) -> None:
    """Take events into a store until standard input ends; then say how many commits they took."""
    import uvicorn

    from playbill.serving.http import Api

    with Store.open(place) as store:
        server = uvicorn.Server(
            uvicorn.Config(Api(store), port=port, log_level="critical", access_log=False, ws="none")
        )

        def wait() -> None:
            sys.stdin.read()  # ends with whoever started us, too
            server.should_exit = True

        threading.Thread(target=wait, daemon=True).start()
        server.run()
        print(store.commits, flush=True)


class Shop:
    """Two servers over one store, whoever is killed."""

    def __init__(self, kind: str, folder: Path, before: tuple[str, ...] = ()) -> None:
        """Make the store and start the servers; `before` is a command that runs whoever writes the disk."""
        self.redis = RedisProcess(before=before) if kind == "redis" else None
        self.place = str(folder / "state") if self.redis is None else self.redis.url()
        self._before = before if self.redis is None else ()
        with Store.open(self.place) as store:
            store.declare(DECLARED)
        self.ports = [_free_port() for _ in range(2)]
        self.servers = [self._start(port) for port in self.ports]

    def _start(self, port: int) -> subprocess.Popen[str]:
        command = [*self._before, sys.executable, __file__, "serve", self.place, str(port)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return server
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.02)

    def kill(self, victim: int) -> None:
        """Kill a server, or redis-server for `len(servers)`, and start it again."""
        if victim == len(self.servers):
            assert self.redis is not None
            self.redis.kill()
            self.redis.start()
        else:
            _end(self.servers[victim])
            self.servers[victim] = self._start(self.ports[victim])

    def close(self) -> int:
        """End the servers; return how many commits they made."""
        return sum(int(server.communicate(timeout=60)[0].split()[-1]) for server in self.servers)


class Sender(threading.Thread):
    """Sends events one after the other, each again and again until it is acknowledged."""

    def __init__(self, shop: Shop, name: str, seed: int, most: int | None = None) -> None:
        super().__init__(daemon=True)
        self.shop, self.label, self.most, self.stop = shop, name, most, threading.Event()
        self.dice, self.acknowledged = random.Random(f"{seed} {name}"), 0
        self.refused: Counter[str] = Counter()
        self.line: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while not self.stop.is_set() and self.acknowledged != self.most:
            event = {
                "event_id": f"{self.label}-{self.acknowledged}",
                "event": "view",
                "user_id": self.dice.randrange(PEOPLE),
                "item_id": self.dice.randrange(ITEMS),
                "at": 1_700_000_000_000_000 + self.acknowledged,
            }
            while not self._sent(event):
                if self.stop.is_set():
                    break  # not acknowledged: it may be there or not
                time.sleep(0.01)
            else:
                self.acknowledged += 1
        self._close()

    def _sent(self, event: dict[str, Any]) -> bool:
        """Send it once; return whether it was acknowledged."""
        try:
            if self.line is None:
                self.line = http.client.HTTPConnection("127.0.0.1", self.dice.choice(self.shop.ports), timeout=30)
            self.line.request("POST", "/v1/events", json.dumps(event))
            response = self.line.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.refused[type(error).__name__] += 1
            self._close()
            return False
        if response.status != 200:
            self.refused[str(response.status)] += 1
        return response.status == 200

    def _close(self) -> None:
        if self.line is not None:
            self.line.close()
        self.line = None


def kills(kind: str, times: int, seed: int) -> dict[str, Any]:
    """Return what came of killing processes under load; raises AssertionError for an event lost or doubled."""
    folder, dice = Path(tempfile.mkdtemp()), random.Random(seed)
    shop = Shop(kind, folder)
    senders = [Sender(shop, f"s{n}", seed) for n in range(SENDERS)]
    victims: Counter[str] = Counter()
    try:
        for sender in senders:
            sender.start()
        for _ in range(times):
            before = sum(s.acknowledged for s in senders)
            while sum(s.acknowledged for s in senders) < before + SENDERS:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.3))
            victim = dice.randrange(len(shop.servers) + (shop.redis is not None))
            victims["server" if victim < len(shop.servers) else "redis-server"] += 1
            said = {s.label: s.acknowledged for s in senders}
            shop.kill(victim)
            _check(shop.place, said)
        for sender in senders:
            sender.stop.set()
        for sender in senders:
            sender.join()
        shop.close()
        said = {s.label: s.acknowledged for s in senders}
        found = _check(shop.place, said)
        people = _fold_anew(shop.place, folder / "anew")
    finally:
        for sender in senders:
            sender.stop.set()
        for server in shop.servers:
            _end(server)
        if shop.redis is not None:
            shop.redis.close()
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "kills": dict(victims),
        "acknowledged": sum(said.values()),
        **found,
        "profiles_equal_to_the_log_folded_anew": people,
        "answers_that_were_no_acknowledgement": dict(sum((s.refused for s in senders), Counter())),
    }


def _check(place: str, said: dict[str, int]) -> dict[str, int]:
    """Hold the log against what was acknowledged; raise AssertionError where something is lost or there twice."""
    with Store.open(place, readonly=True) as store:
        before = store.version
        log = [(sequence, str(event.event_id)) for sequence, _, event in store.events()]
        after = store.version  # others go on
    assert [s for s, _ in log] == list(range(1, len(log) + 1)), "the log has gaps"
    assert before <= len(log) <= after, f"the version was {before} and {after}, the log has {len(log)} entries"
    stored = Counter(event_id for _, event_id in log)
    twice = [event_id for event_id, count in stored.items() if count > 1]
    missing = {f"{name}-{n}" for name, count in said.items() for n in range(count)} - set(stored)
    assert not twice, f"stored twice: {twice[:5]}"
    assert not missing, f"acknowledged and not there: {sorted(missing)[:5]}"
    return {"stored": len(log), "acknowledged_and_missing": len(missing), "stored_twice": len(twice)}


def _fold_anew(place: str, folder: Path) -> int:
    """Check that profiles are what the log gives; return how many there are."""
    with Store.open(place, readonly=True) as store, Store.open(folder) as anew:
        anew.declare(DECLARED)
        anew.import_events([event for _, _, event in store.events()], {})
        # `version` counts the folds, which are fewer here
        stored, again = (
            [msgspec.structs.replace(p, version=0) for p in s.profiles(list(range(PEOPLE))) if p is not None]
            for s in (store, anew)
        )
        assert stored == again, "profiles differ"
    return len(stored)


def syncs(kind: str, senders: int, events: int) -> dict[str, float]:
    """Return commits and syncs of the disk for each event, with so many senders at once."""
    folder = Path(tempfile.mkdtemp())
    try:
        calls = "trace=fdatasync,fsync,msync,openat,pwrite64"
        shop = Shop(kind, folder, ("strace", "-ff", "-e", calls, "-o", str(folder / "trace")))
        before = _flushed(folder)
        threads = [Sender(shop, f"s{n}", 0, events // senders) for n in range(senders)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - started
        commits = shop.close()
        sent = sum(t.acknowledged for t in threads)
        flushed = _flushed(folder) - before
        if shop.redis is not None:
            shop.redis.close()
        return {"commits": commits / sent, "syncs": flushed / sent, "events_per_s_under_strace": sent / took_s}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGKILL)
    with server:  # closes its pipes
        pass


def _flushed(folder: Path) -> int:
    """Return how often traced processes waited for the disk: by a sync, or by a write to a file that waits itself."""
    text = "\n".join(path.read_text() for path in folder.glob("trace.*"))
    waiting = set(re.findall(r"O_DSYNC.*\) = (\d+)", text))  # LMDB's root page; the same number in each process
    written = sum(number in waiting for number in re.findall(r"pwrite64\((\d+),", text))
    return len(re.findall(r"\b(?:fdatasync|fsync|msync)\(", text)) + written


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(arguments: list[str]) -> None:
    """Run all and write the record."""
    given = {"times": "50", "seed": "1", "kinds": "lmdb,redis"} | dict(a.split("=", 1) for a in arguments)
    started, figures = machine(), {}
    for kind in given["kinds"].split(","):
        if kind == "redis" and find_server() is None:
            print("redis is left out: no redis-server here (extra `dev`)")
            continue
        figures[kind] = {"kill9": kills(kind, int(given["times"]), int(given["seed"]))}
        print(kind, json.dumps(figures[kind]["kill9"]), flush=True)
        if shutil.which("strace"):
            figures[kind]["for_each_event"] = {f"{n}_senders": syncs(kind, n, 240) for n in (1, 4, 16)}
            print(kind, json.dumps(figures[kind]["for_each_event"]), flush=True)
    print(record("kill9", {"times": int(given["times"]), "seed": int(given["seed"]), **figures}, started))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1:])
