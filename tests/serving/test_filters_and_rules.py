"""Filters, rules, suppression and surfaces over a real socket: a published bundle with a policy, and `playbill ask`."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
import uvicorn

from playbill.bundle.manifest import State
from playbill.bundle.open import open_bundle
from playbill.bundle.write import publish, seal, set_state
from playbill.cli import compose, main
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.serving import load
from playbill.serving.openapi import document
from playbill.serving.plain import make_api
from playbill.serving.slates import to_table

POLICY = """
name: house
surfaces:
  slate: {suppression: {rate: 30}}
  forever: {}
  front:
    form: home
    most_shelves: 3
    shelves:
      - {kind: because, events: [rate], most: 2}
      - {kind: category, by: categories, most: 2}
      - {kind: for_you}
rules:
  - {name: no horror, kind: block, where: categories contains 'Horror'}
  - {name: noir, kind: pin, where: categories contains 'Film-Noir', position: 1}
  - {name: one drama, kind: cap, where: categories contains 'Drama', most: 1}
"""
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def url(home: Path, free_ports: Any) -> Iterator[str]:
    from playbill.training.export import run as export

    (home / "house.yaml").write_text(POLICY)
    path = export(compose("export", [f"home={home}", f"policy_file={home}/house.yaml"]))
    for state in (State.EVALUATED, State.GATED):
        set_state(path, state)
    seal(path)
    publish(home / "bundles", path.name)
    api = make_api(str(home))
    [port] = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(api, port=port, access_log=False, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    api._store.close()
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def films(sealed_home: Path) -> dict[int, dict[str, Any]]:
    bundle = open_bundle(next(p for p in (sealed_home / "bundles").iterdir() if p.is_dir()), verify=False)
    return {row["item_id"]: row for row in bundle.items.to_dicts()}


def post(url: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_filter_holds_and_the_answer_fits_its_schema(url: str, films: dict[int, dict[str, Any]]) -> None:
    text = "release_year >= 1990 and not categories contains 'Comedy'"
    for who in ({"user_id": 196}, {}):
        status, slate = post(url, "/v1/recommend", {**who, "k": 15, "filter": text})
        assert status == 200 and len(slate["items"]) == 15
        for item in slate["items"]:
            film = films[item["item_id"]]
            assert film["release_year"] >= 1990 and "Comedy" not in film["categories"]
        schemas = document()["components"]["schemas"]
        jsonschema.validate(slate, {"$ref": "#/components/schemas/Slate", "components": {"schemas": schemas}})


def test_the_slate_names_the_rules_that_acted(url: str, films: dict[int, dict[str, Any]]) -> None:
    _, slate = post(url, "/v1/recommend", {"k": 12})
    genres = [films[item["item_id"]]["categories"] for item in slate["items"]]
    assert not any("Horror" in mine for mine in genres) and sum("Drama" in mine for mine in genres) <= 1
    assert "Film-Noir" in genres[1] and slate["items"][1]["rules"] == ["noir"]
    assert slate["items"][1]["propensity"] == 1.0
    assert all("rules" not in item for item in slate["items"][2:])
    removed = {removal["rule"]: removal["items"] for removal in slate["removed"]}
    assert removed["no horror"] == sum("Horror" in film["categories"] for film in films.values())
    assert removed["one drama"] > 0 and set(removed) == {"no horror", "one drama"}


def test_a_row_of_a_batch_says_what_the_slate_says(url: str, home: Path) -> None:
    bundle = open_bundle(load.bundle_path(str(home), "current"))
    slates = Engine.open(bundle).recommend([Request(user_id=196, k=12), Request(k=12)])
    table = to_table(slates, pa.int64(), pa.int64(), rules=bool(bundle.policy.every_rule))
    assert [row[1] for row in table["rules"].to_pylist()] == [["noir"], ["noir"]]
    assert [dict(row)["no horror"] > 0 for row in table["removed"].to_pylist()] == [True, True]
    assert "rules" not in to_table(slates, pa.int64(), pa.int64()).column_names


def test_surfaces_answer_in_their_forms(url: str, films: dict[int, dict[str, Any]]) -> None:
    schemas = document()["components"]["schemas"]
    mine = [50, 181, 258, 288]
    for body, schema, path in (
        ({"surface": "similar", "item_id": 50, "k": 5}, "Slate", "/v1/recommend"),
        ({"surface": "rerank", "items": mine, "user_id": 196}, "Slate", "/v1/recommend"),
        ({"surface": "trending", "k": 5}, "Slate", "/v1/recommend"),
        ({"user_id": 196, "k": 4}, "Page", "/v1/home"),
        ({"user_id": 196, "k": 4, "surface": "front"}, "Page", "/v1/home"),
    ):
        status, answer = post(url, path, body)
        jsonschema.validate(answer, {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": schemas}})
        assert status == 200 and answer["surface"] == body.get("surface", "home")
    assert len(answer["shelves"]) == 3 and {s["kind"] for s in answer["shelves"]} <= {"because", "category", "for_you"}
    shown = [films[item["item_id"]]["categories"] for shelf in answer["shelves"] for item in shelf["items"]]
    assert shown and not any("Horror" in genres for genres in shown)
    assert post(url, "/v1/recommend", {"surface": "similar"})[1]["field"] == "item_id"
    assert post(url, "/v1/home", {"surface": "slate"})[1]["field"] == "surface"


def test_what_was_seen_comes_back_after_its_time(url: str) -> None:
    person = 200_000_001
    at = 1_000_000_000_000_000
    _, first = post(url, "/v1/recommend", {"user_id": person, "k": 1, "at": at})
    item = first["items"][0]["item_id"]
    event = {"event": "rate", "user_id": person, "item_id": item, "value": 4, "at": at}
    assert post(url, "/v1/events", event)[0] == 200

    def allowed(surface: str, days: int) -> bool:
        asked = {"user_id": person, "at": at + days * DAY, "surface": surface, "filter": f"item_id = {item}"}
        return bool(post(url, "/v1/recommend", asked)[1]["items"])

    assert [allowed("slate", days) for days in (0, 29, 31)] == [False, False, True]
    assert not allowed("forever", 31)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expected `str` of length >= 1"),
        ("release_year >", "character 15: expected a value"),
        ("release_year > 'x'", "character 16: release_year holds numbers"),
        ("genre = 'Drama'", "character 1: no column 'genre'"),
        ("(" * 10_000 + "title is null" + ")" * 10_000, "Expected `str` of length <= 16384"),
        ("(" * 8_000 + "title is null" + ")" * 8_000, "brackets and nots around each other"),
        ("not " * 4_000 + "title is null", "brackets and nots around each other"),
        ("title is null or " * 900 + "title is null", "at most 64 tests"),
        ("item_id in [" + ",".join("1" * 100_000) + "]", "Expected `str` of length <= 16384"),
        ("item_id in [" + ",".join(["9" * 5_000]) + "]", "a number of at most 40 characters"),
        ("title = '" + "'" * 16_000, "a quote that is not closed"),
        ("\x00", "character 1: expected a column"),
        (7, "Expected `str | null`, got `int`"),
        (["title is null"], "Expected `str | null`, got `array`"),
    ],
)
def test_a_wrong_filter_is_a_422_that_points_at_it(url: str, text: Any, reason: str) -> None:
    status, problem = post(url, "/v1/recommend", {"filter": text})
    assert status == 422 and problem["error"] == "invalid" and problem["field"] == "filter"
    assert reason in problem["reason"]
    if "character" in reason:
        assert problem["reason"].endswith("^")


def test_ask_takes_a_filter_and_shows_a_mistake(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    noir = "categories contains 'Film-Noir' and release_year < 1950"
    assert main(["ask", "user_id=196", "k=3", f"url={url}", f'filter="{noir}"', "as_json=true"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 3
    assert main(["ask", "user_id=196", f"url={url}", 'filter="release_year < soon"']) == 1
    lines = capsys.readouterr().err.split("\n")
    assert "422, filter: character 16: expected a value" in lines[0]
    pointer = next(line for line in lines if line.strip() == "^")
    assert lines[lines.index(pointer) - 1][pointer.index("^") :] == "soon"
