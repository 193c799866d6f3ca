"""What is believed of the last layer's weights before anything is served: fitted on the decisions of training time."""

from __future__ import annotations

import numpy as np
import torch

from playbill.creative.posterior import Posterior, updated
from playbill.training.creative.data import CreativeData
from playbill.training.creative.module import CreativeModel
from playbill.training.creative.scoring import less_mean, pair_features

_SIZE = 8192


@torch.no_grad()
def training_features(model: CreativeModel, data: CreativeData) -> tuple[np.ndarray, np.ndarray]:
    """Return what was shown in training time as the last layer sees it.

    Returns:
        features less their mean over what could have been shown [R, d] float64, the title's logit [R] float64.
    """
    features, titles, train = [], [], data.train
    for low in range(0, len(train), _SIZE):
        rows = np.arange(low, min(low + _SIZE, len(train)))
        found = less_mean(pair_features(model.head, data.arrays, data.people, train, rows), train.eligible[rows])
        features.append(found[np.arange(len(rows)), train.shown[rows]].astype(np.float64))
        person = torch.from_numpy(data.people[train.moment[rows]])
        item, position = torch.from_numpy(train.item[rows]), torch.from_numpy(train.position[rows])
        titles.append(model.title(person, item, position).double().numpy())
    return np.concatenate(features), np.concatenate(titles)


def fit_prior(model: CreativeModel, data: CreativeData, weight_sd: float) -> Posterior:
    """Return the belief about the weights after training time, the title held fixed.

    It starts from independent weights around 0, that of `own` around 1, and holds the mode and the curvature there
    (Laplace).
    """
    features, title = training_features(model, data)
    share = float(np.clip(data.train.clicked.mean(), 1e-6, 0.5))
    start = np.zeros(features.shape[1])
    start[-1] = 1.0
    before = Posterior(start, np.eye(len(start)) / weight_sd**2, 1 / (share * (1 - share)))
    return updated(before, features, data.train.clicked, 1.0, title)
