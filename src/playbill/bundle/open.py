"""Opening a bundle: checked first, then read. Nothing in it is run to do so but the graphs, in their runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from playbill.bundle.creatives import HEAD, TABLE, Creatives, read_creatives
from playbill.bundle.manifest import MANIFEST, STATE, Manifest, State, decode_draft, decode_manifest
from playbill.bundle.policy import PUBLISHED, Policy, read_policy
from playbill.bundle.rules import check_columns, user_kinds
from playbill.bundle.rungs import RETRIEVER_FILES, Rung
from playbill.bundle.verify import (
    check_arrays,
    check_features,
    check_files,
    check_graphs,
    check_needed,
    check_retrievers,
    check_sample,
    read_arrays,
)
from playbill.errors import BundleError
from playbill.features.spec import FeatureSpec
from playbill.features.vocabulary import Vocabulary
from playbill.filters.check import Kind, kinds


@dataclass(slots=True, kw_only=True)
class Bundle:
    """An opened bundle. Arrays of `array` are memory-mapped and read-only; processes share their pages.

    Attributes:
        path: its folder.
        version: its name; stands in every slate.
        state: staged, evaluated, gated or sealed.
        manifest: what was sealed; of a bundle that is not sealed, what is known so far (no files).
        spec, vocabularies: what features mean here.
        items: every item in item_index order: item_index (Int64, 1..N) and all columns of the items table.
        item_arrays: encoder arrays by name, [N + 1, ...], row 0 is the unknown item.
        rungs: names of what is carried.
        sufficiency: every rung, carried or not, and why not.
        policy: how slates are composed.
        creatives: what can be shown of items; None where the bundle chooses none.
        unchecked: what could not be verified on this machine, and why.
    """

    path: Path
    version: str
    state: State
    manifest: Manifest
    spec: FeatureSpec
    vocabularies: dict[str, Vocabulary]
    items: pl.DataFrame
    item_arrays: dict[str, np.ndarray]
    rungs: list[str]
    sufficiency: dict[str, Rung]
    policy: Policy
    creatives: Creatives | None = None
    unchecked: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Return whether the bundle holds this file."""
        return (self.path / name).is_file()

    def file(self, name: str) -> Path:
        """Return the path of one file.

        Raises:
            BundleError: it is not there; says what the bundle carries.
        """
        if not self.has(name):
            raise BundleError(f"{name}: not in bundle {self.version}, which carries {', '.join(self.rungs)}")
        return self.path / name

    def retriever_file(self, name: str) -> str:
        """Return the name of the file that a retriever stands on; empty where the bundle has none."""
        named = self.manifest.retrievers
        return (RETRIEVER_FILES if isinstance(named, msgspec.UnsetType) else named).get(name, "")

    def array(self, name: str) -> np.ndarray:
        """Return a .npy file as a read-only, memory-mapped array."""
        return _map(self.file(name if name.endswith(".npy") else f"{name}.npy"))


