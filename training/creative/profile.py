"""What people had chosen by the time they were shown something: what the heads read of them.

Clicks on artworks are too few to learn tastes from; items that somebody chose tell them. Every item stands for its
place in the item tower's space, and for what its creatives show on average: so often a warm image, so often a dark
one. A profile is the mean of that over a history, drawn towards what everybody chooses as if `DRAWN` more such events
were there. In worlds whose truth is known a linear reading of it says far more of tastes than one of the query tower's
vector, which tells what comes next, and most of that is popularity.

Source: P. Covington, J. Adams, E. Sargin, Deep Neural Networks for YouTube Recommendations (2016), section 3.2, for the
mean of a history's embeddings; the shrinkage is that of a mean with a normal prior.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.dataset import Dataset
from playbill.features.encoder import Arrays, encode_history, point_in_time
from playbill.features.spec import Field
from playbill.training.creative.decisions import NOBODY, Moments
from playbill.training.creative.places import design

DRAWN = 20.0  # events of somebody average that stand beside everybody's own
_SHOWN = 64  # numbers at most that say what an item's creatives show
_SIZE = 1024


def contents(
    fields: Sequence[Field], arrays: Arrays, owner: np.ndarray, items: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Return [N + 1, P] float32 what items stand for in profiles, less what the mean choice stands for; 0 for index 0.

    Args:
        arrays: of the creatives, [C, ...] each; owner: [C] int64 item_index each belongs to, 0 for none.
        items: [N + 1, D] float32 the item tower's vectors.
        chosen: [R] int64 item_index of events.
    """
    count = np.bincount(owner, minlength=len(items))
    shown = np.hstack([design(field, arrays[field.array]) for field in fields])
    mean = np.zeros((len(items), shown.shape[1]))
    np.add.at(mean, owner, shown)
    mean /= np.maximum(count, 1)[:, None]
    weight = np.bincount(chosen, minlength=len(items)).astype(np.float64)
    weight[0] = 0
    shown = _centred(mean, weight * (count > 0))
    if shown.shape[1] > _SHOWN:
        with torch.random.fork_rng(devices=[]):  # the method draws; the training's own draws stay as they are
            torch.manual_seed(0)
            _, _, directions = torch.pca_lowrank(torch.from_numpy(shown), min(_SHOWN, len(items)), center=False)
        shown = shown @ directions.numpy()
    parts = []
    for part, there in ((_centred(items.astype(np.float64), weight), weight), (shown, weight * (count > 0))):
        spread = np.sqrt((np.square(part).sum(1) * there).sum() / max(there.sum(), 1))
        parts.append(part / (spread if spread > 0 else 1.0))
    found = np.hstack(parts)
    found[0] = 0
    return found.astype(np.float32)


def profile(history: Tensor, table: Tensor) -> Tensor:
    """Return profiles [U, P].

    Args:
        history: [U, L] int64 item_index; padding, unknown items and those that came after the table count for nothing.
        table: [N + 1, P] of `contents`.
    """
    there = (history > 0) & (history < table.shape[0])
    known = torch.where(there, history, torch.zeros_like(history))
    total = table.index_select(0, known.reshape(-1)).view(*history.shape, table.shape[1]).sum(1)
    return total / (there.sum(1, keepdim=True) + DRAWN)


def profiles(dataset: Dataset, moments: Moments, table: np.ndarray) -> np.ndarray:
    """Return [V, P] float32 profiles at these moments, of what was done strictly before; 0 for NOBODY."""
    found = np.zeros((len(moments), table.shape[1]), np.float32)
    known = np.flatnonzero(moments.person != NOBODY)
    weights = torch.from_numpy(table)
    for low in range(0, len(known), _SIZE):
        rows = known[low : low + _SIZE]
        start, end = point_in_time(dataset.pool, moments.person[rows], moments.now[rows])
        history = encode_history(dataset.pool, start, end, dataset.spec)["history_item"]
        found[rows] = profile(torch.from_numpy(history), weights).numpy()
    return found


def _centred(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return values [N, w] less their weighted mean, 0 where the weight is 0."""
    mean = (values * weight[:, None]).sum(0) / max(weight.sum(), 1e-9)
    found: np.ndarray = (values - mean) * (weight > 0)[:, None]
    return found
