"""Two towers for trivago's lists: what the sessions before had touched says which of the listed hotels comes next.

A tower puts the lists that it learned from in far too good an order, and an ordering model that learned from such
scores would trust them more than it may. So each training list is scored by a tower that learned from none of the
session's events: sessions are dealt into folds, and each fold has a tower of the others. Lists of validation and test
time are scored by the tower of the whole training part.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import msgspec
import numpy as np

from playbill.bundle.open import Bundle, open_bundle
from playbill.dataset.dataset import open_dataset, query_arrays
from playbill.dataset.settings import SplitSettings
from playbill.engine.runtime import open_model
from playbill.errors import PlaybillError
from playbill.features.encoder import point_in_time
from playbill.features.shown_lists import ShownLists, Touches
from playbill.features.spec import FeatureSpec
from playbill.release.bundles import find_bundle
from playbill.release.evaluate import check_split
from playbill.release.roads import CPU
from playbill.release.settings import LATEST
from playbill.release.steps import playbill
from playbill.release.trivago_tables import asked_at, first_of_runs, split_at, write_raw
from playbill.tables.files import sha256_file, write_atomic

NAMES = ["tower_beside_list", "tower_rank", "tower_below_best"]
TABLES, WHOLE, FOLDS = "trivago", "whole", 2
# found on validation lists: mean reciprocal rank .558, of `model=fast model.aim=next` .524. The tower's own validation
# hides what a person has touched, which here is most of what is clicked: it cannot choose an epoch, so all are run
TOWER = (
    *("model=two_tower", "model.query=hstu", "model.heads=2", "model.hidden=128", "model.loss=mixed"),
    *("model.stale_share=0", "model.away_days=0", "model.empty_share=0", "model.half_life_days=0"),
    *("model.learning_rate=0.003", "model.warmup_steps=50", "model.weight_decay=0", "model.patience_epochs=0"),
    # every second hotel without its id: four in five of those that are clicked in test time have none
    *("model.max_epochs=10", "model.validate_every=10", "model.unknown_share=0.5"),
    *("features.context=[]", "features.history_length=32", "threads=1"),
)
_AT_ONCE = 256


def tower_scores(
    home: Path, lists: ShownLists, touches: Touches, kinds: list[str], until: tuple[int, int], force: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train, export and ask; what was made before from the same is read.

    Args:
        home: of the job; every tower has a home of its own below it.
        kinds: name of each kind of touch.
        until: seconds at which training and validation end.
        force: arguments that make a training begin anew.
    Returns:
        scores [R, C] float32, higher is better, of training lists from a tower that does not know their sessions;
        [R, C] float32 of the tower of the whole training part, for all lists alike; [R] int64 events that were known.
    Raises:
        PlaybillError: a step failed, or a tower reads histories otherwise than the others.
    """
    num_items = 1 + int(max(touches.item.max(), lists.item.max()))
    towers = deal(lists, touches, until[0])
    splits, weights = {}, []
    for name, (learned_rows, _) in towers.items():
        own = home / "towers" / name
        write_raw(own / "raw", touches, kinds, num_items, learned_rows)
        splits[name] = split_at(touches.at[learned_rows], *until)
        weights.append(_train(own, splits[name], force))
    kept = home / "towers" / f"scores-{hashlib.sha256(msgspec.json.encode(weights)).hexdigest()[:24]}.npz"
    if not kept.is_file():
        _score(home / "towers", lists, touches, towers, splits[WHOLE], kept)
    with np.load(kept, allow_pickle=False) as saved:
        return saved["scores"], saved["face"], saved["known"]


