"""A small log from a world whose truth is known, and the exact value of a target policy on the people it is drawn from.

People are drawn with replacement; each comes one to four times, the active ones more often, and gets a slate of three
positions. At each position a softmax policy chooses one of eight items by what a shop might believe of them; the target
policy chooses among the same eight by better beliefs, and more sharply. Clicks are drawn by the world's own `respond`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.measure.off_policy.log import Choices, Log
from playbill.world.build import World, build
from playbill.world.draws import Stream, bits
from playbill.world.parameters import Parameters
from playbill.world.policies import choose, probabilities
from playbill.world.respond import Impressions, click_probability, completion_mean, respond
from playbill.world.settings import LoggingPolicy, PolicyKind, Size

POSITIONS, POOL, MOST_VISITS = 3, 8, 4
MOST_DECISIONS = POSITIONS * MOST_VISITS
"""Decisions that a person can have, whoever is drawn."""


@dataclass(slots=True)
class SmallWorld:
    """A fixed world, two policies, and what they are worth.

    Attributes:
        world: as built.
        logging, target: [P, POSITIONS, POOL] float64 probabilities of each person's choices.
        visits: [P] int64, how often a person comes.
        click: [P, POSITIONS, POOL] float64, the true probability of a click.
        finished: [P, POSITIONS, POOL] float64, the true expected completion of a click.
        features: [P, F] float64, what a shop knows of the person: the declared segment.
    """

    world: World
    logging: np.ndarray
    target: np.ndarray
    visits: np.ndarray
    click: np.ndarray
    finished: np.ndarray
    features: np.ndarray

    def largest_weight(self) -> float:
        """Return the largest weight that any decision can have."""
        return float((self.target / self.logging).max())

    def value(self, policy: np.ndarray, reward: str = "click") -> float:
        """Return the exact mean reward of an impression under [P, POSITIONS, POOL] probabilities."""
        expected = self.click if reward == "click" else self.click * self.finished
        per_person = (policy * expected).sum(2).mean(1)
        return float(np.average(per_person, weights=self.visits))


def small_world(
    parameters: Parameters, *, people: int = 2000, seed: int = 1, logging_temperature: float = 1.5
) -> SmallWorld:
    """Return a world of `people` people and 24 items, eight for each position."""
    size = Size(name="small log", people=people, items=2 * POSITIONS * POOL, days=1)
    world = build(parameters, size, seed)
    items = np.flatnonzero(world.items.published_day == 0)[: POSITIONS * POOL].reshape(POSITIONS, POOL)
    every = np.arange(people)
    shown = np.broadcast_to(items, (people, POSITIONS, POOL))
    click = click_probability(
        world,
        every[:, None, None],
        shown,
        world.creatives.first[shown],
        np.arange(POSITIONS)[None, :, None],
        (every % 24)[:, None, None],
        (every % 3)[:, None, None],
        0,
    ).astype(np.float64)
    finished = completion_mean(world, every[:, None, None], shown, 0).astype(np.float64)
    segment = np.asarray(world.people.declared_segment, np.int64)
    members = np.maximum(np.bincount(segment), 1)
    rate = np.zeros((len(members), POSITIONS, POOL))
    np.add.at(rate, segment, click)
    draw = np.random.default_rng(seed)
    true_belief = np.log(rate / members[:, None, None] + 1e-9)
    stale_belief = true_belief + draw.normal(0, true_belief.std(), true_belief.shape)
    activity = np.asarray(world.people.visits_per_day)
    return SmallWorld(
        world=world,
        logging=_softmax(stale_belief, logging_temperature)[segment],
        target=_softmax(true_belief, 0.8)[segment],
        visits=1 + np.searchsorted(np.quantile(activity, [0.4, 0.7, 0.9]), activity),  # 1 .. MOST_VISITS
        click=click,
        finished=finished,
        features=np.eye(len(members))[segment],
    )


def _softmax(belief: np.ndarray, temperature: float) -> np.ndarray:
    scaled = (belief - belief.mean(2, keepdims=True)) / belief.std(2, keepdims=True)
    return probabilities(LoggingPolicy(kind=PolicyKind.softmax, temperature=temperature), scaled)


def draw_log(small: SmallWorld, seed: int, *, people: int = 400, reward: str = "click") -> Log:
    """Return a log of `people` people drawn with replacement, for the target policy.

    Args:
        seed: of people, choices and clicks.
        reward: click (0 or 1) or completion (0..1, 0 without a click).
    """
    rng = np.random.default_rng([seed, 7])
    drawn = rng.integers(len(small.visits), size=people)
    unit = np.repeat(np.arange(people), small.visits[drawn])  # who is drawn twice is two people
    person = drawn[unit]
    chosen, propensity = choose(small.logging[person], rng.random((len(person), POSITIONS)))
    item = (np.arange(POSITIONS) * POOL + chosen).ravel()
    rounds = len(item)
    of, position = np.repeat(person, POSITIONS), np.tile(np.arange(POSITIONS), len(person))
    published = np.flatnonzero(small.world.items.published_day == 0)[: POSITIONS * POOL]
    answer = respond(
        small.world,
        Impressions(
            person=of,
            session=np.zeros(rounds, np.int64),
            item=published[item],
            creative=small.world.creatives.first[published[item]],
            position=position,
            hour=of % 24,
            device=of % 3,
            day=0,
            at_us=np.zeros(rounds, np.int64),
            key=bits(seed, Stream.VISIT_KEY, np.arange(rounds, dtype=np.uint64)),
        ),
    )
    target = np.take_along_axis(small.target[person], chosen[..., None], 2)[..., 0]
    actions = np.arange(POSITIONS * POOL).reshape(POSITIONS, POOL)
    return Log(
        reward=np.nan_to_num(answer.completion) if reward == "completion" else answer.clicked.astype(np.float64),
        propensity=propensity.ravel(),
        target=target.ravel(),
        action=item,
        position=position,
        request=np.repeat(np.arange(len(person)), POSITIONS),
        unit=np.repeat(unit, POSITIONS),
        features=small.features[of],
        choices=Choices(
            first=np.arange(rounds + 1) * POOL,
            action=np.broadcast_to(actions, (len(person), POSITIONS, POOL)).ravel(),
            target=small.target[person].ravel(),
            logging=small.logging[person].ravel(),
            chosen=np.arange(rounds) * POOL + chosen.ravel(),
        ),
    )
