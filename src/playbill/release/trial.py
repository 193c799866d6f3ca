"""A new bundle beside the one in use: asked for a share of the requests, compared, and taken on or sent back.

`bundles/trial.json` says what is tried and how; every replica keeps its tally beside it, and whoever first sees that
all tallies together are enough writes the verdict, which all obey. No process is in charge, so none can be missing.

    canary   a share of the people is answered by the new bundle; what it fails to answer, the one in use answers
    shadow   everybody is answered by the one in use; a share of the requests is put to the new one too, for comparison
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field

from playbill.bundle.write import current, publish
from playbill.release.publication import Publication, remember, was_in_use
from playbill.tables.files import write_atomic

FILE = "trial.json"
VERDICT = "verdict.json"
_BASE = 1.1  # of the histogram of latencies: within five per cent
_SURE = 2.0  # standard errors


class Mode(StrEnum):
    """How a bundle is tried."""

    CANARY = "canary"
    SHADOW = "shadow"


class Trial(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is tried, and when it is content.

    Attributes:
        version: of the bundle; `previous` the one in use when the trial began.
        share: canary: of the people; shadow: of the requests, 0..1.
        least: answers of the new bundle before it is judged.
        most_failed: share of its answers that may fail, or stand on a lower rung, beyond that of the one in use.
        slower: times the other's 95th percentile that its own may be.
        agree: share of their first ten places that both answers to one request must have in common, on average.
        minutes: after which it is sent back where there were not enough requests.
        rules: by which its gate judged it; empty where none did.
        forced: why it goes out past the gate; empty where it passed.
        started: UTC, ISO 8601.
    """

    version: str
    previous: str
    mode: Mode = Mode.CANARY
    share: float = 0.1
    least: int = 500
    most_failed: float = 0.01
    slower: float = 1.5
    agree: float = 0.2
    minutes: float = 60.0
    rules: str = ""
    forced: str = ""
    started: str = ""

    def takes(self, key: str) -> bool:
        """Return whether a person, or the request of somebody unknown, falls into the share; the same at every call."""
        digest = hashlib.blake2b(f"{self.started}|{self.version}|{key}".encode("utf-8", "surrogatepass"), digest_size=8)
        return int.from_bytes(digest.digest(), "big") < self.share * 2**64


class Tally(msgspec.Struct, kw_only=True):
    """What one bundle did in one process, or in all.

    Attributes:
        answers: that it gave; `failed` those that it could not, of `answers` and these.
        lower: answers on a rung below its best.
        latency: answers by bucket b, which took 1.1 ** b ms at most.
        compared: answers that were held against the other bundle's; `shared` the sum of what they had in common, 0..1.
    """

    answers: int = 0
    failed: int = 0
    lower: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    compared: int = 0
    shared: float = 0.0
    unloadable: str = ""

    def answered(self, rung_is_best: bool, ms: float) -> None:
        """Count an answer that took so long."""
        self.answers += 1
        self.lower += not rung_is_best
        bucket = math.ceil(math.log(max(ms, 1e-3), _BASE))
        self.latency[bucket] = self.latency.get(bucket, 0) + 1

    def percentile_ms(self, share: float) -> float:
        """Return the latency that so many answers, 0..1, stayed within; 0 of none."""
        left = share * sum(self.latency.values())
        for bucket in sorted(self.latency):
            left -= self.latency[bucket]
            if left <= 0:
                return float(_BASE**bucket)
        return 0.0


class Tallies(msgspec.Struct, kw_only=True):
    """Both bundles', of one process or of all."""

    used: Tally = field(default_factory=Tally)
    new: Tally = field(default_factory=Tally)


class Verdict(msgspec.Struct, kw_only=True):
    """What became of a trial. Attributes: taken_on: or sent back; why: in words, with figures."""

    version: str
    taken_on: bool
    why: str
    at: str
    tallies: Tallies


def together(tallies: list[Tallies]) -> Tallies:
    """Return the sum of some processes' tallies."""
    total = Tallies()
    for one in tallies:
        for name in ("used", "new"):
            mine, all_of = getattr(one, name), getattr(total, name)
            for count in ("answers", "failed", "lower", "compared", "shared"):
                setattr(all_of, count, getattr(all_of, count) + getattr(mine, count))
            all_of.latency = dict(Counter(all_of.latency) + Counter(mine.latency))
            all_of.unloadable = all_of.unloadable or mine.unloadable
    return total


