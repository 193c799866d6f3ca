"""The truth of a world, kept beside its tables and apart from them: `<tables>/truth/`.

Nothing that learns or serves opens it. Tests do, and jobs that say so: rehearsals and proofs.

    truth.json        format, parameters, size, seed, the sha256 of every array file, and one over all of that
    people.taste.npy  one file an array, named after the field of `World` it holds
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from playbill.errors import ConfigError, WorldError
from playbill.tables.files import atomic_folder, sha256_file
from playbill.world.build import World
from playbill.world.items import Creatives, Heroes, Items, Subjects
from playbill.world.overlay import parse_parameters
from playbill.world.people import People
from playbill.world.settings import Size

FOLDER = "truth"
FORMAT = 1  # rises when an older reader would misunderstand the files
_MANIFEST = "truth.json"
_TABLES = {"people": People, "items": Items, "creatives": Creatives, "subjects": Subjects, "heroes": Heroes}
_ARRAYS = ("rhythms", "category_hours")


class _Manifest(msgspec.Struct, kw_only=True):
    format: int
    parameters: dict[str, Any]
    size: dict[str, Any]
    seed: int
    files: dict[str, str]  # sha256 by file name
    sha256: str = ""  # of this manifest's json with an empty sha256


def write_truth(world: World, folder: Path | str) -> Path:
    """Write the truth into `folder`/truth in one step, in place of one that stood there; return that path.

    Args:
        folder: the world's folder of tables.
    """
    path = Path(folder) / FOLDER
    with atomic_folder(path) as new:
        fill_truth(world, new)
    return path


def fill_truth(world: World, new: Path) -> None:
    """Write the truth's files into an empty folder that is not in its place yet, so that nothing reads it half done."""
    files = {}
    for name, array in _arrays(world):
        file = new / f"{name}.npy"
        np.save(file, array, allow_pickle=False)
        files[file.name] = sha256_file(file)
    manifest = _Manifest(
        format=FORMAT,
        parameters=msgspec.to_builtins(world.parameters),
        size=msgspec.to_builtins(world.size),
        seed=world.seed,
        files=files,
    )
    manifest.sha256 = _digest(manifest)
    (new / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def open_truth(folder: Path | str) -> World:
    """Return the world whose truth stands in `folder`/truth, equal to the one that was written, bit for bit.

    Args:
        folder: the world's folder of tables, such as var/tables/fitted-tiny.
    Raises:
        WorldError: there is none, its format is newer than this code, or a file is missing or altered.
    """
    path = Path(folder) / FOLDER
    manifest = _manifest(path)
    arrays = {}
    for name, digest in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise WorldError(f"{file} is missing though {_MANIFEST} lists it; run `playbill generate force=true`")
        data = file.read_bytes()
        if (got := sha256_file(file)) != digest:
            raise WorldError(f"{file} was altered: sha256 {got}, expected {digest}; run `playbill generate force=true`")
        arrays[name.removesuffix(".npy")] = np.load(io.BytesIO(data), allow_pickle=False)
    try:
        parts: dict[str, Any] = {name: _table(cls, name, arrays) for name, cls in _TABLES.items()}
        return World(
            parameters=parse_parameters(manifest.parameters, f"{path / _MANIFEST}"),
            size=msgspec.convert(manifest.size, Size),
            seed=manifest.seed,
            **parts,
            **{name: arrays[name] for name in _ARRAYS},
        )
    except KeyError as error:
        raise WorldError(f"{path / _MANIFEST} lists no file {error.args[0]}.npy; generate the world anew") from error
    except (ConfigError, msgspec.ValidationError) as error:
        raise WorldError(f"{path / _MANIFEST} holds parameters or a size that cannot be: {error}") from error


def _manifest(path: Path) -> _Manifest:
    file = path / _MANIFEST
    if not file.is_file():
        raise WorldError(f"no truth in {path}: {_MANIFEST} is missing; only `playbill generate` writes one")
    try:
        stated = msgspec.json.decode(file.read_bytes())
        # the format comes first: a newer one may have other fields
        if isinstance(stated, dict) and isinstance(stated.get("format"), int) and stated["format"] != FORMAT:
            raise WorldError(
                f"{file} has format {stated['format']}, this version reads format {FORMAT}; use the version that wrote "
                "it, or generate the world anew"
            )
        manifest = msgspec.convert(stated, _Manifest)
    except msgspec.MsgspecError as error:
        raise WorldError(f"{file} cannot be read ({error}); run `playbill generate force=true`") from error
    if (got := _digest(manifest)) != manifest.sha256:
        raise WorldError(
            f"{file} was altered: sha256 {got}, expected {manifest.sha256}; run `playbill generate force=true`"
        )
    return manifest


def _digest(manifest: _Manifest) -> str:
    bare = msgspec.structs.replace(manifest, sha256="")
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


def _arrays(world: World) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array with its dotted name; mappings of arrays have one more part."""
    for table in _TABLES:
        for f in fields(getattr(world, table)):
            value = getattr(getattr(world, table), f.name)
            if isinstance(value, dict):
                yield from ((f"{table}.{f.name}.{key}", array) for key, array in value.items())
            else:
                yield f"{table}.{f.name}", value
    for name in _ARRAYS:
        yield name, getattr(world, name)


def _table(cls: Any, table: str, arrays: dict[str, np.ndarray]) -> Any:
    values: dict[str, Any] = {}
    for f in fields(cls):
        dotted = f"{table}.{f.name}"
        if str(f.type).startswith("dict"):
            values[f.name] = {k.removeprefix(f"{dotted}."): a for k, a in arrays.items() if k.startswith(f"{dotted}.")}
        else:
            values[f.name] = arrays[dotted]
    return cls(**values)
