"""The engine as one of those who serve: a bundle made from its own log, and a state store that events come back to.

Training and export run as processes of their own, with the commands that anybody would type, in a home of the
rehearsal's: nothing of the user's runs, bundles or state is touched.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from playbill.bundle.open import open_bundle
from playbill.engine.engine import Engine
from playbill.engine.settings import EngineSettings, Provider
from playbill.engine.types import Request
from playbill.errors import WorldError
from playbill.rehearsal.settings import RehearseSettings
from playbill.release.bundles import find_bundle
from playbill.state.events import Event
from playbill.state.ingest import ingest
from playbill.state.settings import IngestSettings
from playbill.state.store import Store
from playbill.tables.files import atomic_folder, write_atomic
from playbill.tables.folder import describe_folder, read_folder, read_table
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency

# figures must not depend on whether the machine that rehearses has a GPU
_CPU = EngineSettings(provider=Provider.cpu)
_ASKED_AT_ONCE = 256


class Server:
    """An engine with its store. Use `start`; `close` it at the end."""

    def __init__(self, home: Path, tables: Path, settings: RehearseSettings) -> None:
        self.home, self.tables, self.settings = home, tables, settings
        self.store = Store.open(home / "state")
        self.engine: Engine | None = None
        self.version = ""
        self._item_ids = read_table(tables, "items", ["item_id"])["item_id"].to_pylist()

    def close(self) -> None:
        self.store.close()

    def start(self, log: Path, number: int, today_us: int, console: Console) -> None:
        """Open a bundle: the one that was named, else one made from the log as it stands before this round.

        Args:
            log: folder with the rounds' events, `events-<round>.parquet`.
            number: of the round that is about to begin.
            today_us: items published later are not in the catalogue yet.
        """
        if self.settings.bundle:
            path = Path(self.settings.bundle)
        elif self.engine is None or self.settings.retrain:
            made = number if self.settings.retrain else 0
            path = self._make(log, made, today_us, console)
        else:
            return
        bundle = open_bundle(path, require_sealed=False)
        if bundle.spec.item_id_type != "int64" or not bundle.items["item_id"].is_in(self._item_ids).all():
            raise WorldError(
                f"bundle {path} knows items that this world does not have; leave bundle= empty to train one"
            )
        self.engine, self.version = Engine.open(bundle, self.store, _CPU), bundle.version

    def remember(self, console: Console) -> None:
        """Fold the first days' users and events into the store, once."""
        ingest(self.tables, self.store, IngestSettings(home=str(self.home), tables=self.tables.name), console)

    def learn(self, events: pa.Table) -> None:
        """Take events back, so that the next answer knows them; those that are there already change nothing."""
        columns = {n: events[n].to_pylist() for n in events.column_names if n != "at" and n in Event.__struct_fields__}
        columns["at"] = events["at"].cast(pa.int64()).to_pylist()
        rows = [Event(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        self.store.import_events(rows, {})

    def slates(
        self, user_id: list[int | None], session_id: list[Any], at: np.ndarray, keys: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return item and creative rows (id - 1), both [n, k] int64; -1 where the engine had nothing to show or to say.

        Args:
            user_id, session_id: [n], None where there is none.
            at: [n] int64 UTC microseconds.
            keys: [n] request ids; they key the engine's own draws.
        """
        assert self.engine is not None  # start() comes first
        k = self.settings.k
        items, creatives = np.full((len(keys), k), -1, np.int64), np.full((len(keys), k), -1, np.int64)
        requests = [
            Request(user_id=u, session_id=s, request_id=key, k=k, at=int(moment))
            for u, s, key, moment in zip(user_id, session_id, keys, at, strict=True)
        ]
        for low in range(0, len(requests), _ASKED_AT_ONCE):
            for row, slate in enumerate(self.engine.recommend(requests[low : low + _ASKED_AT_ONCE]), low):
                for place, shown in enumerate(slate.items):
                    items[row, place] = int(shown.item_id) - 1
                    creatives[row, place] = -1 if shown.creative_id is None else int(shown.creative_id) - 1
        return items, creatives

    def _make(self, log: Path, number: int, today_us: int, console: Console) -> Path:
        name = f"round-{number}"
        target = self.home / "tables" / name
        if not (target / "tables.json").is_file():
            write_log(self.tables, log, number, today_us, target)
        home, tables = f"home={self.home}", f"tables={name}"
        for model in self.settings.models:
            self._playbill(["train", f"model={model}", tables, home, *self.settings.training], console)
        runs = [] if self.settings.models else ["run=null", "ranker_run=null"]
        self._playbill(["export", tables, home, *runs], console)
        return find_bundle(self.home / "bundles", "latest")

    def _playbill(self, arguments: list[str], console: Console) -> None:
        console.print(f"[dim]$ playbill {' '.join(arguments)}[/]", highlight=False, soft_wrap=True)
        done = subprocess.run([sys.executable, "-m", "playbill.cli", *arguments], capture_output=True, text=True)
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise WorldError(f"playbill {' '.join(arguments)} failed with exit code {done.returncode}:\n{tail}")


def write_log(first: Path, log: Path, number: int, today_us: int, target: Path) -> None:
    """Write the tables as they stand before a round: the first days' and all earlier rounds' events.

    Args:
        first: tables of the first days.
        log: folder with `events-<round>.parquet`.
        number: events of rounds before this one are taken.
        today_us: events and items from then on are left out, with the items' creatives.
        target: folder to write.
    """
    folder = read_folder(first)
    items = read_table(first, "items")
    items = items.filter(pc.less_equal(items["published_at"].cast(pa.int64()), today_us))
    creatives = read_table(first, "creatives")
    whole = pc.or_(pc.is_null(creatives["item_id"]), pc.is_in(creatives["item_id"], value_set=items["item_id"]))
    events = read_table(first, "events")
    later = [pq.ParquetFile(log / f"events-{r}.parquet").read() for r in range(1, number)]
    later = [t.cast(pa.schema([events.schema.field(name) for name in t.column_names])) for t in later]
    # a rehearsal's events name no decision: its slates are in the rounds' figures, not in a decisions table
    events = pa.concat_tables([events, *later], promote_options="default").select(events.column_names)
    events = events.filter(pc.less(events["at"].cast(pa.int64()), today_us))  # what was drawn and lies ahead is unknown
    with atomic_folder(target) as out:
        for name, table in (
            ("users", read_table(first, "users")),
            ("items", items),
            ("creatives", creatives.filter(whole)),
            ("events", events.sort_by("at")),
        ):
            pq.write_table(table, out / f"{name}.parquet", compression="zstd")
        describe_folder(
            out,
            source=target.name,
            columns={n: c for n, c in folder.columns.items() if n != "decisions"},
            events=folder.events,
            licence=folder.licence,
        )
        report = measure_sufficiency(out, SufficiencySettings())
        write_atomic(out / SUFFICIENCY_FILE, msgspec.json.format(msgspec.json.encode(report), indent=2))
