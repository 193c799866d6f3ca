"""Items told over a real socket: two servers on one home, each with its own engine, and one of them killed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import polars as pl
import pytest

from playbill.bundle.manifest import State
from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.write import current, describe, publish, seal, set_state
from playbill.cli import main
from playbill.serving import http
from playbill.serving.openapi import document
from playbill.serving.processes import wait_until

NEW = 10_001  # of no film; each test takes its own
TOWER = """
    <ir_version: 10, opset_import: ["": 20]>
    item_tower (int64[N] item_index, int64[N, W] item_categories) => (float[N, 16] embedding)
        <float[M, 16] table, float[G, 16] genres> {
        zero = Constant <value = int64 {0}> ()
        axis = Constant <value = int64[1] {1}> ()
        own = Gather (table, item_index)
        known = Max (item_categories, zero)
        vectors = Gather (genres, known)
        content = ReduceSum <keepdims = 0> (vectors, axis)
        both = Add (own, content)
        embedding = LpNormalization <axis = 1, p = 2> (both)
    }"""


def add_prices_and_content(folder: Path) -> None:
    """Give a bundle's items prices of 5 to 24, and an item tower that reads their genres."""
    import onnx
    import onnxruntime as ort

    bundle = open_bundle(folder, require_sealed=False, verify=False)
    price = 5.0 + pl.int_range(pl.len()) % 20
    bundle.items.with_columns(price.alias("price")).write_parquet(folder / "items.parquet")
    table, genres = np.load(folder / "item_embeddings.npy"), bundle.item_arrays["item_categories"]
    means = [table[(genres == g).any(1)].mean(0) for g in range(1, genres.max() + 1)]
    weights = {"table": table, "genres": np.concatenate([np.zeros((1, 16)), means]).astype(np.float32)}
    before = onnx.load(folder / "item_tower.onnx")
    model = onnx.parser.parse_model(TOWER)
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.helper.set_model_props(model, {p.key: p.value for p in before.metadata_props})
    (folder / "item_tower.onnx").write_bytes(model.SerializeToString())
    inputs = {"item_index": np.arange(4), "item_categories": genres[:4]}
    [output] = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
    sample = {k: v for k, v in np.load(folder / "parity.npz").items() if not k.startswith("item_tower/")}
    sample |= {f"item_tower/in/{name}": array for name, array in inputs.items()}
    np.savez(folder / "parity.npz", **sample, **{"item_tower/out/embedding": output})
    models = {**bundle.manifest.models, "item_tower": read_onnx(folder / "item_tower.onnx").signature}
    manifest = msgspec.structs.replace(bundle.manifest, models=models)
    (folder / "manifest.json").unlink()
    describe(folder, manifest)
    for state in (State.EVALUATED, State.GATED):
        set_state(folder, state)
    seal(folder)
    publish(folder.parent, folder.name)


