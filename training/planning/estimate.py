"""`playbill doctor estimate=...`: the memory of a training on hardware that need not be there, and where tables lie."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table as Grid

from playbill.errors import ConfigError, TrainingError
from playbill.features.build import build_features
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, EventCode, FeatureSpec, Field, Side
from playbill.tables.folder import read_folder
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, tables_of
from playbill.training.plan_tables import print_plan
from playbill.training.planning.estimate_settings import Estimate, EstimateTowers
from playbill.training.planning.planner import GB, Table, TablePlan, plan_tables
from playbill.training.planning.steps import Step, ranker_step, tower_step
from playbill.training.settings import Tables

_FLOAT = 4
_EVENT_BYTES = 44  # of a log in memory: item, code, moment, person, place in the table; and a value of 4 bytes


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """GB (2^30 bytes) of the fullest GPU, one way of keeping tables.

    Attributes:
        tables: with gradients and the optimizer's state; where TorchRec places them, with its buffers of a step too.
        weights, optimizer: of the networks, and their gradients with Adam's two moments.
        activations: what a step keeps for its backward pass, at most.
    """

    tables: float
    weights: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return self.tables + self.weights + self.optimizer + self.activations


def run(settings: Estimate, home: str) -> int:
    """Print the estimate; return 0, or 1 where the model as it is set does not fit.

    Raises:
        ConfigError: neither tables nor a number of items is named.
        TableError: the tables are not there.
        FeatureError: a named column does not exist or does not fit.
    """
    if settings.tables is None and not settings.items:
        raise ConfigError(
            "nothing to estimate: name tables (estimate.tables=ml-100k), or say how many items there are "
            "(estimate.items=1000000)"
        )
    spec, events, rows = _data(settings, Path(home))
    towers = isinstance(settings, EstimateTowers)
    model = settings.model  # type: ignore[attr-defined]  # both kinds have one, of different types
    step = (tower_step if towers else ranker_step)(spec, model, settings.cluster.gpus)
    tables = _tables(spec, model.dim, model.field_dim, step, rows)
    plan, refused = None, ""
    try:
        plan = plan_tables(tables, settings.cluster, step.rows, settings.host_memory)
    except TrainingError as error:
        refused = str(error)
    whole = sum(t.rows * t.width for t in tables)
    found = {Tables.dense: _memory(step, 4 * whole * _FLOAT / GB)}  # weight, gradient, two moments
    if plan is not None:
        found[Tables.fused] = _memory(step, max(load.hbm_gb for load in plan.ranks))
    _print(settings, spec, step, found, plan, refused, events)
    mine = found.get(model.tables)
    return int(mine is None or mine.total > settings.cluster.hbm_gb)


def _memory(step: Step, tables_gb: float) -> Memory:
    weights = step.weights * _FLOAT / GB
    return Memory(tables=tables_gb, weights=weights, optimizer=3 * weights, activations=step.kept_bytes / GB)


def _data(settings: Estimate, home: Path) -> tuple[FeatureSpec, int, int]:
    """Return the spec, the events of the log, and the rows of the item table."""
    if settings.tables is not None:
        path = home / "tables" / settings.tables
        spec, _ = build_features(path, settings.features)
        events, rows = settings.events or read_folder(path).rows["events"], spec.num_item_rows
        if settings.items and settings.items != spec.num_items:
            spec = msgspec.structs.replace(spec, num_items=settings.items, item_table=msgspec.UNSET)
            rows = _item_rows(settings.items, settings.features)
        return spec, events, rows
    columns = []
    for name, values in settings.fields.items():
        side, _, column = name.partition("_")
        columns.append(Field(name=column, side=Side(side), encoding=Encoding.CATEGORY, size=values + 1))
    spec = FeatureSpec(
        user_id_type="int64",
        item_id_type="int64",
        history_length=settings.features.history_length,
        events=[EventCode(name="event", code=1)],
        fields=columns,
        num_items=settings.items,
        vocabularies={},
    )
    return spec, settings.events, _item_rows(settings.items, settings.features)


def _item_rows(items: int, features: FeatureSettings) -> int:
    """Return the rows of the item table of a catalogue that is not there."""
    own = min(items, features.max_item_rows or items)
    return 1 + own + (features.item_buckets if own < items else 0)


def _tables(spec: FeatureSpec, dim: int, field_dim: int, step: Step, item_rows: int) -> list[Table]:
    """Return the tables of a model; the planner counts look-ups for each learned row."""
    found = [Table("item", item_rows, dim, step.ids / step.rows)]
    for sides, looked_up in ((QUERY_SIDES, step.queries), (ITEM_SIDES, step.items)):
        for f in tables_of(spec, sides):
            found.append(Table(f.array, f.size, field_dim, max(f.width, 1) * looked_up / step.rows, pooled=True))
    return found


def _print(
    settings: Estimate,
    spec: FeatureSpec,
    step: Step,
    found: dict[Tables, Memory],
    plan: TablePlan | None,
    refused: str,
    events: int,
) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
    cluster, chosen = settings.cluster, settings.model.tables  # type: ignore[attr-defined]  # as in `run`
    kind = "two towers" if isinstance(settings, EstimateTowers) else "ranker"
    source = f"the tables {settings.tables}" if settings.tables is not None else "declared data"
    console.print(
        f"{kind} of {source}: {spec.num_items:,} items, histories of {spec.history_length} events, {step.weights:,} "
        f"weights in the networks; {step.rows:,} {'events' if kind == 'two towers' else 'candidates'} a GPU in a step"
    )
    grid = Grid(f"GB on the fullest of {cluster.gpus} GPUs", *(f"tables={kind.value}" for kind in found))
    lines = {
        "tables, their gradients and optimizer": "tables",
        "weights of the networks": "weights",
        "their gradients and optimizer": "optimizer",
        "activations of a step, at most": "activations",
        "together": "total",
    }
    for title, name in lines.items():
        grid.add_row(title, *(f"{getattr(memory, name):,.3f}" for memory in found.values()))
    console.print(grid)
    memory = found.get(chosen)
    fits = memory is not None and memory.total <= cluster.hbm_gb
    need = f"{memory.total:,.3f} GB" if memory is not None else "more than there is"
    console.print(
        f"As set, tables={chosen.value}: {need} of {cluster.hbm_gb:g} GB: {'fits' if fits else 'does not fit'}. CUDA "
        "itself takes about half a GB more. Counted, not run: no GPU is asked."
    )
    if events:
        people = f" of {settings.people:,} people" if settings.people else ""
        size = (events * _EVENT_BYTES + settings.people * 8) / GB
        console.print(f"The log, {events:,} events{people}: {size:,.3f} GB in each process's memory, less from files.")
    console.print("tables=fused, as TorchRec would place them:" if plan is not None else f"tables=fused: {refused}")
    if plan is not None:
        print_plan(console, plan, cluster, step.rows)
