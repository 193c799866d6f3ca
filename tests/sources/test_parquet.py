"""A user's own files: mapped, marked, proposed, and every mistake in a mapping named."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playbill.cli import compose
from playbill.errors import ConfigError, PlaybillError, SourceError, TableError
from playbill.sources import settings as source_settings
from playbill.sources.prepare import run
from playbill.tables.consent import allowed_rows
from playbill.tables.folder import read_folder, read_table
from playbill.tables.schema import Kind, Provenance

AT = datetime(2024, 5, 1, 18, 30, tzinfo=UTC)
AT_S = int(AT.timestamp())

MAPPING = """
name: shop
licence: ours
users:
  customers:
    file: customers.parquet
    columns: {user_id: customer_no, timezone: tz}
    features:
      loyalty: {column: loyalty_level, kind: text, provenance: inferred, sensitive: true}
      age: {kind: number, provenance: declared, protected: true}
      consent_training: {column: gdpr_ok, kind: flag, provenance: declared}
items:
  products:
    file: products.parquet
    columns: {item_id: sku, title: name, categories: tags, published_at: listed}
    separators: {categories: "|"}
    times: {published_at: ms}
events:
  orders:
    file: orders/*.parquet
    columns: {user_id: customer_no, item_id: sku, at: ordered_at, value: amount}
    constants: {event: purchase}
    number_rows: [event_id]
  clicks:
    file: clicks.parquet
    columns: {event_id: id, user_id: customer_no, session_id: visit, event: action, item_id: sku, at: ts}
    times: {at: s}
event_names:
  purchase: {meaning: bought, unit: EUR, low: 0, utility: 5}
  view: {meaning: looked at the page}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Two tables of people and products, purchases in two files, clicks in a third, ids as text."""
    folder = tmp_path / "my_shop"
    (folder / "orders").mkdir(parents=True)

    def write(file: str, **columns: object) -> None:
        pq.write_table(pa.table(columns), folder / file)

    write(
        "customers.parquet",
        customer_no=["c1", "c2", "c3"],
        tz=["Europe/Berlin", None, "Asia/Tokyo"],
        loyalty_level=["gold", "none", None],
        age=[31.0, None, 52.0],
        gdpr_ok=["yes", "no", None],
        internal_note=["a", "b", "c"],
    )
    write("products.parquet", sku=[7, 8], name=["Boot", "Hat"], tags=["shoes|winter", ""], listed=[AT_S * 1000] * 2)
    write("orders/2024-04.parquet", customer_no=["c1"], sku=[7], ordered_at=[AT], amount=[49.5])
    write("orders/2024-05.parquet", customer_no=["c2", "c3"], sku=[8, 7], ordered_at=[AT, AT], amount=[10.0, 49.5])
    write(
        "clicks.parquet",
        id=["k1", "k2"],
        customer_no=["c1", None],
        visit=["v1", "v2"],
        action=["view", "view"],
        sku=[7, 8],
        ts=[AT_S, AT_S + 60],
    )
    (folder / "mapping.yaml").write_text(MAPPING)
    return folder


def prepare(folder: Path, *overrides: str) -> Path:
    home = folder.parent / "var"
    return run(compose("prepare", ["source=parquet", f"source.folder={folder}", f"home={home}", *overrides]))


def remap(folder: Path, old: str, new: str) -> None:
    text = (folder / "mapping.yaml").read_text()
    assert old in text
    (folder / "mapping.yaml").write_text(text.replace(old, new))


def test_a_mapped_shop(shop: Path) -> None:
    path = prepare(shop)
    folder = read_folder(path, verify=True)
    assert path.name == "shop" and folder.licence == "ours"
    assert folder.rows == {"users": 3, "items": 2, "events": 5}
    assert [(e.name, e.meaning, e.unit, e.low, e.high, e.utility) for e in folder.events] == [
        ("purchase", "bought", "EUR", 0.0, None, 5.0),
        ("view", "looked at the page", "", None, None, 1.0),
    ]
    users = {column.name: column for column in folder.columns["users"]}
    assert users["loyalty"].sensitive and users["loyalty"].provenance == "inferred"
    assert users["age"].protected and users["age"].kind == "number"
    assert "internal_note" not in users
    assert read_table(path, "items").to_pylist()[0] == {
        "item_id": 7,
        "title": "Boot",
        "categories": ["shoes", "winter"],
        "published_at": AT,
    }
    events = read_table(path, "events").to_pylist()
    assert [row["event_id"] for row in events] == [
        "orders/2024-04/0",
        "orders/2024-05/0",
        "orders/2024-05/1",
        "k1",
        "k2",
    ]
    assert [row["event"] for row in events] == ["purchase"] * 3 + ["view"] * 2
    assert events[0]["at"] == events[3]["at"] == AT
    assert events[4]["user_id"] is None and events[4]["session_id"] == "v2"


def test_consent_comes_through_the_mapping(shop: Path) -> None:
    users = read_table(prepare(shop), "users")
    assert users["consent_training"].to_pylist() == [True, False, None]
    assert allowed_rows(users, "training").tolist() == [True, False, False]


def test_columns_left_out_are_named(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(shop)
    assert "customers.parquet: columns that the mapping leaves out: internal_note" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "user_id: customer_no, timezone",
            "user_id: custmer_no, timezone",
            "no column 'custmer_no' (for user_id), did you",
        ),
        ("user_id: customer_no, timezone", "user_id: custmer_no, timezone", "it has: customer_no, tz, loyalty_level"),
        ("timezone: tz", "time_zone: tz", "'time_zone' is no column of users; nearest is 'timezone'"),
        ("    file: customers", "    fiel: customers", "no field 'fiel'; nearest is 'file'"),
        ("event_names:", "event_name:", "no field 'event_name'; nearest is 'event_names'"),
        ("kind: number", "kind: numbr", "kind=numbr: expected one of id, text, number, flag, time, categories"),
        ("provenance: inferred", "provenance: guessed", "provenance=guessed: expected one of declared, observed"),
        ("{at: s}", "{at: minutes}", "times.at=minutes: expected s, ms, us or ns"),
        ("{at: s}", "{when: s}", "source.events.clicks: 'when' has a unit or separator, and is not mapped"),
        (
            "{column: gdpr_ok, kind: flag,",
            "{column: gdpr_ok, kind: text,",
            "consent_training: kind=text; consent is a flag",
        ),
        ("number_rows: [event_id]", "number_rows: [event_id, at]", "source.events.orders: at is given more than once"),
        ("clicks.parquet", "click.parquet", "click.parquet does not exist; parquet files there: clicks.parquet"),
        ("orders/*.parquet", "order/*.parquet", "order/*.parquet does not exist"),
        ("low: 0", "low: cheap", "Expected `float | null`, got `str` - at `$.event_names"),
        ("users:", "users: [", "mapping.yaml: "),
    ],
)
def test_a_mistake_in_the_mapping_is_named(shop: Path, old: str, new: str, expected: str) -> None:
    remap(shop, old, new)
    with pytest.raises((ConfigError, SourceError)) as caught:
        prepare(shop)
    assert expected in str(caught.value)


def test_every_broken_file_is_listed_at_once(shop: Path) -> None:
    (shop / "customers.parquet").unlink()
    (shop / "products.parquet").write_bytes(b"")
    whole = (shop / "clicks.parquet").read_bytes()
    (shop / "clicks.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError) as caught:
        prepare(shop)
    message = str(caught.value)
    assert "customers.parquet does not exist" in message
    assert "products.parquet is empty (0 bytes)" in message
    assert "clicks.parquet is no whole parquet file" in message


def test_a_number_as_time_needs_a_unit(shop: Path) -> None:
    remap(shop, "    times: {at: s}\n", "")
    with pytest.raises(
        TableError, match="'ts' is int64; expected a time, or numbers with a declared unit: s, ms, us or ns"
    ):
        prepare(shop)
    assert not (shop.parent / "var/tables/shop").exists()
    assert (shop.parent / "var/tables/shop.rejected/report/faults.parquet").exists()


def test_without_events_declared_nothing_is_read(shop: Path) -> None:
    remap(shop, MAPPING[MAPPING.index("event_names:") :], "")
    with pytest.raises(ConfigError, match="source.event_names is empty: declare every event name"):
        prepare(shop)


def test_the_mapping_can_stand_in_the_configuration(shop: Path) -> None:
    (shop / "mapping.yaml").unlink()
    path = prepare(
        shop,
        "+source.items={p: {file: products.parquet, columns: {item_id: sku}}}",
        "+source.events={c: {file: clicks.parquet, times: {at: s}, columns: "
        "{event_id: id, user_id: customer_no, session_id: visit, event: action, at: ts}}}",
        "+source.event_names={view: {meaning: looked}}",
        "source.name=by_hand",
    )
    assert path.name == "by_hand"
    assert read_folder(path).rows == {"items": 2, "events": 2}


def test_without_a_mapping_the_error_proposes_one_that_works(shared_data: Path, tmp_path: Path) -> None:
    """First contact: files nobody has mapped. What is proposed, saved as it is, prepares them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in (shared_data / "ml-100k").glob("*.parquet"):
        (folder / path.name).symlink_to(path)
    with pytest.raises(SourceError) as caught:
        prepare(folder)
    head, _, proposal = str(caught.value).partition("\n\n")
    assert "which of your columns is the user, the item, the time?" in head
    (folder / "mapping.yaml").write_text(proposal)
    path = prepare(folder)
    tables = read_folder(path)
    assert tables.rows == {"users": 943, "items": 1682, "events": 100_000}
    assert [(e.name, e.low, e.high) for e in tables.events] == [("rate", 1.0, 5.0)]
    protected = [column.name for column in tables.columns["users"] if column.protected]
    assert protected == ["age", "gender", "zip_code"]
    events = read_table(path, "events")
    assert str(min(events["at"].to_pylist())) == "1997-09-20 03:05:10+00:00"
    assert read_table(path, "items")["categories"][0].as_py() == ["Animation", "Children's", "Comedy"]


def test_a_proposal_for_any_folder_is_text_and_no_crash(shared_data: Path, tmp_path: Path) -> None:
    from playbill.sources.propose import propose

    for folder in sorted(path for path in shared_data.iterdir() if path.is_dir()):
        assert "file: " in propose(folder) or not list(folder.rglob("*.parquet"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no more")
    assert propose(tmp_path).endswith("holds no parquet file\n")


def test_a_trivago_log_through_a_mapping(shared_data: Path, tmp_path: Path) -> None:
    """Real clicks of people with sessions and a closed list of actions; what is not declared is counted."""
    folder = tmp_path / "trivago"
    folder.mkdir()
    source = shared_data / "trivago-100k" / "sessions.parquet"
    raw = pq.read_table(source)
    ids = sorted({r for r in raw["reference"].to_pylist() if r and r.isdigit()})
    pq.write_table(pa.table({"item_id": ids}), folder / "hotels.parquet")
    (folder / "sessions.parquet").symlink_to(source)
    (folder / "mapping.yaml").write_text(
        "name: trivago\n"
        "items: {hotels: {file: hotels.parquet, columns: {item_id: item_id}}}\n"
        "events:\n  sessions:\n    file: sessions.parquet\n    number_rows: [event_id]\n    times: {at: s}\n"
        "    columns:\n"
        "      {user_id: user_id, session_id: session_id, event: action_type, at: timestamp, item_id: reference}\n"
        "event_names: {clickout item: {meaning: went to the partner's page}}\n"
    )
    path = prepare(folder, "validation.max_quarantined_share=1")
    clicks = sum(action == "clickout item" for action in raw["action_type"].to_pylist())
    assert read_folder(path).rows["events"] == clicks > 1000
    quarantine = pq.read_table(path / "quarantine" / "events.parquet")
    assert quarantine.num_rows == raw.num_rows - clicks
    assert quarantine.column_names[:2] == ["user_id", "session_id"]


def test_settings_know_the_words_of_the_contract() -> None:
    assert tuple(kind.value for kind in Kind) == source_settings.KINDS
    assert tuple(provenance.value for provenance in Provenance) == source_settings.PROVENANCES


def test_whatever_bytes_a_file_holds_the_error_is_ours(shop: Path) -> None:
    whole = (shop / "clicks.parquet").read_bytes()
    for cut in range(0, len(whole), 211):
        flipped = bytearray(whole)
        flipped[cut] ^= 0xFF
        (shop / "clicks.parquet").write_bytes(bytes(flipped))
        try:
            prepare(shop, "force=true")
        except PlaybillError:
            pass
