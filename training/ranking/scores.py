"""Retrieval scores for the ranker's training rows, from a tower that never saw those rows.

A tower scores what it was trained on too high: a ranker that learned from such scores would trust them more than it may
when it serves. So the ranker learns from the latest training rows alone (`model.later_share` of them), and their scores
come from a tower of its own that was trained on the rows before, with the settings of the retrieval run and as many
steps as its best epoch took. That is how the ranker will meet scores when it serves: made by a tower that ends where
the future begins, for people it knows and people it does not. It costs about one more training of the towers. Serving
and validation use the retrieval run's own tower, which has seen all training rows and neither validation nor test rows.

Dealing people into folds and scoring each fold by a tower of the others was tried first: each tower then knows fewer
people than the one that serves and nothing of how tastes move on, and the ranker made lists worse than it found them.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor
from torch.nn import functional

from playbill.dataset.dataset import Dataset, Examples
from playbill.features.encoder import Arrays
from playbill.tables.files import write_atomic
from playbill.training.distributed import rank
from playbill.training.fit import agree, fit
from playbill.training.progress import Report
from playbill.training.ranking.sampling import Touched
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval.data import end_of
from playbill.training.retrieval.module import TowerModule
from playbill.training.retrieval.towers import compared, logit_scale, unit_items
from playbill.training.runs import Run
from playbill.training.settings import TrainSettings, TwoTower
from playbill.training.validation import best_first

_SIZE = 2048  # rows scored at once


@dataclasses.dataclass(slots=True)
class Scored:
    """What a tower fitted on earlier rows says of R later rows.

    Attributes:
        query: [R, D] float32 vectors of the rows' histories.
        items: [N + 1, D] float32 item vectors; row 0 (unknown) is 0.
        top: [R, pool] int32 item_index, best first, nothing that the person touches in training time; 0 where it ends.
        floor: [R] float32 score of the last of these; what scores higher would stand in the list.
        scale: cosines times this are the logits that the tower was trained by (of dot products the mean over rows).
    """

    query: np.ndarray
    items: np.ndarray
    top: np.ndarray
    floor: np.ndarray
    scale: float

    def score(self, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Return cosines [B, C] float32. Args: rows [B] int64, candidates [B, C] int64 item_index."""
        scores: np.ndarray = np.einsum("bd,bcd->bc", self.query[rows], self.items[candidates])
        return scores


@dataclasses.dataclass(slots=True)
class Unscored:
    """R rows that a tower is asked about.

    Attributes:
        queries: returns the query-side arrays of some rows ([n] int64), histories as the ranker will see them.
        person: [R] int64.
        touched: what each person touches in training time and no list may hold; None makes no lists.
    """

    queries: Callable[[np.ndarray], Arrays]
    person: np.ndarray
    touched: Touched | None


def score_rows(
    dataset: Dataset, earlier: Examples, later: Unscored, retrieval: Run, settings: TrainSettings, path: Path
) -> Scored:
    """Return scores of the `later` rows by a tower trained on the `earlier` events.

    They are kept at `path` for a run that is stopped later on, and read from there if present.
    """
    if not agree(path.is_file()):
        scored = _train_and_score(dataset, earlier, later, retrieval, settings)
        if rank() == 0:
            buffer = io.BytesIO()
            np.savez(buffer, **dataclasses.asdict(scored))
            write_atomic(path, buffer.getvalue())
        agree(None)  # the file is there
    with np.load(path, allow_pickle=False) as saved:  # every process goes on with rank 0's numbers
        return Scored(saved["query"], saved["items"], saved["top"], saved["floor"], float(saved["scale"]))


def _train_and_score(
    dataset: Dataset, earlier: Examples, later: Unscored, retrieval: Run, settings: TrainSettings
) -> Scored:
    model: Ranker = settings.model
    towers: TwoTower = retrieval.model
    # as many steps as the run's own tower took, which had more rows an epoch
    share = 1 - model.later_share
    epochs = max(1, round(max(retrieval.record.best_epoch, 1) / share))
    whole = max(1, round(towers.max_epochs / share))
    own = dataclasses.replace(settings, model=dataclasses.replace(towers, max_epochs=whole, averaging=0.0))
    module = TowerModule(dataset, end_of(dataset, earlier), own, None)
    steps = epochs * module.steps_per_epoch
    fit(module, module.run_settings, epochs, Report("tower of earlier rows", towers.batch_tokens, steps), None, None)
    module.eval()
    vectors = module.vectors()
    items, longest = unit_items(compared(vectors[1:], towers.similarity), towers.similarity)
    lengths: list[np.ndarray] = []

    def query(rows: np.ndarray) -> Tensor:
        found = module.query(later.queries(rows), vectors)
        lengths.append(found.norm(dim=-1).cpu().numpy())
        return functional.normalize(found, dim=-1)

    scored = scores_of(query, items, later, model.hard_pool)
    scored.scale = float(np.concatenate(lengths).mean()) * longest * logit_scale(towers)
    return scored


@torch.no_grad()
def scores_of(query: Callable[[np.ndarray], Tensor], items: Tensor, asked: Unscored, pool: int) -> Scored:
    """Return what towers say of rows, with lists of at most `pool` items; `scale` is left at 1.

    Args:
        query: returns unit vectors [n, D] of some rows.
        items: [N, D] unit vectors of items 1..N.
    """
    num, (num_items, dim) = len(asked.person), items.shape
    scored = Scored(
        query=np.zeros((num, dim), np.float32),
        items=np.concatenate([np.zeros((1, dim), np.float32), items.cpu().numpy()]),
        top=np.zeros((num, 0 if asked.touched is None else min(pool, num_items)), np.int32),
        floor=np.zeros(num, np.float32),
        scale=1.0,
    )
    for begin in range(0, num, _SIZE):
        some = np.arange(begin, min(begin + _SIZE, num))
        found = query(some)
        scored.query[some] = found.cpu().numpy()
        if asked.touched is None:
            continue
        hidden = torch.from_numpy(asked.touched.mask(asked.person[some])).to(items.device)
        top, score = best_first((found @ items.t()).masked_fill(hidden, float("-inf")), scored.top.shape[1])
        scored.top[some] = np.where(np.isfinite(score), top, 0)
        scored.floor[some] = score[:, -1]
    return scored


def start_bias(scored: Scored, uniform: int) -> float:
    """Return the interact bias under which the towers' own probabilities hold on average.

    Among U even negatives an item of probability p is the positive with odds p * N / U, and the towers' softmax says
    log p = scale * score - log(sum of exp(scale * score) over the catalogue).
    """
    some = scored.query[:: max(1, len(scored.query) // _SIZE)]
    total = logsumexp(scored.scale * some @ scored.items[1:].T, axis=1)
    return float(math.log((len(scored.items) - 1) / uniform) - total.mean())
