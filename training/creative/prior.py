"""What is believed before anything is served, of single creatives and of the last layer's weights: from the log."""

from __future__ import annotations

import numpy as np
import torch

from playbill.creative.posterior import Posterior, updated
from playbill.training.creative.data import CreativeData
from playbill.training.creative.module import CreativeModel
from playbill.training.creative.own import pooled
from playbill.training.creative.scoring import less_mean, pair_features
from playbill.training.creative_settings import Creative

_SIZE = 8192
_OWN_SCALE_SD = 0.01  # `own` is shrunk as far as it should be: the same log would only say to shrink it less


@torch.no_grad()
def training_features(model: CreativeModel, data: CreativeData) -> tuple[np.ndarray, np.ndarray]:
    """Return what was shown in training time as the last layer sees it.

    Returns:
        features less their mean over what could have been shown [R, d] float64, the title's logit [R] float64.
    """
    features, titles, train = [], [], data.train
    for low in range(0, len(train), _SIZE):
        rows = np.arange(low, min(low + _SIZE, len(train)))
        found = less_mean(pair_features(model.head, data.arrays, data.profiles, train, rows), train.eligible[rows])
        features.append(found[np.arange(len(rows)), train.shown[rows]].astype(np.float64))
        person = torch.from_numpy(data.people[train.moment[rows]])
        item, position = torch.from_numpy(train.item[rows]), torch.from_numpy(train.position[rows])
        titles.append(model.title(person, item, position).double().numpy())
    return np.concatenate(features), np.concatenate(titles)


@torch.no_grad()
def settle(model: CreativeModel, data: CreativeData, settings: Creative) -> np.ndarray:
    """Give every creative and title what is their own by partial pooling (`own.py`), in place.

    What the head reads of people turns away from `data.neutral` first: it learns from known people alone, and what they
    have in common must hold for somebody of whom nothing is known.

    Returns:
        [C + 1] float32, how far what a creative has of its own may be wrong, in log-odds; row 0 is of an unknown one.
    """
    if data.neutral is not None:
        turned = model.head.person.weight.double().numpy()
        model.head.person.weight.copy_(torch.from_numpy(turned - np.outer(turned @ data.neutral, data.neutral)))
    features, title = training_features(model, data)
    train, levels = data.train, model.title.item.weight[:, 0].double().numpy()
    row, column = np.nonzero(train.eligible >= 0)
    owner = np.zeros(len(model.head.own.weight), np.int64)
    owner[train.eligible[row, column]] = train.item[row]
    found = pooled(
        features[:, :-1],
        title - levels[train.item],
        train.item,
        train.eligible[np.arange(len(train)), train.shown].astype(np.int64),
        train.clicked.astype(np.float64),
        owner,
        len(levels),
        settings.own_sd,
        settings.item_sd,
        settings.weight_sd,
    )
    model.title.item.weight.copy_(torch.from_numpy(found.item)[:, None])
    model.head.own.weight.copy_(torch.from_numpy(found.own)[:, None])
    model.head.weight.copy_(torch.from_numpy(found.weights))
    return found.own_sd.astype(np.float32)


def fit_prior(model: CreativeModel, data: CreativeData, weight_sd: float) -> Posterior:
    """Return the belief about the weights after training time, the title held fixed.

    It starts from independent weights around 0, that of `own` around 1, and holds the mode and the curvature there
    (Laplace).
    """
    features, title = training_features(model, data)
    share = float(np.clip(data.train.clicked.mean(), 1e-6, 0.5))
    start, spread = np.zeros(features.shape[1]), np.full(features.shape[1], weight_sd)
    start[-1], spread[-1] = 1.0, _OWN_SCALE_SD
    before = Posterior(start, np.diag(1 / spread**2), 1 / (share * (1 - share)))
    return updated(before, features, data.train.clicked, 1.0, title)
