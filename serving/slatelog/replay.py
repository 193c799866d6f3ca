"""`playbill replay`: answers again what a slate log says was answered, and holds one against the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
from rich.console import Console

from playbill.bundle.open import open_bundle
from playbill.engine.engine import Engine
from playbill.engine.settings import EngineSettings
from playbill.engine.types import Page, Slate
from playbill.errors import PlaybillError, RequestError
from playbill.serving import load
from playbill.serving.slatelog import files
from playbill.serving.slatelog.compare import difference, same_bytes
from playbill.serving.slatelog.lines import Catalogue, Logged, Row, answer_of, request_of
from playbill.serving.slatelog.retold import RetoldBudget, RetoldStore
from playbill.serving.slatelog.settings import ReplaySettings
from playbill.state.decisions import LEARNED_VERSION


class Differs(PlaybillError):
    """A slate is not answered again as it was."""


@dataclass(slots=True)
class Replayed:
    """How a replay went.

    Attributes:
        exact: slates that are equal byte for byte, reasons included; `close` those equal within the tolerance alone.
        left_out: slates that nobody can answer again, by the reason.
        differ: slates that are not equal; `first` is the first difference, empty without any.
    """

    exact: int = 0
    close: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    differ: int = 0
    first: str = ""

    @property
    def slates(self) -> int:
        return self.exact + self.close + self.differ + self.left_out.total()


def run(settings: ReplaySettings) -> None:
    """Replay, print how it went.

    Raises:
        Damaged: a byte of a file is another than was written.
        Differs: a slate is another; names the first difference.
        BundleError: a bundle that answered is not there any more, or was altered.
    """
    console = Console(soft_wrap=True, highlight=False)
    paths = [Path(settings.file)] if settings.file else files.closed(files.folder_of(settings.home))
    if not paths or not all(path.is_file() for path in paths):
        there = [path.name for path in files.closed(files.folder_of(settings.home))] or "none"
        raise PlaybillError(f"no file {settings.file or 'of slates'} in {settings.home}; closed ones: {there}")
    total = Replayed()
    for path in paths:
        found = replay(path, Path(settings.home), settings.tolerance, settings.most - total.slates)
        console.print(f"{path.name}: {_said(found)}", markup=False)
        total.exact, total.close, total.differ = total.exact + found.exact, total.close + found.close, found.differ
        total.left_out += found.left_out
        if found.first:
            raise Differs(found.first)
        if settings.most and total.slates >= settings.most:
            break
    if len(paths) > 1:
        console.print(f"all: {_said(total)}", markup=False)


def replay(path: Path, home: Path, tolerance: float, most: int = 0) -> Replayed:
    """Return how a file of the log replays.

    Args:
        home: whose bundles answered.
        tolerance: see `compare.difference`.
        most: slates; 0 and below: all.
    Raises:
        Damaged, BundleError: see `run`.
    """
    store, found = RetoldStore(), Replayed()
    engines: dict[str, Engine] = {}
    for number, line in files.read(path):
        if isinstance(line, Row | Catalogue):
            store.tell(line)
        elif isinstance(line, Logged):
            why = _why_not(line)
            if why:
                found.left_out[why] += 1
            else:
                _again(f"{path.name} line {number}", line, store, engines, home, tolerance, found)
            if 0 < most <= found.slates:
                break
    return found


def _again(
    where: str,
    line: Logged,
    store: RetoldStore,
    engines: dict[str, Engine],
    home: Path,
    tolerance: float,
    found: Replayed,
) -> None:
    logged = answer_of(line, where)
    store.away, store.unknown = False, set()
    engine = engines.get(logged.bundle)
    if engine is None:
        bundle = open_bundle(load.bundle_path(home, logged.bundle))
        # whatever the log tells of the store, an engine takes for a store
        engine = Engine.open(bundle, cast(Any, store), EngineSettings(without_state=True))
        engines[logged.bundle] = engine
    if not line.stateless:
        engine.turn_back(store.version_of(b"catalogue_version"), store.version_of(LEARNED_VERSION))
    store.away, store.unknown = line.stateless, set()
    request = msgspec.structs.replace(request_of(line), at=line.at, request_id=logged.request_id)
    budget = RetoldBudget(line.late)
    try:
        again: Slate | Page = (engine.pages([request], budget) if line.page else engine.decide([request], budget))[0][0]
        differs = difference(logged, again, tolerance)
    except RequestError as error:
        differs = f"the request was answered, and now is none: {error.field}: {error.reason}"
    if differs:
        found.differ += 1
        silent = f"; the file says nothing of {', '.join(sorted(store.unknown))}" if store.unknown else ""
        found.first = found.first or f"{where}, request {logged.request_id}: {differs}{silent}"
    elif same_bytes(logged, again):
        found.exact += 1
    else:
        found.close += 1


def _why_not(line: Logged) -> str:
    """Return why nobody can answer a line again; empty where one can."""
    if "recent" in line.withheld:
        return "what a nameless visitor told is not kept"
    if "context" in line.withheld:
        return "a context in words of the caller's own is not kept"
    if line.withheld:
        return "what acts for those who allow nothing more (their wishes, creatives they saw) is not kept"
    return "a part failed while it was answered" if line.faulty else ""


def _said(found: Replayed) -> str:
    parts = [f"{found.slates} slates", f"{found.exact} equal byte for byte"]
    parts += [f"{found.close} equal within the tolerance"] if found.close else []
    parts += [f"{count} left out: {why}" for why, count in found.left_out.items()]
    return ", ".join(parts) + (f", {found.differ} DIFFER" if found.differ else "")
