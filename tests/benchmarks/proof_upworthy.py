"""Thompson sampling and a text model on Upworthy's real tests of images and headlines.

    python tests/benchmarks/proof_upworthy.py [data=DIR] [repeats=20] [tests=0]

Weeks 201325-201402, whose randomisation was withdrawn, are left out. Two questions.

Images: in tests that vary the image alone, a policy shows one package after the other, the next of that package's own
impressions coming back at a time, in random order and without replacement, as late as the end of a fortieth of the
test. As many impressions are used as the smallest package has, so no policy can run out. Beside each other: uniform;
fixed A/B, which is uniform for a part of the traffic and then shows the best so far; Thompson sampling by the posterior
and the quadrature that the engine serves with, the same with half its spread (O. Chapelle and L.
Li 2011, section 3: more is gained where the horizon is short), and by independent Beta distributions. The prior's
spread comes from tests of the other half. Clicks are what really came, so they are compared without bias; regret is
against the package that is best over all of its impressions, which flatters that package alike for every policy.

Headlines: in tests that vary the headline alone, the same posterior over features of the text (hashed words folded, and
what the shape of a line says) learns from four fifths of the tests and says which of two headlines of a held-out test
is better. Chance is a half.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.special import expit, logit

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record
from rich.progress import track

from playbill.creative.choice import centred
from playbill.creative.posterior import Posterior, combined, impressions, marginals, rewards, updated
from playbill.creative.quadrature import chance_of_best
from playbill.features.text import encode_texts, learn_words
from playbill.measure.bootstrap import resampled_means
from playbill.world.fitting.spread import log_odds_spread
from playbill.world.fitting.upworthy import DATA, read

PARTS, FOLDS, WIDTH = 40, 5, 160
POLICIES = ("uniform", "A/B, a quarter", "A/B, half", "Thompson", "Thompson, narrow", "Thompson, Beta")


def main(arguments: list[str]) -> int:
    """Measure, print and record; returns 1 where a figure misses what it must reach."""
    given = dict(a.split("=", 1) for a in arguments)
    checkout = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data")))
    started = machine()
    packages = read(data / DATA)
    images = tests_of(packages, "image", int(given.get("tests", 0)))
    figures = {
        "images": replay(images, int(given.get("repeats", 20))),
        "headlines": headlines(packages, int(given.get("tests", 0))),
    }
    figures["missed"] = _missed(figures)
    _print(figures)
    path = record("upworthy", figures, started)
    _plot(figures["images"], path.with_suffix(".png"))
    print(f"written to {path}")
    return int(bool(figures["missed"]))


def tests_of(packages: pl.DataFrame, kind: str, most: int = 0) -> list[pl.DataFrame]:
    """Return the tests of which only `kind` differs, one frame each, in the order of their ids; `most` of them."""
    kept = packages.filter(pl.col("kind") == kind).sort("clickability_test_id", maintain_order=True)
    found = kept.partition_by("clickability_test_id", maintain_order=True)
    found = [test for test in found if test["clicks"].sum() > 0 and test["impressions"].min() >= PARTS]
    return found[:most] if most else found


def replay(tests: list[pl.DataFrame], repeats: int) -> dict[str, Any]:
    """Return clicks and regret of every policy over the tests, with intervals over tests."""
    spreads = [_spread(tests[half::2]) for half in (0, 1)]
    clicks = np.zeros((len(POLICIES), len(tests)))
    regret = np.zeros((len(POLICIES), len(tests), PARTS))
    size = np.zeros(len(tests))
    for row, test in enumerate(track(tests, description="tests")):
        shown, clicked = test["impressions"].to_numpy(), test["clicks"].to_numpy()
        size[row] = PARTS * (shown.min() // PARTS)
        for repeat in range(repeats):
            for which, policy in enumerate(POLICIES):
                rng = np.random.default_rng([row, repeat, which])
                # what a test may know of the spread is from tests of the other half
                got, lost = play(policy, shown, clicked, spreads[1 - row % 2], rng)
                clicks[which, row] += got / repeats
                regret[which, row] += lost / repeats
    found: dict[str, Any] = {"tests": len(tests), "impressions": float(size.sum()), "repeats": repeats}
    found["prior_sd"] = [sd for sd, _ in spreads]
    columns = np.concatenate([clicks, size[None]]).T
    means = resampled_means(columns, 2000, 0)
    for which, policy in enumerate(POLICIES):
        gained = means[:, which] / means[:, 0] - 1
        curve = np.cumsum(regret[which], 1)
        drawn = resampled_means(np.concatenate([curve, size[:, None]], 1), 500, 0)
        per_thousand = 1000 * drawn[:, :-1] / drawn[:, -1:]
        found[policy] = {
            "clicks_per_1000": 1000 * clicks[which].sum() / size.sum(),
            "gain_over_uniform": clicks[which].sum() / clicks[0].sum() - 1,
            "gain_low": float(np.quantile(gained, 0.025)),
            "gain_high": float(np.quantile(gained, 0.975)),
            "regret_per_1000": (1000 * curve.sum(0) / size.sum()).tolist(),
            "regret_low": np.quantile(per_thousand, 0.025, axis=0).tolist(),
            "regret_high": np.quantile(per_thousand, 0.975, axis=0).tolist(),
        }
    best = POLICIES.index("Thompson")
    for rival in POLICIES[1:3] + POLICIES[4:]:
        apart = (means[:, best] - means[:, POLICIES.index(rival)]) / means[:, POLICIES.index(rival)]
        found[f"Thompson less {rival}"] = [float(q) for q in np.quantile(apart, [0.025, 0.5, 0.975])]
    return found


def play(
    policy: str, shown: np.ndarray, clicked: np.ndarray, spread: tuple[float, float], rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """Return a policy's clicks in one test, and its regret in each part of it ([PARTS], in clicks).

    Args:
        shown, clicked: [K] of the packages.
        spread: of the packages' log-odds within a test, and the log-odds of a click.
    """
    k, part = len(shown), int(shown.min() // PARTS)
    left, left_clicks = shown.copy(), clicked.copy()
    rate = clicked / shown
    tried, won = np.zeros(k), np.zeros(k)
    sd, base = spread
    prior = Posterior(np.zeros(k), np.eye(k) / sd**2)
    precision, information = np.zeros((k, k)), np.zeros(k)
    regret = np.zeros(PARTS)
    for at in range(PARTS):
        belief = combined(prior, precision, information)
        chance = _chance(policy, at, tried, won, belief, expit(base), rng)
        count = rng.multinomial(part, chance)
        got = rng.hypergeometric(left_clicks, left - left_clicks, count)
        left, left_clicks = left - count, left_clicks - got
        if policy in ("Thompson", "Thompson, narrow"):
            # as the engine learns: features less what the policy would have shown on average
            phi = centred(np.eye(k), chance)
            score = phi @ belief.mean
            level = (won.sum() + 20 * expit(base)) / (tried.sum() + 20)
            believed = expit(logit(level) + score)
            added, known = impressions(phi, believed, score, count)
            precision += added
            information += known + rewards(phi, got / np.maximum(count, 1), count)
        tried, won = tried + count, won + got
        regret[at] = count @ (rate.max() - rate)
    return float(won.sum()), regret


def _chance(
    policy: str, at: int, tried: np.ndarray, won: np.ndarray, belief: Posterior, base: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the probability with which each package is shown in a part of the test."""
    k = len(tried)
    if policy.startswith("A/B"):
        share = 0.25 if policy.endswith("quarter") else 0.5
        if at < share * PARTS:
            return np.full(k, 1 / k)
        best: np.ndarray = np.eye(k)[np.argmax(won / np.maximum(tried, 1))]
        return best
    if policy in ("Thompson", "Thompson, narrow"):
        # of scores less their mean: the level of the test is no part of what is believed of a package
        mean, spread = marginals(belief.mean, belief.covariance(), np.eye(k) - 1 / k)
        return chance_of_best(mean, spread * (0.5 if policy.endswith("narrow") else 1.0))
    if policy == "Thompson, Beta":
        # a prior worth as much as the part of an arm's first impressions that a shop knows before
        drawn = rng.beta(won + 1, tried - won + (1 - base) / base, (400, k))
        return np.bincount(drawn.argmax(1), minlength=k) / 400
    return np.full(k, 1 / k)


