"""The job `playbill prepare`: fetch a source, validate its rows, write the folder of tables in one step."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill import __version__
from playbill.errors import ConfigError, TableError
from playbill.sources import movielens, parquet
from playbill.sources.settings import MovieLens, ParquetFiles, PrepareSettings
from playbill.tables.faults import FAULTS_FILE
from playbill.tables.files import atomic_folder, sha256_file, write_atomic
from playbill.tables.folder import describe_folder, read_folder
from playbill.tables.incoming import Incoming
from playbill.tables.quality import measure_quality
from playbill.tables.report import describe, ordered, print_quality, print_sufficiency, print_validation
from playbill.tables.rules import actions
from playbill.tables.schema import EventKind, TableFolder
from playbill.tables.settings import Action
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency
from playbill.tables.validate import REPORT, Validation, validate

PREPARED = "prepared.json"
_FORMAT = 2  # raise it when the same input gives other tables
_BAR_ROWS = 200_000  # fewer are read before a bar can be drawn


class _InputFile(msgspec.Struct, kw_only=True):
    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str


class _Prepared(msgspec.Struct, kw_only=True):
    """`prepared.json`: what the folder was made from, to tell at the next run whether anything changed."""

    settings: str
    inputs: list[_InputFile]


@dataclass(slots=True)
class _Found:
    """A source whose raw files are at hand, not yet read."""

    inputs: list[Path]
    read: Callable[[], tuple[list[Incoming], Sequence[EventKind], list[str]]]
    name: str
    licence: str


def run(settings: PrepareSettings) -> Path:
    """Write {home}/tables/{source.name} and return it.

    Raises:
        ConfigError: the settings or the mapping name something that does not exist.
        SourceError: no mirror delivered, or a raw file is missing, altered or unreadable.
        TableError: rows break a rule that rejects; every fault stands in {home}/tables/{source.name}.rejected/report.
    """
    console = Console(stderr=True)
    actions(settings.validation)  # a misspelt rule fails before anything is fetched
    found = _find(settings, console)
    target = Path(settings.home) / "tables" / found.name
    with _alone(target):
        inputs = [_input(path, _before(target)) for path in found.inputs]
        prepared = _Prepared(settings=_digest(settings), inputs=inputs)
        if not settings.force and (folder := _unchanged(target, prepared)) is not None:
            rows = ", ".join(f"{name} {rows:,}" for name, rows in folder.rows.items())
            console.print(f"{target} is up to date ({rows}); force=true prepares it again", soft_wrap=True)
            return target
        _prepare(settings, found, prepared, target, console)
    return target


def _find(settings: PrepareSettings, console: Console) -> _Found:
    source = settings.source
    if isinstance(source, MovieLens):
        form, paths = movielens.locate(source, Path(settings.home) / "cache" / source.name, console)
        return _Found(
            inputs=paths,
            read=lambda: (movielens.read(form, paths, source.edition), movielens.EVENTS, []),
            name=source.name,
            licence=source.licence,
        )
    if isinstance(source, ParquetFiles):
        mapped, mapping = parquet.complete(source)
        return _Found(
            inputs=[*([mapping] if mapping else []), *(p for p in parquet.files_of(mapped) if p.is_file())],
            read=lambda: parquet.read(mapped),
            name=mapped.name,
            licence=mapped.licence,
        )
    raise ConfigError(f"source={source!r}: expected source=ml-100k, ml-1m, amazon-toys or parquet")


def _prepare(settings: PrepareSettings, found: _Found, prepared: _Prepared, target: Path, console: Console) -> None:
    incoming, events, notes = found.read()
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)
    rejected = target.with_name(f"{target.name}.rejected")
    with atomic_folder(target) as out:
        with _progress(incoming, console) as advance:
            validation = validate(incoming, out, events=events, settings=settings.validation, advance=advance)
        print_validation(validation, console)
        if validation.rejected:
            with atomic_folder(rejected) as kept:
                shutil.copytree(out / REPORT, kept / REPORT)
            raise _rejection(validation, rejected / REPORT)
        folder = describe_folder(
            out, source=found.name, columns=validation.columns, events=events, licence=found.licence
        )
        quality = measure_quality(out)
        sufficiency = measure_sufficiency(out, settings.sufficiency)
        _write_json(out / REPORT / "quality.json", quality)
        _write_json(out / SUFFICIENCY_FILE, sufficiency)
        _write_json(out / PREPARED, prepared)
    if rejected.exists():
        shutil.rmtree(rejected)  # it spoke of an earlier attempt
    print_quality(quality, console)
    print_sufficiency(sufficiency, console)
    rows = ", ".join(f"{name} {rows:,}" for name, rows in folder.rows.items())
    console.print(f"wrote {target}: {rows}", soft_wrap=True)


def _rejection(validation: Validation, report: Path) -> TableError:
    fatal = [group for group in ordered(validation.faults) if group.action is Action.reject]
    lines = "\n".join(describe(group) for group in fatal)
    return TableError(
        f"the tables were not written, for this may not be:\n{lines}\n"
        f"every fault, row by row: {report / FAULTS_FILE}; correct the files or the mapping and run again",
        faults=validation.faults,
    )


def _write_json(path: Path, value: msgspec.Struct) -> None:
    write_atomic(path, msgspec.json.format(msgspec.json.encode(value), indent=2))


@contextmanager
def _progress(incoming: Sequence[Incoming], console: Console) -> Iterator[Callable[[str, int], None]]:
    """Yield the function that validation calls after each batch; it draws a bar when there is much to read."""
    total = sum(file.num_rows or 0 for file in incoming)
    columns = (TextColumn("validating {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=total < _BAR_ROWS) as bar:
        task = bar.add_task("", total=total)
        yield lambda table, rows: bar.update(task, advance=rows, description=table)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the folder's lock: a second preparation waits, and then finds everything up to date."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the kernel when the process dies
        yield


def _digest(settings: PrepareSettings) -> str:
    """Return the sha256 of all that decides the outcome beside the files."""
    parts = [__version__, _FORMAT, asdict(settings.source), asdict(settings.validation), asdict(settings.sufficiency)]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _before(target: Path) -> _Prepared | None:
    try:
        return msgspec.json.decode((target / PREPARED).read_bytes(), type=_Prepared)
    except (OSError, msgspec.DecodeError):
        return None


def _input(path: Path, before: _Prepared | None) -> _InputFile:
    """Describe a raw file; its bytes are read only where size or time differ from the last preparation's."""
    stat = path.stat()
    for old in before.inputs if before else []:
        if (old.path, old.size_bytes, old.mtime_ns) == (str(path), stat.st_size, stat.st_mtime_ns):
            return old
    return _InputFile(path=str(path), size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256_file(path))


def _unchanged(target: Path, now: _Prepared) -> TableFolder | None:
    """Return the folder if it was made from the same bytes by the same settings and is whole."""
    before = _before(target)
    if before is None or before.settings != now.settings:
        return None
    if [(i.path, i.sha256) for i in before.inputs] != [(i.path, i.sha256) for i in now.inputs]:
        return None
    try:
        return read_folder(target, verify=True)
    except TableError:
        return None
