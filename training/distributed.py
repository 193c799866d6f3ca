"""TorchRec under Lightning: one code path for one process, N processes and N GPUs.

A model's embedding modules are sharded by `DistributedModelParallel` (DMP), which also keeps the dense rest in step on
all processes. One process is a world of one. `device` decides once what is used: CUDA with NCCL where CUDA is
available, else CPU with gloo. The CUDA branches have never been run: no GPU was at hand when they were written.

A checkpoint is one ordinary file that knows nothing of the number of processes: shards are pasted together when it is
written (`gather_full`) and cut again when it is read (`copy_in`).
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.utilities.optimizer import _optimizers_to_device
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.planner import Topology
from torchrec.distributed.types import ShardingPlan
from torchrec.optim.optimizers import in_backward_optimizer_filter

from playbill.errors import TrainingError
from playbill.training.planning.planner import FUSED, constraints, fuse, make_planner, sharders


def device() -> str:
    """Return `cuda` where it is available, else `cpu`: decides accelerator, backend and sharding types together."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fast_bf16() -> bool:
    """Return whether this machine multiplies matrices of bfloat16 faster than of float32."""
    if device() == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def local_world_size() -> int:
    """Return the number of processes on this machine: what torchrun says, else 1."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def world_size() -> int:
    """Return the number of processes: what torchrun says, else 1. Known before the process group exists."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number: what torchrun says, else 0."""
    return int(os.environ.get("RANK", "0"))


