"""A campaign's rows against the bare cost of what computes them, and against a loop of online calls, in one run.

    python tests/benchmarks/bench_campaign.py home=DIR [bundle=VERSION] [people=12000] [rounds=3] [workers=2]
                                              [online=200]

Wants the home that `reference_home.py home=DIR items=20000 people=20000 candidates=100` makes, and there
`playbill train-campaign tables=reference` and `train-offers tables=reference inputs=[segment]` with the levels below:
20,000 items, 100 candidates through a ranker of about 200,000 parameters, three blocks of 16 items in all, each with
its creative, the hour out of 168, the subject, the offer. The bare cost are the runs of the graphs and the products of
matrices that the rows took, done again on the very arrays.

Both are timed in turns in one process; what `workers` processes reach at once is timed besides, each on people of its
own. The last line counts what 16 million rows would take.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.bundle.open import open_bundle
from playbill.bundle.write import current
from playbill.campaign.blocks import TOGETHER
from playbill.campaign.brand import BrandRules
from playbill.campaign.copy_file import Copy, propose, read_copy, sendable, write_copy
from playbill.campaign.copy_file import decide as approve
from playbill.campaign.decide import Material, decide, recipients
from playbill.campaign.offer_run import decide_offers
from playbill.campaign.offer_settings import OfferLevel, Offers
from playbill.campaign.offers import read_model as read_offer_model
from playbill.campaign.restraint import read_contact, who_denied
from playbill.campaign.send_time import read_send_times
from playbill.campaign.settings import Block, Campaign
from playbill.campaign.variants import Choice
from playbill.engine import bulk as bulk_module
from playbill.engine.engine import Engine
from playbill.engine.runtime import Model
from playbill.engine.types import Request
from playbill.state.store import Store

SHARD = 2_048
OFFERS = Offers(
    levels=[
        OfferLevel(name="free_shipping", discount=0.05, most=5),
        OfferLevel(name="ten_percent", discount=0.1, most=5),
        OfferLevel(name="twenty_percent", discount=0.2, most=10),
    ],
    budget=20_000,
    release_unequal=True,
)
BLOCKS = [Block(name="hero", k=4), Block(name="picks", k=6), Block(name="more", k=6)]


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = Path(given.get("home", "var")), machine()
    people, rounds, workers = (int(given.get(k, d)) for k, d in (("people", 12_000), ("rounds", 3), ("workers", 2)))
    version = given.get("bundle")
    campaign, material, at, store = _material(home, version)
    ids = _known(campaign, material, people, at)
    offers, few_s = min((_offers(home, campaign, ids, at) for _ in range(3)), key=lambda found: found[1])
    everybody = material.contact.users["user_id"].to_list()
    _, many_s = min((_offers(home, campaign, everybody, at) for _ in range(3)), key=lambda found: found[1])
    # what each recipient more takes; the rest is reading the log once, however many there are
    of_one_s = (many_s - few_s) / (len(everybody) - len(ids)) + _looked_s(campaign, material, everybody, at)
    material = replace(material, offers=offers)
    shards = [ids[low : low + SHARD] for low in range(0, len(ids), SHARD)]
    figures = _measure(campaign, material, shards, at, rounds, of_one_s)
    figures |= {"offers_of_one_us": of_one_s * 1e6, "offers_once_s": few_s - of_one_s * len(ids)}
    figures["online_s"] = _online(material.engine, campaign, ids[: int(given.get("online", 200))], at)
    figures["over_online"] = figures["online_s"] * figures["recipients_per_s"]
    store.close()
    figures["workers"] = workers
    figures["recipients_per_s_of_workers"] = _at_once(home, version, workers, people, rounds)
    figures["hours_for_16_million"] = 16e6 / figures["recipients_per_s_of_workers"] / 3600
    print(
        f"{figures['ranker_weights']}: {figures['recipients']} recipients, "
        f"{figures['share_in_bulk']:.0%} of them on the best rung: "
        f"{figures['recipients_per_s']:.0f}/s in one process, bare calls {figures['bare_per_s']:.0f}/s: "
        f"{figures['of_bare']:.2f} of it\n"
        f"a loop of online calls: {1 / figures['online_s']:.0f}/s, {figures['over_online']:.1f} times slower\n"
        f"{workers} processes: {figures['recipients_per_s_of_workers']:.0f}/s; 16 million take "
        f"{figures['hours_for_16_million']:.1f} hours"
    )
    print(f"written to {record(_name(figures), figures, started)}")
    return 0


def _material(home: Path, version: str | None) -> tuple[Campaign, Material, int, Store]:
    folder = home / "bundles"
    version = version or current(folder) or sorted(p.name for p in folder.iterdir() if p.is_dir())[-1]
    bundle = open_bundle(folder / version, require_sealed=False, verify=False)
    store = Store.open(home / "state", readonly=True)
    tables = home / "tables" / "reference"
    at = int(pl.scan_parquet(tables / "events.parquet").select(pl.col("at").dt.epoch("us").max()).collect().item())
    copy = Path(tempfile.mkdtemp()) / "subjects.json"
    write_copy(copy, Copy(facts=[], rules=BrandRules()))
    propose(
        copy, ["What to see tonight", "Picked for your week", "New for you", "Your next favourite", "Have a look"], "a"
    )
    for name in ("v1", "v2", "v3", "v4", "v5"):
        approve(copy, name, "ada", True)
    campaign = Campaign(name="bench", blocks=BLOCKS, subjects=str(copy), offers=OFFERS)
    contact = read_contact(tables, campaign, at)
    times = read_send_times(home / "runs" / "reference-campaign")
    subjects = Choice(sendable(read_copy(copy))[0])
    return campaign, Material(Engine.open(bundle, store), contact, subjects, times), at, store


def _offers(home: Path, campaign: Campaign, ids: list[Any], at: int) -> tuple[pl.DataFrame, float]:
    """Return everybody's offer, as a run settles them once for all its shards, and the seconds that took."""
    tables = home / "tables" / "reference"
    model = read_offer_model(home / "runs" / "reference-offers")
    everybody = pl.Series("user_id", ids)
    began = time.perf_counter()
    return decide_offers(campaign, model, tables, everybody, at).table, time.perf_counter() - began


