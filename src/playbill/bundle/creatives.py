"""The creative parts of a bundle: which creatives there are, how they are encoded, the head that scores them, a prior.

    creatives.parquet      the creatives table; creative_index is the row + 1, 0 is an unknown creative
    creatives.json         CreativeSpec: what the head was trained on
    creative_vocab/        vocabularies of its fields
    creative_arrays.npz    encoder arrays by name, [C + 1, ...], row 0 is the unknown creative; `own_sd` beside them:
                           how far what a creative has of its own, in `phi`, may be wrong (log-odds; 0 where missing)
    creative_head.onnx     histories (`history_item`) and vectors of people (`query`, as query_tower.onnx gives them),
                           arrays of item and creative -> `phi` [M, d] float32 and, where the head has it,
                           `title_logit` [M] float32: the reward's logit without the creative's effect. It may read
                           anything else that query_tower.onnx reads
    creative_prior.npz     mean [d], precision [d, d] float64, and noise: what is believed of w to begin with

The first stands alone in bundles whose creatives are chosen without a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from playbill.bundle.manifest import ModelSignature
from playbill.bundle.verify import read_arrays
from playbill.creative.eligibility import check_shelf
from playbill.creative.posterior import Posterior, check_posterior
from playbill.errors import BundleError, CreativeError, FeatureError
from playbill.features.spec import Field
from playbill.features.vocabulary import Vocabulary, read_vocabularies, write_vocabularies
from playbill.tables.files import write_atomic

TABLE, SPEC, VOCABULARIES = "creatives.parquet", "creatives.json", "creative_vocab"
ARRAYS, HEAD, PRIOR = "creative_arrays.npz", "creative_head", "creative_prior.npz"
OWN_SD = "own_sd"
QUERY = "query"  # output of query_tower.onnx and input of creative_head.onnx
SPEC_VERSION = 2  # 2: the head may read `query`; version 1 is read as it is


class CreativeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a creative head was trained on, and how it goes on learning.

    Attributes:
        head: id of the trained head. What was learned in service is kept by it, so bundles with the same head share it.
        width: d, numbers in `phi`.
        reward: name of the event that is the reward of a creative that was shown.
        seen: name of the event that says that it was seen; empty where standing on a slate counts as such.
        horizon_days: rewards that come later than this after the choice count nothing.
        half_life_days: days after which an impression weighs half; 0 never forgets.
        fields: content features of a creative, of side CREATIVE.
        vocabularies: hash by array name.
    """

    version: int = SPEC_VERSION
    head: str
    width: int
    reward: str
    seen: str = ""
    horizon_days: float = 3.0
    half_life_days: float = 0.0
    fields: list[Field] = []
    vocabularies: dict[str, str] = {}


@dataclass(slots=True)
class Creatives:
    """The creative parts of an opened bundle.

    Attributes:
        columns: of the creatives table, by name, [C] each; times as UTC microseconds.
        spec, prior: None where the bundle has no head.
        vocabularies: by array name.
        arrays: [C + 1, ...] by name.
    """

    columns: dict[str, list[Any]]
    spec: CreativeSpec | None = None
    prior: Posterior | None = None
    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def write_creatives(
    folder: Path,
    spec: CreativeSpec,
    arrays: Mapping[str, np.ndarray],
    vocabularies: Mapping[str, Vocabulary],
    prior: Posterior,
) -> None:
    """Write what stands beside creatives.parquet and creative_head.onnx; `vocabularies` give the spec its hashes."""
    named = msgspec.structs.replace(
        spec, version=SPEC_VERSION, vocabularies={name: v.hash() for name, v in vocabularies.items()}
    )
    write_atomic(folder / SPEC, msgspec.json.format(msgspec.json.encode(named), indent=1) + b"\n")
    write_vocabularies(dict(vocabularies), folder / VOCABULARIES)
    np.savez(folder / ARRAYS, allow_pickle=False, **arrays)  # type: ignore[arg-type]  # numpy's stub takes `**arrays` for the flag
    check_posterior(prior, PRIOR)
    np.savez(folder / PRIOR, mean=prior.mean, precision=prior.precision, noise=np.float64(prior.noise))


def read_creatives(path: Path, item_ids: Vocabulary, head: ModelSignature | None) -> Creatives:
    """Return the creative parts in a bundle's folder.

    Args:
        item_ids: of the bundle's items.
        head: signature of creative_head.onnx; None where the bundle claims no head.
    Raises:
        BundleError: a file is missing or damaged, parts that do not fit each other, an id twice, a creative of an
            unknown item, or an item that has creatives and no default that is approved.
    """
    columns = _table(path)
    ids = columns["creative_id"]
    if None in ids or len(set(ids)) != len(ids):
        raise BundleError(f"{TABLE}: every creative needs a creative_id of its own; export again")
    try:
        index = item_ids.indices(columns["item_id"])
        check_shelf(columns, index, [None, *item_ids.values])
    except CreativeError as error:
        raise BundleError(f"{TABLE}: {error}") from error
    if head is None:
        return Creatives(columns)
    try:
        spec = msgspec.json.decode((path / SPEC).read_bytes(), type=CreativeSpec)
        vocabularies = read_vocabularies(path / VOCABULARIES, spec.vocabularies)
    except (msgspec.MsgspecError, UnicodeDecodeError, FeatureError, OSError) as error:
        raise BundleError(f"{SPEC}: {error}; export again") from None
    if spec.version > SPEC_VERSION:
        raise BundleError(f"{SPEC}: version {spec.version}, this Playbill reads up to {SPEC_VERSION}; upgrade")
    arrays = read_arrays(path / ARRAYS)
    for name, array in arrays.items():
        if len(array) != len(ids) + 1:
            raise BundleError(
                f"{ARRAYS}: {name} has {len(array)} rows, expected {len(ids) + 1}, the creatives and the unknown one; "
                "export again"
            )
    return Creatives(columns, spec, _prior(path, spec, head), vocabularies, arrays)


def _prior(path: Path, spec: CreativeSpec, head: ModelSignature) -> Posterior:
    found = read_arrays(path / PRIOR)
    lacking = [name for name in ("mean", "precision", "noise") if name not in found]
    if lacking or found["noise"].shape != ():
        raise BundleError(f"{PRIOR}: expected mean [d], precision [d, d] and noise, got {sorted(found)}; export again")
    try:
        prior = check_posterior(Posterior(found["mean"], found["precision"], float(found["noise"])), PRIOR)
    except CreativeError as error:
        raise BundleError(f"{error}; export again") from error
    phi = head.outputs.get("phi")
    if phi is None or phi.shape[1:] != [spec.width] or len(prior.mean) != spec.width:
        raise BundleError(
            f"{HEAD}.onnx: phi is {None if phi is None else phi.shape}, {PRIOR} has {len(prior.mean)} numbers, {SPEC} "
            f"says width {spec.width}; they belong to different trainings: export again"
        )
    return prior


def _table(path: Path) -> dict[str, list[Any]]:
    try:
        table = pl.read_parquet(path / TABLE, memory_map=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BundleError(f"{TABLE}: cannot be read ({error}); export again") from error
    lacking = [name for name in ("creative_id", "item_id") if name not in table.columns]
    if lacking:
        raise BundleError(f"{TABLE}: no column {lacking[0]}; it has {', '.join(table.columns)}; export again")
    times = [name for name, kind in table.schema.items() if isinstance(kind, pl.Datetime)]
    table = table.with_columns(pl.col(name).dt.timestamp("us") for name in times)
    return {name: table[name].to_list() for name in table.columns}
