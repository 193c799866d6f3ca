"""Features of what decisions could show, by the trained network itself: for the prior, and where there is no bundle."""

from __future__ import annotations

import numpy as np
import torch

from playbill.features.encoder import Arrays
from playbill.training.creative.data import creative_inputs
from playbill.training.creative.decisions import Decisions
from playbill.training.creative.network import CreativeNet


@torch.no_grad()
def pair_features(
    head: CreativeNet, arrays: Arrays, profiles: np.ndarray, decisions: Decisions, rows: np.ndarray
) -> np.ndarray:
    """Return [n, E, d] float32 features of all that some decisions could show, 0 where there is none.

    Args:
        arrays: of the unknown creative and all others, [C + 1, ...] each.
        profiles: [V, P] of the moments.
        rows: [n] int64 of the decisions.
    """
    eligible = torch.from_numpy(decisions.eligible[rows].astype(np.int64))
    person = torch.from_numpy(profiles[decisions.moment[rows]])
    row, column = torch.nonzero(eligible >= 0, as_tuple=True)
    content = {name: torch.from_numpy(array) for name, array in arrays.items()}
    found = torch.zeros((*eligible.shape, head.width))
    found[row, column] = head(person, row, creative_inputs(content, eligible[row, column]))
    return found.numpy()


def less_mean(features: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Return [n, E, d] features less their mean over what could be shown ([n, E], PAD where there is none)."""
    there = (eligible >= 0)[..., None]
    centred: np.ndarray = (features - features.sum(1, keepdims=True) / there.sum(1, keepdims=True)) * there
    return centred