def open_bundle(path: Path | str, *, require_sealed: bool = True, verify: bool = True) -> Bundle:
    """Return the bundle in a folder.

    Args:
        path: `<home>/bundles/<version>`.
        require_sealed: refuse one that is still on its way; serving always does.
        verify: read every byte against its checksum, check the graphs' signatures and run them on the stored sample.
            Without it only format, file list, sizes, spec and vocabularies are checked.
    Raises:
        BundleError: names the file and the reason.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}; there are: {', '.join(names_in(path.parent)) or 'none'}")
    name = path.name
    try:
        state, manifest = _manifest(path)
        name = name if state is State.SEALED else manifest.version  # an export opens it where it is being written
        if state is not State.SEALED and require_sealed:
            raise BundleError(f"state is {state.value}, expected sealed; evaluate and gate it first")
        return _open(path, state, manifest, verify)
    except BundleError as error:
        raise BundleError(f"bundle {name}: {error}") from error


def _manifest(path: Path) -> tuple[State, Manifest]:
    if (path / MANIFEST).is_file():
        return State.SEALED, decode_manifest((path / MANIFEST).read_bytes())
    if (path / STATE).is_file():
        draft = decode_draft((path / STATE).read_bytes())
        return draft.state, draft.manifest
    raise BundleError(f"{MANIFEST}: missing, and no {STATE} either; the folder is not a bundle, or half copied")


def _open(path: Path, state: State, manifest: Manifest, verify: bool) -> Bundle:
    unchecked: list[str] = []
    if state is State.SEALED:
        check_files(path, manifest, checksums=verify)
    check_needed(path, manifest)
    spec, vocabularies = check_features(path, manifest)
    if verify and manifest.models:
        check_graphs(path, manifest)
        if find_spec("onnxruntime") is None:
            unchecked.append("parity sample: onnxruntime is not installed")
        else:
            check_sample(path, manifest)
    if verify:
        check_retrievers(path, manifest, spec.num_items)
    arrays = read_arrays(path / "item_arrays.npz")
    check_arrays(arrays, spec)
    for name in ("popularity.npy", "trending.npy", "lately.npy", "item_embeddings.npy"):
        if (path / name).is_file() and len(_map(path / name)) != spec.num_items + 1:
            raise BundleError(f"{name}: {len(_map(path / name))} rows, expected {spec.num_items + 1}; export again")
    sufficiency = _sufficiency(path)
    claimed = {name for name, rung in sufficiency.items() if rung.carried}
    if claimed != set(manifest.rungs):
        raise BundleError(
            f"rungs.json: carries {sorted(claimed)}, the bundle says {sorted(manifest.rungs)}; export again"
        )
    policy, items = read_policy((path / "policy.json").read_bytes()), _items(path, spec, vocabularies)
    _check_newcomers(policy, items)
    check_columns(policy.every_rule, item_kinds(items), user_kinds(spec, vocabularies))
    return Bundle(
        path=path,
        version=manifest.version,
        state=state,
        manifest=manifest,
        spec=spec,
        vocabularies=vocabularies,
        items=items,
        item_arrays=arrays,
        rungs=list(manifest.rungs),
        sufficiency=sufficiency,
        policy=policy,
        creatives=_creatives(path, manifest, policy, vocabularies["item"]),
        unchecked=unchecked,
    )


def _check_newcomers(policy: Policy, items: pl.DataFrame) -> None:
    for name, surface in policy.surfaces.items():
        by = surface.newcomers.by
        if not surface.newcomers.slots or by == PUBLISHED:
            continue
        if by not in items.columns or not (items.schema[by].is_numeric() or items.schema[by].is_temporal()):
            able = [c for c, kind in items.schema.items() if kind.is_numeric() or kind.is_temporal()]
            raise BundleError(
                f"policy.surfaces.{name}.newcomers.by is {by!r}, expected a number or a time of items.parquet; it has "
                f"{', '.join(able)}"
            )


def item_kinds(items: pl.DataFrame) -> dict[str, Kind]:
    """Return what a condition over items may ask for: all columns of the items table."""
    return {name: kind for name, kind in kinds(items.schema).items() if name != "item_index"}


def _items(path: Path, spec: FeatureSpec, vocabularies: dict[str, Vocabulary]) -> pl.DataFrame:
    try:
        items = pl.read_parquet(path / "items.parquet", memory_map=False)
        index = items["item_index"].to_numpy()
        ids = items["item_id"].to_list()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BundleError(f"items.parquet: cannot be read ({error}); export again") from error
    if not np.array_equal(index, np.arange(1, spec.num_items + 1)) or ids != vocabularies["item"].values:
        raise BundleError("items.parquet: rows must be the item vocabulary in order, item_index 1..N; export again")
    return items


def _creatives(path: Path, manifest: Manifest, policy: Policy, items: Vocabulary) -> Creatives | None:
    """Return the creative parts of a bundle that chooses creatives: it has a head, or its policy asks for them."""
    head = manifest.models.get(HEAD) if "creative_heads" in manifest.rungs else None
    asked = any(not isinstance(s.creatives, msgspec.UnsetType) for s in policy.surfaces.values())
    if head is None and not asked:
        return None
    if not (path / TABLE).is_file():
        raise BundleError(
            f"{TABLE}: missing, though policy.json says how creatives are chosen; export tables with some"
        )
    return read_creatives(path, items, head)


def _sufficiency(path: Path) -> dict[str, Rung]:
    try:
        return msgspec.json.decode((path / "rungs.json").read_bytes(), type=dict[str, Rung])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(f"rungs.json: {error}; export again") from None


def _map(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except (ValueError, OSError, EOFError) as error:
        raise BundleError(f"{path.name}: cannot be read ({error}); export again") from None


def names_in(bundles: Path) -> list[str]:
    """Return the names of all bundles in a folder, in order; what begins with a dot is none."""
    if not bundles.is_dir():
        return []
    return sorted(p.name for p in bundles.iterdir() if p.is_dir() and not p.name.startswith("."))