class Server:
    """A plain server in a process of its own."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port, self.log = home, port, home / f"plain-{port}.log"
        self.begin()

    def begin(self) -> None:
        command = [sys.executable, "-m", "playbill.serving.plain", f"home={self.home}", f"port={self.port}"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("/v1/health")[0] == 200
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=30) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def good(self, path: str, body: Any = None) -> dict[str, Any]:
        status, answer = self.ask(path, body)
        assert status == 200, answer
        return answer

    def tell(self, *items: dict[str, Any]) -> list[dict[str, Any]]:
        return self.good("/v1/items", {"items": list(items)})["items"]

    def found(self, condition: str, **asked: Any) -> dict[int, dict[str, Any]]:
        """The items that a filter leaves."""
        slate = self.good("/v1/recommend", {"k": 50, **asked, "filter": condition})
        return {item["item_id"]: item for item in slate["items"]}


@pytest.fixture(scope="module")
def servers(home: Path, free_ports: Callable[[int], list[int]]) -> Iterator[tuple[Server, Server]]:
    version = current(home / "bundles")
    assert version is not None
    add_prices_and_content(home / "bundles" / version)
    both = [Server(home, port) for port in free_ports(2)]
    try:
        assert wait_until(lambda: all(server.answers() for server in both), 90)
        yield both[0], both[1]
    finally:
        for server in both:
            server.process.terminate()
            server.process.wait(20)


@pytest.fixture
def one(servers: tuple[Server, Server]) -> Server:
    return servers[0]


@pytest.fixture
def other(servers: tuple[Server, Server]) -> Server:
    return servers[1]


@pytest.fixture(scope="module")
def bundle(home: Path, servers: object) -> Bundle:
    version = current(home / "bundles")
    assert version is not None
    return open_bundle(home / "bundles" / version, verify=False)


def check(name: str, answer: dict[str, Any]) -> None:
    schemas = document()["components"]["schemas"]
    jsonschema.validate(answer, {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


def test_a_new_film_is_found_by_its_like_and_by_filters_on_every_replica(
    one: Server, other: Server, bundle: Bundle
) -> None:
    film = {
        "item_id": str(NEW),
        "title": "Late Arrival (1998)",
        "categories": ["Children's", "Animation"],
        "price": 3,
        "published_at": "1998-04-01T00:00:00Z",
    }
    answer = one.good("/v1/items", film)
    check("ItemsNoted", answer)
    assert answer["items"] == [{"item_id": NEW, "change": "new", "shown": True, "reason": "", "embedded": True}]
    # its vector is the mean of its genres' films: it is like the film that is nearest to that
    table, genres = np.load(bundle.path / "item_embeddings.npy"), bundle.item_arrays["item_categories"]
    numbers = [bundle.vocabularies["item_categories"].index(name) for name in film["categories"]]
    vector = sum(table[(genres == number).any(1)].mean(0) for number in numbers)
    order = np.argsort(table[1:] @ vector)
    farthest, nearest = (bundle.vocabularies["item"].values[place] for place in (order[0], order[-1]))
    like = {"surface": "similar", "k": 1000}
    near = one.good("/v1/recommend", {**like, "item_id": nearest})
    assert near["state_version"] >= answer["state_version"]
    [item] = [item for item in near["items"] if item["item_id"] == NEW]
    assert item["title"] == "Late Arrival (1998)" and item["retriever"] == "similar"
    assert NEW not in [i["item_id"] for i in one.good("/v1/recommend", {**like, "item_id": farthest})["items"]]
    kin = one.good("/v1/recommend", {**like, "item_id": NEW})["items"]  # nobody chose anything with it yet
    assert kin[0]["item_id"] == nearest
    assert set(one.found(f"item_id = {NEW} and price < 5 and categories contains 'Animation'", user_id=196)) == {NEW}
    assert wait_until(lambda: NEW in other.found(f"item_id = {NEW}"), 30)
    assert other.good(f"/v1/items/{NEW}")["source"] == "store"
    # told again, nothing changes
    again = one.good("/v1/items", film)
    assert again["items"][0]["change"] == "unchanged" and again["state_version"] == answer["state_version"]


def test_a_price_moves_what_a_filter_leaves(one: Server, other: Server, bundle: Bundle) -> None:
    dear = bundle.items.filter(pl.col("price") >= 20)["item_id"].to_list()[:3]
    cheap = f"price < 10 and item_id in {dear}"
    assert one.found(cheap) == {} == other.found(cheap)
    told = one.tell({"item_id": dear[0], "price": 7.5}, {"item_id": dear[1], "price": 9, "title": "Reduced"})
    assert [note["change"] for note in told] == ["changed", "changed"] and "embedded" not in told[0]
    left = one.found(cheap)
    assert set(left) == {dear[0], dear[1]} and left[dear[1]]["title"] == "Reduced"
    assert wait_until(lambda: set(other.found(cheap)) == {dear[0], dear[1]}, 30)
    one.tell({"item_id": dear[0], "price": None}, {"item_id": dear[1], "price": None, "title": None})
    assert one.found(cheap) == {}
    now = one.good(f"/v1/items/{dear[1]}")
    assert now["noted"] == {} and now["item"]["price"] >= 20 and now["item"]["title"] != "Reduced"


def test_what_is_withdrawn_is_on_no_surface(one: Server, other: Server) -> None:
    film = one.good("/v1/recommend", {"surface": "trending", "k": 1})["items"][0]["item_id"]
    like = one.good("/v1/recommend", {"surface": "similar", "item_id": film, "k": 1})["items"][0]["item_id"]

    def shown(server: Server) -> set[int]:
        found = []
        for body in (
            {"k": 1_000},
            {"user_id": 405, "k": 1_000},
            {"surface": "similar", "item_id": like, "k": 1_000},
            {"surface": "rerank", "items": [film, like]},
            {"surface": "trending", "k": 1_000},
            {"filter": f"item_id = {film}"},
        ):
            found += server.good("/v1/recommend", body)["items"]
        page = server.good("/v1/home", {"user_id": 405, "k": 50})
        return {item["item_id"] for item in [*found, *(i for shelf in page["shelves"] for i in shelf["items"])]}

    assert film in shown(one)
    [note] = one.tell({"item_id": film, "withdrawn": True})
    assert note == {"item_id": film, "change": "withdrawn", "shown": False, "reason": "it is withdrawn"}
    assert film not in shown(one)
    ordered = one.good("/v1/recommend", {"surface": "rerank", "items": [film, like]})
    assert ordered["not_ordered"] == [film]
    assert wait_until(lambda: film not in other.found(f"item_id = {film}"), 30)
    assert film not in shown(other)
    [note] = one.tell({"item_id": film, "available": True})  # says nothing against that
    assert (note["change"], note["shown"], note["reason"]) == ("changed", False, "it is withdrawn")
    assert film not in one.found(f"item_id = {film}")
    [note] = one.tell({"item_id": film, "withdrawn": None, "available": None})
    assert note["shown"] and film in shown(one)
    [note] = one.tell({"item_id": film, "available": False})
    assert note["reason"] == "available is false" and film not in one.found(f"item_id = {film}")
    one.tell({"item_id": film, "available": None})


def test_what_is_known_of_an_item(one: Server, bundle: Bundle) -> None:
    row = bundle.items.row(49, named=True)
    film = row["item_id"]
    one.tell({"item_id": film, "published_at": "2001-02-03T04:05:06+01:00", "price": 8, "release_year": 2001})
    now = one.good(f"/v1/items/{film}")
    check("ItemNow", now)
    assert (now["source"], now["shown"], now["reason"]) == ("bundle", True, "")
    assert now["item"]["published_at"] == "2001-02-03T03:05:06Z" and now["item"]["price"] == 8
    assert now["item"]["title"] == row["title"] and now["item"]["categories"] == row["categories"]
    assert now["noted"] == {"published_at": 981_169_506_000_000, "price": 8, "release_year": 2001}
    assert film in one.found(f"item_id = {film} and release_year > 2000")
    one.tell({"item_id": film, "published_at": None, "price": None, "release_year": None})
    status, problem = one.ask("/v1/items/77777777")
    assert status == 404 and problem["field"] == "item_id" and "has an item '77777777'" in problem["reason"]
    assert one.ask("/v1/items/poster")[0] == 422
    assert one.ask("/v1/items/")[0] == 404


def test_a_row_that_says_too_little_is_noted_and_says_so(one: Server) -> None:
    [note] = one.tell({"item_id": NEW + 1, "available": True, "price": 4})
    assert not note["shown"] and note["change"] == "new" and "does not know it, and it says none of" in note["reason"]
    assert "title" in note["reason"] and "categories" in note["reason"]
    [note] = one.tell({"item_id": NEW + 1, "title": "Named at last"})
    assert note["shown"] and note["change"] == "changed"
    assert NEW + 1 in one.found(f"item_id = {NEW + 1} and price = 4")


def test_a_killed_server_knows_it_all_again(one: Server, other: Server) -> None:
    [note] = other.tell({"item_id": NEW + 2, "title": "Before the end", "categories": ["Drama"], "price": 1})
    assert note["shown"]
    other.tell({"item_id": 2, "withdrawn": True}, {"item_id": 3, "price": 0.5})
    other.process.kill()
    other.process.wait(20)
    other.begin()
    assert wait_until(other.answers, 90)
    for server in (one, other):
        ids = [2, 3, NEW + 2]
        assert set(server.found(f"price <= 1 and item_id in {ids}")) == {3, NEW + 2}
    other.tell({"item_id": 2, "withdrawn": None}, {"item_id": 3, "price": None})


def test_the_readme_shows_what_works(one: Server) -> None:
    text = (Path(http.__file__).parent / "README.md").read_text()
    bodies = re.findall(r"localhost:8000/v1/items -d '(.*)'", text)
    told = [one.good("/v1/items", body.encode())["items"] for body in bodies]
    assert [[note["shown"] for note in notes] for notes in told] == [[True], [False, False], [True, True]]
    assert one.good(re.findall(r"localhost:8000(/v1/items/\d+)", text)[0])["source"] == "store"


FAULTS: list[tuple[Any, str, str]] = [
    ({"item_id": 1}, "body", "says nothing of the item"),
    ({"price": 3}, "item_id", "missing"),
    ({"item_id": "one", "price": 3}, "item_id", "expected an int64 id, got 'one'"),
    ({"item_id": 1.5, "price": 3}, "item_id", "got `float`"),
    ({"item_id": True, "price": 3}, "item_id", "got `bool`"),
    ({"item_id": 10**30, "price": 3}, "item_id", "<= 9223372036854775807"),
    ({"item_id": 1, "price": "12"}, "price", 'expected a number that 32 bits hold, got "12"'),
    ({"item_id": 1, "price": True}, "price", "expected a number that 32 bits hold, got true"),
    ({"item_id": 1, "price": 10**30}, "price", "expected a number"),
    ({"item_id": 1, "price": -1e308}, "price", "expected a number that 32 bits hold, got -1e308"),
    ({"item_id": 1, "prize": 3}, "prize", "no such column; did you mean price? columns: withdrawn, available, title"),
    ({"item_id": 1, "item_index": 3}, "item_index", "no such column"),
    ({"item_id": 1, "x" * 9_000: 3}, "x" * 80, "no such column"),
    ({"item_id": 1, "title": 7}, "title", "expected a text of at most 100,000 characters, got 7"),
    ({"item_id": 1, "title": "x" * 100_001}, "title", "expected a text of at most 100,000 characters"),
    ({"item_id": 1, "available": "yes"}, "available", 'expected true or false, got "yes"'),
    ({"item_id": 1, "withdrawn": 1}, "withdrawn", "expected true or false, got 1"),
    ({"item_id": 1, "published_at": "soon"}, "published_at", "expected a time, ISO 8601 such as"),
    ({"item_id": 1, "published_at": 1.5}, "published_at", "expected a time"),
    ({"item_id": 1, "published_at": 2**62}, "published_at", "expected a time"),
    ({"item_id": 1, "categories": "Drama"}, "categories", 'expected a list, each a text of at most 100,000 characters'),
    ({"item_id": 1, "categories": ["Drama", 3]}, "categories[1]", "expected a text"),
    ({"item_id": 1, "categories": ["x"] * 1_001}, "categories", "expected at most 1,000 values, got 1,001"),
    ({"item_id": 1, "creatives": [{"creative_id": 5}]}, "creatives[0]", "which answers, has no creatives"),
    ({"item_id": 1, "creatives": "none"}, "creatives", "expected a list of at most 100"),
    ({"items": []}, "items", "length >= 1"),
    ({"items": [{"item_id": 9_000 + i, "price": 1} for i in range(1_001)]}, "items", "length <= 1000"),
    ({"items": [7]}, "items[0]", "Expected `object`, got `int`"),
    ({"items": [{"item_id": 1, "price": 1}], "more": 1}, "more", "unknown field"),
    ({"items": [{"item_id": 1, "price": 1}, {"item_id": "1", "price": 2}]}, "items[1].item_id", "stands in items[0]"),
    ({"items": [*({"item_id": i, "price": 1} for i in (1, 2, 3)), {"item_id": 4, "price": "12"}]},
     "items[3].price", 'expected a number that 32 bits hold, got "12"'),
    ([], "body", "Expected `object`, got `array`"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "field", "reason"), FAULTS)
def test_what_is_not_understood_is_named_and_nothing_is_noted(one: Server, body: Any, field: str, reason: str) -> None:
    before = one.good("/v1/health")["state_version"]
    status, problem = one.ask("/v1/items", body)
    assert (status, problem["error"], problem["field"]) == (422, "invalid", field), problem
    assert reason in problem["reason"]
    assert one.good("/v1/health")["state_version"] == before


def test_a_body_that_is_no_json_and_one_that_is_too_large(one: Server) -> None:
    assert one.ask("/v1/items", b'{"item_id": 1, ')[0] == 400
    assert one.ask("/v1/items", b" " * 300_000)[0] == 413
    status, problem = one.ask("/v1/items")
    assert status == 405 and problem["reason"] == "/v1/items takes POST, got GET"


def feed(one: Server, path: Path, *more: str) -> int:
    return main(["items", str(path), f"url={one.url}", *more])


def test_a_feed_is_taken_in_again_and_again(
    one: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], bundle: Bundle
) -> None:
    days = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 3), "1d", time_zone="UTC", eager=True)
    table = pl.DataFrame(
        {
            "item_id": [NEW + 10, NEW + 11, 1],
            "title": ["Ten", "Eleven", None],
            "categories": [["Drama"], None, None],
            "price": [1.5, 2.5, 99.0],
            "published_at": days,
        }
    )
    table.write_parquet(tmp_path / "feed.parquet")
    assert feed(one, tmp_path / "feed.parquet", "batch_rows=2") == 0
    assert "2 new, 1 changed, 0 withdrawn, 0 unchanged" in capsys.readouterr().err
    assert set(one.found("price > 50 or price < 3")) >= {1, NEW + 10, NEW + 11}
    assert one.good("/v1/items/1")["noted"] == {"price": 99.0, "published_at": 1_704_240_000_000_000}
    assert feed(one, tmp_path / "feed.parquet") == 0
    assert "0 new, 0 changed, 0 withdrawn, 3 unchanged" in capsys.readouterr().err
    (tmp_path / "feed.csv").write_text(f"item_id,title,categories,price\n{NEW + 12},12,Drama|Comedy,4\n1,,,98\n")
    assert feed(one, tmp_path / "feed.csv", "texts=[title]", "start=1") == 0
    assert one.good(f"/v1/items/{NEW + 12}")["item"]["categories"] == ["Drama", "Comedy"]
    rows = [{"item_id": 1, "price": None, "published_at": None}, {"item_id": NEW + 12, "withdrawn": True}]
    (tmp_path / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    assert feed(one, tmp_path / "feed.jsonl") == 0
    told = capsys.readouterr().err
    assert "1 changed, 1 withdrawn" in told and "1 cannot be shown: it is withdrawn" in told
    assert one.good("/v1/items/1")["item"]["price"] == bundle.items["price"][0]


def test_rows_that_are_not_understood_have_numbers_and_the_others_are_noted(
    one: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = [{"item_id": NEW + 20 + i, "title": f"film {i}"} for i in range(7)]
    rows[2]["price"] = "12"
    rows[4] = 7
    rows[6]["item_id"] = NEW + 20
    (tmp_path / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert feed(one, tmp_path / "feed.jsonl", "start=2", "batch_rows=6") == 1
    told = capsys.readouterr().err
    assert 'row 3: price: expected a number that 32 bits hold, got "12"' in told and "row 5: " in told
    assert "2 rows of feed.jsonl were not understood; all others are noted" in told and "4 new" in told
    assert feed(one, tmp_path / "feed.jsonl") == 1
    assert f"row 7: item_id: {NEW + 20} stands in row 1 as well" in capsys.readouterr().err
    assert one.ask(f"/v1/items/{NEW + 22}")[0] == 404
    assert set(one.found(f"item_id in {[NEW + 20 + i for i in range(7)]}")) == {NEW + 20, NEW + 21, NEW + 23, NEW + 25}


def test_a_feed_that_cannot_go_on_says_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "feed.jsonl").write_text('{"item_id": 1, "price": 3}\n')
    assert main(["items", str(tmp_path / "feed.jsonl"), "url=http://127.0.0.1:9"]) == 1
    assert "nobody answers" in (told := capsys.readouterr().err) and "go on with start=1" in told
    for name, said in (("feed.txt", "expected .parquet, .csv or .jsonl"), ("none.csv", "no '")):
        (tmp_path / "feed.txt").touch()
        assert main(["items", str(tmp_path / name)]) != 0
        assert said in capsys.readouterr().err
