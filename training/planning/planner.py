"""TorchRec's planner, under the same constraints for processes that are there and for a cluster that is declared."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import nn
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, EmbeddingCollection, EmbeddingConfig
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError, ShardingOption
from torchrec.optim import RowWiseAdagrad

from playbill.errors import TrainingError
from playbill.training.planning.settings import Cluster

GB = 2**30
_MS = 1000
_FLOAT = 4
_WHOLE_BYTES = 16 * 2**20  # tables below it are never cut
# kernels that step their table inside the backward pass; all others would leave it to the dense optimizer
FUSED = ("fused", "fused_uvm", "fused_uvm_caching")


@dataclass(slots=True)
class Table:
    """A table to be placed: `ids` are looked up in it for each example, and where `pooled` give one vector together."""

    name: str
    rows: int
    width: int
    ids: float = 1.0
    pooled: bool = False


class PlacedTable(msgspec.Struct, frozen=True, kw_only=True):
    """Where a table lies.

    Attributes:
        sharding: table_wise (whole on one GPU), row_wise or column_wise (spread over several).
        kernel: fused (on the GPU), fused_uvm_caching (in the machine's memory, cached).
        ranks: GPUs that hold a shard, in the order of the shards.
        shard: rows and columns of the largest shard.
        hbm_gb, ddr_gb: of all shards, optimizer state and buffers of a step included.
    """

    name: str
    rows: int
    width: int
    sharding: str
    kernel: str
    ranks: list[int]
    shard: list[int]
    hbm_gb: float
    ddr_gb: float


class RankLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one GPU holds, and the planner's estimate of its look-ups, updates and exchanges in a step."""

    rank: int
    hbm_gb: float
    ddr_gb: float
    step_ms: float


class TablePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan. `step_ms` is the slowest GPU's; `hbm_free_gb` what each GPU offers to tables."""

    tables: list[PlacedTable]
    ranks: list[RankLoad]
    step_ms: float
    hbm_free_gb: float


def sharders() -> list[EmbeddingCollectionSharder | EmbeddingBagCollectionSharder]:
    """Return the sharders of all kinds of embedding modules that models have."""
    return [EmbeddingCollectionSharder(), EmbeddingBagCollectionSharder()]


def fuse(model: nn.Module, rate: float) -> dict[str, int]:
    """Let row-wise Adagrad step every embedding table of a model in its backward pass; return bytes by table name."""
    sizes: dict[str, int] = {}
    for module in model.modules():
        if isinstance(module, EmbeddingCollection):
            configs = module.embedding_configs()
        elif isinstance(module, EmbeddingBagCollection):
            configs = module.embedding_bag_configs()
        else:
            continue
        sizes |= {c.name: c.num_embeddings * c.embedding_dim * _FLOAT for c in configs}
        _apply_optimizer_in_backward(RowWiseAdagrad, module.parameters(), {"lr": rate})
    return sizes


def constraints(
    sizes: Mapping[str, int],
    device: str,
    ids: Mapping[str, Sequence[float]] | None = None,
    host_memory: bool = False,
) -> dict[str, ParameterConstraints]:
    """Return what the planner may do with each table.

    Args:
        sizes: bytes by table name. Small tables stay whole: the planner counts the bytes that go between processes and
            not the messages, and would cut a table of a thousand rows in eight.
        device: cpu or cuda; row-wise sharding does not exist on the CPU.
        ids: for each table, ids looked up for an example by each of its features; None takes the planner's guess of 1.
        host_memory: also allow rows in the machine's memory.
    """
    kinds = ["table_wise", "column_wise"] if device == "cpu" else ["table_wise", "row_wise", "column_wise"]
    # left to itself the planner makes small tables data-parallel, and those would step with the dense optimizer
    kernels = ["fused", *(["fused_uvm_caching"] if host_memory else [])]
    extra = {} if ids is None else {name: {"pooling_factors": list(ids[name])} for name in sizes}
    return {
        name: ParameterConstraints(
            sharding_types=["table_wise"] if size < _WHOLE_BYTES else kinds,
            compute_kernels=kernels,
            **extra.get(name, {}),
        )
        for name, size in sizes.items()
    }


def make_planner(
    topology: Topology,
    limits: dict[str, ParameterConstraints],
    reserved_share: float = 0.15,
    batch_size: int | None = None,
) -> EmbeddingShardingPlanner:
    """Return the planner of TorchRec that training uses."""
    return EmbeddingShardingPlanner(
        topology=topology,
        constraints=limits,
        batch_size=batch_size,
        storage_reservation=FixedPercentageStorageReservation(percentage=reserved_share),
    )


def plan_tables(tables: Sequence[Table], cluster: Cluster, batch_per_gpu: int, host_memory: bool = False) -> TablePlan:
    """Return where tables would lie on a cluster. No device, process group or memory for the tables is needed.

    Raises:
        TrainingError: they do not fit; says what they need and what is there.
    """
    # a module for each table: those of one collection must be equally wide
    model = nn.ModuleDict({f"table_{t.name}": _module(t) for t in tables})
    sizes = fuse(model, 0.1)
    limits = constraints(sizes, "cuda", {t.name: [t.ids] for t in tables}, host_memory)
    with _quiet():
        planner = make_planner(_topology(cluster), limits, cluster.reserved_share, batch_per_gpu)
        try:
            planner.plan(model, sharders())
        except PlannerError as error:
            raise TrainingError(_refusal(tables, cluster, batch_per_gpu, host_memory, error)) from error
    placed = planner._best_plan
    assert placed is not None
    return _as_plan(placed, {t.name: t for t in tables}, cluster)


def _module(table: Table) -> EmbeddingCollection | EmbeddingBagCollection:
    kind: Any = EmbeddingBagConfig if table.pooled else EmbeddingConfig
    config = kind(name=table.name, num_embeddings=table.rows, embedding_dim=table.width, feature_names=[table.name])
    collection = EmbeddingBagCollection if table.pooled else EmbeddingCollection
    return collection(tables=[config], device=torch.device("meta"))


def _topology(cluster: Cluster) -> Topology:
    return Topology(
        world_size=cluster.gpus,
        local_world_size=cluster.gpus_per_host,
        compute_device="cuda",
        hbm_cap=int(cluster.hbm_gb * GB),
        ddr_cap=int(cluster.ddr_gb * GB / cluster.gpus_per_host),
        hbm_mem_bw=cluster.hbm_gb_per_s * GB / _MS,
        ddr_mem_bw=cluster.ddr_gb_per_s * GB / _MS,
        hbm_to_ddr_mem_bw=cluster.host_link_gb_per_s * GB / _MS,
        intra_host_bw=cluster.gpu_link_gb_per_s * GB / _MS,
        inter_host_bw=cluster.network_gb_per_s * GB / _MS,
    )


def _as_plan(placed: list[ShardingOption], tables: Mapping[str, Table], cluster: Cluster) -> TablePlan:
    hbm, ddr, step = ([0.0] * cluster.gpus for _ in range(3))
    found = []
    for option in placed:
        for shard in option.shards:
            hbm[shard.rank] += shard.storage.hbm / GB
            ddr[shard.rank] += shard.storage.ddr / GB
            step[shard.rank] += shard.perf.total
        table = tables[option.name]
        found.append(
            PlacedTable(
                name=table.name,
                rows=table.rows,
                width=table.width,
                # a table too narrow to be cut may come out as column-wise with all its columns in one shard
                sharding=option.sharding_type if len(option.shards) > 1 else "table_wise",
                kernel=option.compute_kernel,
                ranks=[shard.rank for shard in option.shards],
                shard=max((list(shard.size) for shard in option.shards), key=math.prod),
                hbm_gb=sum(shard.storage.hbm for shard in option.shards) / GB,
                ddr_gb=sum(shard.storage.ddr for shard in option.shards) / GB,
            )
        )
    order = list(tables)
    return TablePlan(
        tables=sorted(found, key=lambda t: order.index(t.name)),
        ranks=[RankLoad(rank=r, hbm_gb=hbm[r], ddr_gb=ddr[r], step_ms=step[r]) for r in range(cluster.gpus)],
        step_ms=max(step),
        hbm_free_gb=cluster.hbm_gb * (1 - cluster.reserved_share),
    )


def _refusal(
    tables: Sequence[Table], cluster: Cluster, batch_per_gpu: int, host_memory: bool, error: PlannerError
) -> str:
    """Return why tables do not fit, in numbers; weights and optimizer state are exact, buffers the planner's affair."""
    needed = {t.name: t.rows * (t.width + 1) * _FLOAT / GB for t in tables}
    free = cluster.hbm_gb * (1 - cluster.reserved_share)
    largest = max(needed, key=lambda name: needed[name])
    also = f", or host_memory=true for the machines' {cluster.hosts * cluster.ddr_gb:,.0f} GB" * (not host_memory)
    what = str(error.error_type.value).replace("_", " ")
    return (
        f"no plan ({what}): the tables need {sum(needed.values()):,.1f} GB with their optimizer state ({largest} "
        f"{needed[largest]:,.1f} GB), and buffers for {batch_per_gpu:,} examples a GPU; {cluster.gpus} GPUs offer "
        f"{cluster.gpus * free:,.1f} GB ({free:,.1f} GB each of {cluster.hbm_gb:,.1f}, "
        f"{cluster.reserved_share:.0%} reserved); take more or larger GPUs, fewer or narrower rows "
        f"(features.item_buckets){also}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the planner says about itself: that other ways to declare a topology exist, and its own tables."""
    log = logging.getLogger("torchrec")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
