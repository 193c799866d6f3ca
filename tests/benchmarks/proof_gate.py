"""Faults planted in bundles: does the gate find each by the rule that is meant for it, and let a sound one out?

    python tests/benchmarks/proof_gate.py home=var              # needs the demo's runs (playbill demo home=var)

The demo's bundle goes out first. Then bundles of the same runs come, each with one fault, and are held against it:
probabilities that are too high, an order upside down, chance instead of an order, and a policy that asks for ten times
the candidates. Last, simulated shops in which the order is turned upside down. One log draws items evenly, among people
who click often: the loss is found, and it is measured how short that log could have been. A log as long draws evenly
among people who hardly click, and could have missed even a bundle that is worth nothing; another hardly ever leaves its
favourites. Neither can say, and the gate refuses to judge by them.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record
from rich.console import Console
from rich.table import Table

from playbill.baselines.popularity import read_scores, write_scores
from playbill.bundle.open import open_bundle
from playbill.bundle.policy import Exploration, Policy, Surface, write_policy
from playbill.bundle.write import current
from playbill.cli import compose, main
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.errors import GateError
from playbill.features.settings import FeatureSettings
from playbill.measure.calibration import Calibrator
from playbill.measure.off_policy.estimators import Contributions, difference
from playbill.measure.off_policy.intervals import bootstrap_interval, told_loss
from playbill.measure.off_policy.rounds import read_rounds
from playbill.release import evaluate, gate, publish
from playbill.release.bundles import find_bundle, read_report
from playbill.release.gate import GateReport
from playbill.release.logged import logs_of, of_test
from playbill.release.rules import Verdict
from playbill.release.settings import EvaluateSettings
from playbill.release.value import contributions
from playbill.training.export import run as export

SOUND = Policy()
UPSIDE_DOWN = Policy(surfaces={"slate": Surface(weights={"interact": -1.0, "popularity": -1.0})})
CHANCE = Policy(surfaces={"slate": Surface(exploration=Exploration(epsilon=1.0, slots=20))})
# a hair of diversity changes no list to speak of, and is paid for all the same
GREEDY = Policy(surfaces={"slate": Surface(diversity=0.01, quotas=dict.fromkeys(("tower", "popularity"), 1700))})

LINE = ["value.reward_event=click", "value.within_h=0", "value.least_effective=50"]
TELLING, DRAWS = "worth less, even log", 200


def judged(home: Path, tables: str, *more: str, spoil: Callable[[Path], None] | None = None) -> GateReport:
    """Return the gate report of a bundle exported with these settings, evaluated beside the one in use.

    Args:
        spoil: what is done to its folder before it is evaluated.
    """
    path = export(compose("export", [f"home={home}", f"tables={tables}", *more]))
    if spoil is not None:
        spoil(path)
    evaluate.run(compose("evaluate", [f"home={home}", f"tables={tables}", *LINE]))
    with contextlib.suppress(GateError):
        gate.run(compose("gate", [f"home={home}"]))
    report = read_report(path, "gate", GateReport)
    assert report is not None
    return report


def policy_file(home: Path, name: str, policy: Policy) -> str:
    file = home / f"{name}.json"
    file.write_bytes(write_policy(policy))
    return f"policy_file={file}"


def on_films(home: Path, runs: Path) -> dict[str, GateReport]:
    """Return gate reports by fault, on the demo's runs."""
    (home / "runs").mkdir(parents=True)
    for name in ("tables", "cache"):
        if (runs.parent / name).is_dir():
            (home / name).symlink_to((runs.parent / name).absolute())
    for name in ("ml-100k-two_tower", "ml-100k-ranker"):
        shutil.copytree(runs / name, home / "runs" / name)
    found = {}
    found["none"] = judged(home, "ml-100k")
    if found["none"].passed:
        publish.run(compose("publish", [f"home={home}"]))
    for name, policy in (("order upside down", UPSIDE_DOWN), ("chance", CHANCE), ("ten times as many", GREEDY)):
        found[name] = judged(home, "ml-100k", policy_file(home, name, policy))
    # odds twice as high as they were found to be
    maps = home / "runs" / "ml-100k-ranker" / "calibration.json"
    fitted = msgspec.json.decode(maps.read_bytes(), type=dict[str, Calibrator])
    high = {task: msgspec.structs.replace(one, bias=one.bias + 0.7) for task, one in fitted.items()}
    maps.write_bytes(msgspec.json.encode(high))
    # another policy name, and so another version
    found["probabilities too high"] = judged(home, "ml-100k", policy_file(home, "high", Policy(name="high")))
    return found


def on_logs(home: Path, size: str) -> tuple[dict[str, GateReport], dict[str, Any]]:
    """Return gate reports of an order upside down, on several logs, and what the log that tells it could tell."""
    found, told = {}, {}
    counted = Policy(fallbacks=["popularity"])
    for name, log in (
        (TELLING, ["world=easy", "item.kind=uniform"]),
        ("worth less, few clicks", ["item.kind=uniform"]),
        ("worth less, narrow log", ["item.kind=epsilon_greedy", "item.epsilon=0.01"]),
    ):
        shop = home / name.replace(" ", "-").replace(",", "")
        if main(["generate", f"size={size}", f"home={shop}", "name=shop", *log]):
            raise SystemExit(f"the log {name} could not be written")
        # counts alone: no run was trained in this home
        judged(shop, "shop")
        publish.run(compose("publish", [f"home={shop}", "force=true", "reason=the bundle in use of this proof"]))
        found[name] = judged(shop, "shop", policy_file(shop, "worse", counted), spoil=turn_over)
        if name == TELLING:
            told = lengths(shop)
    return found, told