def judge(trial: Trial, found: Tallies, minutes: float) -> tuple[bool, str] | None:
    """Return whether a bundle is taken on, and why; None while that cannot be said.

    It is sent back as soon as failures are sure to be more than allowed; all else is judged once there are enough
    answers, so that a slow start is not held against it.

    Args:
        minutes: since the trial began.
    """
    new, used = found.new, found.used
    if new.unloadable:
        return False, f"it could not be loaded: {new.unloadable}"
    tried = new.answers + new.failed
    for what, mine, theirs in (
        ("failed", new.failed / max(tried, 1), used.failed / max(used.answers + used.failed, 1)),
        ("stood on a lower rung", new.lower / max(new.answers, 1), used.lower / max(used.answers, 1)),
    ):
        error = math.sqrt(max(mine * (1 - mine), 0.25 / max(tried, 1)) / max(tried, 1))
        if tried >= min(trial.least, 20) and mine - _SURE * error > theirs + trial.most_failed:
            return False, f"{100 * mine:.1f} % of its {tried} answers {what}, of those in use {100 * theirs:.1f} %"
    if new.answers < trial.least or (used.answers and not new.compared):
        if minutes < trial.minutes:
            return None
        return False, f"{new.answers} answers in {minutes:.0f} minutes, {trial.least} are needed"
    slow, usual = new.percentile_ms(0.95), used.percentile_ms(0.95)
    if usual and slow > trial.slower * usual:
        return False, f"95 % of its answers took up to {slow:.1f} ms, of those in use {usual:.1f} ms"
    shared = new.shared / max(new.compared, 1)
    if new.compared and shared < trial.agree:
        asked = 100 * trial.agree
        return False, f"{100 * shared:.0f} % of its first ten places are those of the one in use, {asked:.0f} asked"
    return True, (
        f"{new.answers} answers, {100 * new.failed / max(tried, 1):.1f} % failed, 95 % within {slow:.1f} ms (in use "
        f"{usual:.1f} ms), {100 * shared:.0f} % of the first ten places in common"
    )


def begin(bundles: Path, trial: Trial) -> Trial:
    """Write down a trial for the servers of this home to find; it replaces one that runs."""
    trial.started = _now()
    write_atomic(bundles / FILE, msgspec.json.encode(trial))
    return trial


def read_trial(bundles: Path) -> Trial | None:
    """Return the trial that runs, None where there is none or it cannot be read."""
    try:
        return msgspec.json.decode((bundles / FILE).read_bytes(), type=Trial)
    except (OSError, msgspec.MsgspecError):
        return None


def servers_know(bundles: Path, version: str) -> bool:
    """Return whether servers of this home may hold a bundle: it was in use or tried before, or is being tried."""
    trial = read_trial(bundles)
    return was_in_use(bundles, version) or (trial is not None and trial.version == version)


def folder_of(bundles: Path, trial: Trial) -> Path:
    """Return where the tallies and the verdict of a trial stand."""
    stamp = "".join(c for c in trial.started if c.isdigit())[:20]
    return bundles / ".trials" / f"{trial.version}-{stamp}"


def write_tallies(bundles: Path, trial: Trial, process: str, tallies: Tallies) -> None:
    """Put one process's tallies beside the others'."""
    folder = folder_of(bundles, trial)
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(process.encode()).hexdigest()[:16]
    write_atomic(folder / f"tally-{name}.json", msgspec.json.encode(tallies))


def read_tallies(bundles: Path, trial: Trial) -> list[Tallies]:
    """Return every process's tallies."""
    found = []
    for path in sorted(folder_of(bundles, trial).glob("tally-*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Tallies))
        except (OSError, msgspec.MsgspecError):
            continue
    return found


def read_verdict(bundles: Path, trial: Trial) -> Verdict | None:
    """Return what was decided, None while nothing was."""
    try:
        return msgspec.json.decode((folder_of(bundles, trial) / VERDICT).read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None


def decide(bundles: Path, trial: Trial, taken_on: bool, why: str, tallies: Tallies) -> Verdict:
    """Write the verdict, unless another process was first, and make it so: the bundle is published, or stays out.

    Returns:
        the verdict that counts.
    """
    verdict = Verdict(version=trial.version, taken_on=taken_on, why=why, at=_now(), tallies=tallies)
    folder = folder_of(bundles, trial)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{VERDICT}.{os.getpid()}.{id(verdict)}.tmp"
    write_atomic(beside, msgspec.json.encode(verdict))
    try:
        os.link(beside, folder / VERDICT)  # fails where it is there: of two processes one decides
    except FileExistsError:
        return read_verdict(bundles, trial) or verdict
    finally:
        beside.unlink(missing_ok=True)
    before = current(bundles)
    if taken_on:
        publish(bundles, trial.version)
    remember(
        bundles,
        Publication(
            at=verdict.at,
            bundle=trial.version,
            previous=before,
            gate_passed=not trial.forced,
            rules=trial.rules,
            forced=trial.forced,
            trial=f"{trial.mode.value}: {'taken on' if taken_on else 'sent back'}: {why}",
        ),
    )
    if read_trial(bundles) == trial:
        (bundles / FILE).unlink(missing_ok=True)
    return verdict


def overlap(one: list[Any], other: list[Any], places: int = 10) -> float | None:
    """Return the share of their first places that two lists have in common; None of two empty ones."""
    a, b = set(one[:places]), set(other[:places])
    most = max(len(a), len(b))
    return len(a & b) / most if most else None


def minutes_since(trial: Trial) -> float:
    """Return how long a trial has run."""
    return (datetime.now(UTC) - datetime.fromisoformat(trial.started)).total_seconds() / 60


def _now() -> str:
    return datetime.now(UTC).isoformat()
