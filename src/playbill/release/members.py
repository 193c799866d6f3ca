"""Scores of what a bundle can serve, for people at a boundary: the members of a blend, in the form of saved scores.

Each is scored as the engine would score it, on the same histories, by a model that had learned from what comes before
the part alone. Only people with a history are asked: the others get popularity whatever is blended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from playbill.baselines.ease import ease_neighbours
from playbill.baselines.fits import CutEase, Fitted, prepare, score
from playbill.blend.lists import Lists, best_items, from_arrays
from playbill.blend.scores import Learned, Member, Who, read_lists, read_member, write_member
from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset
from playbill.engine.runtime import open_model
from playbill.engine.settings import EngineSettings, Provider
from playbill.errors import BlendError
from playbill.measure.ranking import Targets
from playbill.release.bundles import content_hash
from playbill.release.contestants import Rival, rivals
from playbill.release.protocol import Asked, ask, batches, log_before
from playbill.release.rivals import Progress
from playbill.release.roads import query_vectors
from playbill.release.settings import RivalSettings
from playbill.release.tuning import TUNING_VERSION, Bench, Tuned, tune

MEMBERS_VERSION = 1  # grows when the same inputs come to give other scores

# the engine's word for each baseline where it is another one
RETRIEVER = {"order_knn": "transitions"}
# from all others a score of 0 or less is no evidence, and the engine lists nothing without evidence
SIGNED = ("tower",)

Scores = Callable[[int, int], np.ndarray]  # people low..high -> [high - low, N + 1]


@dataclass(slots=True)
class Part:
    """Who is asked about one part: `rows` [U] of `asked`, those with a history; `who` and `targets` are theirs."""

    asked: Asked
    rows: np.ndarray
    who: Who
    targets: Targets


@dataclass(slots=True)
class Source:
    """One member that can be scored here.

    Attributes:
        name: the engine's word for it.
        about: what it is, with its settings.
        learned: by part.
        choice: the numbers of a baseline.
        made_of: all that its scores follow from; equal: they need not be made again.
        scores: part -> scores of the people of its `asked`.
    """

    name: str
    about: str
    learned: dict[str, Learned]
    choice: dict[str, float]
    made_of: str
    scores: Callable[[str], Scores]


def part_of(dataset: Dataset, part: str) -> Part:
    """Return the people with a history who are asked about `valid` or `test`."""
    asked = ask(dataset, part)
    rows = np.flatnonzero(asked.known)
    indptr, item = asked.histories(0, len(asked))
    had = Targets(indptr, item).take(rows)
    person, people = asked.person[rows].tolist(), dataset.people
    who = Who([people.user_ids[p] for p in person], [people.session_ids[p] for p in person], had.indptr, had.item)
    return Part(asked, rows, who, asked.targets.take(rows))


def tower_source(bundle: Bundle, dataset: Dataset, parts: dict[str, Part]) -> Source:
    """Return the towers of a bundle, searched exactly."""
    # a training that went on to learn from more than the training part writes so into the manifest
    learned = bundle.manifest.origin.get("tower_learned", "train").split("+")
    items = np.asarray(bundle.array("item_embeddings"), np.float32)

    def scores(part: str) -> Scores:
        tower = open_model(bundle.file("query_tower.onnx"), EngineSettings(provider=Provider.cpu))
        asked = parts[part].asked
        return lambda low, high: query_vectors(tower, dataset, asked, low, high) @ items.T

    about = f"query and item tower of bundle {bundle.version}, {items.shape[1]} wide"
    said = {part: Learned(parts=learned, chosen_on=["valid"]) for part in parts}
    return Source("tower", about, said, {}, _hash(MEMBERS_VERSION, content_hash(bundle.path)), scores)


def baseline_sources(
    dataset: Dataset,
    wanted: list[str],
    parts: dict[str, Part],
    settings: RivalSettings,
    cache: Path,
    progress: Progress,
    run: Path | None = None,
) -> tuple[list[Source], list[str]]:
    """Return the baselines, tuned on validation as in an evaluation, and notes on what was left out.

    Args:
        wanted: the engine's words for them; empty: all.
        cache: folder where the settings that validation picked are kept.
        run: folder of a run of `playbill tune`, whose choices are taken where they are of the same data and settings.
    """
    contestants, notes = rivals(settings, dataset.spec.num_items)
    bench = Bench(dataset)
    found: list[Source] = []
    for rival in contestants:
        name = RETRIEVER.get(rival.name, rival.name)
        if wanted and name not in wanted:
            continue
        file = cache / bench.fingerprint()[:24] / f"{rival.name}.json"
        tuned = tune(bench, rival, settings, file, lambda what: progress(what, len(found), len(contestants)), run)
        found.append(_baseline(name, rival, tuned, dataset, parts))
    return found, notes


def saved(
    source: Source, folder: Path, dataset: Dataset, parts: dict[str, Part], depth: int, fingerprint: str, split: Any
) -> dict[str, Lists]:
    """Return a member's lists by part, from its folder, written first where it is not there or of other inputs.

    Args:
        folder: of this member.
        depth: items a person.
        fingerprint, split: of the tables, for member.json.
    """
    items = dataset.vocabularies["item"]
    asked = {name: part.who for name, part in parts.items()}
    made_of = _hash(source.made_of, dataset.fingerprint, depth, sorted(parts), source.about)
    try:
        kept = read_member(folder)
        if kept.made_of == made_of:
            return {name: read_lists(folder, name, who, items, depth) for name, who in asked.items()}
    except BlendError:
        pass  # absent, damaged or of an older format: ours can be written again
    lists = {name: _lists(source, name, part, dataset.spec.num_items, depth) for name, part in parts.items()}
    member = Member(
        name=source.name,
        about=source.about,
        tables_fingerprint=fingerprint,
        split=split,
        learned=source.learned,
        made_of=made_of,
    )
    write_member(folder, member, lists, asked, items)
    return lists


def _baseline(name: str, rival: Rival, tuned: Tuned, dataset: Dataset, parts: dict[str, Part]) -> Source:
    def scores(part: str) -> Scores:
        fitted: Fitted = prepare(rival.name, log_before(dataset, part))(tuned.choice)
        if isinstance(fitted, CutEase):  # a bundle holds the table that is cut out of it
            fitted = ease_neighbours(fitted.ease, fitted.most, fitted.length)
        asked = parts[part].asked
        return lambda low, high: score(fitted, *asked.histories(low, high))

    before = {"valid": ["train"], "test": ["train", "valid"]}
    chosen = ["valid"] if len(tuned.tries) > 1 else []
    said = {part: Learned(parts=before[part], chosen_on=chosen) for part in parts}
    about = f"{rival.label}: {tuned.about()}"
    return Source(
        name, about, said, tuned.choice, _hash(MEMBERS_VERSION, TUNING_VERSION, rival.name, tuned.choice), scores
    )


def _lists(source: Source, name: str, part: Part, num_items: int, depth: int) -> Lists:
    scorer = source.scores(name)
    wanted = np.zeros(len(part.asked), bool)
    wanted[part.rows] = True
    item, score = [], []
    for low, high in batches(len(part.asked), num_items):
        indptr, had = part.asked.histories(low, high)
        given = scorer(low, high)
        for row in np.flatnonzero(wanted[low:high]).tolist():
            mine = given[row]
            allowed = np.ones(num_items + 1, bool) if source.name in SIGNED else mine > 0
            allowed[0] = False
            allowed[had[indptr[row] : indptr[row + 1]]] = False
            best = best_items(mine, allowed, depth)
            item.append(best)
            score.append(mine[best])
    return from_arrays(item, score)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
