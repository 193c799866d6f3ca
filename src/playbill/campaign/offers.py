"""Which offer each person gets: what each level is expected to earn beyond nothing, and the plan within the budget.

A model says how likely each person buys with each level. Of two kinds:

    classes   people are of a few kinds that answer each level alike; a person's past offers say how likely they are of
              which, and how often they open says how likely an offer is seen at all
    trees     boosted trees over what is known of them

A level then earns chance * value * (margin - discount) - chance * redeemed - cost; what "none" earns is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from playbill.campaign.budget import Plan, plan
from playbill.campaign.offer_facts import Facts, FactSpec
from playbill.campaign.offer_settings import NONE, Guard, OfferLevel, Offers
from playbill.errors import ConfigError, TableError

ARRAYS, ABOUT = "offers.npz", "offers.json"


class About(msgspec.Struct, kw_only=True):
    """`offers.json`.

    Attributes:
        spec: what the model reads.
        form: "classes" or "trees".
        value: money of a purchase, on average.
        surer: redemptions that were seen over those expected, the upper end of its interval; 1 or more.
        judged: value per person on held-out people by candidate.
    """

    spec: FactSpec
    form: str
    value: float
    surer: float
    judged: dict[str, float]


@dataclass(frozen=True, slots=True)
class OfferModel:
    """Attributes: about: see About; arrays: by name, see `chances`."""

    about: About
    arrays: dict[str, np.ndarray]

    def chances(self, facts: Facts) -> np.ndarray:
        """Return [n, L] float64, the probability of a purchase with each level."""
        if self.about.form == "classes":
            return of_classes(self.arrays, facts)
        found = np.stack([grown(self.arrays, str(k), facts.x) for k in range(len(self.about.spec.levels))], axis=1)
        if self.arrays["effects"][0]:
            found[:, 1:] += np.clip(found[:, [0]], 0.0, 1.0)
        clipped: np.ndarray = np.clip(found, 1e-6, 1 - 1e-6)
        return clipped


def of_classes(arrays: dict[str, np.ndarray], facts: Facts) -> np.ndarray:
    """Return [n, L] chances.

    Args:
        arrays: rate [K, L + 1], of a purchase by class with each level seen and with none seen; share [K]; opening [2],
            of the beta distribution of how likely people open.
    """
    rate, share = arrays["rate"], arrays["share"]
    made, taken = facts.made, facts.taken
    log = taken @ np.log(rate).T + (made - taken) @ np.log1p(-rate).T + np.log(share)
    of = np.exp(log - log.max(1, keepdims=True))
    expected = (of / of.sum(1, keepdims=True)) @ rate
    seen, sent = made[:, :-1].sum(1), made.sum(1)
    a, b = arrays["opening"]
    opens = ((seen + a) / (sent + a + b))[:, None]
    found: np.ndarray = opens * expected[:, :-1] + (1 - opens) * expected[:, [-1]]
    return found


def grown(arrays: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """Return [n] float64: sum of the trees' leaves.

    Args:
        arrays: for the name, [T, M] each: feature (-1 is a leaf), threshold, left, right, value, missing (goes left).
    """
    part = {k: arrays[f"{k}{name}"] for k in ("feature", "threshold", "left", "right", "value", "missing")}
    out = np.full(len(x), float(arrays[f"start{name}"][0]))
    trees = np.arange(len(part["feature"]))
    if not len(trees):
        return out
    for low in range(0, len(x), 20_000):  # so that the arrays of one step stay in the processor's memory
        rows = x[low : low + 20_000]
        at = np.zeros((len(rows), len(trees)), np.int64)
        for _ in range(part["feature"].shape[1]):
            feature = part["feature"][trees, at]
            if (feature < 0).all():
                break
            given = np.take_along_axis(rows, np.maximum(feature, 0), 1)
            left = np.where(np.isnan(given), part["missing"][trees, at], given <= part["threshold"][trees, at])
            at = np.where(feature < 0, at, np.where(left, part["left"][trees, at], part["right"][trees, at]))
        out[low : low + 20_000] += part["value"][trees, at].sum(1)
    return out


def read(folder: Path) -> OfferModel | None:
    """Return the model of a folder, None where there is none.

    Raises:
        TableError: a file that is broken.
    """
    if not (folder / ABOUT).is_file():
        return None
    try:
        about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
        with np.load(folder / ARRAYS, allow_pickle=False) as file:
            return OfferModel(about, {name: file[name] for name in file.files})
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise TableError(f"{folder}: {ABOUT} and {ARRAYS} are no offer model: {error}") from error


def read_model(folder: Path) -> OfferModel:
    """Return the model of a folder that must have one; see `read`."""
    found = read(folder)
    if found is None:
        raise TableError(f"{folder} holds no {ABOUT}; run `playbill train-offers`")
    return found


@dataclass(frozen=True, slots=True)
class Worth:
    """Of n people and L levels, [n, L] float64 money each.

    Attributes:
        profit: expected, everything paid.
        expected: cost of the offer that is expected.
        worst: cost if it is redeemed at the most.
        redeemed: probability of that.
        sales: value that is expected to be bought.
    """

    profit: np.ndarray
    expected: np.ndarray
    worst: np.ndarray
    redeemed: np.ndarray
    sales: np.ndarray


def worth(chances: np.ndarray, value: float, offers: Offers, names: Sequence[str]) -> Worth:
    """Return what levels earn and cost.

    Args:
        chances: [n, M], by the model's levels `names`, "none" first; what the campaign does not declare is left out.
        value: money of a purchase.
    Returns:
        [n, 1 + len(offers.levels)], "none" first.
    """
    levels = [OfferLevel(name=NONE), *offers.levels]
    missing = [level.name for level in levels[1:] if level.name not in names]
    if missing:
        raise ConfigError(
            f"offers.levels: the model has not learned {', '.join(missing)}; it knows {', '.join(names[1:])}"
        )
    p = chances[:, [0, *(list(names).index(level.name) for level in levels[1:])]]
    sure = np.array([level.cost for level in levels])
    off = np.array([min(level.discount * value, np.inf if level.most is None else level.most) for level in levels])
    once = np.array([level.redeemed for level in levels])
    most = np.array([(level.most or 0.0) for level in levels])
    cost = p * (off + once) + sure
    return Worth(
        profit=p * value * offers.margin - cost,
        expected=cost,
        worst=np.broadcast_to(sure + once + most, p.shape),
        redeemed=np.where(off + once > 0, p, 0.0),
        sales=p * value,
    )


def settle(offers: Offers, of: Worth, surer: float, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, Plan]:
    """Return each person's level [n] int64, its propensity [n], and the plan that those who do not explore follow.

    Args:
        of: n people.
        surer: see About.
        draws: [n, 2] uniform: who explores, and what.
    Raises:
        ConfigError: the budget does not pay for what the explorers drew.
    """
    levels, rows = of.profit.shape[1], np.arange(len(draws))
    explores = draws[:, 0] < offers.explore
    drawn = np.minimum((draws[:, 1] * levels).astype(np.int64), levels - 1)
    found = _within(offers, of, surer, explores, drawn)
    level = np.where(explores, drawn, found.level)
    share = offers.explore / levels
    propensity = share + (1 - offers.explore) * (level == found.level[rows])
    return level, propensity, found


def _within(offers: Offers, of: Worth, surer: float, explores: np.ndarray, drawn: np.ndarray) -> Plan:
    rows, budget = np.arange(len(drawn)), np.inf if offers.budget is None else offers.budget
    short = None
    if offers.least_margin is not None:
        short = offers.least_margin * of.sales - of.profit
        short = short - np.maximum(
            short[:, [0]], 0
        )  # who buys at too thin a margin without any offer is no one's fault
    if offers.guard is Guard.worst or not np.isfinite(budget):
        cost = np.asarray(of.worst)
        left = budget - cost[rows, drawn][explores].sum()
        _pays(left, "at worst")
        return plan(of.profit, cost, left, short)
    # what they are sure to cost at the most, were people a shade readier to redeem than expected
    cost = of.expected * surer

    def reserved(level: np.ndarray) -> float:
        return reserve(cost[rows, level], np.asarray(of.worst)[rows, level], offers.risk)

    _pays(budget - reserved(np.where(explores, drawn, 0)), "with its reserve")
    low, high, best = 0.0, budget, None
    for step in range(12):
        money = high if step == 0 else (low + high) / 2
        found = plan(of.profit, cost, money, short)
        if reserved(np.where(explores, drawn, found.level)) <= budget:
            low, best = money, found
            if step == 0:
                break
        else:
            high = money
    return best if best is not None else plan(of.profit, cost, 0.0, short)


def reserve(expected: np.ndarray, worst: np.ndarray, risk: float) -> float:
    """Return money that independent costs pass together with a probability of `risk` at most.

    Source:
        Bernstein's inequality: variance of each at most expected * worst.
    """
    log = -np.log(risk)
    spread, most = float((expected * worst).sum()), float(worst.max(initial=0.0))
    return float(expected.sum() + most * log / 3 + np.sqrt((most * log / 3) ** 2 + 2 * spread * log))


def _pays(left: float, how: str) -> None:
    if left < 0:
        raise ConfigError(
            f"offers.budget: what those who explore drew costs {-left:g} more {how}; lower offers.explore, or raise it"
        )
