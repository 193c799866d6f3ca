"""What a server tells Prometheus: real processes, asked over HTTP, and scraped as Prometheus does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from omegaconf import OmegaConf
from prometheus_client.parser import text_string_to_metric_families

from playbill.cli import main
from playbill.engine.types import Slate
from playbill.release.scores import reference_of
from playbill.serving.figures.drift import Drift, Shown, psi
from playbill.serving.figures.names import FIGURES, Kind, exported
from playbill.serving.processes import wait_until
from playbill.state.keys import id_key
from playbill.state.store import Store

ROOT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Plain:
    """A server of one process."""

    def __init__(self, home: Path, port: int, figures_port: int, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={port}",
                   f"figures_port={figures_port}", "slates=true", *arguments]  # fmt: skip
        self.url, self.figures = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{figures_port}/metrics"
        self.process = subprocess.Popen(command, env={**os.environ, "PLAYBILL_FIGURES": str(folder)})

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, given), timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def answers(self) -> bool:
        try:
            return self.ask("/v1/health")[0] == 200
        except OSError:
            return False

    def samples(self) -> Samples:
        with urllib.request.urlopen(self.figures, timeout=10) as answer:
            text = answer.read().decode()
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of what has these labels, among others."""
    found = [v for (of, its), v in samples.items() if of == name and set(labels.items()) <= its]
    return sum(found)


@pytest.fixture
def own_home(sealed_home: Path, tmp_path: Path) -> Path:
    for name in ("bundles", "state"):
        shutil.copytree(sealed_home / name, tmp_path / "home" / name)
    return tmp_path / "home"


@pytest.fixture
def start(own_home: Path, tmp_path: Path, free_ports: Any) -> Iterator[Callable[..., Plain]]:
    [figures] = free_ports(1)
    servers: list[Plain] = []

    def begin(*arguments: str) -> Plain:
        server = Plain(own_home, free_ports(1)[0], figures, tmp_path / "figures", *arguments)
        servers.append(server)
        assert wait_until(server.answers, 60)
        return server

    yield begin
    for server in servers:
        server.end()


def test_the_figures_of_processes_add_up_and_outlive_whoever_told_them(start: Callable[..., Plain]) -> None:
    def answered() -> float:
        return value(one.samples(), "playbill_requests_total", route="/v1/recommend", status="200")

    one, two = start(), start()
    for server, times in ((one, 30), (two, 20)):
        for user in range(1, times + 1):
            assert server.ask("/v1/recommend", {"user_id": user, "k": 5})[0] == 200
    assert wait_until(lambda: answered() == 50, 10)
    samples = one.samples()
    assert value(samples, "playbill_processes") == value(samples, "playbill_bundle") == 2
    assert value(samples, "playbill_latency_seconds_count", stage="total", route="/v1/recommend") == 50
    assert value(samples, "playbill_latency_seconds_bucket", stage="total", route="/v1/recommend", le="+Inf") == 50
    assert value(samples, "playbill_latency_seconds_sum", stage="total") > 0
    one.process.kill()  # whoever came first has the port
    one.process.wait()
    wait_until(lambda: _there(two), 10)
    assert wait_until(lambda: value(two.samples(), "playbill_processes") == 1, 10)
    assert value(two.samples(), "playbill_requests_total", route="/v1/recommend", status="200") >= 50


def _there(server: Plain) -> bool:
    try:
        return bool(server.samples())
    except OSError:
        return False


def test_every_figure_of_the_dashboard_and_the_alerts_is_told_after_real_requests(
    start: Callable[..., Plain], own_home: Path, versions: list[str], chat_model: Any
) -> None:
    bundles = own_home / "bundles"
    with Store.open(own_home / "state") as store:  # a moment that no array takes: a part fails, and not the answer
        broken = store.profile(13)
        assert broken is not None
        broken.history[-1].at = 2**63 + 1
        store._tables.write(lambda txn: txn.put("profiles", id_key(13), msgspec.msgpack.encode(broken)), {})
    server = start(f"narrator_url=http://127.0.0.1:{chat_model.server_port}/v1", "narrator_model=small")
    before = server.ask("/v1/health")[1]["state_version"]
    for user in range(1, 121):
        assert server.ask("/v1/recommend", {"user_id": user, "k": 10})[0] == 200
    assert server.ask("/v1/home", {"user_id": 7})[0] == 200
    late = [server.ask("/v1/recommend", {"user_id": 3}, x_playbill_deadline_ms="1")[1] for _ in range(20)]
    assert any("no time left" in slate.get("rung_reason", "") for slate in late)
    event = {"event_id": "e1", "event": "rate", "user_id": 3, "item_id": 50, "value": 5}
    assert (
        server.ask("/v1/events", {"events": [event, {**event, "event_id": "e2", "at": 893_000_000_000_000}]})[0] == 200
    )
    assert server.ask("/v1/events", event)[1]["new"] == 0
    assert server.ask("/v1/recommend", {"k": "many"})[0] == 422
    (own_home / "bundles" / "current").write_text("gone\n")
    assert wait_until(lambda: value(server.samples(), "playbill_swaps_total", outcome="failed") == 1, 20)
    (own_home / "bundles" / "current").write_text(versions[0] + "\n")
    given = ["force=true", "reason=x", f"home={own_home}", f"bundle={versions[1]}", "trial=canary", "share=0.5"]
    assert main(["publish", *given, "least=60", "agree=0", "slower=50"]) == 0
    seen: set[str] = set()

    def told() -> bool:
        for user in range(100):
            server.ask("/v1/recommend", {"user_id": user, "k": 10})
        samples = server.samples()
        seen.update(name for name, _ in samples)
        return value(samples, "playbill_trials_total", verdict="sent_back") == 1

    assert wait_until(told, 60)
    missing = {name for name in _named_in_docker() if name.startswith("playbill_")} - seen
    assert not missing
    # each of them, and not those alone that somebody looks at
    suffix = {Kind.HISTOGRAM: "_bucket"}
    every = {exported(figure) + suffix.get(figure.kind, "") for figure in FIGURES.values()}
    assert not every - seen
    samples = server.samples()
    assert value(samples, "playbill_events_total", kind="new") == 2
    assert value(samples, "playbill_events_total", kind="known") == 1
    assert value(samples, "playbill_faults_total", part="profile") > 0
    assert value(samples, "playbill_event_lag_seconds_count") == 2
    assert value(samples, "playbill_event_lag_seconds_sum") > 1e8  # one of them is of 1998
    assert value(samples, "playbill_refusals_total", route="/v1/recommend", cause="invalid") == 1
    assert value(samples, "playbill_deadline_misses_total") > 0
    assert value(samples, "playbill_state_version") == before + 2
    assert abs(time.time() - value(samples, "playbill_state_changed_timestamp_seconds")) < 120
    assert abs(time.time() - value(samples, "playbill_catalogue_current_timestamp_seconds")) < 5
    assert value(samples, "playbill_model_device", model="ranker", provider="CPUExecutionProvider") == 1
    assert value(samples, "playbill_score_drift", rung="full") < 0.1 and (bundles / versions[0]).is_dir()


