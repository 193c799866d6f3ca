"""The panels, declared once: the page draws them from files, the workspace from what was tracked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from playbill.training.dashboards.found import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        kind: `lines` (figures of a training over its steps), `bars` (figures of bundles) or `parallel` (a sweep).
        keys: names as they are tracked. Of lines: columns of metrics.csv, `system/` and a column of system.csv. Of
            bars: `<report>/<headline>`. Of parallel: `config:<field>` for each dimension, then `summary:<figure>`.
        log: those of `keys` that stand on a logarithmic axis.
        sweep: of parallel, which sweep.
    """

    kind: str
    title: str
    keys: tuple[str, ...]
    log: tuple[str, ...] = ()
    sweep: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Panels under one title."""

    name: str
    panels: list[Panel] = field(default_factory=list)


TRAININGS = Section(
    name="Trainings",
    panels=[
        Panel(kind="lines", title="Loss", keys=("loss",)),
        Panel(kind="lines", title="Validation NDCG at 10", keys=("ndcg_at_10",)),
        Panel(kind="lines", title="Validation recall at 10", keys=("recall_at_10",)),
        Panel(kind="lines", title="Validation recall at 100", keys=("recall_at_100",)),
        Panel(kind="lines", title="Learning rate", keys=("learning_rate",)),
    ],
)

SYSTEM = Section(
    name="System use",
    panels=[
        Panel(kind="lines", title="Rows a second", keys=("system/samples_per_second",)),
        Panel(kind="lines", title="Cores in use", keys=("system/cores",)),
        Panel(kind="lines", title="Memory, MiB", keys=("system/memory_mib",)),
    ],
)

BUNDLES = Section(
    name="Bundles",
    panels=[
        Panel(kind="bars", title="NDCG at 20, everybody, whole road", keys=("evaluation/served/all/ndcg_at_20",)),
        Panel(kind="bars", title="Recall at 20, everybody, whole road", keys=("evaluation/served/all/recall_at_20",)),
        Panel(kind="bars", title="NDCG at 20, people without a history", keys=("evaluation/served/new/ndcg_at_20",)),
        Panel(kind="bars", title="NDCG at 20 of popularity", keys=("evaluation/popularity/all/ndcg_at_20",)),
        Panel(kind="bars", title="Gate passed", keys=("gate/passed",)),
        Panel(kind="bars", title="Rules that failed", keys=("gate/failed",)),
    ],
)


def panels(found: Found) -> list[Section]:
    """Return all sections; sweeps have one panel each, over the dimensions that they vary."""
    return [TRAININGS, SYSTEM, Section(name="Sweeps", panels=list(_sweeps(found))), BUNDLES]


def spec(sections: Sequence[Section], name: str) -> dict[str, Any]:
    """Return the panels as plain values, for `tracking.workspace_model`."""
    return {"name": name, "sections": [asdict(section) for section in sections]}


def _sweeps(found: Found) -> list[Panel]:
    made = []
    for journal, _ in found.sweeps:
        space = journal.asked["space"]
        keys = [f"config:{key}" for key in space]
        log = [f"config:{key}" for key, kind in space.items() if next(iter(kind)).startswith("log_")]
        made.append(
            Panel(
                kind="parallel",
                title=f"Sweep {journal.name}: {journal.metric}",
                keys=(*keys, "summary:best"),
                log=tuple(log),
                sweep=journal.name,
            )
        )
    return made
