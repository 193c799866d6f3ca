"""Warm start: the weights of a bundle's run under the vocabularies of today, so that only what is new is learned.

Rows of tables go by value: an item, a genre or a country that was known keeps what was learned of it wherever it stands
now, a new one begins as in a fresh training. Everything else must have the same shape, or the start is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed import DistributedModelParallel

from playbill.bundle.manifest import check_version
from playbill.bundle.open import open_bundle
from playbill.bundle.write import current
from playbill.dataset.dataset import Dataset
from playbill.errors import BundleError, TrainingError
from playbill.features.spec import Encoding, FeatureSpec
from playbill.features.vocabulary import Vocabulary
from playbill.tables.files import sha256_file
from playbill.training.distributed import copy_in
from playbill.training.runs import Run, read_run
from playbill.training.settings import TrainSettings, TwoTower

_TABLES = ("encoder.items.embeddings.", "encoder.query_fields.embedding_bags.", "encoder.item_fields.embedding_bags.")


@dataclass(slots=True)
class Warm:
    """Weights to begin with.

    Attributes:
        weights: by name; rows of tables that nobody knew are NaN and keep what a fresh training drew.
        has_id: [N + 1] bool items whose id was learned.
        about: in a sentence.
    """

    weights: dict[str, Tensor]
    has_id: np.ndarray
    about: str


def warm_run(settings: TrainSettings) -> tuple[str, Run]:
    """Return the version of the bundle that `settings.warm_start` names, and the run that its towers come from.

    Raises:
        BundleError: no such bundle, or it carries no towers.
        TrainingError: its run is gone or was trained again since, or would be replaced by the one that begins with it.
    """
    home, name = Path(settings.home), str(settings.warm_start)
    version = current(home / "bundles") if name == "current" else name
    if version is None or not (home / "bundles" / check_version(version)).is_dir():
        raise BundleError(f"warm_start={name}: no such bundle in {home / 'bundles'}; give a version, or publish one")
    bundle = open_bundle(home / "bundles" / version, require_sealed=False)
    origin = bundle.manifest.origin
    if "run" not in origin:
        raise BundleError(f"bundle {version} carries no towers: there is nothing to begin with")
    run = read_run(home / "runs" / origin["run"], "two_tower")
    file = run.path / "checkpoints" / "best.ckpt"
    if origin.get("weights") != sha256_file(file):
        raise TrainingError(f"{run.path} was trained again since bundle {version} was exported: its weights are gone")
    if run.path.name == settings.run_name:
        raise TrainingError(f"{run.path} holds the weights to begin with, and would be replaced; give another run=")
    return version, run


def open_warm(settings: TrainSettings, dataset: Dataset) -> Warm:
    """Return what `settings.warm_start` names, for the vocabularies of `dataset`.

    Raises:
        BundleError, TrainingError: see `warm_run`, or it has other features or another model.
    """
    version, run = warm_run(settings)
    file = run.path / "checkpoints" / "best.ckpt"
    _check(run.model, settings, run.spec, dataset)
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    old = {key.removeprefix("dmp."): value for key, value in state.items()}
    places = {"item": _places(run.vocabularies["item"], dataset.vocabularies["item"])}
    for field in dataset.spec.fields:
        if field.array in dataset.vocabularies and field.encoding is not Encoding.VECTOR:
            places[field.array] = _places(run.vocabularies[field.array], dataset.vocabularies[field.array])
    known = places["item"] >= 0
    has_id = np.zeros(len(known), bool)
    has_id[known] = old.pop("table_row").numpy()[places["item"][known]] > 0
    weights = {key: _rows(key, value, places) for key, value in old.items()}
    new = int((~known).sum())
    about = (
        f"begins with the weights of bundle {version} ({run.path.name}); {new:,} of {len(known) - 1:,} items are new"
    )
    return Warm(weights, has_id, about)


def put_weights(dmp: DistributedModelParallel, weights: dict[str, Tensor]) -> None:
    """Copy weights into a model, rows of NaN left as they are.

    Raises:
        TrainingError: rows would have to be left in a table that is cut over several processes.
    """
    own = dmp.state_dict()
    with torch.no_grad():
        for key, value in weights.items():
            new = value.isnan()
            copy_in(own[key], torch.where(new, _whole(own[key], key), value) if new.any() else value)


def _whole(target: Any, key: str) -> Tensor:
    """Return a weight of the model as one tensor."""
    if isinstance(target, Tensor) and not isinstance(target, ShardedTensor):
        return target.detach()
    shards = target.local_shards()
    if len(shards) != 1 or shards[0].tensor.shape != target.size():
        raise TrainingError(f"{key} is cut over several processes and cannot take new rows; start warm in one process")
    return shards[0].tensor.detach()


def _places(old: Vocabulary, new: Vocabulary) -> np.ndarray:
    """Return [rows of the new table] int64 row of the old one, -1 for a new value; row 0 (unknown) stays."""
    found = old.indices(new.arrow)
    return np.concatenate([[0], np.where(found > 0, found, -1)])


def _rows(key: str, value: Tensor, places: dict[str, np.ndarray]) -> Tensor:
    table = next((key[len(p) :].removesuffix(".weight") for p in _TABLES if key.startswith(p)), "")
    if table not in places:
        return value
    place = torch.from_numpy(places[table])
    rows = value[place.clamp(min=0)].clone()
    rows[place < 0] = torch.nan
    return rows


def _check(model: TwoTower, settings: TrainSettings, spec: FeatureSpec, dataset: Dataset) -> None:
    """Refuse a start whose arrays would mean something else."""
    ours = dataset.spec
    shape = ("query", "dim", "blocks", "heads", "time_bias", "field_dim", "hidden", "similarity")
    other = [n for n in shape if getattr(model, n) != getattr(settings.model, n)]
    if other:
        raise TrainingError(
            f"warm_start={settings.warm_start}: that run has another model ({', '.join('model.' + n for n in other)}); "
            "give the same, or train afresh"
        )

    def form(given: FeatureSpec) -> list[object]:
        fields = [(f.array, f.encoding, f.width) for f in given.fields]
        events = [e.name for e in given.events]
        return [given.history_length, fields, events, given.num_item_rows == given.num_items + 1]

    if form(spec) != form(ours):
        raise TrainingError(
            f"warm_start={settings.warm_start}: that run has other features, another history length or shared item "
            "rows; give the same features, or train afresh"
        )