def deal(lists: ShownLists, touches: Touches, until: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return for each tower the rows of touches that are its events, and the rows of lists that it is asked about.

    The whole's tower is asked about all lists, each fold's about training lists of whose sessions it learns nothing.

    Args:
        until: seconds at which training ends.
    """
    rows, sessions = first_of_runs(touches), 1 + int(touches.session.max())
    fold = np.arange(sessions) * FOLDS // sessions  # a person's sessions have neighbouring numbers
    early = touches.at[rows] < until
    towers = {WHOLE: (rows, np.arange(len(lists)))}
    for number in range(FOLDS):
        learned = ~(early & (fold[touches.session[rows]] == number))
        asked = (lists.at < until) & (fold[lists.session] == number)
        towers[f"fold-{number}"] = (rows[learned], np.flatnonzero(asked))
    return towers


def _train(own: Path, split: SplitSettings, force: list[str]) -> str:
    """Prepare, train and export in a home of its own; return the sha256 of the weights."""
    few = ["sufficiency.towers_events=1"]  # as many as this log has
    playbill("prepare", f"home={own}", "source=parquet", f"source.folder={own / 'raw'}", f"source.name={TABLES}", *few)
    by = [f"split.train={split.train!r}", f"split.valid={split.valid!r}"]
    playbill("train", f"home={own}", f"tables={TABLES}", *by, *TOWER, *force)
    weights, done = sha256_file(own / "runs" / f"{TABLES}-two_tower" / "checkpoints" / "best.ckpt"), own / "exported"
    if not done.is_file() or done.read_text() != weights:
        shutil.rmtree(own / "bundles", ignore_errors=True)  # the latest must be of these weights
        playbill("export", f"home={own}", f"tables={TABLES}", "index.kind=flat")
        write_atomic(done, weights.encode())
    return weights


def _score(
    home: Path,
    lists: ShownLists,
    touches: Touches,
    towers: dict[str, tuple[np.ndarray, np.ndarray]],
    split: SplitSettings,
    path: Path,
) -> None:
    """Ask every tower about its lists, histories read from the tables that hold all of them, and keep the answers."""
    tables = home / WHOLE / "tables" / TABLES
    whole = _open(home / WHOLE)
    _, features = check_split(whole.manifest, split, tables)
    dataset = open_dataset(tables, features, split)
    number = {int(session): person for person, session in enumerate(dataset.people.session_ids)}
    person = np.asarray([number[int(session)] for session in lists.session])
    now = asked_at(lists, touches)
    start, end = point_in_time(dataset.pool, person, now)
    item = dataset.vocabularies["item"].indices(np.maximum(lists.item, 0).reshape(-1).tolist())
    item = item.reshape(lists.item.shape)
    face, scores = np.zeros(item.shape, np.float32), np.zeros(item.shape, np.float32)
    for name, (_, asked) in towers.items():
        bundle = _open(home / name)
        if _reads(bundle.spec) != _reads(dataset.spec):
            raise PlaybillError(f"tower {home / name} reads histories otherwise than {home / WHOLE}; remove {home}")
        tower = open_model(bundle.file("query_tower.onnx"), CPU)
        vectors = np.asarray(bundle.array("item_embeddings"), np.float32)
        for rows in np.array_split(asked, len(asked) // _AT_ONCE + 1):
            arrays = query_arrays(dataset, person[rows], start[rows], end[rows], now[rows])
            query = tower.run(arrays, tower.outputs[:1])[0]
            scores[rows] = np.einsum("bd,bcd->bc", query, vectors[item[rows]])
        if name == WHOLE:
            face[:] = scores
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, scores=scores, face=face, known=end - start)
    write_atomic(path, buffer.getvalue())


def _open(own: Path) -> Bundle:
    return open_bundle(find_bundle(own / "bundles", LATEST), require_sealed=False)


def _reads(spec: FeatureSpec) -> list[object]:
    """Return all of a spec that a history's arrays follow from."""
    return [spec.history_length, spec.events, spec.vocabularies["item"], spec.num_items]


def order_by_tower(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return [R, C] float64 scores of the towers alone; a session that did nothing yet keeps the order shown."""
    shown = -np.arange(scores.shape[1], dtype=np.float64)
    found: np.ndarray = np.where((known > 0)[:, None], scores, shown)
    return found


def tower_numbers(scores: np.ndarray, known: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return [R, C, 3] float32, columns `NAMES`: scores beside those of their list, since each tower has its own scale.

    All are 0 in lists of sessions that did nothing yet, and where a list is shorter.
    """
    counts = there.sum(1, keepdims=True)
    mean = np.where(there, scores, 0).sum(1, keepdims=True) / counts
    away = np.where(there, scores - mean, 0)
    beside = away / np.sqrt((away**2).sum(1, keepdims=True) / counts + 1e-9)
    rank = np.argsort(np.argsort(np.where(there, -scores, np.inf), axis=1, kind="stable"), axis=1, kind="stable")
    below = beside.max(1, keepdims=True, where=there, initial=-np.inf) - beside
    numbers = np.stack([beside, np.log1p(rank), below], 2).astype(np.float32)
    numbers[~there | (known == 0)[:, None]] = 0
    return numbers
