"""The disparity audit: does it find what is there, and does it leave a fair log alone?

    python tests/benchmarks/proof_disparity.py [home=var] [data=DIR] [seeds=1000] [worlds=5]

Simulated: worlds of 40,000 people, 20,000 in group "a" and 20,000 in group "b", whose clicks come at a rate of 5 %.
Every seed deals the groups anew and draws every click anew, by the world's own response model; impressions stay as they
are. In the unfair worlds group "b" clicks 10 % less often, in the fair ones groups mean nothing. Four amounts of data:

    one     one impression a person, at the top position: the arithmetic of two proportions, and not enough
    two     one slate of two positions a person
    slate   one slate of six positions a person
    month   whoever comes in four weeks, as often as they come, a slate of six a visit; some never come

Each log is audited twice: group alone, and group, age band, their intersections and the exposure of every provider
together, with Holm's correction over all of them. In all worlds the items shown are drawn anew from those eligible,
whoever provides them, so item exposure is fair. A fair log may be flagged with a probability of 5 %; the audit corrects
to 4 %, and both rates are reported.

End to end: two worlds written as tables, one fair and one not, read by `playbill measure question=disparity`.
Real: MovieLens-1M and Complete Journey, as examples of what the audit prints; nothing there is randomised.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from complete_journey import write_complete_journey
from record import machine, record
from rich.progress import track
from scipy.stats import norm

from playbill.cli import compose
from playbill.measure.disparity.items import judge_items
from playbill.measure.disparity.log import Got
from playbill.measure.disparity.parity import Comparison, Family
from playbill.measure.disparity.read import audit, run
from playbill.measure.disparity.settings import DisparityQuestion, Measure
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading
from playbill.world.build import World, build
from playbill.world.draws import Stream, uniform
from playbill.world.parameters import Parameters
from playbill.world.people import AGE_BANDS, GROUPS
from playbill.world.respond import Impressions, click_probability, respond
from playbill.world.settings import Size
from playbill.world.unfairness import click_factor
from playbill.world.visits import visits

RATE = 0.05
RELATIVE = 0.10
PEOPLE = 40_000
SLATE = 6
DAYS = 28
CASES = {"one": 1, "two": 2, "slate": SLATE, "month": SLATE}  # positions of a slate
LEVEL = 0.95


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var"))
    checkout = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data")))
    seeds, worlds = int(given.get("seeds", 1000)), int(given.get("worlds", 5))
    started = machine()
    parameters = compose("generate", ["world=fitted"]).world
    figures: dict[str, Any] = {"two proportions, by arithmetic": power_of_one(), "simulated": {}}
    for case in CASES:
        figures["simulated"][case] = {
            "fair": simulate(parameters, case, 0.0, seeds, worlds),
            "unfair": simulate(parameters, case, RELATIVE, seeds, worlds),
        }
    _print(figures)
    figures["end to end"] = end_to_end(home)
    figures["real"] = real(home, data)
    print(f"written to {record('disparity', figures, started)}")
    return 0


def power_of_one(people: int = PEOPLE // 2) -> float:
    """Return the power of a two-sided test of 5 % against 4.5 %, one independent outcome a person."""
    low = RATE * (1 - RELATIVE)
    error = sqrt((RATE * (1 - RATE) + low * (1 - low)) / people)
    z = norm.ppf((1 + LEVEL) / 2)
    return float(norm.sf(z - (RATE - low) / error))


@dataclass(slots=True)
class Stage:
    """A built world, the impressions made in it, and the chance [n] of a click on each, were the world fair."""

    world: World
    impressions: Impressions
    chance: np.ndarray


def simulate(parameters: Parameters, case: str, relative: float, seeds: int, worlds: int) -> dict[str, Any]:
    """Return how often the audits flag, over `seeds` logs spread evenly over `worlds` built worlds."""
    rows: list[dict[str, float]] = []
    for number in range(worlds):
        stage = with_disparity(set_up(parameters, case, number), relative)
        mine = range(number, seeds, worlds)
        bar = track(mine, f"{case}, world {number}, {relative:.0%} less", disable=not sys.stdout.isatty())
        rows += list(logs(stage, bar))
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {
        "logs": len(rows),
        "worlds": worlds,
        "people a group": PEOPLE // 2,
        "impressions a person": mean["impressions"],
        "people with an impression": mean["people"],
        "click rate of group a": mean["rate a"],
        "click rate of group b": mean["rate b"],
        "flagged, group alone": mean["alone"],
        "flagged, group among all comparisons": mean["among all"],
        "flagged, anything among all comparisons": mean["anything"],
        "flagged, any group of items": mean["items"],
        "the same corrected to 5 %": {
            "group alone": mean["alone at 5 %"],
            "group among all comparisons": mean["among all at 5 %"],
            "anything among all comparisons": mean["anything at 5 %"],
            "any group of items": mean["items at 5 %"],
        },
        "comparisons in all": mean["comparisons"],
        "flagged, group alone, had errors not been clustered by person": mean["not clustered"],
    }


def set_up(parameters: Parameters, case: str, seed: int, people: int = PEOPLE) -> Stage:
    """Build a fair world whose impressions of this case are clicked at a rate of 5 %."""
    fair = replace(parameters, unfairness=replace(parameters.unfairness, relative=0.0))
    size = Size(name="audit", people=people, items=500, days=DAYS, slate_length=SLATE)
    world = build(fair, size, seed)
    i = _impressions(world, case, seed)
    low, high = -6.0, 0.0
    for _ in range(14):
        clicks = replace(world.parameters.clicks, base=(low + high) / 2)
        world = replace(world, parameters=replace(world.parameters, clicks=clicks))
        chance = click_probability(world, i.person, i.item, i.creative, i.position, i.hour, i.device, i.day)
        low, high = (clicks.base, high) if chance.mean() < RATE else (low, clicks.base)
    return Stage(world, i, chance)


def with_disparity(stage: Stage, relative: float) -> Stage:
    """Return the same with clicks of group "b" rarer by this share; exposure and offers stay fair."""
    parameters = stage.world.parameters
    unfair = replace(parameters.unfairness, relative=relative, clicks=True, exposure=False, offers=False)
    return replace(stage, world=replace(stage.world, parameters=replace(parameters, unfairness=unfair)))


def clicked(stage: Stage, world: World) -> np.ndarray:
    """Return [n] bool: what `respond` says, without working out again what does not change from seed to seed."""
    chance = stage.chance * click_factor(world, stage.impressions.person)
    drawn: np.ndarray = uniform(world.seed, Stream.CLICK, stage.impressions.key) < chance
    return drawn


def _impressions(world: World, case: str, seed: int) -> Impressions:
    """Return who is shown what: items published by the first day, uniformly, each in one of its creatives."""
    draw = np.random.default_rng([seed, 11])
    people = len(world.people.group)
    positions = CASES[case]
    if case == "month":
        days = [visits(world, day) for day in range(DAYS)]
        person = np.concatenate([v.person for v in days])
        hour, device = np.concatenate([v.hour for v in days]), np.concatenate([v.device for v in days])
        day = np.concatenate([np.full(len(v), v.day) for v in days])
    else:
        person = np.arange(people)
        hour, device = draw.integers(8, 23, people), draw.integers(0, 3, people)
        day = np.zeros(people, np.int64)
    there = int((world.items.published_day == 0).sum())
    item = draw.integers(0, there, (len(person), positions))
    first = np.asarray(world.creatives.first, np.int64)
    creative = first[item] + (draw.random(item.shape) * np.diff(first)[item]).astype(np.int64)

    def spread(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, positions)

    return Impressions(
        person=spread(person),
        session=spread(np.arange(len(person))),
        item=item.ravel(),
        creative=creative.ravel(),
        position=np.tile(np.arange(positions), len(person)),
        hour=spread(hour),
        device=spread(device),
        day=spread(day),
        at_us=np.zeros(item.size, np.int64),
        key=np.arange(item.size, dtype=np.uint64),
    )


def logs(stage: Stage, seeds: Any) -> Iterator[dict[str, float]]:
    """Yield what the audits say of one log a seed: groups dealt anew, clicks drawn anew."""
    shown = stage.impressions
    people = len(stage.world.people.group)
    count = np.bincount(shown.person, minlength=people).astype(np.float64)
    question = DisparityQuestion()
    first = True
    for seed in seeds:
        draw = np.random.default_rng([seed, 13])
        group = draw.permutation(np.arange(people) % 2).astype(np.int8)
        dealt = replace(stage.world.people, group=group)
        world = replace(stage.world, seed=1_000_000 + seed, people=dealt)
        answers = clicked(stage, world)
        if first:
            assert np.array_equal(answers, respond(world, shown).clicked), "the shortcut is not the world's own model"
            first = False
        total = np.bincount(shown.person, answers, people)
        got = [Got(Measure.OUTCOME, "click rate", "rate", total, count)]
        everything = families(group, stage.world.people.age_band)
        [alone] = audit(got, everything[:1], question, LEVEL)
        every = audit(got, everything, question, LEVEL, item_comparisons(stage, count, question, draw))
        by_item = [c for c in every if c.measure == Measure.ITEM_EXPOSURE.value]
        rate = [total[group == g].sum() / count[group == g].sum() for g in (0, 1)]
        naive = sqrt(sum(rate[g] * (1 - rate[g]) / count[group == g].sum() for g in (0, 1)))
        yield {
            "impressions": count.mean(),
            "people": (count > 0).mean(),
            "rate a": rate[0],
            "rate b": rate[1],
            "alone": alone.flagged,
            "among all": every[0].flagged,
            "anything": any(c.flagged for c in every),
            "items": any(c.flagged for c in by_item),
            "alone at 5 %": _below(alone),
            "among all at 5 %": _below(every[0]),
            "anything at 5 %": any(map(_below, every)),
            "items at 5 %": any(map(_below, by_item)),
            "comparisons": sum(c.p_value is not None for c in every),
            "not clustered": abs(rate[1] - rate[0]) / naive > norm.ppf((1 + LEVEL) / 2),
        }


def item_comparisons(
    stage: Stage, count: np.ndarray, question: DisparityQuestion, draw: np.random.Generator
) -> list[Comparison]:
    """Return how every provider fares where each impression [n] shows any eligible item, drawn anew.

    Args:
        count: [P] impressions by person.
    """
    provider = stage.world.items.provider[stage.world.items.published_day == 0].astype(np.int64)
    names = int(provider.max()) + 1
    person = stage.impressions.person
    of = provider[draw.integers(0, len(provider), len(person))]
    observed = np.bincount(person * names + of, minlength=len(count) * names).reshape(len(count), names)
    there = count > 0
    observed, weights = observed[there].T.astype(np.float64), count[there]
    share = np.bincount(provider, minlength=names) / len(provider)
    return [
        judge_items(question, f"provider {g + 1}", observed[g], share[g] * weights, weights, LEVEL)
        for g in np.flatnonzero(share)
    ]


def _below(c: Comparison) -> bool:
    return c.adjusted is not None and c.adjusted < 1 - LEVEL


def families(group: np.ndarray, age_band: np.ndarray) -> list[Family]:
    """Return group, age band and both together; the first of each is the reference of its largest kind."""
    found = []
    for name, code, names in (
        ("group", group, list(GROUPS)),
        ("age_band", age_band, list(AGE_BANDS)),
        (
            "group & age_band",
            group.astype(np.int64) * len(AGE_BANDS) + age_band,
            [f"{g} & {a}" for g in GROUPS for a in AGE_BANDS],
        ),
    ):
        code = code.astype(np.int64)
        largest = int(np.bincount(code, minlength=len(names)).argmax())
        found.append(Family(name, code, names, largest))
    return found


def end_to_end(home: Path, worlds: int = 10) -> dict[str, Any]:
    """Return what the audit says of tables that fair and unfair worlds wrote."""
    from playbill.world.generate import run as generate

    question = DisparityQuestion(measures=[Measure.EXPOSURE, Measure.OUTCOME, Measure.OFFER, Measure.PRICE_SHOWN])

    def read(name: str, relative: float, seed: int) -> Reading:
        settings = compose("generate", ["world=fitted", "size=small", f"home={home}", f"name=audit-{name}"])
        settings.world.unfairness.relative, settings.seed = relative, seed
        settings.size.people, settings.size.days, settings.size.contexts = 20_000, DAYS, False
        return run(question, generate(settings), MeasureSettings())

    found: dict[str, Any] = {}
    for name, relative in (("fair", 0.0), ("unfair", RELATIVE)):
        found[name] = _reading(read(name, relative, 0), f"{name} world, read from its tables")
    # whole worlds are few, but everything in them differs: people, items, slates, mails
    seeds = range(1, worlds + 1)
    flagged = {
        name: [any(s.warnings for s in read("several", relative, seed).statements) for seed in seeds]
        for name, relative in (("fair", 0.0), ("unfair", RELATIVE))
    }
    found["worlds read"] = worlds
    found["fair worlds flagged"], found["unfair worlds flagged"] = (sum(flagged[k]) for k in ("fair", "unfair"))
    print(f"\nof {worlds} fair worlds {found['fair worlds flagged']} are flagged, ", end="")
    print(f"of {worlds} unfair ones {found['unfair worlds flagged']}")
    return found


def real(home: Path, data: Path) -> dict[str, Any]:
    """Return what the audit says of two real logs; no cause is claimed."""
    from playbill.sources.prepare import run as prepare

    prepare(compose("prepare", ["source=ml-1m", f"home={home}", f"source.folder={data / 'ml-1m'}"]))
    stars = DisparityQuestion(
        columns=["gender", "age"], event="rate", purchase="rate", measures=[Measure.EVENTS, Measure.PRICE_PAID]
    )
    journey = write_complete_journey(data / "complete-journey", home / "tables" / "complete-journey")
    offers = DisparityQuestion(
        columns=["age", "income"],
        intersections=1,
        kind="offer",
        event="redeem",
        window_h=24 * 100,
        min_people=50,
        measures=[Measure.OFFER, Measure.OUTCOME, Measure.PRICE_PAID],
    )
    return {
        "MovieLens-1M": _reading(run(stars, home / "tables" / "ml-1m", MeasureSettings()), "MovieLens-1M: stars"),
        "Complete Journey": _reading(run(offers, journey, MeasureSettings()), "Complete Journey: campaigns, coupons"),
    }


def _reading(reading: Reading, title: str) -> dict[str, Any]:
    print(f"\n{title}\n  {reading.verdict}")
    rows = reading.tables["all comparisons"]
    for row in rows:
        if row["finding"] == "differs" or " & " not in row["group"]:
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            figures = f"{_number(row['figure'])} against {_number(row['its figure'])}"
            print(f"  {row['measure']:<42} {row['group']:<28} {figures:<24} {ratio:<22} {row['finding']}")
    for warning in reading.warnings:
        print(f"  WARNING {warning}")
    return {"verdict": reading.verdict, "warnings": reading.warnings, "comparisons": rows}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _print(figures: dict[str, Any]) -> None:
    print(f"5 % against 4.5 %, {PEOPLE // 2:,} people each, one outcome a person: power by arithmetic ", end="")
    print(f"{figures['two proportions, by arithmetic']:.3f}")
    head = ("case", "world", "impressions a person", "group alone", "group among all", "anything", "not clustered")
    print("corrected to 4 %, and in brackets to 5 %")
    print("  ".join(head))
    for case, both in figures["simulated"].items():
        for kind, f in both.items():
            print(
                f"{case:<6}{kind:<8}{f['impressions a person']:>8.2f}"
                + "".join(
                    f"{f['flagged, ' + name]:>9.3f} ({f['the same corrected to 5 %'][name]:.3f})"
                    for name in ("group alone", "group among all comparisons", "anything among all comparisons")
                )
                + f"{f['flagged, group alone, had errors not been clustered by person']:>9.3f}   of {f['logs']} logs"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