def _spread(tests: list[pl.DataFrame]) -> tuple[float, float]:
    """Return the spread of packages' log-odds within tests, and the log-odds of a click."""
    rows = pl.concat(tests)
    _, test = np.unique(rows["clickability_test_id"].to_numpy(), return_inverse=True)
    clicks, shown = rows["clicks"].to_numpy(), rows["impressions"].to_numpy()
    return log_odds_spread(clicks, shown, test, 0).sd, float(logit(clicks.sum() / shown.sum()))


def headlines(packages: pl.DataFrame, most: int) -> dict[str, Any]:
    """Return how often the text model picks the better of two headlines of a held-out test, with intervals."""
    tests = tests_of(packages, "headline", most)
    spread, _ = _spread(tests)
    right: list[tuple[float, float, float, float]] = []  # of each test: pairs, hits, clear pairs, hits among those
    fold = np.random.default_rng(0).permutation(len(tests)) % FOLDS
    for held in track(range(FOLDS), description="folds"):
        known = pl.concat([test for test, f in zip(tests, fold, strict=True) if f != held])
        words = learn_words(known["headline"].to_arrow().cast(pa.string()), WIDTH)
        belief = _learn(known, words, spread)
        for test, f in zip(tests, fold, strict=True):
            if f == held:
                right.append(_pairs(test, _features(test, words) @ belief.mean))
    rows = np.array(right)
    means = resampled_means(rows, 2000, 0)
    every, clear = means[:, 1] / means[:, 0], means[:, 3] / means[:, 2]
    return {
        "tests": len(tests),
        "pairs": int(rows[:, 0].sum()),
        "right": rows[:, 1].sum() / rows[:, 0].sum(),
        "right_interval": [float(q) for q in np.quantile(every, [0.025, 0.975])],
        "clear_pairs": int(rows[:, 2].sum()),
        "right_of_clear": rows[:, 3].sum() / rows[:, 2].sum(),
        "right_of_clear_interval": [float(q) for q in np.quantile(clear, [0.025, 0.975])],
    }


