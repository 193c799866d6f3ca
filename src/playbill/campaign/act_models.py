"""Models of acts as arrays that numpy evaluates: a line, a law of coming and staying away, and trees.

linear   link(bias + weight . scaled log1p(features)), of some of the features
bg_nbd   comings are Poisson, rates gamma, after each one may be lost for good
         Source: Fader, Hardie and Lee 2005 ("Counting your customers" the easy way), with the dropout of eq. 1
trees    link(sum of the leaves that a row falls into)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from playbill.campaign.act_features import FEATURES

_AT_ONCE = 20_000  # rows that walk down all trees together


@dataclass(frozen=True, slots=True)
class Linear:
    """A line over log1p of columns, then a link: "logit" or "log".

    Attributes:
        columns: [K] int64 of the matrix.
        centre, scale, weight: [K] float64.
    """

    columns: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: float
    link: str

    def __call__(self, x: np.ndarray, horizon: float) -> np.ndarray:
        """Return [n] probabilities, or amounts where the link is log. Args: x [n, F]; horizon is not used."""
        return linked(self.bias + standard(x, self.columns, self.centre, self.scale) @ self.weight, self.link)


@dataclass(frozen=True, slots=True)
class BgNbd:
    """BG/NBD over days on which somebody was there, or bought.

    Attributes:
        r, alpha: shape and rate (days) of the rates; a, b: of the chance of being lost after each coming.
        prefix: "" of being there, "bought_" of buying.
    """

    r: float
    alpha: float
    a: float
    b: float
    prefix: str

    def __call__(self, x: np.ndarray, horizon: float) -> np.ndarray:
        """Return [n] probability of coming at least once within so many days. Args: x [n, F]."""
        repeats, last, known = histories(x, self.prefix)
        shape = self.r + repeats
        lost = self.a / (self.b + np.maximum(repeats, 1) - 1) * ((self.alpha + known) / (self.alpha + last)) ** shape
        alive = 1 / (1 + np.where(repeats > 0, lost, 0))
        found: np.ndarray = alive * (1 - ((self.alpha + known) / (self.alpha + known + horizon)) ** shape)
        return found


@dataclass(frozen=True, slots=True)
class Trees:
    """T trees of at most M nodes; a leaf points to itself.

    Attributes:
        feature: [T, M] int32; threshold: [T, M] float64, left where feature <= threshold.
        left, right: [T, M] int32.
        value: [T, M] float64, of leaves.
        depth: steps from a root to any leaf.
        link: "logit" or "log".
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    depth: int
    link: str

    def __call__(self, x: np.ndarray, horizon: float) -> np.ndarray:
        """Return [n] probabilities, or amounts where the link is log. Args: x [n, F]; horizon is not used."""
        tree = np.arange(len(self.feature))[None]
        sums = np.empty(len(x))
        for low in range(0, len(x), _AT_ONCE):
            some = x[low : low + _AT_ONCE]
            node = np.zeros((len(some), len(self.feature)), np.int64)
            row = np.arange(len(some))[:, None]
            for _ in range(self.depth):
                goes = some[row, self.feature[tree, node]] <= self.threshold[tree, node]
                node = np.where(goes, self.left[tree, node], self.right[tree, node])
            sums[low : low + _AT_ONCE] = self.value[tree, node].sum(1)
        return linked(sums, self.link)


Model = Linear | BgNbd | Trees


def linked(z: np.ndarray, link: str) -> np.ndarray:
    """Return probabilities ("logit") or amounts ("log") of numbers."""
    found: np.ndarray = expit(z) if link == "logit" else np.exp(np.minimum(z, 50.0))
    return found


def standard(x: np.ndarray, columns: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return [n, K] scaled log1p of columns, cut at five deviations: nobody is judged far outside what was learned."""
    scaled: np.ndarray = np.clip((np.log1p(x[:, columns]) - centre) / scale, -5, 5)
    return scaled


def histories(x: np.ndarray, prefix: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return [n] repeated days, days from the first to the last, and days since the first, of the window."""
    days = x[:, FEATURES.index("bought_days" if prefix else "active_days")]
    known = np.maximum(x[:, FEATURES.index(prefix + "since_first")], 1e-3)
    return np.maximum(days - 1, 0), np.minimum(x[:, FEATURES.index(prefix + "span")], known), known


def with_interval(x: np.ndarray, interval: int, middle: float, count: int) -> np.ndarray:
    """Return [n, F + 1 + count]: what is known of people, and which stretch of the days ahead is asked about."""
    beside = np.zeros((len(x), 1 + count))
    beside[:, 0], beside[:, 1 + interval] = middle, 1.0
    return np.hstack([x, beside])


def packed(model: Model) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Return what of a model is written as json, and its arrays."""
    values = {name: getattr(model, name) for name in model.__slots__}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    return {"kind": _NAMES[type(model)], **plain}, arrays


def unpacked(plain: dict[str, object], arrays: dict[str, np.ndarray]) -> Model:
    """Return the model of `packed`. Raises: KeyError, TypeError or ValueError: it is none, or its arrays do not fit."""
    plain = dict(plain)
    kind = {name: cls for cls, name in _NAMES.items()}[str(plain.pop("kind"))]
    model: Model = kind(**plain, **arrays)
    if isinstance(model, Trees):
        shape = model.feature.shape
        inside = all(((a >= 0) & (a < shape[1])).all() for a in (model.left, model.right))
        if len(shape) != 2 or any(a.shape != shape for a in arrays.values()) or not inside:
            raise ValueError(f"trees of {shape} whose parts do not fit each other")
    if isinstance(model, Linear) and len({len(a) for a in arrays.values()}) != 1:
        raise ValueError("a line whose parts differ in length")
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise ValueError("numbers that are not finite")
    return model


_NAMES: dict[type, str] = {Linear: "linear", BgNbd: "bg_nbd", Trees: "trees"}
