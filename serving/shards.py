"""Parts of an index as Ray actors: each holds its part of the bundles asked for last, and answers searches of it.

An actor that dies is started again by Ray, opens its part when it is first asked, and says so until it is done;
requests are answered by the others meanwhile. Replicas make the actors that are not there, each once in a cluster,
under names.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from playbill.bundle.open import open_bundle
from playbill.errors import trace
from playbill.index.item_index import read_index, set_threads
from playbill.index.shard import Shard
from playbill.index.sharded import Ask, Away, Heard
from playbill.index.split import split
from playbill.serving import load

_NAMESPACE = "playbill"
_KEPT = 2  # bundles: the one that answers, and the one before it or on trial
_THREADS = 8  # searches at a time; FAISS gives the interpreter up meanwhile
LONGEST_S = 5.0  # that a search waits for a part, where nothing else limits it

log = logging.getLogger("playbill.shards")


class IndexPart:
    """One part, in a process of its own."""

    def __init__(self, home: str, part: int, parts: int) -> None:
        self._home, self._part, self._parts = home, part, parts
        self._shards: OrderedDict[str, Shard] = OrderedDict()
        self._opening: set[str] = set()
        self._lock = threading.Lock()

    def open(self, version: str) -> int:
        """Open this part of a bundle's index; return how many items it holds."""
        with self._lock:
            if version in self._shards:
                return len(self._shards[version])
        set_threads(1)
        bundle = open_bundle(load.bundle_path(self._home, version))
        whole = read_index(bundle.file("items.faiss"), np.asarray(bundle.array("item_embeddings")))
        shard = Shard(split(whole, self._part, self._parts))
        with self._lock:
            self._shards[version] = shard
            while len(self._shards) > _KEPT:
                self._shards.popitem(last=False)
        return len(shard)

    def search(self, version: str, ask: Ask) -> Heard | Away | None:
        """Return what `Shard.answer` does; a part that is not open yet says so, and opens."""
        with self._lock:
            shard = self._shards.get(version)
            begin = shard is None and version not in self._opening
            if begin:
                self._opening.add(version)
        if begin:
            threading.Thread(target=self._open, args=(version,), daemon=True).start()
        return Away("it is being opened") if shard is None else shard.answer(ask)

    def _open(self, version: str) -> None:
        try:
            self.open(version)
        except Exception as error:
            log.error("part %d of bundle %s could not be opened\n%s", self._part + 1, version, trace(error))
        finally:
            with self._lock:
                self._opening.discard(version)


class Parts:
    """Reaches the actors that hold the parts of an index, from any thread of one process."""

    def __init__(self, home: str, parts: int) -> None:
        """Find the actors, or make them; they need not be up yet."""
        self._home, self.parts = str(Path(home).absolute()), parts
        self._actors: dict[int, Any] = {}
        self._late: dict[int, Any] = {}  # by part, the call that it has not answered yet
        self._lock = threading.Lock()
        for part in range(parts):
            self._actor(part)

    def open(self, version: str, within_s: float) -> None:
        """Let all parts open a bundle; return when they have, or the time is up."""
        calls = {}
        for part in range(self.parts):
            try:
                calls[part] = self._actor(part).open.remote(version)
            except RayError as error:
                self._gone(part, error)
        done, late = ray.wait(list(calls.values()), num_returns=len(calls), timeout=within_s) if calls else ([], [])
        for part, call in calls.items():
            try:
                ray.get(call, timeout=0)
            except GetTimeoutError:
                log.warning("part %d of %s is not open after %g s", part + 1, version, within_s)
            except RayError as error:
                self._gone(part, error)

    def send(self, version: str, asks: Mapping[int, Ask], within_s: float | None) -> dict[int, Heard | Away | None]:
        """Ask parts, see `index.sharded.Send`; one that owes an answer is not waited for again before it has come."""
        limit = LONGEST_S if within_s is None else min(max(within_s, 0.0), LONGEST_S)
        found: dict[int, Heard | Away | None] = {}
        calls = {}
        for part, ask in asks.items():
            if self._owes(part):
                found[part] = Away("it owes an earlier answer")
                continue
            try:
                calls[part] = self._actor(part).search.remote(version, ask)
            except Exception as error:  # Ray raises its own classes and ValueError
                found[part] = self._gone(part, error)
        if calls:
            ray.wait(list(calls.values()), num_returns=len(calls), timeout=limit)
        for part, call in calls.items():
            try:
                found[part] = ray.get(call, timeout=0)
            except GetTimeoutError:
                found[part] = Away(f"no answer within {limit * 1e3:.0f} ms")
                with self._lock:
                    self._late[part] = call
            except RayError as error:
                found[part] = self._gone(part, error)
        return found

    def _owes(self, part: int) -> bool:
        with self._lock:
            call = self._late.get(part)
            if call is None:
                return False
            if not ray.wait([call], timeout=0)[0]:
                return True
            del self._late[part]
            return False

    def _actor(self, part: int) -> Any:
        with self._lock:
            if part not in self._actors:
                place = hashlib.sha256(self._home.encode()).hexdigest()[:8]
                self._actors[part] = (
                    ray.remote(IndexPart)
                    .options(
                        name=f"index-{place}-{part}-of-{self.parts}",
                        namespace=_NAMESPACE,
                        get_if_exists=True,
                        lifetime="detached",
                        max_restarts=-1,
                        max_task_retries=0,  # a search that comes late is of no use
                        max_concurrency=_THREADS,
                        num_cpus=1,
                        scheduling_strategy="SPREAD",
                    )
                    .remote(self._home, part, self.parts)
                )
            return self._actors[part]

    def _gone(self, part: int, error: Exception) -> Away:
        if isinstance(error, RayTaskError):
            return Away(f"it failed ({type(error.cause).__name__}: {str(error.cause).splitlines()[0]})")
        with self._lock:
            self._actors.pop(part, None)  # one that Ray does not start again is made anew
        return Away(f"its process is away ({type(error).__name__})")