def sum_over_processes(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, on the CPU. Collective."""
    if dist.get_world_size() == 1:
        return values
    total = values.to("cuda") if dist.get_backend() == "nccl" else values.clone()
    dist.all_reduce(total)
    return total.cpu()


@contextmanager
def _quiet_sharded_tensor() -> Iterator[None]:
    """Silence torch's notice that ShardedTensor gives way to DTensor: TorchRec 1.8 still uses it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use DTensor instead", FutureWarning)
        yield


class TorchRecStrategy(DDPStrategy):
    """Lightning's process-per-device strategy for a module that holds a DMP in its attribute `dmp`.

    DMP moves, shards and wraps by itself, so everything of that kind which DDPStrategy would do is left out.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(process_group_backend="nccl" if device() == "cuda" else "gloo", **kwargs)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True  # the DMP must exist before weights are copied into it

    def _configure_launcher(self) -> None:
        # processes are torchrun's, or this one alone; Lightning's launcher would start its own and set the threads
        self._launcher = None

    def setup(self, trainer: Trainer) -> None:
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if fitting:
            _optimizers_to_device(self.optimizers, self.root_device)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return gather_full(dict(self.lightning_module.state_dict()))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        with torch.no_grad():
            own, full = dict(self.lightning_module.state_dict()), checkpoint["state_dict"]
            if strict and own.keys() != full.keys():
                raise TrainingError(
                    f"the checkpoint holds other weights than the model: {sorted(own.keys() ^ full.keys())}; "
                    "it was written with other settings"
                )
            for key in own.keys() & full.keys():
                copy_in(own[key], full[key])


def shard(
    model: nn.Module, root: torch.device, table_learning_rate: float | None, seed: int
) -> DistributedModelParallel:
    """Return `model` under DMP, its tables filled from `seed` in the same way for any number of processes.

    Args:
        model: embedding modules on the meta device when tables are fused, on the CPU otherwise; the rest on the CPU.
        root: this process's device.
        table_learning_rate: of the fused row-wise Adagrad; None keeps the tables dense, replicated like all other
            weights.
        seed: of the tables.
    Raises:
        TrainingError: the planner chose a kernel that would ignore the fused optimizer.
    """
    kinds = sharders()
    plan = ShardingPlan({})
    if table_learning_rate is not None:
        plan = _plan_fused(model, root, table_learning_rate, kinds)
    with _quiet_sharded_tensor(), warnings.catch_warnings():
        # TorchRec 1.8 passes DDP an argument that torch 2.13 renames
        warnings.filterwarnings("ignore", ".*broadcast_buffers.*", FutureWarning)
        dmp = DistributedModelParallel(model, device=root, plan=plan, sharders=kinds)
    _fill_tables(dmp, seed)
    return dmp


def dense_parameters(dmp: DistributedModelParallel) -> list[nn.Parameter]:
    """Return the parameters that an ordinary optimizer must step; fused tables step inside the backward pass."""
    return [weight for _, weight in dense_weights(dmp)]


def dense_weights(dmp: DistributedModelParallel) -> list[tuple[str, nn.Parameter]]:
    """Return those parameters with their names."""
    return list(in_backward_optimizer_filter(dmp.named_parameters()))


def set_table_learning_rate(dmp: DistributedModelParallel, rate: float) -> None:
    """Set the fused optimizer's learning rate, if there is one."""
    groups = dmp.fused_optimizer.param_groups
    for group in groups:
        group["lr"] = rate
    if groups:
        dmp.fused_optimizer.step()  # steps nothing: hands the rate to the kernels, which would not notice otherwise


def fused_state(dmp: DistributedModelParallel) -> dict[str, Any]:
    """Return the fused optimizer's state, gathered whole on rank 0 (empty on others)."""
    return gather_full(dmp.fused_optimizer.state_dict()["state"])


def load_fused_state(dmp: DistributedModelParallel, full: Mapping[str, Any]) -> None:
    """Copy a gathered state back into the fused optimizer's shards."""
    with torch.no_grad():
        for parameter, states in dmp.fused_optimizer.state_dict()["state"].items():
            for name, tensor in states.items():
                copy_in(tensor, full[parameter][name])


@_quiet_sharded_tensor()
def gather_full(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested mapping of tensors with every sharded one pasted together, on rank 0; {} on other ranks.

    Whole mappings are gathered and merged by key: ranks list different keys, and gathering key by key would pair up
    different tables without an error.
    """
    mine = {path: _pack(leaf) for path, leaf in _leaves(tree)}
    parts: list[Any] = [mine]
    if dist.is_initialized() and dist.get_world_size() > 1:
        parts = [None] * dist.get_world_size()
        dist.gather_object(mine, parts if dist.get_rank() == 0 else None, dst=0, group=_object_group())
        if dist.get_rank():
            return {}
    full: dict[str, Any] = {}
    for path in dict.fromkeys(path for part in parts for path in part):
        node = full
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = _paste([part[path] for part in parts if path in part])
    return full


@_quiet_sharded_tensor()
def copy_in(target: Any, full: Tensor) -> None:
    """Copy a whole tensor into a tensor or into the local shards of a sharded one, in place.

    Raises:
        TrainingError: the sizes differ.
    """
    if tuple(target.size()) != tuple(full.shape):
        raise TrainingError(
            f"the checkpoint has a tensor of size {tuple(full.shape)}, the model one of {tuple(target.size())}"
        )
    if not isinstance(target, ShardedTensor):
        target.copy_(full)
        return
    for local in target.local_shards():
        window = _window(local.metadata.shard_offsets, local.metadata.shard_sizes)
        local.tensor.copy_(full[window].reshape(local.tensor.shape))


def _plan_fused(model: nn.Module, root: torch.device, rate: float, kinds: list[Any]) -> ShardingPlan:
    sizes = fuse(model, rate)
    topology = Topology(world_size=dist.get_world_size(), local_world_size=local_world_size(), compute_device=root.type)
    group = dist.group.WORLD
    assert group is not None
    planner = make_planner(topology, constraints(sizes, root.type))
    plan: ShardingPlan = planner.collective_plan(model, kinds, group)
    check_fused(plan)
    return plan


def check_fused(plan: ShardingPlan) -> None:
    """Raise TrainingError unless every table of the plan has the fused kernel."""
    wrong = [
        f"{path}.{name}: {sharding.sharding_type}/{sharding.compute_kernel}"
        for path, module in plan.plan.items()
        for name, sharding in module.items()
        if sharding.compute_kernel not in FUSED
    ]
    if wrong:
        raise TrainingError(f"the planner chose kernels without the fused optimizer: {', '.join(wrong)}")


def _fill_tables(dmp: DistributedModelParallel, seed: int) -> None:
    """Fill each table from its own generator, the whole table at once, so that any sharding starts the same."""
    with _quiet_sharded_tensor(), torch.no_grad():
        for key, tensor in dmp.state_dict().items():
            if ".embeddings." in key or ".embedding_bags." in key:
                size = tuple(tensor.size())
                generator = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(key.encode()))
                copy_in(tensor, torch.randn(size, generator=generator) * size[1] ** -0.5)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _pack(leaf: Any) -> Any:
    if not isinstance(leaf, ShardedTensor):
        return leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf
    shards = [
        (s.metadata.shard_offsets, s.metadata.shard_sizes, s.tensor.detach().cpu().clone()) for s in leaf.local_shards()
    ]
    return tuple(leaf.size()), shards


def _paste(parts: list[Any]) -> Any:
    if not isinstance(parts[0], tuple):
        return parts[0]
    size, _ = parts[0]
    shards = [shard for _, held in parts for shard in held]
    full = torch.empty(size, dtype=shards[0][2].dtype)
    for offsets, sizes, tensor in shards:
        full[_window(offsets, sizes)] = tensor.reshape(sizes)
    return full


def _window(offsets: list[int], sizes: list[int]) -> tuple[slice, ...]:
    return tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))


_OBJECTS: list[dist.ProcessGroup] = []


def _object_group() -> dist.ProcessGroup | None:
    """Return a gloo group for Python objects; NCCL would copy them through device memory."""
    if dist.get_backend() == "gloo":
        return None
    if not _OBJECTS:
        _OBJECTS.append(dist.new_group(backend="gloo"))
    return _OBJECTS[0]
