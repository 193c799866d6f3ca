"""MovieLens in every form that can be had or rebuilt here: the same events, whatever the form."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from playbill.cli import compose
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import SourceError
from playbill.features.settings import FeatureSettings
from playbill.sources import movielens
from playbill.sources.movielens_forms import _GENRES
from playbill.sources.prepare import run
from playbill.sources.settings import Edition
from playbill.tables.folder import read_folder, read_table
from playbill.tables.schema import Column


def prepare(home: Path, *overrides: str) -> Path:
    return run(compose("prepare", [f"home={home}", *overrides]))


@pytest.fixture(scope="module")
def ml100k(shared_data: Path) -> Path:
    return shared_data / "ml-100k"


@pytest.fixture(scope="module")
def ml1m(shared_data: Path) -> Path:
    return shared_data / "ml-1m"


def lines(table: pa.Table, separator: str) -> str:
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    return "".join(separator.join(str(cell) for cell in row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def publisher_form(ml100k: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """u.data and u.user as published, byte for byte (their sha256 is checked); u.item from what the parquet knows."""
    folder = tmp_path_factory.mktemp("publisher")
    (folder / "u.data").write_text(lines(pq.read_table(ml100k / "ratings.parquet"), "\t"))
    users = pq.read_table(ml100k / "users.parquet").select(["user_id", "age", "gender", "occupation", "zip_code"])
    (folder / "u.user").write_text(lines(users, "|"))
    rows = []
    for item in pq.read_table(ml100k / "items.parquet").to_pylist():
        year = item["release_year"] if item["release_year"].isdigit() else "1995"
        flags = "|".join("1" if genre in item["class"].split() else "0" for genre in _GENRES)
        title = item["movie_title"].removesuffix(" (1995)")
        rows.append(f"{item['item_id']}|{title} ({year})|01-Feb-{year}||http://example.org|{flags}\n")
    (folder / "u.item").write_text("".join(rows), encoding="latin-1")
    return folder


def test_the_known_counts(ml100k_tables: Path) -> None:
    folder = read_folder(ml100k_tables, verify=True)
    assert folder.rows == {"users": 943, "items": 1682, "events": 100_000}
    events = read_table(ml100k_tables, "events")
    assert round(pc.mean(events["value"]).as_py(), 5) == 3.52986
    span = pc.min_max(events["at"].cast(pa.int64())).as_py()
    assert span == {"min": 874_724_710_000_000, "max": 893_286_638_000_000}


def test_marks_and_declarations(ml100k_tables: Path) -> None:
    folder = read_folder(ml100k_tables)
    users = {column.name: column for column in folder.columns["users"]}
    assert [name for name, column in users.items() if column.protected] == ["age", "gender", "occupation", "zip_code"]
    assert {column.provenance for column in users.values() if column.protected} == {"declared"}
    (event,) = folder.events
    assert (event.name, event.unit, event.low, event.high) == ("rate", "stars", 1.0, 5.0)
    assert "research" in folder.licence.lower()
    assert isinstance(folder.columns["items"][0], Column)


def test_events_are_sorted_by_time_with_stable_ids(ml100k_tables: Path) -> None:
    events = read_table(ml100k_tables, "events")
    at = events["at"].cast(pa.int64()).to_numpy()
    assert (at[1:] >= at[:-1]).all()
    assert events.schema.field("event_id").type == events.schema.field("user_id").type == pa.int64()
    pair = pc.add(pc.multiply(events["user_id"], 1_000_000), events["item_id"])
    assert events["event_id"].equals(pair)
    assert pc.count_distinct(events["event_id"]).as_py() == 100_000


def test_items(ml100k_tables: Path) -> None:
    items = {row["item_id"]: row for row in read_table(ml100k_tables, "items").to_pylist()}
    assert items[1]["title"] == "Toy Story"
    assert items[1]["categories"] == ["Animation", "Children's", "Comedy"]
    assert items[1]["release_year"] == 1995.0
    # the two films whose year is not in its column: one has none, the other has it in the title
    assert (items[267]["title"], items[267]["release_year"], items[267]["categories"]) == ("unknown", None, [])
    title = "Land Before Time III: The Time of the Great Giving"
    assert (items[1412]["title"], items[1412]["release_year"]) == (title, 1995.0)
    assert items[543]["title"] == "Misérables, Les"


def test_the_published_files_are_rebuilt_byte_for_byte(publisher_form: Path) -> None:
    """The parquet form lost nothing: written as the publisher writes it, it has the published checksums."""
    pinned = compose("prepare", []).source.sha256
    for name in ("u.data", "u.user"):
        assert hashlib.sha256((publisher_form / name).read_bytes()).hexdigest() == pinned[name]


def test_the_publishers_form_gives_the_same_tables(publisher_form: Path, ml100k: Path, tmp_path: Path) -> None:
    ours = prepare(tmp_path, f"source.folder={publisher_form}", "source.check=false", "source.name=u")
    other = prepare(tmp_path, f"source.folder={ml100k}", "source.name=p")
    for name in ("events", "users"):
        assert read_table(ours, name).equals(read_table(other, name))
    items, parquet_items = read_table(ours, "items"), read_table(other, "items")
    for column in ("item_id", "title"):
        assert items[column].equals(parquet_items[column])
    categories = zip(items["categories"].to_pylist(), parquet_items["categories"].to_pylist(), strict=True)
    assert all(sorted(ours) == sorted(theirs) for ours, theirs in categories)
    assert str(items["published_at"][0].as_py()) == "1995-02-01 00:00:00+00:00"


def test_the_package_index_delivers_the_same_tables(ml100k_tables: Path, tmp_path: Path) -> None:
    """The whole way: a publisher that does not answer, pip, the wheel, its checked members."""
    try:
        path = prepare(tmp_path, "source.publisher.url=http://127.0.0.1:9/ml-100k.zip")
    except SourceError as error:
        assert "the publisher (http://127.0.0.1:9/ml-100k.zip)" in str(error)
        pytest.skip(f"no package index delivers the wheel: {error}")
    for name in ("events", "users", "items"):
        assert read_table(path, name).equals(read_table(ml100k_tables, name))
    cache = tmp_path / "cache" / "ml-100k"
    assert {"ml-100k.inter", "ml-100k.item", "ml-100k.user", "LICENCE.shown"} <= {p.name for p in cache.iterdir()}
    assert not list(cache.rglob("*.py"))


def test_offline_the_error_lists_every_mirror_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError) as caught:
        prepare(tmp_path, "source.publisher.url=http://127.0.0.1:9/ml-100k.zip")
    message = str(caught.value)
    assert "the publisher (http://127.0.0.1:9/ml-100k.zip): " in message
    assert "the package index (wheel recbole==1.2.1): pip: " in message
    assert "source.folder=DIR` with u.user, u.item, u.data (publisher) or ml-100k.user" in message
    assert not (tmp_path / "tables" / "ml-100k").exists()


def test_the_order_of_mirrors_is_configuration(tmp_path: Path) -> None:
    source = compose("prepare", ["source.mirrors=[wheel,publisher]"]).source
    names = [name for name, _ in movielens._mirrors(source, tmp_path)]
    assert names[0].startswith("the package index") and names[1].startswith("the publisher")
    with pytest.raises(SourceError, match="none is configured"):
        prepare(tmp_path, "source.mirrors=[]")


def copy(source: Path, target: Path, **changes: Any) -> Path:
    target.mkdir()
    for path in source.glob("*.parquet"):
        (target / path.name).write_bytes(changes.get(path.stem, path.read_bytes()))
    return target


def test_an_altered_file_is_refused_unless_told_otherwise(ml100k: Path, tmp_path: Path) -> None:
    ratings = pq.read_table(ml100k / "ratings.parquet")
    folder = copy(ml100k, tmp_path / "mine")
    pq.write_table(ratings.slice(0, 500), folder / "ratings.parquet")
    with pytest.raises(SourceError, match=r"ratings.parquet: sha256 is [0-9a-f]{64}, expected 7cf1a2b7"):
        prepare(tmp_path, f"source.folder={folder}")
    path = prepare(tmp_path, f"source.folder={folder}", "source.check=false")
    assert read_folder(path).rows["events"] == 500


def test_a_broken_file_is_named(ml100k: Path, tmp_path: Path) -> None:
    folder = copy(ml100k, tmp_path / "mine", ratings=(ml100k / "ratings.parquet").read_bytes()[:1000])
    with pytest.raises(SourceError, match=r"ratings.parquet cannot be read as the parquet form of ml-100k: Parq"):
        prepare(tmp_path, f"source.folder={folder}", "source.check=false")
    (folder / "users.parquet").unlink()
    with pytest.raises(SourceError, match=r"no complete form of ml-100k: expected u.user.*; found: items.parquet"):
        prepare(tmp_path, f"source.folder={folder}")
    with pytest.raises(SourceError, match="no such folder"):
        prepare(tmp_path, "source.folder=nowhere")


def test_a_line_that_does_not_parse_is_named(publisher_form: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("u.data", "u.user", "u.item"):
        (folder / name).write_bytes((publisher_form / name).read_bytes())
    with (folder / "u.data").open("a") as file:
        file.write("943\tmany\t3\t891717742\n")
    with pytest.raises(SourceError, match="u.data cannot be read as the publisher form.*invalid value 'many'"):
        prepare(tmp_path, f"source.folder={folder}", "source.check=false")


@pytest.fixture(scope="module")
def ml1m_tables(ml1m: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("ml1m"), "source=ml-1m", f"source.folder={ml1m}")


def test_ml1m_parquet(ml1m_tables: Path) -> None:
    path, folder = ml1m_tables, read_folder(ml1m_tables)
    assert folder.rows == {"users": 6040, "items": 3883, "events": 1_000_209}
    events = read_table(path, "events")
    counts = {row["values"]: row["counts"] for row in pc.value_counts(events["value"]).to_pylist()}
    # the published counts of 1 to 5 stars
    assert counts == {1.0: 56_174, 2.0: 107_557, 3.0: 261_197, 4.0: 348_971, 5.0: 226_310}
    assert pc.count(events["sasrec_pos"]).as_py() == 999_611
    assert {"order", "split_global"} <= set(events.column_names)
    # in the table's order each person's own order rises
    sorted_by_user = events.select(["user_id", "order"]).take(pc.sort_indices(events["user_id"]))
    user, order = sorted_by_user["user_id"].to_numpy(), sorted_by_user["order"].to_numpy()
    same = user[1:] == user[:-1]
    assert (order[1:][same] == order[:-1][same] + 1).all()
    item = read_table(path, "items").slice(0, 1).to_pylist()[0]
    assert item["title"] == "Toy Story" and item["text"].startswith("A little boy named Andy")
    assert str(item["published_at"])[:10] == "1995-11-22"
    users = {row["user_id"]: row for row in read_table(path, "users").slice(0, 3).to_pylist()}
    assert users[1]["occupation"] == "K-12 student" and users[1]["age"] == 1.0
    assert [c.name for c in folder.columns["users"] if c.protected] == ["age", "gender", "occupation", "zip_code"]
    # two rated films that the file of films lacks are items all the same, else their ratings would name an unknown one
    undescribed = [row for row in read_table(path, "items").to_pylist() if row["title"] is None]
    assert [row["item_id"] for row in undescribed] == [860, 1795]
    assert pq.read_table(path / "report/faults.parquet").num_rows == 0


def test_ml1m_leave_last_out_as_published(ml1m: Path, ml1m_tables: Path) -> None:
    """Every rating with a sasrec_pos, and no other, is in the dataset, its item known."""
    dataset = open_dataset(
        ml1m_tables, FeatureSettings(), SplitSettings(kind=SplitKind.leave_last_out, order_column="sasrec_pos")
    )
    pool = dataset.pool
    assert (len(pool), len(np.unique(pool.item)), len(np.unique(pool.person))) == (999_611, 3416, 6040)
    assert pool.item.min() > 0
    assert [int((dataset.split.part == part).sum()) for part in range(3)] == [999_611 - 2 * 6040, 6040, 6040]
    raw = pq.read_table(ml1m / "interactions.parquet", columns=["user_id", "item_id", "sasrec_pos"]).drop_null()
    raw = raw.take(pc.sort_indices(raw, [("user_id", "ascending"), ("sasrec_pos", "descending")]))
    first = np.flatnonzero(np.diff(raw["user_id"].to_numpy(), prepend=-1))
    last = dict(zip(raw["user_id"].take(first).to_pylist(), raw["item_id"].take(first).to_pylist(), strict=True))
    test = np.flatnonzero(dataset.split.part == 2)
    items = dataset.vocabularies["item"].values
    assert {dataset.user_ids[p]: items[i - 1] for p, i in zip(pool.person[test], pool.item[test], strict=True)} == last


def test_ml1m_dat_gives_the_same_events(ml1m: Path, tmp_path: Path) -> None:
    """The publisher's form, written from the parquet: users.dat has the published checksum."""
    users = pq.read_table(ml1m / "users.parquet").select(["user_id", "gender", "age", "occupation", "zip_code"])
    folder = tmp_path / "dat"
    folder.mkdir()
    (folder / "users.dat").write_text(lines(users, "::"))
    pinned = compose("prepare", ["source=ml-1m"]).source.sha256
    assert hashlib.sha256((folder / "users.dat").read_bytes()).hexdigest() == pinned["users.dat"]
    movies = pq.read_table(ml1m / "movies.parquet").select(["item_id", "title", "genres"])
    (folder / "movies.dat").write_text(lines(movies, "::"), encoding="latin-1")
    ratings = pq.read_table(ml1m / "interactions.parquet").select(["user_id", "item_id", "rating", "timestamp"])
    few = ratings.filter(pc.less_equal(ratings["user_id"], 300))
    (folder / "ratings.dat").write_text(lines(few, "::"))
    form, paths = movielens.find_form(folder, Edition.ml_1m)
    assert form == "publisher"
    path = prepare(tmp_path, "source=ml-1m", f"source.folder={folder}", "source.check=false")
    events = read_table(path, "events")
    _, _, parquet_events = movielens.read("parquet", movielens.find_form(ml1m, Edition.ml_1m)[1], Edition.ml_1m)
    whole = pa.Table.from_batches(parquet_events.batches())
    same = whole.filter(pc.less_equal(whole["user_id"], 300))
    for name in ("event_id", "user_id", "item_id", "value"):
        assert events[name].to_pylist() == same[name].to_pylist()
    assert read_table(path, "items").num_rows == 3883
