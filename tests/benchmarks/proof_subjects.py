"""Subjects or heroes chosen while a campaign runs, against a fixed test of the same, in a world whose truth is known.

    python tests/benchmarks/proof_subjects.py [of=subject|hero] [worlds=fitted,hard] [campaigns=20] [people=100000]
                                              [waves=10] [hours=12]

100,000 recipients, five subjects (or heroes) of the world, a wave every twelve hours, answers up to 72 hours late: of a
subject opens, of a hero clicks, which are rarer.
Regret is what true answers are lost against the best variant of each segment. Rivals are the equal split of an A/B/n
test over all recipients, and the same that sends the winner of the first half to the others. Held against the truth as
well: the intervals of the final report, and those that plain means would have.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.campaign.adaptive import estimates
from playbill.campaign.delays import fit_delays, revealed
from playbill.campaign.thompson import believed, chances, choose, tally
from playbill.cli import compose
from playbill.world.build import World, build
from playbill.world.mails import may_be_mailed
from playbill.world.messages import Mails, respond_to_mails
from playbill.world.respond import message_click_probability, open_probability
from playbill.world.settings import Size

VARIANTS, FLOOR, HOUR_US = 5, 0.02, 3_600_000_000
SEND_HOUR, DAY = 18, 3  # of the week: the hour is no part of this question


def main(arguments: list[str]) -> int:
    """Simulate, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    numbers = {
        k: int(given.get(k, d)) for k, d in (("campaigns", 20), ("people", 100_000), ("waves", 10), ("hours", 12))
    }
    started = machine()
    of = given.get("of", "subject")
    figures: dict[str, Any] = {"of": of, **numbers, "variants": VARIANTS, "floor": FLOOR}
    for name in given.get("worlds", "fitted,hard").split(","):
        parameters = compose("generate", [f"world={name}"]).world
        # half may not be written to
        world = build(parameters, Size(people=round(numbers["people"] * 7.5), items=200, days=10), 1)
        mailable = np.flatnonzero(may_be_mailed(world))[: numbers["people"]]
        assert len(mailable) == numbers["people"], f"{len(mailable)} may be written to"
        runs = [
            _campaign(world, of, mailable, numbers["waves"], numbers["hours"], seed)
            for seed in track(range(numbers["campaigns"]), name)
        ]
        figures[name] = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
        mine = figures[name]
        mine["of_equal_split"] = mine["regret"] / mine["regret_equal_split"]
        mine["of_split_then_winner"] = mine["regret"] / mine["regret_split_then_winner"]
        mine["worst_of_equal_split"] = max(run["regret"] / run["regret_equal_split"] for run in runs)
        print(name, {key: round(value, 4) for key, value in mine.items()})
    print(f"written to {record('heroes' if of == 'hero' else 'subjects', figures, started)}")
    return 0


def _campaign(world: World, of: str, people: np.ndarray, waves: int, hours: int, seed: int) -> dict[str, float]:
    """Return the regret of one campaign and of its rivals, in answers a thousand recipients, and how its report did."""
    dice = np.random.default_rng(seed)
    known_to_it = world.heroes if of == "hero" else world.subjects
    rows = dice.choice(len(known_to_it.pull), VARIANTS, replace=False)
    person = dice.permutation(people)
    segment = world.people.segment[person].astype(np.int64)
    size, num_segments = len(person), int(segment.max()) + 1
    truth = np.stack([_truth(world, of, person, np.full(size, row)) for row in rows], 1)
    by_segment = np.stack([np.bincount(segment, truth[:, v], num_segments) for v in range(VARIANTS)], 1)
    best = truth[np.arange(size), by_segment.argmax(1)[segment]].sum()
    wave = np.arange(size) * waves // size
    variant, delay, opened = np.zeros(size, np.int64), np.zeros(size), np.zeros(size, bool)
    propensity, share = np.zeros((size, VARIANTS)), None
    for now in range(waves):
        mine, past = np.flatnonzero(wave == now), wave < now
        if now:
            age = (now - wave[past]) * float(hours)
            seen = opened[past] & (delay[past] <= age)
            share = fit_delays(delay[past][seen], age[seen])
            known = tally(segment[past], variant[past], seen, revealed(share, age), (num_segments, VARIANTS))
            chance = chances(*believed(known), FLOOR)[segment[mine]]
        else:
            chance = np.full((len(mine), VARIANTS), 1 / VARIANTS)
        propensity[mine] = chance
        variant[mine], _ = choose(chance, dice.random(len(mine)))
        opened[mine], delay[mine] = _sent(world, of, person[mine], rows[variant[mine]], seed, mine)
    assert (propensity >= FLOOR - 1e-12).all()
    equal = dice.integers(VARIANTS, size=size)
    half = wave < waves // 2
    halved = _sent(world, of, person[half], rows[equal[half]], seed + 10_000, np.flatnonzero(half))[0]
    winner = int(np.argmax([halved[equal[half] == v].mean() for v in range(VARIANTS)]))
    lost = {"": variant, "_equal_split": equal, "_split_then_winner": np.where(half, equal, winner)}
    per_thousand = {f"regret{k}": float(best - truth[np.arange(size), v].sum()) / size * 1000 for k, v in lost.items()}
    told, means = estimates(wave, variant, opened, propensity, VARIANTS, segment), truth.mean(0)
    plain = np.asarray([opened[variant == v].mean() for v in range(VARIANTS)])
    error = np.asarray([opened[variant == v].std() / np.sqrt((variant == v).sum()) for v in range(VARIANTS)])
    return {
        **per_thousand,
        "rate_of_best": float(best / size),
        "covered": float((np.abs(told.rate - means) <= 1.96 * told.error).mean()),
        "covered_by_plain_means": float((np.abs(plain - means) <= 1.96 * error).mean()),
        "named_the_best": float(told.best.argmax() == means.argmax()),
    }


def _truth(world: World, of: str, person: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return how likely each message is to be answered: opened, or opened and clicked."""
    subject = np.zeros(len(person), np.int64) if of == "hero" else row
    opened = open_probability(world, person, subject, np.full(len(person), SEND_HOUR), DAY)
    return opened * message_click_probability(world, person, row, DAY) if of == "hero" else opened


def _sent(
    world: World, of: str, person: np.ndarray, row: np.ndarray, seed: int, key: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each message is answered, and after how many hours."""
    size = len(person)
    keys = (np.uint64(seed) << np.uint64(32)) + key.astype(np.uint64)
    arrival, first = np.full(size, 1_736_400_000_000_000, np.int64), np.zeros(size, np.int64)
    mails = Mails(
        person=person, subject=first if of == "hero" else row, hero=row if of == "hero" else first, offer=first,
        hour_of_week=np.full(size, SEND_HOUR), day=DAY, at_us=arrival, key=keys,
    )  # fmt: skip
    found = respond_to_mails(world, mails)
    if of == "hero":
        return found.clicked, found.click_delay_us / HOUR_US
    return found.opened, found.open_delay_us / HOUR_US


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