def lengths(shop: Path) -> dict[str, Any]:
    """Return how often the planted loss is found on shorter logs: people drawn from the one that was judged.

    Beside it stands the loss that such a log tells 9 times in 10 by its own reckoning, put to the test here.
    """
    question = compose("evaluate", [f"home={shop}", "tables=shop", *LINE]).value
    tables, most = shop / "tables" / "shop", EvaluateSettings().value_requests
    worse = open_bundle(find_bundle(shop / "bundles", "latest"), require_sealed=False)
    before = open_bundle(find_bundle(shop / "bundles", current(shop / "bundles") or ""))
    split, features = SplitSettings(), FeatureSettings()
    dataset = open_dataset(tables, features, split)
    rounds, context = of_test(read_rounds(tables, question), tables, dataset, most, 0)
    logs = logs_of([worse, before], rounds, context, tables, dataset)
    less = difference(*(contributions(log, question, 0) for log in logs))
    unit, rng = logs[0].unit, np.random.default_rng(0)
    assert unit is not None
    people = int(unit.max()) + 1
    rows = []
    for share in (0.02, 0.04, 0.08, 0.16, 0.32):
        failed, reckoned, decisions = [], [], []
        for draw in range(DRAWS):
            chosen = np.zeros(people, bool)
            chosen[rng.permutation(people)[: round(share * people)]] = True
            kept = np.flatnonzero(chosen[unit])
            _, own = np.unique(unit[kept], return_inverse=True)
            part = Contributions(less.name, less.numerator[kept], less.denominator[kept], less.sign)
            span = bootstrap_interval(part, own, resamples=500, seed=draw)
            failed.append(span.high < 0)
            reckoned.append(told_loss(span))
            decisions.append(len(kept))
        known = [loss for loss in reckoned if loss is not None]
        rows.append(
            {
                "people": round(share * people),
                "decisions": round(float(np.mean(decisions))),
                "found": float(np.mean(failed)),
                "tells_a_loss_of": float(np.mean(known)),
            }
        )
    return {"loss": -less.estimate(), "people": people, "decisions": len(unit), "draws": DRAWS, "shorter": rows}


def turn_over(bundle: Path) -> None:
    """Make the least popular items of a bundle of counts its most popular."""
    for name in ("popularity.npy", "trending.npy"):
        scores = read_scores(bundle / name)
        write_scores(bundle / name, scores.max() - scores)


# which rule must say what of which fault
MEANT = {
    "order upside down": ("not_worse_than_current", Verdict.FAILED),
    "chance": ("not_worse_than_current", Verdict.FAILED),
    "ten times as many": ("not_slower_than_current", Verdict.FAILED),
    "probabilities too high": ("probabilities_come_true", Verdict.FAILED),
    TELLING: ("not_worth_less_than_current", Verdict.FAILED),
    "worth less, few clicks": ("not_worth_less_than_current", Verdict.REFUSED),
    "worth less, narrow log": ("not_worth_less_than_current", Verdict.REFUSED),
}


def run(arguments: list[str]) -> int:
    """Measure, print and record; return 1 when a fault went through, or a sound bundle did not."""
    own = dict(a.split("=", 1) for a in arguments)
    where = Path(own.get("home", "var"))
    home = where / "proof-gate"
    started = machine()
    shutil.rmtree(home, ignore_errors=True)
    found = on_films(home / "films", where / "runs")
    on_shops, shorter = on_logs(home / "shops", own.get("size", "small"))
    found |= on_shops
    figures: dict[str, Any] = {"shorter_logs": shorter}
    grid = Table("fault", "rule", "must say", "says", "found", title="planted faults")
    missed = [] if found["none"].passed else ["none"]
    for fault, report in found.items():
        rules = {rule.name: rule for rule in report.rules}
        figures[fault] = {"passed": report.passed, **{n: [r.verdict.value, r.found] for n, r in rules.items()}}
        if fault in MEANT:
            name, verdict = MEANT[fault]
            grid.add_row(fault, name, verdict.value, rules[name].verdict.value, rules[name].found)
            missed += [] if rules[name].verdict is verdict else [fault]
        else:
            failed = ", ".join(n for n, r in rules.items() if r.verdict is Verdict.FAILED)
            grid.add_row(fault, "all", "passed", "passed" if report.passed else "failed", failed)
    Console(width=160).print(grid)
    short = Table(
        "people", "decisions", "found", "tells a loss of", title=f"a loss of {shorter['loss']:.4f}, shorter logs"
    )
    for row in shorter["shorter"]:
        short.add_row(*(f"{value:.4g}" for value in row.values()))
    Console(width=160).print(short)
    record("gate", figures, started)
    print(f"missed: {', '.join(missed)}" if missed else "every planted fault was found, and the sound bundle went out")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