def _looked_s(campaign: Campaign, material: Material, ids: list[Any], at: int) -> float:
    """Return the seconds that one takes of whom a run asks, before it settles offers, who may be written to."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        recipients(campaign, material.contact, None, ids, at)
        who_denied(material.engine.store, ids)
        took.append(time.perf_counter() - began)
    return min(took) / len(ids)


def _known(campaign: Campaign, material: Material, wanted: int, at: int) -> list[int | str]:
    """Return people of the table who may be written to and of whom something is known: whose rows are whole ones."""
    store = material.engine.store
    assert store is not None
    ids = material.contact.users["user_id"].to_list()
    found = recipients(campaign, material.contact, store, ids, at)
    free = [not why and bool(p.history) for why, p in zip(found.found.reason, found.profiles, strict=True)]
    return [user for user, may in zip(ids, free, strict=True) if may][:wanted]


def _measure(
    campaign: Campaign, material: Material, shards: list[Any], at: int, rounds: int, offer_s: float
) -> dict[str, Any]:
    """Time whole shards and their bare calls in turns; the best round of each shard counts, and each one's offer."""
    calls = _Calls(material.engine)
    whole, bare = np.full((rounds, len(shards)), np.inf), np.full((rounds, len(shards)), np.inf)
    sent, ranked = np.zeros(len(shards)), np.zeros(len(shards))
    decide(campaign, material, shards[0][:256], at)
    for turn in range(rounds):
        for place, shard in enumerate(shards):
            calls.seen.clear()
            began = time.perf_counter()
            rows = decide(campaign, material, shard, at)
            whole[turn, place] = time.perf_counter() - began
            sent[place], ranked[place] = rows["send"].sum(), (rows["hero_rung"] == "full").sum()
            seen = list(calls.seen)
            began = time.perf_counter()
            for call in seen:
                call()
            bare[turn, place] = time.perf_counter() - began
    calls.close()
    people, bare_s = int(sent.sum()), float(bare.min(0).sum())
    whole_s = float(whole.min(0).sum()) + offer_s * people
    return {
        "recipients": people,
        "share_in_bulk": float(ranked.sum() / people),
        "recipients_per_s": people / whole_s,
        "bare_per_s": people / bare_s,
        "of_bare": bare_s / whole_s,
        "ranker_weights": weights_of(material.engine),
    }


