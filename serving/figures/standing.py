"""How one process stands: what was counted, and what only has to be looked at now and then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from playbill.bundle.open import Bundle
from playbill.engine.engine import Engine
from playbill.errors import BundleError, StateError
from playbill.release.bundles import read_report
from playbill.release.scores import ScoreReference
from playbill.serving.figures.counts import Labels
from playbill.serving.figures.drift import Drift
from playbill.serving.figures.snapshots import Snapshot
from playbill.serving.trying import Trying
from playbill.serving.watch import Watch
from playbill.state.store import Store


class Answering(Protocol):
    """What answers requests, as far as it is looked at here."""

    failed_bundle: str | None

    @property
    def serving(self) -> tuple[Bundle, Engine] | None: ...

    @property
    def trying(self) -> Trying | None: ...

    @property
    def waiting(self) -> int: ...


class Standing:
    """Looks at one process, from one thread."""

    def __init__(self, api: Answering, watch: Watch, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._api, self._watch, self._store, self._clock = api, watch, store, clock
        self._version: str | None = None
        self._failed: str | None = None
        self._trial: str | None = None
        self._engine: Engine | None = None
        self._faults: Counter[str] = Counter()
        self._state = (-1, 0.0)

    def snapshot(self, pid: int, began: str) -> Snapshot:
        """Return what is to be told of this process now. Args: see `Snapshot`."""
        gauges: list[tuple[str, Labels, float]] = [
            ("requests_in_progress", (), self._watch.in_progress),
            ("writes_waiting", (), self._api.waiting),
            *self._of_state(),
        ]
        slates = self._watch.slate_log
        if slates is not None:
            gauges += [("slate_log_waiting", (), slates.waiting), ("slate_log_bytes", (), slates.size_bytes)]
        serving = self._api.serving
        if serving is not None:
            bundle, engine = serving
            self._changes(bundle, engine)
            gauges += self._of_bundle(bundle, engine)
        gauges += self._of_trial()
        counters, histograms = self._watch.counts.so_far()
        return Snapshot(
            pid=pid,
            began=began,
            counters=[(*key, value) for key, value in counters.items()],
            histograms=[(*key, found) for key, found in histograms.items()],
            gauges=gauges,
            shown={} if self._watch.drift is None else self._watch.drift.shown(),
        )

    def _changes(self, bundle: Bundle, engine: Engine) -> None:
        """Count what happened since the last look: swaps, and answers for which a part failed."""
        counts = self._watch.counts
        failed = self._api.failed_bundle
        if bundle.version != self._version:
            if self._version is not None:
                counts.count("swaps", "taken")
            self._version = bundle.version
            self._watch.drift = Drift(bundle.version, _reference(bundle))
        elif failed is not None and failed != self._failed and "sent back" not in failed:
            counts.count("swaps", "failed")
        self._failed = failed
        if engine is not self._engine:
            self._engine, self._faults = engine, Counter()
        faults = Counter(engine.faults)
        for part, number in (faults - self._faults).items():
            counts.count("faults", part, by=number)
        self._faults = faults

    def _of_bundle(self, bundle: Bundle, engine: Engine) -> list[tuple[str, Labels, float]]:
        version, manifest, stock = (bundle.version,), bundle.manifest, engine.stock
        gauges: list[tuple[str, Labels, float]] = [
            ("bundle", version, 1),
            ("bundle_made_timestamp_seconds", version, _seconds(manifest.created_at)),
            ("catalogue_version", (), stock.offer.version),
            ("fresh_items", (), len(stock.catalogue.late) - len(stock.refused)),
        ]
        learned = manifest.origin.get("learned_until_us", "")
        if learned.isdecimal():
            gauges.append(("bundle_learned_until_timestamp_seconds", version, int(learned) * 1e-6))
        checked_s = engine.stocking.checked_s
        if checked_s is not None:
            gauges.append(("catalogue_current_timestamp_seconds", (), self._clock() - checked_s))
        reached = set(engine.rungs)
        gauges += [("rung_reachable", (rung,), float(rung in reached)) for rung in engine.ladder.fallbacks]
        for name, where in engine.models().items():
            gauges.append(("model_device", (name, where["provider"], where["device"]), 1))
        gauges += [("shared_lists", (surface,), share) for surface, share in engine.depths.shared().items()]
        return gauges

    def _of_trial(self) -> list[tuple[str, Labels, float]]:
        trying = self._api.trying
        if trying is None:
            if self._trial is not None:
                # taken back by hand it is neither
                if self._version == self._trial:
                    self._watch.counts.count("trials", "taken_on")
                elif (self._api.failed_bundle or "").startswith(f"{self._trial}: sent back"):
                    self._watch.counts.count("trials", "sent_back")
            self._trial = None
            return []
        self._trial = trying.trial.version
        tallies, version = trying.snapshot(), trying.trial.version
        return [
            ("trial_answers", (version, "new"), tallies.new.answers),
            ("trial_answers", (version, "used"), tallies.used.answers),
            ("trial_failures", (version,), tallies.new.failed),
        ]

    def _of_state(self) -> list[tuple[str, Labels, float]]:
        try:
            version = self._store.version
        except StateError:
            return [("state_reachable", (), 0)]
        if version != self._state[0]:
            self._state = version, self._clock()
        return [
            ("state_reachable", (), 1),
            ("state_version", (), version),
            ("state_changed_timestamp_seconds", (), self._state[1]),
        ]


def _reference(bundle: Bundle) -> ScoreReference | None:
    try:
        return read_report(bundle.path, "scores", ScoreReference)
    except BundleError:  # of another version of Playbill: a figure less
        return None


def _seconds(moment: str) -> float:
    found = datetime.fromisoformat(moment)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