def test_what_the_dashboard_and_the_alerts_ask_has_the_labels_that_they_name() -> None:
    told = _names()
    for query in _queries():
        for name, selector in re.findall(r"(playbill_\w+)\{([^}]*)\}", query):
            figure = told[name]
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            assert labels <= {*figure.labels, "le"}, query
        for labels, name in re.findall(r"by \(([^)]*)\) \((?:rate|increase)\((playbill_\w+)", query):
            grouped = {part.strip() for part in labels.split(",")}
            assert grouped <= {*told[name].labels, "le"}, query


def test_every_figure_is_documented_and_nothing_else_is() -> None:
    page = (ROOT / "serving" / "figures" / "FIGURES.md").read_text()
    rows = {m[0]: m[1:] for m in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*?) ?\| (.*) \|$", page, re.MULTILINE)}
    assert rows == {exported(f): (f.kind.value, ", ".join(f.labels), f.about) for f in FIGURES.values()}


def test_the_index_of_drift_is_that_of_its_formula() -> None:
    half = Shown("v", [300, 300], [0.5, 0.5])
    assert psi([half]) == (pytest.approx(0), 600)
    # (0.8 - 0.5) ln(0.8 / 0.5) + (0.2 - 0.5) ln(0.2 / 0.5) = 0.3 * 0.4700 + 0.3 * 0.9163
    assert psi([Shown("v", [600, 100], [0.5, 0.5]), Shown("v", [200, 100], [0.5, 0.5])]) == (
        pytest.approx(0.4159, abs=1e-4), 1000,
    )  # fmt: skip
    assert psi([half, Shown("other", [9_999, 0], [0.5, 0.5])])[1] == 600
    assert psi([Shown("v", [200, 200], [0.5, 0.5])]) == (None, 400)


def test_scores_like_the_evaluations_do_not_drift_and_others_do() -> None:
    rng = np.random.default_rng(1)
    drift = Drift("v", reference_of({"full": rng.normal(size=20_000).tolist(), "popularity": [1.0] * 300}))

    def show(scores: np.ndarray) -> float:
        for ten in scores.reshape(-1, 10).tolist():
            drift.note(_slate(ten))
        return psi([drift.shown()["full"]])[0] or 0.0

    assert show(rng.normal(size=20_000)) < 0.02
    assert show(rng.normal(0.8, 1, size=20_000)) > 0.25  # the last 2,000 slates count


def _slate(scores: list[float]) -> Slate:
    from playbill.engine.types import Reason, SlateItem

    items = [
        SlateItem(position=p, item_id=p, title=None, score=s, probabilities={}, retriever="tower",
                  reason=Reason(kind="taste", text=""), propensity=1.0)
        for p, s in enumerate(scores)
    ]  # fmt: skip
    return Slate(request_id="r", user_id=1, bundle="v", state_version=0, profile_version=1, policy="p", rung="full",
                 rung_reason="", eligible_count=9, latency_ms=0.0, at=0, items=items)  # fmt: skip


def _names() -> dict[str, Any]:
    """Return every name that a series can have, with its figure."""
    found = {}
    for figure in FIGURES.values():
        ends = ("_bucket", "_sum", "_count") if figure.kind is Kind.HISTOGRAM else ("",)
        found |= {exported(figure) + end: figure for end in ends}
    return found


def _queries() -> list[str]:
    """Return every query of the dashboard and the alerts."""
    dashboard = json.loads((ROOT / "docker/grafana/dashboards/playbill.json").read_bytes())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    alerts: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "docker/prometheus/alerts.yaml"))
    return queries + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def _named_in_docker() -> set[str]:
    named = {name for query in _queries() for name in re.findall(r"\b(?:playbill|haproxy|ray)_\w+", query)}
    assert len(named) > 20
    return named
