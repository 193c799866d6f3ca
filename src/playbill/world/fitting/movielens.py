"""MovieLens: how popularity, activity and stars are spread where people rate films they chose by themselves.

A rating is what the world calls stars after something was found and played. How many films a person rated says how
active people differ; the fewest is 20, since the log's makers left out everybody with fewer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy import optimize, sparse, stats

from playbill.world.fitting.found import Estimate, Found, Sample

FILES = {"ml-1m": "interactions.parquet", "ml-100k": "ratings.parquet"}
FEWEST = 20
SEEN_OFTEN = 20
"""Ratings of an item from which its own mean stars and its first appearance are read."""
DRAWS = 200


def fit(folder: Path, data: str, seed: int, sets_parameters: bool) -> Found:
    """Estimate popularity, activity, new items and the bias terms of stars.

    Args:
        folder: of the log.
        data: "ml-1m" or "ml-100k".
        seed: of the bootstraps.
        sets_parameters: False to show the figures beside another log's, which set the parameters.
    """
    person, item, stars, when = read(folder, data)
    by_person, by_item = np.bincount(person), np.bincount(item)
    found = Found(data=data)
    rng = np.random.default_rng(seed)

    def add(parameter: str, name: str, value: float, margin: float | None, n: int, of: str, method: str) -> None:
        found.estimates.append(
            Estimate(
                parameter=parameter if sets_parameters else "",
                name=name,
                value=value,
                low=None if margin is None else value - margin,
                high=None if margin is None else value + margin,
                data=data,
                n=n,
                of=of,
                method=method,
            )
        )

    (exponent, offset), errors = zipf_mandelbrot(by_item)
    method = "maximum likelihood of Zipf-Mandelbrot, share of rank r in proportion to (r + offset * items)^-exponent"
    add("catalogue.popularity_exponent", "popularity exponent", exponent, errors[0], len(by_item), "items", method)
    add(
        "catalogue.popularity_offset",
        "popularity offset, of the items",
        offset,
        errors[1],
        len(by_item),
        "items",
        method,
    )
    head = max(len(by_item) // 10, 2)
    zipf, margin = zipf_head(by_item, head)
    add("", f"Zipf exponent of the {head} most popular", zipf, margin, head, "items", "maximum likelihood over ranks")
    sd, margin = truncated_spread(by_person, FEWEST)
    method = f"maximum likelihood of log counts, normal, none below {FEWEST}; Wald interval"
    add("population.activity_sd", "spread of the log of activity", sd, margin, len(by_person), "people", method)
    order = np.empty(len(when))
    order[np.argsort(when, kind="stable")] = (np.arange(len(when)) + 0.5) / len(when)
    first = np.full(len(by_item), 1.0)
    np.minimum.at(first, item, order)
    often = by_item >= SEEN_OFTEN
    share, margin = new_share(first[often], by_item[often])
    method = (
        f"maximum likelihood of when in the log's order an item of {SEEN_OFTEN} or more ratings appears first: "
        "old ones at once as often as they are rated, new ones from an even moment on"
    )
    add("catalogue.new_share", "share of items that are new", share, margin, int(often.sum()), "items", method)
    for estimate in _stars(person, item, stars, by_item, rng):
        add(*estimate)
    histogram = np.zeros((len(by_person), 5), np.int64)
    np.add.at(histogram, (person, stars.astype(np.int64) - 1), 1)
    found.samples |= {
        "popularity": Sample(
            values=by_item.astype(np.float64), distance="wasserstein of logs", about="an item; ratings over the mean"
        ),
        "activity": Sample(
            values=by_person.astype(np.float64),
            distance="wasserstein of logs",
            about=f"a person with at least {FEWEST} ratings; ratings over the mean",
        ),
        "stars": Sample(values=histogram, distance="total variation", about="a person; share of each number of stars"),
    }
    return found


def read(folder: Path, data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return person and item of every rating as 0, 1, ..., its stars (float64) and its time (unix s)."""
    ratings = pl.read_parquet(folder / FILES[data], columns=["user_id", "item_id", "rating", "timestamp"])
    _, person = np.unique(ratings["user_id"].to_numpy(), return_inverse=True)
    _, item = np.unique(ratings["item_id"].to_numpy(), return_inverse=True)
    return person, item, ratings["rating"].to_numpy().astype(np.float64), ratings["timestamp"].to_numpy()


