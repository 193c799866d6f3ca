"""Other objectives on one bundle, nothing trained again: do held-out results and the truth move their way?

    python tests/benchmarks/proof_objectives.py [home=var] [worlds=hard,fitted] [asked=3000]
        [size.people=40000 ...] [model.max_epochs=5 ...]    further words for `generate`, and for `train model=ranker`

One ranker of four tasks (`many_tasks.py`): click; finish, a click whose play reaches 60 %; drawn_7, a click and then
within a week a visit that what was played drew back; visit_7, a click and then any visit within a week. The bundle's
policy alone is changed, from clicks to each of the others in four steps, both measured in units of what they usually
are. For each step three answers:

- truth: what the engine's slates are worth to people with an account, by the world's own formulas;
- shown: of every slate of the test part, the item that the objective would have put first, and what came of it;
- lists: NDCG@20 of the engine's lists against what people went on to do (`release/objectives.py`).

The world's visits do not hang on what is shown: all items of a person have the same chance of visit_7 after a click,
and its objective must leave truth and lists as they are. The job fails where it moves them, and where another objective
does not move the truth and what was shown its way, monotonely, intervals of 95 % apart from 0.

Beside it, of each task over the test part's impressions: observed over expected in every tenth with enough events.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from many_tasks import Made, make, true_values
from objectives_plot import plot
from record import RESULTS, machine, record

from playbill.dataset.judging import Judged
from playbill.engine.rank import PREFIX
from playbill.measure.bootstrap import Interval, intervals
from playbill.measure.calibration import calibration
from playbill.release.calibrating import judged_by, tasks_of
from playbill.release.objectives import Sweep, measure_objectives, objective_lists
from playbill.release.protocol import Asked, ask
from playbill.release.roads import fill
from playbill.state.store import Store

LENGTH, SLATES, SEED = 20, 100_000, 0
UNMOVED = "visit_7"


def people_with_account(made: Made, most: int) -> Asked:
    """Return the people of the test part who have an account, some of them where there are more than `most`."""
    asked = ask(made.dataset, "test")
    ids = made.dataset.people.user_ids
    there = np.flatnonzero([ids[int(p)] is not None for p in asked.person])
    some = np.sort(np.random.default_rng(SEED).permutation(there)[:most])
    return replace(asked, rows=asked.rows[some], targets=asked.targets.take(some), known=asked.known[some])


def by_truth(made: Made, asked: Asked, sweep: Sweep, places: int) -> list[dict[str, np.ndarray]]:
    """Return for each step the expected clicks, finishes and visits drawn back of everybody's slate."""
    row = np.asarray([made.dataset.people.user_ids[int(p)] for p in asked.person]) - 1
    found = []
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "state") as store:
        fill(store, made.tables, made.dataset, asked)
        for point in sweep.points:
            lists, _ = objective_lists(made.bundle, store, made.dataset, asked, LENGTH, point.weights)
            found.append(true_values(made, row, lists[:, :places]))
    return found


def by_shown(made: Made, judged: Judged, sweep: Sweep) -> list[dict[str, np.ndarray]]:
    """Return for each step, by person, what came of the items that the objective puts first of their slates.

    A person's are the mean over their slates of which both tasks are known.
    """
    names = [task.name for task in tasks_of(made.bundle)]
    columns = [names.index(name) for name in (sweep.first, sweep.other)]
    known = judged.known[:, columns].min(1) > 0
    whole = np.bincount(judged.row, ~known) == 0  # slates
    rows = np.flatnonzero(whole[judged.row])
    slate, person = judged.row[rows], judged.person[rows]
    steps = []
    for point in sweep.points:
        score = sum(w * judged.answers[PREFIX + name][rows] for name, w in point.weights.items())
        order = np.lexsort((-np.asarray(score), slate))
        first = order[np.flatnonzero(np.diff(slate[order], prepend=-1))]
        _, owner = np.unique(person[first], return_inverse=True)
        count = np.bincount(owner)
        came = judged.label[rows[first]][:, columns]
        means = {n: np.bincount(owner, came[:, i]) / count for i, n in enumerate((sweep.first, sweep.other))}
        steps.append(means)
    return steps


def gains(steps: list[dict[str, np.ndarray]]) -> dict[str, list[Interval]]:
    """Return by task what each step has more than the first, paired over people."""
    columns = {f"{name}/{n}": step[name] - steps[0][name] for n, step in enumerate(steps) for name in step}
    found = intervals(columns)
    return {name: [found[f"{name}/{n}"] for n in range(len(steps))] for name in steps[0]}


def moved(gain: dict[str, list[Interval]], first: str, other: str) -> bool:
    """Return whether the other task rises and the first falls at every step, and at the last beyond their intervals."""
    up, down = ([i.value for i in gain[name]] for name in (other, first))
    rising = all(a < b for a, b in zip(up, up[1:], strict=False))
    falling = all(a > b for a, b in zip(down, down[1:], strict=False))
    return rising and falling and gain[other][-1].low > 0 and gain[first][-1].high < 0