def _learn(rows: pl.DataFrame, words: Any, spread: float) -> Posterior:
    """Return the belief about the weights of the text's features after these tests."""
    phi = _features(rows, words)
    _, test = np.unique(rows["clickability_test_id"].to_numpy(), return_inverse=True)
    clicks, shown = rows["clicks"].to_numpy().astype(np.float64), rows["impressions"].to_numpy().astype(np.float64)
    level = (np.bincount(test, clicks) / np.bincount(test, shown))[test]
    mean = np.stack([np.bincount(test, column * shown) / np.bincount(test, shown) for column in phi.T], 1)
    # what a headline has beyond its text is no evidence about words: a package counts as far as that lets it
    curve = level * (1 - level)
    weight = shown / (1 + shown * curve * spread**2)
    prior = Posterior(np.zeros(phi.shape[1]), np.eye(phi.shape[1]) / 0.05**2)
    return updated(prior, phi - mean[test], clicks / shown, weight, logit(level))


def _features(rows: pl.DataFrame, words: Any) -> np.ndarray:
    """Return [n, d]: the folded words, scaled to unit spread, and the shape of the line."""
    lines = rows["headline"].to_list()
    shape = [
        [
            len(line.split()) / 10,
            len(line) / 60,
            "?" in line,
            "!" in line,
            '"' in line or "“" in line,
            bool(re.search(r"\d", line)),
            line.count(".") / 2,
            bool(re.match(r"(?i)(how|why|what|when|where|who)\b", line)),
            bool(re.search(r"(?i)\b(you|your|you're)\b", line)),
            bool(re.search(r"(?i)\b(he|she|his|her)\b", line)),
            bool(re.search(r"(?i)\b(this|these|here)\b", line)),
            "..." in line or "…" in line,
        ]
        for line in lines
    ]
    folded = encode_texts(rows["headline"].to_arrow().cast(pa.string()), words, words.vectors.shape[1])
    return np.hstack([folded * np.sqrt(folded.shape[1]), np.array(shape, np.float64)])