def _name(figures: dict[str, Any]) -> str:
    weights = figures["ranker_weights"]
    return "campaign" if weights == "float32" else f"campaign_{weights}"


def weights_of(engine: Engine) -> str:
    """Return of what numbers the ranker's products are, as the bundle's report says."""
    report = engine.bundle.path / "report" / "lighter.json"
    told = json.loads(report.read_text()) if report.is_file() else {"used": False}
    return str(told["weights"]) if told["used"] else "float32"


def _online(engine: Engine, campaign: Campaign, ids: list[Any], at: int) -> float:
    """Return the seconds of one person's blocks, asked for one after the other as online calls."""
    began = time.perf_counter()
    for user in ids:
        shown: list[Any] = []
        for block in campaign.blocks:
            request = Request(user_id=user, request_id=f"{user}{block.name}", k=block.k, exclude=shown, at=at)
            [slate] = engine.recommend([request])
            shown = [*shown, *(item.item_id for item in slate.items)]
    return (time.perf_counter() - began) / len(ids)


def _at_once(home: Path, version: str | None, workers: int, people: int, rounds: int) -> float:
    """Return recipients a second of several processes at once, from when all are ready until the last is done."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(workers + 1), context.Queue()
    started = [
        context.Process(target=_worker, args=(home, version, n, workers, people, rounds, ready, done))
        for n in range(workers)
    ]
    for process in started:
        process.start()
    ready.wait()
    began = time.perf_counter()
    sent = sum(done.get() for _ in started)
    took_s = time.perf_counter() - began
    for process in started:
        process.join()
    return sent / took_s


def _worker(
    home: Path, version: str | None, number: int, workers: int, people: int, rounds: int, ready: Any, done: Any
) -> None:
    campaign, material, at, store = _material(home, version)
    ids = _known(campaign, material, people, at)[number::workers]
    material = replace(material, offers=_offers(home, campaign, ids, at)[0])
    decide(campaign, material, ids[:256], at)
    ready.wait()
    sent = 0
    for _ in range(rounds):
        for low in range(0, len(ids), SHARD):
            sent += int(decide(campaign, material, ids[low : low + SHARD], at)["send"].sum())
    done.put(sent)
    store.close()


class _Calls:
    """Notes each run of a graph, and each product of people and items, while it stands."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[Callable[[], object]] = []
        self._run = Model.run
        mine, run, nearest = self.seen, self._run, bulk_module.Bulk._vectors
        self._vectors = nearest

        def noted(model: Model, arrays: Any, outputs: Any, within_s: Any = None) -> Any:
            mine.append(lambda: run(model, arrays, outputs))
            return run(model, arrays, outputs)

        def product(bulk: Any, stocked: Any) -> Any:
            found = nearest(bulk, stocked)
            width = len(found[1])
            query = np.ones((TOGETHER, width), np.float32)
            mine.append(lambda: query @ found[1])
            return found

        Model.run = noted  # type: ignore[method-assign]  # until `close`
        bulk_module.Bulk._vectors = product  # type: ignore[method-assign]  # until `close`

    def close(self) -> None:
        Model.run = self._run  # type: ignore[method-assign]  # as it was
        bulk_module.Bulk._vectors = self._vectors  # type: ignore[method-assign]  # as it was


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
