"""All logs that are there, one after the other, and then the numbers that only the world itself can give."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from polars.exceptions import ColumnNotFoundError, SchemaError
from rich.console import Console

from playbill.errors import WorldError
from playbill.world.fitting import complete_journey, dito, movielens, open_bandit, trivago, upworthy
from playbill.world.fitting.calibrate import Reached, changed, click_base, open_base, stars
from playbill.world.fitting.compare import Comparison
from playbill.world.fitting.found import Estimate, Found
from playbill.world.parameters import Parameters

DATA_SETS = (
    upworthy.DATA,
    open_bandit.DATA,
    trivago.DATA,
    dito.DATA,
    complete_journey.DATA,
    "ml-1m",
    "ml-100k",
)
FIRST_PLACES = 3
"""Positions over which the services' click rates are taken to hold: Open Bandit shows three items at once."""


@dataclass(slots=True, kw_only=True)
class Fit:
    """All that `playbill fit` found.

    Attributes:
        parameters: with the fitted numbers in place.
        found: folder of the log -> what it gave.
        missing: logs that are not there, with what they would have set.
        reached: numbers set by moments that the world itself shows.
        comparisons: distances; empty without `compare`.
        shown: world -> its samples, for the plots.
        fitted: dotted names of the parameters that a log set.
    """

    parameters: Parameters
    found: dict[str, Found]
    missing: list[str]
    reached: list[Reached]
    comparisons: list[Comparison] = field(default_factory=list)
    shown: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    fitted: list[str] = field(default_factory=list)


def estimate(data: Path, seed: int, console: Console | None = None) -> Fit:
    """Return the parameters estimated from the logs below `data`, whatever of them is there.

    Raises:
        WorldError: none is there, or a folder holds something else than the log of its name.
    """
    there = [name for name in DATA_SETS if (data / name).is_dir()]
    missing = [name for name in DATA_SETS if name not in there]
    if not there:
        raise WorldError(f"none of {', '.join(DATA_SETS)} is in {data}; give their folder with data=DIR")
    if missing and console is not None:
        console.print(f"not in {data}, so nothing is fitted to it: {', '.join(missing)}", soft_wrap=True)
    world = Parameters(name="fitted")
    found: dict[str, Found] = {}
    for name in there:
        try:
            found[name] = _fit_one(name, data / name, world, seed, "ml-1m" in there)
        except (FileNotFoundError, ColumnNotFoundError, SchemaError) as error:
            said = " ".join(str(error).split())[:200]
            raise WorldError(f"{data / name} does not hold the log of that name: {said}") from error
    direct = {e.parameter: e.value for log in found.values() for e in log.estimates if e.parameter}
    parameters = changed(world, {**direct, "fitted_from": there})
    reached: list[Reached] = []
    spreads = {log: found[log].number(upworthy.ITEMS) for log in (upworthy.DATA, open_bandit.DATA) if log in found}
    if spreads:
        appeal = float(np.sqrt(np.mean(np.square(list(spreads.values())))))
        parameters = changed(parameters, {"catalogue.appeal_sd": appeal})
        _add_appeal(found[next(reversed(spreads))], appeal, spreads)
    rates = {log: found[log].number("click rate") for log in (upworthy.DATA, open_bandit.DATA) if log in found}
    if rates:
        odds = np.mean([np.log(r / (1 - r)) for r in rates.values()])
        base = click_base(parameters, float(1 / (1 + np.exp(-odds))), FIRST_PLACES, seed)
        ends = [click_base(parameters, r, FIRST_PLACES, seed).value for r in rates.values()]
        parameters = changed(parameters, {base.parameter: base.value})
        reached.append(base)
        _add_click_base(found[next(reversed(rates))], base, ends, rates)
    for log in ("ml-1m", "ml-100k"):
        if log in found:
            terms = movielens.bias_terms(*movielens.read(data / log, log)[:3])
            parameters, of_stars = stars(parameters, terms, seed)
            reached += of_stars
            people = len(found[log].samples["activity"].values)
            _add_reached(found[log], of_stars, "people", people)
            break
    if dito.DATA in found:
        opening = open_base(parameters, found[dito.DATA].number("log-odds of opening, middling person"), seed)
        parameters = changed(parameters, {opening.parameter: opening.value})
        reached.append(opening)
        _add_reached(found[dito.DATA], [opening], "people", found[dito.DATA].estimates[-1].n)
    fitted = sorted({e.parameter for log in found.values() for e in log.estimates if e.parameter})
    return Fit(parameters=parameters, found=found, missing=missing, reached=reached, fitted=fitted)


def _fit_one(name: str, folder: Path, world: Parameters, seed: int, has_large_movielens: bool) -> Found:
    if name == upworthy.DATA:
        return upworthy.fit(folder, world.population.aspects, seed)
    if name == open_bandit.DATA:
        return open_bandit.fit(folder)
    if name == trivago.DATA:
        return trivago.fit(folder, seed)
    if name == dito.DATA:
        return dito.fit(folder, seed)
    if name == complete_journey.DATA:
        return complete_journey.fit(folder, world, seed)
    return movielens.fit(folder, name, seed, sets_parameters=name == "ml-1m" or not has_large_movielens)


def _add_reached(log: Found, reached: list[Reached], of: str, n: int) -> None:
    for r in reached:
        log.estimates.append(
            Estimate(
                parameter=r.parameter,
                name=f"set so that the world shows: {movielens.TERMS.get(r.statistic, r.statistic)}",
                value=r.value,
                data=log.data,
                n=n,
                of=of,
                method=f"simulated moments: the log shows {r.target:.4f}, the world {r.reached:.4f}",
                caution=_CAUTIONS.get(r.parameter, ""),
            )
        )


_CAUTIONS = {
    "outcomes.hype": "popular films may also be better; all of the slope is given to hype: an upper bound",
    "outcomes.completion_base": "told apart from leniency_mean by the shape of the histogram alone",
    "outcomes.leniency_mean": "rests on the model's scale, five stars for a whole play",
    "outcomes.completion_precision": "completion_taste is assumed; what taste explains of stars is not noise",
    "catalogue.quality_sd": "of items that somebody chose to rate",
}


def _add_appeal(log: Found, appeal: float, spreads: dict[str, float]) -> None:
    log.estimates.append(
        Estimate(
            parameter="catalogue.appeal_sd",
            name="spread over items of log-odds of a click",
            value=appeal,
            low=min(spreads.values()),
            high=max(spreads.values()),
            data=" and ".join(spreads),
            n=len(spreads),
            of="services",
            method=f"root mean square over services ({', '.join(f'{k} {v:.3f}' for k, v in spreads.items())}), each "
            "weighing alike; the interval runs from one service to the other",
            caution="arms that a shop's buyers chose for one campaign differ less than a site's stories of a week",
        )
    )


def _add_click_base(log: Found, base: Reached, ends: list[float], rates: dict[str, float]) -> None:
    log.estimates.append(
        Estimate(
            parameter=base.parameter,
            name=f"set so that the world shows: {base.statistic}",
            value=base.value,
            low=min(ends),
            high=max(ends),
            data=" and ".join(rates),
            n=len(rates),
            of="services",
            method=f"middle of the services' log-odds ({', '.join(f'{k} {v:.4%}' for k, v in rates.items())}), each "
            f"weighing alike; the world shows {base.reached:.4%}; the interval runs from one service to the other",
            caution="services differ far more than either rate's own error",
        )
    )