def _pairs(test: pl.DataFrame, score: np.ndarray) -> tuple[float, float, float, float]:
    """Return pairs, hits, pairs whose rates differ by two standard errors or more, and hits among those."""
    clicks, shown = test["clicks"].to_numpy(), test["impressions"].to_numpy()
    rate, level = clicks / shown, clicks.sum() / shown.sum()
    a, b = np.triu_indices(len(test), 1)
    apart = rate[a] - rate[b]
    kept = apart != 0
    a, b, apart = a[kept], b[kept], apart[kept]
    hit = (np.sign(score[a] - score[b]) == np.sign(apart)) + 0.5 * (score[a] == score[b])
    clear = np.abs(apart) >= 2 * np.sqrt(level * (1 - level) * (1 / shown[a] + 1 / shown[b]))
    return float(len(a)), float(hit.sum()), float(clear.sum()), float(hit[clear].sum())


def _plot(images: dict[str, Any], path: Path) -> None:
    """Draw the regret of every policy along the tests' traffic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    share = np.arange(1, PARTS + 1) / PARTS
    figure, axes = plt.subplots(figsize=(7, 4))
    for policy in POLICIES:
        found = images[policy]
        (line,) = axes.plot(share, found["regret_per_1000"], label=policy)
        axes.fill_between(share, found["regret_low"], found["regret_high"], color=line.get_color(), alpha=0.12)
    axes.set_xlabel("share of a test's traffic")
    axes.set_ylabel("clicks lost per 1,000 impressions of the test")
    axes.set_title(f"Upworthy, {images['tests']:,} tests of images")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _missed(figures: dict[str, Any]) -> list[str]:
    """Return what falls short of its goal."""
    missed, images, lines = [], figures["images"], figures["headlines"]
    if not images["Thompson"]["gain_low"] > 0:
        missed.append("Thompson sampling is not above uniform")
    if not lines["right_interval"][0] > 0.5:
        missed.append("the text model is not above chance")
    return missed


def _print(figures: dict[str, Any]) -> None:
    images, lines = figures["images"], figures["headlines"]
    print(f"\n{images['tests']} tests of images, {images['impressions']:,.0f} impressions, x {images['repeats']}")
    for policy in POLICIES:
        f = images[policy]
        print(
            f"  {policy:16}{f['clicks_per_1000']:7.3f} clicks per 1,000; over uniform {f['gain_over_uniform']:+.2%} "
            f"[{f['gain_low']:+.2%}, {f['gain_high']:+.2%}]; regret {f['regret_per_1000'][-1]:.3f} "
            f"[{f['regret_low'][-1]:.3f}, {f['regret_high'][-1]:.3f}]"
        )
    for name, (low, middle, high) in ((n, v) for n, v in images.items() if n.startswith("Thompson less")):
        print(f"  {name}: {middle:+.2%} [{low:+.2%}, {high:+.2%}]")
    for what, of in (("right", "pairs"), ("right_of_clear", "clear_pairs")):
        low, high = lines[f"{what}_interval"]
        print(f"  headlines, {lines['tests']} tests: {lines[what]:.3f} [{low:.3f}, {high:.3f}] of {lines[of]:,} {of}")
    print("\n" + ("; ".join(figures["missed"]) or "everything reached"))


if __name__ == "__main__":
    began = time.perf_counter()
    code = main(sys.argv[1:])
    print(f"{time.perf_counter() - began:.0f} s")
    sys.exit(code)
