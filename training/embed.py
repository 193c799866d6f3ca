"""`playbill embed`: texts of items -> a vector column of their table, each text embedded once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill.errors import ConfigError
from playbill.features.text import join_texts
from playbill.tables.files import alone, atomic_folder, write_atomic
from playbill.tables.folder import describe_folder, read_folder, read_table
from playbill.tables.schema import CONTRACT, Column, Kind, Provenance, TableFolder
from playbill.tables.vectors import fixed_size
from playbill.training.texts.cache import add_vectors, read_vectors, text_key
from playbill.training.texts.fold import fold
from playbill.training.texts.sentences import Encode, find_model, model_digest, open_model
from playbill.training.texts.settings import EmbedSettings

EMBEDDED = "embedded.json"
_PART = 512  # texts between two writes: what a stopped job has to embed again at most


def run(settings: EmbedSettings) -> Path:
    """Write the vector column into {home}/tables/{tables} and return that folder.

    Raises:
        TableError: no such tables.
        ConfigError: a column that is no text, a name that is taken, or no sentence model.
    """
    console = Console(stderr=True)
    target = Path(settings.home) / "tables" / settings.tables
    check_columns(read_folder(target), settings)
    model = find_model(settings.sentence_model)
    return embed(
        settings, model_digest(model), lambda: open_model(model, settings.batch_size, settings.threads), console
    )


def embed(settings: EmbedSettings, model: str, opened: Callable[[], Encode], console: Console) -> Path:
    """Do the work of `run` with any way of turning texts into vectors.

    Args:
        model: what the vectors are known by: the same name, the same vectors.
        opened: called when there is something to embed; returns the `Encode` function.
    """
    target = Path(settings.home) / "tables" / settings.tables
    with alone(target):
        folder = read_folder(target)
        check_columns(folder, settings)
        items = read_table(target, "items")
        texts = documents(items, settings.columns)
        record = _record(texts, settings, model)
        before = _read_records(target)
        there = settings.into in items.column_names
        if there and before.get(settings.into) == record and not settings.force:
            console.print(f"{target}: items.{settings.into} is up to date; force=true embeds it again", soft_wrap=True)
            return target
        if there and settings.into not in before:
            raise ConfigError(
                f"into={settings.into}: the items table has such a column, and not from here; name another"
            )
        cache = Path(settings.home) / "cache" / "texts" / model
        if settings.force:
            shutil.rmtree(cache, ignore_errors=True)
        rows, there_rows = _vectors(texts, cache, opened, console)
        if settings.width:
            kept = cache / f"fold-{settings.tables}-{settings.into}-{settings.width}.npy"
            folded, left = fold(rows[there_rows], settings.width, kept, anew=settings.force)
            console.print(f"{settings.width} of {rows.shape[1]} numbers keep {left:.1%} of the squares")
            rows = np.zeros((len(rows), settings.width), np.float32)
            rows[there_rows] = folded
        _write(target, folder, items, settings.into, fixed_size(rows, there_rows), before | {settings.into: record})
    missing = int((~there_rows).sum())
    console.print(
        f"wrote {target}: items.{settings.into}, {rows.shape[1]} numbers"
        + (f"; {missing:,} items without any text have none" if missing else ""),
        soft_wrap=True,
    )
    return target


def check_columns(folder: TableFolder, settings: EmbedSettings) -> None:
    """Raise ConfigError unless the texts are text columns of items, and the vector's name is free for one."""
    declared = {column.name: column for column in folder.columns["items"]}
    texts = [name for name, column in declared.items() if column.kind is Kind.TEXT]
    for name in settings.columns:
        if name not in texts:
            raise ConfigError(f"columns: {name!r} is no text column of items; those are: {', '.join(texts) or 'none'}")
    taken = {column.name for column in CONTRACT["items"]}
    if settings.into in taken or (settings.into in declared and declared[settings.into].kind is not Kind.VECTOR):
        raise ConfigError(f"into={settings.into}: the items table has such a column of another kind; name another")


def documents(items: pa.Table, columns: list[str]) -> list[str]:
    """Return what is embedded of each item: its texts with a full stop between; empty where it has none."""
    joined = join_texts({name: items[name] for name in columns}, columns, items.num_rows, between=". ")
    return [text.strip() for text in joined.fill_null("").to_pylist()]


def _vectors(
    texts: list[str], cache: Path, opened: Callable[[], Encode], console: Console
) -> tuple[np.ndarray, np.ndarray]:
    """Return ([n, width] float32, [n] bool which items have a text), from the cache where it knows the text."""
    keys = [text_key(text) for text in texts]
    known = read_vectors(cache)
    wanted = {key: text for key, text in zip(keys, texts, strict=True) if text and key not in known}
    # texts of one length together: a batch takes as long as its longest
    missing = sorted(wanted, key=lambda key: (len(wanted[key]), wanted[key]))
    if missing:
        encode = opened()
        bars = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*bars, console=console) as progress:
            task = progress.add_task("", total=len(wanted) + len(known), completed=len(known))
            for start in range(0, len(missing), _PART):
                part = missing[start : start + _PART]
                rows = encode([wanted[key] for key in part])
                add_vectors(cache, part, rows)
                known |= dict(zip(part, rows, strict=True))
                progress.advance(task, len(part))
    there = np.asarray([bool(text) for text in texts])
    if not there.any():
        raise ConfigError("no item has any text in these columns; name others with columns=")
    width = len(next(iter(known.values())))
    rows = np.zeros((len(texts), width), np.float32)
    rows[there] = [known[key] for key, text in zip(keys, texts, strict=True) if text]
    return rows, there


def _write(
    target: Path, folder: TableFolder, items: pa.Table, name: str, vectors: pa.Array, records: dict[str, str]
) -> None:
    """Put the column into the folder of tables: every other file is linked, none is copied or read."""
    columns = {table: list(declared) for table, declared in folder.columns.items()}
    column = Column(name=name, kind=Kind.VECTOR, provenance=Provenance.INFERRED)
    columns["items"] = [c for c in columns["items"] if c.name != name] + [column]
    if name in items.column_names:
        items = items.drop_columns([name])
    items = items.append_column(name, vectors)
    with atomic_folder(target) as new:
        shutil.copytree(target, new, copy_function=_link, dirs_exist_ok=True)
        for changed in ("items.parquet", "tables.json", EMBEDDED):
            (new / changed).unlink(missing_ok=True)  # a link: writing through it would change the old folder too
        pq.write_table(items, new / "items.parquet", compression="zstd")
        write_atomic(new / EMBEDDED, msgspec.json.format(msgspec.json.encode(records), indent=1))
        describe_folder(new, source=folder.source, columns=columns, events=folder.events, licence=folder.licence)


def _link(source: str, copy: str) -> None:
    try:
        os.link(source, copy)
    except OSError:  # a file system without links
        shutil.copy2(source, copy)


def _record(texts: list[str], settings: EmbedSettings, model: str) -> str:
    """Return the sha256 of all that decides the column."""
    digest = hashlib.sha256(msgspec.json.encode([model, settings.columns, settings.width]))
    for text in texts:
        digest.update(text_key(text))
    return digest.hexdigest()


def _read_records(target: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode((target / EMBEDDED).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}
