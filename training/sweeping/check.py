"""Command lines of trials, held against `playbill train`'s own settings before any of them runs.

The command line is asked in a process of its own, `playbill train --check`: it alone composes configurations.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from playbill.errors import ConfigError
from playbill.fields import as_argument
from playbill.training.sweeping.settings import SweepSettings
from playbill.training.sweeping.space import Dimension, flatten

# fields that a sweep gives each trial; the same for all, or a dimension, they would undo each other
_OURS = ("home", "run", "force")


def arguments_of(settings: SweepSettings, values: Mapping[str, Any], run: str) -> list[str]:
    """Return what `playbill train` is given for one point of the space."""
    given = {"tables": settings.tables, "model": settings.model, "threads": settings.threads}
    given |= flatten(settings.job) | dict(values)
    # a choice comes first: fields below it are those of the chosen
    order = sorted(given, key=lambda key: "." in key)
    return [as_argument("home", settings.home), as_argument("run", run), *(as_argument(k, given[k]) for k in order)]


def check_space(settings: SweepSettings, dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """Return the settings of the first point, composed, after every value and both ends of every range were tried.

    Each dimension is tried with the others at their first value; where a choice is between models, its other fields
    with each of them.

    Raises:
        ConfigError: an empty space, a dimension that is no field (the nearest is named), or a value that the field
            refuses.
    """
    if not dimensions:
        raise ConfigError(
            "space is empty: nothing would differ between trials; give it fields of `playbill train`, as in "
            "'space={model.dim: {choice: [32, 64]}, model.learning_rate: {log_uniform: [1e-4, 1e-2]}}'"
        )
    for key in [*(d.key for d in dimensions), *flatten(settings.job)]:
        if key in _OURS:
            raise ConfigError(f"{key} is given to each trial by the sweep itself; leave it out of space and job")
    both = [d.key for d in dimensions if d.key in flatten(settings.job)]
    if both:
        raise ConfigError(f"{both[0]} stands in space and in job; leave it out of one of them")
    first = {d.key: d.values[0] for d in dimensions}
    # the fixed ones alone: what is wrong with them is not said of a dimension
    points = [({}, ""), *((first | {d.key: v}, d.key) for d in dimensions for v in d.edges())]
    answers = compose_all([arguments_of(settings, values, "checked") for values, _ in points])
    alone, *others = zip(points, answers, strict=True)
    _refuse(alone[1], "job")
    # one that names a field which is not there first: it spoils the points of all others
    for missing in (True, False):
        for (values, key), answer in others:
            if answer["error"] and (f"no field {key!r}" in answer["error"]) == missing:
                _refuse(answer, f"space.{key}={values[key]!r}")
    return dict(others[0][1]["settings"])


def compose_all(command_lines: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return for each list of arguments what `playbill train` makes of it: `settings`, or `error` with the reason."""
    lines = b"".join(msgspec.json.encode(list(line)) + b"\n" for line in command_lines)
    command = [sys.executable, "-m", "playbill.cli", "train", "--check"]
    done = subprocess.run(command, input=lines, capture_output=True)
    if done.returncode:
        raise ConfigError(f"playbill train --check: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return [msgspec.json.decode(line) for line in done.stdout.splitlines()]


def metrics_of(train: Mapping[str, Any]) -> list[str]:
    """Return the names of the validation metrics of a training with these settings."""
    return [f"{m}_at_{k}" for k in sorted({int(train["metric_k"]), 100}) for m in ("ndcg", "recall", "hit_rate")]


def _refuse(answer: Mapping[str, Any], where: str) -> None:
    if answer["error"]:
        raise ConfigError(f"{where}: {answer['error']}")
