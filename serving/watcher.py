"""Follows, for one process, what is published and what is tried, in a thread of its own: answers go on meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from playbill.bundle.open import Bundle
from playbill.bundle.write import current
from playbill.engine.elsewhere import Elsewhere
from playbill.engine.engine import Engine
from playbill.errors import StateError, trace
from playbill.release.trial import (
    Trial,
    Verdict,
    decide,
    judge,
    minutes_since,
    read_tallies,
    read_trial,
    read_verdict,
    together,
    write_tallies,
)
from playbill.serving import load
from playbill.serving.http import Api
from playbill.serving.trying import Trying
from playbill.state.store import Store

log = logging.getLogger("playbill.watcher")


class Watcher:
    """Looks at `bundles/current` and `bundles/trial.json` again and again."""

    def __init__(
        self,
        api: Api,
        store: Store,
        home: str,
        process: str,
        *,
        require_gpu: bool = False,
        every_s: float = 1.0,
        elsewhere: Callable[[Bundle], Elsewhere] | None = None,
    ) -> None:
        """Make one that does nothing until `start`.

        Args:
            api: whose bundle is exchanged.
            process: name of this process among all that serve from this home.
            every_s: seconds between two looks.
            elsewhere: see `load.open_engine`.
        """
        self._api, self._store, self._home, self._process = api, store, home, process
        self._bundles, self._require_gpu, self._every_s = Path(home) / "bundles", require_gpu, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="playbill-watcher", daemon=True)
        self._elsewhere = elsewhere
        self.following = True  # else neither what is published nor what is tried is taken up
        self._failed: str | None = None  # a version that did not load, so that it is not tried each second

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def look(self) -> None:
        """Take up what changed since the last look."""
        if not self.following or not self._api.ready:
            self._api.try_out(None)
            return
        trying, trial = self._api.trying, read_trial(self._bundles)
        if trying is not None and self._settled(trying):
            return
        if trying is not None and trial != trying.trial:  # taken back, or another is tried
            self._api.try_out(None)
            trying = None
        if trial is not None and trying is None and read_verdict(self._bundles, trial) is None:
            self._begin(trial)
        elif trial is None:
            self._follow()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except Exception as error:  # a folder that cannot be read now may be read a second later
                log.error("looking for bundles failed\n%s", trace(error))

    def _follow(self) -> None:
        version = current(self._bundles)
        if version is None or version in (self._api.version, self._failed):
            return
        try:
            self._api.use(*self._open(version))
            self._failed = None
            log.warning("bundle %s answers", version)
        except StateError:  # a store that is away says nothing about the bundle: the next look tries again
            raise
        except Exception as error:
            self._failed = version
            self._api.failed_bundle = f"{version}: {error}"
            log.error("bundle %s could not be loaded; %s answers on\n%s", version, self._api.version, trace(error))

    def _begin(self, trial: Trial) -> None:
        try:
            trying = Trying(trial, *self._open(trial.version))
        except StateError:
            raise
        except Exception as error:
            tallies = together([])
            tallies.new.unloadable = str(error) or type(error).__name__
            decide(self._bundles, trial, False, f"it could not be loaded: {tallies.new.unloadable}", tallies)
            self._api.failed_bundle = f"{trial.version}: {error}"
            return
        self._api.try_out(trying)

    def _settled(self, trying: Trying) -> bool:
        """Note this process's tallies and look at all; return whether the trial is over."""
        trial = trying.trial
        write_tallies(self._bundles, trial, self._process, trying.snapshot())
        verdict: Verdict | None = read_verdict(self._bundles, trial)
        if verdict is None:
            every = together(read_tallies(self._bundles, trial))
            judged = judge(trial, every, minutes_since(trial))
            if judged is None:
                return False
            verdict = decide(self._bundles, trial, *judged, every)
        self._api.try_out(None)
        if verdict.taken_on:
            self._api.use(trying.bundle, trying.engine)
        else:
            self._api.failed_bundle = f"{trial.version}: sent back: {verdict.why}"
        became = "taken on" if verdict.taken_on else "sent back"
        log.warning("bundle %s is %s: %s", trial.version, became, verdict.why)
        return True

    def _open(self, version: str) -> tuple[Bundle, Engine]:
        path = load.bundle_path(self._home, version)
        return load.open_engine(
            path, self._store, require_gpu=self._require_gpu, without_state=True, elsewhere=self._elsewhere
        )