def sweep_figures(made: Made, asked: Asked, judged: Judged, sweep: Sweep) -> dict[str, Any]:
    """Return all that is said of one sweep, and whether it went its way."""
    truth = by_truth(made, asked, sweep, made.world.size.slate_length)
    shown = by_shown(made, judged, sweep)
    of_truth, of_shown = gains(truth), gains(shown)
    values = {name: [round(float(step[name].mean()), 5) for step in truth] for name in truth[0]}
    figures: dict[str, Any] = {
        "weights": [point.weights for point in sweep.points],
        "truth": {name: {"value": values[name], "gain": spans(gain)} for name, gain in of_truth.items()},
        "shown": {
            "people": len(shown[0][sweep.first]),
            **{
                name: {"value": [round(float(step[name].mean()), 5) for step in shown], "gain": spans(gain)}
                for name, gain in of_shown.items()
            },
        },
        "lists": {
            "people": sweep.people,
            sweep.first: {
                "value": [round(p.first.value, 5) for p in sweep.points],
                "gain": spans([p.first_gain for p in sweep.points]),
            },
            sweep.other: {
                "value": [round(p.other.value, 5) for p in sweep.points],
                "gain": spans([p.other_gain for p in sweep.points]),
            },
        },
    }
    if sweep.other == UNMOVED:
        figures["as_it_must"] = all(abs(i.value) < 0.01 * values[n][0] for n, gain in of_truth.items() for i in gain)
    else:
        figures["as_it_must"] = all(moved(gain, sweep.first, sweep.other) for gain in (of_truth, of_shown))
    return figures


def spans(gain: list[Interval]) -> list[list[float]]:
    return [[round(x, 5) for x in (i.value, i.low, i.high)] for i in gain]


def calibrations(made: Made, judged: Judged) -> dict[str, Any]:
    """Return each task's observed over expected, with intervals over people, in every tenth with enough events."""
    found: dict[str, Any] = {}
    for t, task in enumerate(tasks_of(made.bundle)):
        known = judged.known[:, t] > 0
        p = np.clip(judged.answers[PREFIX + task.name][known].astype(np.float64), 0, 1)
        told = calibration(p, judged.label[known, t], judged.person[known], resamples=500, seed=SEED)
        tenths = [x.ratio for x in told.tenths if x.enough and x.ratio is not None]
        found[task.name] = {
            "rows": told.rows,
            "events": told.events,
            "observed_over_expected": spans([told.ratio]) if told.ratio is not None else [],
            "tenths_with_enough_events": spans(tenths),
            "within_a_tenth": sum(0.9 <= ratio.value <= 1.1 for ratio in tenths),
            "error": spans([told.error])[0],
            "error_by_chance": round(told.error_by_chance, 5),
        }
        print(f"calibration of {task.name}: {found[task.name]}", flush=True)
    return found


def run(arguments: list[str]) -> int:
    """Make, sweep, print and record; return 1 when an objective does not move what it must, or moves what it cannot."""
    given = dict(a.split("=", 1) for a in arguments)
    started, missed = machine(), []
    figures: dict[str, dict[str, Any]] = {}
    for name in given.get("worlds", "hard,fitted").split(","):
        made = make(Path(given.get("home", "var")), name, arguments)
        asked = people_with_account(made, int(given.get("asked", 3000)))
        outputs = [PREFIX + task.name for task in tasks_of(made.bundle)]
        judged = judged_by(made.bundle, made.tables, made.dataset, "test", outputs, SLATES)
        report = measure_objectives(
            made.bundle, made.tables, made.dataset, asked, k=LENGTH, resamples=2000, seed=SEED, level=0.95
        )
        figures[name] = {
            "people": len(asked),
            "impressions_of_the_test_part": len(judged.person),
            "calibration": calibrations(made, judged),
            "sweeps": {},
        }
        for sweep in report.sweeps:
            found = sweep_figures(made, asked, judged, sweep)
            figures[name]["sweeps"][sweep.other] = found
            missed += [] if found["as_it_must"] else [f"{name}: {sweep.other}"]
            for kind in ("truth", "shown", "lists"):
                for task in (sweep.first, sweep.other):
                    if task in found[kind]:
                        one = found[kind][task]
                        value, low, high = one["gain"][-1]
                        print(f"{name}, {sweep.other} for {sweep.first}, {kind}: {task} {one['value']}", end=" ")
                        print(f"{value:+.4f} [{low:+.4f} {high:+.4f}]")
    plot(figures, RESULTS / "objectives.png")
    print(record("objectives", figures, started))
    print(
        f"not as it must be: {', '.join(missed)}" if missed else "every objective moved what it must, and nothing else"
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
