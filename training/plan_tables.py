"""The job `plan-tables`: where TorchRec would put embedding tables on a declared cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table as Grid

from playbill.errors import ConfigError, TrainingError
from playbill.features.build import read_features
from playbill.tables.files import write_atomic
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, tables_of
from playbill.training.planning.settings import Cluster, PlanTablesSettings
from playbill.training.runs import read_record

if TYPE_CHECKING:
    from playbill.training.planning.planner import TablePlan


def run(settings: PlanTablesSettings) -> int:
    """Print the plan; return 0.

    Raises:
        TrainingError: the tables do not fit, or the run is not there.
        ConfigError: no table is named, or one that the run does not have.
    """
    from playbill.training.planning.planner import Table, plan_tables

    if settings.run is None and not settings.rows:
        raise ConfigError("nothing to plan: name a run (run=ml-100k-two_tower) or a table (rows.item=1000000000)")
    tables = [Table(*row) for row in _tables(settings)]
    plan = plan_tables(tables, settings.cluster, settings.batch_per_gpu, settings.host_memory)
    print_plan(Console(width=None if sys.stdout.isatty() else 140), plan, settings.cluster, settings.batch_per_gpu)
    if settings.out is not None:
        declared = {"settings": settings, "plan": plan}
        write_atomic(Path(settings.out), msgspec.json.format(msgspec.json.encode(declared), indent=1) + b"\n")
    return 0


def _tables(settings: PlanTablesSettings) -> list[tuple[str, int, int, float, bool]]:
    """Return (name, rows, width, ids an example looks up, whether they are pooled) of each table."""
    known: dict[str, tuple[int, int, float, bool]] = {}
    if settings.run is not None:
        path = Path(settings.home) / "runs" / settings.run
        if read_record(path) is None:
            raise TrainingError(f"no training run in {path}; run `playbill train`, or declare tables with rows.<name>=")
        spec, _ = read_features(path)
        model: dict[str, Any] = msgspec.json.decode((path / "config.json").read_bytes())["model"]
        # a ranker looks up its negatives beside the target
        items = 1.0 + model.get("uniform_negatives", 0) + model.get("hard_negatives", 0)
        known["item"] = (spec.num_item_rows, model["dim"], spec.history_length + items, False)
        for f in tables_of(spec, (*QUERY_SIDES, *ITEM_SIDES)):
            known[f.array] = (f.size, model["field_dim"], float(max(f.width, 1)), True)
    else:
        known = {name: (rows, settings.width, 1.0, False) for name, rows in settings.rows.items()}
    for name in (*settings.rows, *settings.widths, *settings.ids_per_example):
        if name not in known:
            raise ConfigError(f"the run {settings.run} has no table {name!r}; it has: {', '.join(known)}")
    rows, widths, ids = settings.rows, settings.widths, settings.ids_per_example
    return [
        (name, rows.get(name, was[0]), widths.get(name, was[1]), ids.get(name, was[2]), was[3])
        for name, was in known.items()
    ]


def print_plan(console: Console, plan: TablePlan, cluster: Cluster, batch_per_gpu: int) -> None:
    """Print where tables lie, and what each GPU holds."""
    console.print(
        f"{cluster.hosts} host(s) of {cluster.gpus_per_host} GPUs with {cluster.hbm_gb:g} GB each, "
        f"{plan.hbm_free_gb:g} GB of it for tables; {batch_per_gpu:,} examples a GPU in a step. Declared, not "
        "there: times are the planner's estimates."
    )
    grid = Grid("table", "rows", "width", "sharding", "kernel", "GPUs", "largest shard", "HBM GB", "DDR GB")
    for placed in plan.tables:
        ranks = sorted(set(placed.ranks))
        spread = len(ranks) > 1 and ranks == list(range(ranks[0], ranks[-1] + 1))
        where = f"{ranks[0]}..{ranks[-1]}" if spread else ", ".join(map(str, ranks))
        shard = " x ".join(f"{n:,}" for n in placed.shard)
        sizes = (f"{placed.hbm_gb:,.2f}", f"{placed.ddr_gb:,.2f}")
        grid.add_row(
            placed.name, f"{placed.rows:,}", str(placed.width), placed.sharding, placed.kernel, where, shard, *sizes
        )
    console.print(grid)
    grid = Grid("GPU", "HBM GB", "DDR GB", "step ms")
    for load in plan.ranks:
        grid.add_row(str(load.rank), f"{load.hbm_gb:,.2f}", f"{load.ddr_gb:,.2f}", f"{load.step_ms:.3f}")
    console.print(grid)
    console.print(f"tables take {plan.step_ms:.3f} ms of a step on the busiest GPU, by the planner's estimate")
