"""Faults planted in bundles: does the gate find each by the rule that is meant for it, and let a sound one out?

    python tests/benchmarks/proof_gate.py home=var              # needs the demo's runs (playbill demo home=var)

The demo's bundle goes out first. Then bundles of the same runs come, each with one fault, and are held against it:
probabilities that are too high, an order upside down, chance instead of an order, and a policy that asks for ten times
the candidates. Last, two shops of one simulated world: in the one whose log draws items evenly, an order upside down is
worth less than the one in use, and the log says so; in the one whose log hardly ever leaves its favourites, it cannot
say, and the gate refuses to judge by it.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record
from rich.console import Console
from rich.table import Table

from playbill.baselines.popularity import read_scores, write_scores
from playbill.bundle.policy import Exploration, Policy, Surface, write_policy
from playbill.cli import compose, main
from playbill.errors import GateError
from playbill.measure.calibration import Calibrator
from playbill.release import evaluate, gate, publish
from playbill.release.bundles import read_report
from playbill.release.gate import GateReport
from playbill.release.rules import Verdict
from playbill.training.export import run as export

SOUND = Policy()
UPSIDE_DOWN = Policy(surfaces={"slate": Surface(weights={"interact": -1.0, "popularity": -1.0})})
CHANCE = Policy(surfaces={"slate": Surface(exploration=Exploration(epsilon=1.0, slots=20))})
# a hair of diversity changes no list to speak of, and is paid for all the same
GREEDY = Policy(surfaces={"slate": Surface(diversity=0.01, quotas=dict.fromkeys(("tower", "popularity"), 1700))})


def judged(home: Path, tables: str, *more: str, spoil: Callable[[Path], None] | None = None) -> GateReport:
    """Return the gate report of a bundle exported with these settings, evaluated beside the one in use.

    Args:
        spoil: what is done to its folder before it is evaluated.
    """
    path = export(compose("export", [f"home={home}", f"tables={tables}", *more]))
    if spoil is not None:
        spoil(path)
    line = ["value.reward_event=click", "value.within_h=0", "value.least_effective=50"]
    evaluate.run(compose("evaluate", [f"home={home}", f"tables={tables}", *line]))
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


def on_logs(home: Path, size: str) -> dict[str, GateReport]:
    """Return gate reports of an order upside down, on two logs."""
    found = {}
    counted = Policy(fallbacks=["popularity"])
    for name, log in (
        ("worth less, even log", ["item.kind=uniform"]),
        ("worth less, narrow log", ["item.kind=epsilon_greedy", "item.epsilon=0.01"]),
    ):
        shop = home / name.replace(" ", "-").replace(",", "")
        if main(["generate", f"size={size}", f"home={shop}", "name=shop", *log]):
            raise SystemExit(f"the log {name} could not be written")
        # counts alone: no run was trained in this home
        judged(shop, "shop")
        publish.run(compose("publish", [f"home={shop}", "force=true", "reason=the bundle in use of this proof"]))
        found[name] = judged(shop, "shop", policy_file(shop, "worse", counted), spoil=turn_over)
    return found


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
    "worth less, even log": ("not_worth_less_than_current", Verdict.FAILED),
    "worth less, narrow log": ("not_worth_less_than_current", Verdict.REFUSED),
}


def run(arguments: list[str]) -> int:
    """Measure, print and record; return 1 when a fault went through, or a sound bundle did not."""
    own = dict(a.split("=", 1) for a in arguments)
    where = Path(own.get("home", "var"))
    home = where / "proof-gate"
    started = machine()
    shutil.rmtree(home, ignore_errors=True)
    found = on_films(home / "films", where / "runs") | on_logs(home / "shops", own.get("size", "small"))
    figures: dict[str, Any] = {}
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
    record("gate", figures, started)
    print(f"missed: {', '.join(missed)}" if missed else "every planted fault was found, and the sound bundle went out")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