def zipf_mandelbrot(counts: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return exponent and offset (as a share of the items) of a popularity curve, and their 95 % half-widths.

    Multinomial likelihood of the counts in falling order. Neighbouring ranks' counts are ordered after the fact, which
    matters for rare items; the error is taken from the curvature with the counts' overdispersion about the curve.

    Source: Mandelbrot (1953); Izsák (2006), Ecological Modelling (fitting by maximum likelihood).
    """
    ordered = np.sort(counts)[::-1].astype(np.float64)
    rank = np.arange(1, len(ordered) + 1)
    total = ordered.sum()

    def log_share(theta: np.ndarray) -> np.ndarray:
        log_weight = -np.exp(theta[0]) * np.log(rank + np.exp(theta[1]) * len(rank))
        top = log_weight.max()
        return np.asarray(log_weight - top - np.log(np.exp(log_weight - top).sum()))

    best = optimize.minimize(
        lambda t: -float(ordered @ log_share(t)) / total,
        np.array([0.0, -3.0]),
        method="L-BFGS-B",
        bounds=[(-3, 5), (-12, 5)],
    )
    expected = total * np.exp(log_share(best.x))
    spread = max(float(np.sum((ordered - expected) ** 2 / expected)) / len(ordered), 1.0)
    step = 1e-3
    slopes = np.stack([(log_share(best.x + d) - log_share(best.x - d)) / (2 * step) for d in np.eye(2) * step])
    information = (slopes * expected) @ slopes.T / spread
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    values = np.exp(best.x)
    z = float(stats.norm.ppf(0.975))
    return (float(values[0]), float(values[1])), (z * float(errors[0] * values[0]), z * float(errors[1] * values[1]))


def zipf_head(counts: np.ndarray, head: int) -> tuple[float, float]:
    """Return the Zipf exponent over the `head` most popular items by maximum likelihood, and its 95 % half-width."""
    ordered = np.sort(counts)[::-1][:head].astype(np.float64)
    log_rank = np.log(np.arange(1, head + 1))

    def minus(exponent: float) -> float:
        return float(ordered @ log_rank * exponent + ordered.sum() * np.log(np.exp(-exponent * log_rank).sum()))

    best = float(optimize.minimize_scalar(minus, bounds=(0.0, 5.0), method="bounded").x)
    weight = np.exp(-best * log_rank)
    weight /= weight.sum()
    information = ordered.sum() * float(weight @ log_rank**2 - (weight @ log_rank) ** 2)
    return best, float(stats.norm.ppf(0.975)) / information**0.5


def truncated_spread(counts: np.ndarray, fewest: int) -> tuple[float, float]:
    """Return the standard deviation of log counts before those below `fewest` were left out, and its half-width.

    Log counts are normal, cut off at log(fewest - 0.5).

    Source: Cohen (1950), Annals of Mathematical Statistics 21 (truncated normal, maximum likelihood).
    """
    y, cut = np.log(counts), np.log(fewest - 0.5)

    def minus(theta: np.ndarray) -> float:
        mu, sd = theta[0], np.exp(theta[1])
        kept = stats.norm.logsf((cut - mu) / sd)
        return float(-np.sum(stats.norm.logpdf(y, mu, sd)) + len(y) * kept)

    best = optimize.minimize(minus, np.array([y.mean(), np.log(y.std())]), method="BFGS")
    sd = float(np.exp(best.x[1]))
    return sd, float(stats.norm.ppf(0.975)) * sd * float(np.sqrt(best.hess_inv[1, 1]))


def new_share(first: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the share of items that were not there at the start, and its 95 % half-width.

    With n ratings, an item that was there all the time appears first at u with density n (1 - u)^(n - 1); one that
    came at an even moment s < u with n (1 - u)^(n - 1) / (1 - s)^n, which over s is n/(n - 1) (1 - (1 - u)^(n - 1)).

    Args:
        first: [items] place of the first rating in the log's order, 0..1.
        counts: [items] ratings, at least 2.
    """
    n = counts.astype(np.float64)
    log_rest = np.log1p(-np.minimum(first, 1 - 1e-12))
    old = n * np.exp((n - 1) * log_rest)
    new = n / (n - 1) * -np.expm1((n - 1) * log_rest)

    def minus(share: float) -> float:
        return -float(np.sum(np.log((1 - share) * old + share * new + 1e-300)))

    best = float(optimize.minimize_scalar(minus, bounds=(1e-6, 1 - 1e-6), method="bounded").x)
    slope = (new - old) / ((1 - best) * old + best * new + 1e-300)
    return best, float(stats.norm.ppf(0.975) / np.sqrt(np.sum(slope**2)))


def bias_terms(
    person: np.ndarray, item: np.ndarray, stars: np.ndarray, popularity: np.ndarray | None = None
) -> dict[str, float]:
    """Return the parts of stars by moments: what persons, items and the rest contribute, counting noise removed.

    stars = mean + person + item + rest, persons and items crossed at random. Alternates persons' and items' means
    (shrunk by the current variances) until they stand still; a variance is the mean square of the effects plus the
    mean of their posterior variances (EM for the random-effects model).

    Args:
        person, item: [ratings] int64, 0, 1, ... without gaps.
        stars: [ratings] float64.
        popularity: [items] float64, log popularity; None takes the log of the items' ratings.
    Source: Dempster, Laird and Rubin (1977); Gao and Owen (2017), Electronic Journal of Statistics 11 (large crossed
    random effects).
    """
    people, items = np.bincount(person), np.bincount(item)
    # sums by person, by item and by both are all that the rounds need: no round looks at single ratings
    level, n = stars.mean(), len(stars)
    by_person, by_item = np.bincount(person, stars - level), np.bincount(item, stars - level)
    squares = float(np.sum((stars - level) ** 2))
    pairs = sparse.csr_array((np.ones(n), (person, item)), (len(people), len(items)))
    mean, own, of_item, met = 0.0, np.zeros(len(people)), np.zeros(len(items)), np.zeros(len(people))
    var_person, var_item, var_rest = 0.2, 0.2, 0.8
    for _ in range(60):
        held = (var_person, var_item, var_rest)
        own = (by_person - mean * people - met) / (people + var_rest / var_person)
        spare_person = var_rest / (people + var_rest / var_person)
        of_item = (by_item - mean * items - pairs.T @ own) / (items + var_rest / var_item)
        spare_item = var_rest / (items + var_rest / var_item)
        mean = -float(people @ own + items @ of_item) / n
        var_person, var_item = float(np.mean(own**2 + spare_person)), float(np.mean(of_item**2 + spare_item))
        met = pairs @ of_item  # of each person's items
        # what own and of_item change in the sum of squares; what they leave has the mean `mean`
        change = people @ own**2 + items @ of_item**2 - 2 * (by_person @ own + by_item @ of_item - own @ met)
        var_rest = float(squares + change - n * mean**2 + people @ spare_person + items @ spare_item) / n
        if np.allclose(held, (var_person, var_item, var_rest), rtol=1e-4):
            break
    log_count = np.log(items) if popularity is None else popularity
    z = (log_count - log_count.mean()) / log_count.std()
    often = items >= SEEN_OFTEN
    raw = np.bincount(item, stars - own[person]) / items
    slope = float(np.polyfit(z[often], raw[often], 1)[0])
    # what items differ beyond popularity, weighing items alike
    beyond = max(var_item - slope**2 * float(np.var(z[often])), 0.0)
    return {
        "mean": float(stars.mean()),
        "sd": float(stars.std()),
        "skewness": float(stats.skew(stars)),
        "person_sd": var_person**0.5,
        "item_sd": var_item**0.5,
        "item_sd_beyond_popularity": beyond**0.5,
        "rest_sd": var_rest**0.5,
        "popularity_slope": slope,
        "correlation": float(np.corrcoef(log_count[often], raw[often])[0, 1]),
    }


TERMS = {
    "mean": "mean stars",
    "sd": "spread of stars",
    "skewness": "skewness of stars",
    "person_sd": "spread over persons of mean stars, noise removed",
    "item_sd": "spread over items of mean stars, noise removed",
    "item_sd_beyond_popularity": "spread over items of mean stars beyond their popularity",
    "rest_sd": "spread of stars beyond person and item",
    "popularity_slope": "mean stars for one standard deviation of an item's log count",
    "correlation": "correlation of an item's mean stars with its log count",
}


def _stars(
    person: np.ndarray, item: np.ndarray, stars: np.ndarray, by_item: np.ndarray, rng: np.random.Generator
) -> list[tuple[str, str, float, float | None, int, str, str]]:
    terms = bias_terms(person, item, stars)
    # a bootstrap over persons of 300 at a time keeps it quick; the error shrinks with the root of the number
    people = int(person.max()) + 1
    start = np.searchsorted(np.sort(person), np.arange(people + 1))
    rows = np.argsort(person, kind="stable")
    part = min(people, 600)
    drawn: list[dict[str, float]] = []
    for _ in range(12):
        picked = rng.choice(people, part, replace=False)
        kept = np.concatenate([rows[start[p] : start[p + 1]] for p in picked])
        _, again_person = np.unique(person[kept], return_inverse=True)
        _, again_item = np.unique(item[kept], return_inverse=True)
        drawn.append(bias_terms(again_person, again_item, stars[kept]))
    method = f"crossed random effects by EM; interval from 12 subsamples of {part} persons, scaled to all"
    return [
        (
            "",
            name,
            terms[term],
            float(1.96 * np.std([d[term] for d in drawn]) * (part / people) ** 0.5),
            people,
            "people",
            method,
        )
        for term, name in TERMS.items()
    ]
