"""What choosing creatives costs: quadrature beside simulation, and the engine's step beside the bare run of its head.

    python tests/benchmarks/bench_creatives.py [home=var bundle=current] [people=300] [rounds=5]

Always: probabilities of Thompson sampling for 20 items with 4 creatives, by quadrature and by 1,000 simulated draws,
and how far each is from the integral on a fine grid. With a home whose bundle carries creative heads: milliseconds of
the step `creative` of one request of 20 items, of the head alone on the same arrays, and of recording the choices.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.special import ndtr

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.bundle.open import open_bundle
from playbill.creative.quadrature import chance_of_best
from playbill.engine.engine import Engine
from playbill.engine.runtime import Model
from playbill.engine.types import Request
from playbill.serving.load import bundle_path
from playbill.state.store import Store

ITEMS, CREATIVES, DRAWS = 20, 4, 1_000


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    started = machine()
    figures = probabilities()
    if "home" in given:
        figures |= step(
            Path(given["home"]), given.get("bundle", "current"), int(given.get("people", 300)),
            int(given.get("rounds", 5)),
        )  # fmt: skip
    for name, value in figures.items():
        print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")
    print(f"written to {record('choosing', figures, started)}")
    return 0


def probabilities() -> dict[str, Any]:
    """Return times in milliseconds and errors of both ways."""
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(0, 0.5, (ITEMS, CREATIVES)), rng.uniform(0.2, 1, (ITEMS, CREATIVES))
    there = np.ones(mean.shape, bool)

    def simulated() -> np.ndarray:
        best = (rng.standard_normal((DRAWS, *mean.shape)) * sd + mean).argmax(-1)
        found: np.ndarray = (best[..., None] == np.arange(CREATIVES)).mean(0)
        return found

    exact = _on_a_grid(mean, sd)
    return {
        "quadrature_ms": _least_ms(lambda: chance_of_best(mean, sd, there)),
        "simulation_ms": _least_ms(simulated),
        "quadrature_error": float(np.abs(chance_of_best(mean, sd, there) - exact).max()),
        "simulation_error": float(np.abs(simulated() - exact).max()),
    }


def step(home: Path, version: str, people: int, rounds: int) -> dict[str, Any]:
    """Return milliseconds of the engine's step, of its head and of recording, medians over people of their best round.

    The state is a copy, since choices are recorded.
    """
    bundle = open_bundle(bundle_path(home, version))
    with TemporaryDirectory(dir=home) as scratch:
        copytree(home / "state", Path(scratch) / "state")
        with Store.open(Path(scratch) / "state") as store:
            engine = Engine.open(bundle, store)
            head = engine.parts.creative_head
            if head is None:
                raise SystemExit(f"bundle {bundle.version} has no creative head: {engine.parts.missing}")
            step = engine.creative_step
            assert step is not None
            step.head = timed = _Timed(head)  # type: ignore[assignment]  # it is a Model in all that is asked of it
            whole, alone, recorded = (np.full((rounds, people), np.inf) for _ in range(3))
            requests = [Request(user_id=None, session_id=n, request_id=f"n{n}", k=ITEMS) for n in range(people)]
            for turn in range(rounds):
                for n, request in enumerate(requests):
                    request.request_id = f"{turn}-{n}"
                    request.session_id = f"{turn}-{n}"
                    _, decisions = engine.decide([request])
                    whole[turn, n], alone[turn, n] = engine.stage_ms["creative"], timed.last_ms
                    began = time.perf_counter()
                    store.record(decisions)
                    recorded[turn, n] = (time.perf_counter() - began) * 1e3
    best = [float(np.median(found.min(0))) for found in (whole, alone, recorded)]
    return {
        "bundle": bundle.version,
        "creatives": len(bundle.creatives.columns["creative_id"]) if bundle.creatives is not None else 0,
        "step_ms": best[0],
        "head_ms": best[1],
        "step_without_head_ms": best[0] - best[1],
        "record_ms": best[2],
    }


class _Timed:
    """A graph that says how long it took last."""

    def __init__(self, head: Model) -> None:
        self._head, self.inputs, self.outputs, self.last_ms = head, head.inputs, head.outputs, 0.0

    def run(self, arrays: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
        began = time.perf_counter()
        answers = self._head.run(arrays, outputs)
        self.last_ms = (time.perf_counter() - began) * 1e3
        return answers


def _on_a_grid(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return the probabilities by 4,001 points of the integral."""
    at = np.linspace(-9, 9, 4_001)
    weight = np.exp(-(at**2) / 2)
    drawn = mean[..., :, None, None] + sd[..., :, None, None] * at
    below = ndtr((drawn - mean[..., None, :, None]) / sd[..., None, :, None])
    others = ~np.eye(mean.shape[-1], dtype=bool)
    found: np.ndarray = np.where(others[..., None], below, 1.0).prod(-2) @ (weight / weight.sum())
    return found


def _least_ms(work: Callable[[], object], times: int = 300) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return float(np.min(spent)) * 1e3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
