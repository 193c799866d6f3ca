"""The dashboard: one page that can be parsed and needs nothing else, and a workspace with the same panels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from playbill.bundle.manifest import Manifest
from playbill.bundle.write import describe
from playbill.measure.bootstrap import Interval
from playbill.release.bundles import encode
from playbill.release.gate import GateReport
from playbill.release.report import Evaluation, Figures, ModelReport
from playbill.release.rules import Judged, Verdict
from playbill.training.dashboard import run
from playbill.training.dashboards.found import find
from playbill.training.dashboards.panels import panels
from playbill.training.dashboards.settings import DashboardSettings
from playbill.training.runs import RunRecord, write_record
from playbill.training.sweeping.journal import Journal, Trial, write_journal
from playbill.training.sweeping.results import write_results
from playbill.training.sweeping.space import read_space

VOID = {"meta", "img", "br", "path", "rect", "circle", "polyline"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two runs, a sweep, a bundle with evaluation and verdict, as the jobs leave them."""
    for number, loss in ((1, 0.5), (2, 0.25)):
        path = tmp_path / "runs" / f"run-{number}"
        path.mkdir(parents=True)
        write_record(path, RunRecord(model="two_tower", fingerprint="f", tables="<t>", tables_fingerprint="g",
                                     spec_hash="s", completed=True, metric="ndcg_at_10", best=loss))  # fmt: skip
        (path / "metrics.csv").write_text(f"step,epoch,loss,ndcg_at_10\n1,,{loss * 2},\n2,,{loss},\n2,1,,{loss}\n")
        (path / "system.csv").write_text("step,seconds,cores,memory_mib\n2,1.5,0.9,321\n")
    space = {"model.dim": {"choice": [8, 16]}, "model.learning_rate": {"log_uniform": [1e-4, 1e-2]}}
    trial = Trial(number=1, run="run-1", values={"model.dim": 8, "model.learning_rate": 1e-3}, arguments=[],
                  status="trained", best=0.5, epoch=1, curve=[0.5])  # fmt: skip
    journal = Journal(
        name="s", identity="i", asked={"space": space, "tables": "t"}, metric="ndcg_at_10", trials=[trial]
    )
    (tmp_path / "sweeps/s").mkdir(parents=True)
    write_journal(tmp_path / "sweeps/s", journal)
    write_results(tmp_path / "sweeps/s", journal, read_space(space))
    bundle = tmp_path / "bundles/abc"
    (bundle / "report").mkdir(parents=True)
    describe(bundle, Manifest(version="abc", created_at="2026-01-01T00:00:00+00:00", code_version="1", models={},
                              dataset_fingerprint="f", spec_hash="0" * 64, rungs=["popularity"]))  # fmt: skip
    figures = {f"{m}_at_20": Interval(value=0.2, low=0.15, high=0.25) for m in ("ndcg", "recall", "hit_rate")}
    model = ModelReport(name="served", label="served", rival=False, about="",
                        slices={"all": Figures(users=9, metrics=figures)})  # fmt: skip
    evaluation = Evaluation(fingerprint="e", content="c", bundle="abc", tables="t", protocol={}, ks=[20],
                            users={"all": 9}, best_rival=None, models=[model])  # fmt: skip
    (bundle / "report/evaluation.json").write_bytes(encode(evaluation))
    rule = Judged(name="not_below_popularity", rule="r", found="<found>", verdict=Verdict.FAILED)
    gate = GateReport(bundle="abc", passed=False, at="then", evaluation="e", rules=[rule])
    (bundle / "report/gate.json").write_bytes(encode(gate))
    return tmp_path


class Checker(HTMLParser):
    """Follows open elements, so that one left open or closed twice is found; keeps what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []
        self.captions: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data)


def test_the_page_has_every_panel_and_fetches_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run(DashboardSettings(home=str(home)))
    said = capsys.readouterr().out.replace("\n", " ")
    assert "2 runs, 1 sweeps, 1 bundles" in said and "no WANDB_API_KEY: no workspace was made" in said
    text = (home / "dashboard/index.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert not checker.open and not checker.fetched and "script" not in checker.seen
    declared = [panel.title for section in panels(find(home)) for panel in section.panels]
    assert checker.captions == declared and "Sweep s: ndcg_at_10" in declared
    # curves of both runs, the interval of the bundle, the verdict, and text that is no markup
    assert text.count("<polyline") == 2 and "run-2: 0.25 at step 2" in text and "run-1: 321 at step 2" in text
    assert "0.2000 [0.1500, 0.2500]" in text and '<td class="failed">failed</td>' in text
    assert "&lt;t&gt;" in text and "<t>" not in text and "&lt;found&gt;" in text
    assert json.loads((home / "dashboard/panels.json").read_bytes())["name"] == "Playbill"


def test_an_empty_home_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run(DashboardSettings(home=str(tmp_path)))
    checker = Checker()
    checker.feed((tmp_path / "dashboard/index.html").read_text())
    assert not checker.open


@dataclass
class Service:
    """What stands in for the service: it answers the few questions of the public API, and keeps what it was told."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((re.findall(r"(?:query|mutation) (\w+)", query) or [""])[0])
        if "upsertView" in query:
            self.views[variables["name"]] = variables
            return {"upsertView": {"view": {"id": "view-1", "name": variables["name"]}, "inserted": True}}
        if "allViews" in query:
            view = self.views[variables["viewName"]]
            node = {"id": "view-1", "displayName": view["displayName"], "spec": view["spec"]}
            return {"project": {"allViews": {"edges": [{"node": node}]}}}
        if "upsertModel" in query:
            made = {"id": "p", "name": variables["input"]["name"], "entityName": "us", "description": "", "access": ""}
            return {"result": {"project": made, "model": made, "inserted": True}}
        user = {"id": "u", "entity": "us", "username": "us", "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": user, "serverInfo": {}}


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            # all else than questions is wandb counting its own calls
            body = json.loads(raw) if self.path == "/graphql" else {}
            out = json.dumps(
                {"data": found.answer(body["query"], body.get("variables") or {})} if body else {}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_with_a_key_the_public_api_is_told_the_same_panels(
    home: Path, service: Service, environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("wandb_workspaces")
    environment = environment | {"WANDB_BASE_URL": service.url, "WANDB_API_KEY": "0" * 40}
    environment |= {"WANDB_CONFIG_DIR": str(tmp_path / "w"), "WANDB_CACHE_DIR": str(tmp_path / "w")}

    def dashboard() -> str:
        command = [sys.executable, "-m", "playbill.cli", "dashboard", f"home={home}", "wandb_project=shop"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"workspace: {service.url}/us/shop?nw=" in dashboard()
    (view,) = service.views.values()
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("us", "shop", "Playbill")
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    told = {s["name"]: [p["config"]["chartTitle"] for p in s["panels"]] for s in sections}
    assert told == {s.name: [p.title for p in s.panels] for s in panels(find(home))}
    (sweep,) = next(s for s in sections if s["name"] == "Sweeps")["panels"]
    assert sweep["viewType"] == "Parallel Coordinates Plot"
    columns = sweep["config"]["columns"]
    assert [c["displayName"] for c in columns] == ["model.dim", "model.learning_rate", "best"]
    assert [bool(c.get("log")) for c in columns] == [False, True, False]
    loss = next(s for s in sections if s["name"] == "Trainings")["panels"][0]
    assert loss["viewType"] == "Run History Line Plot" and loss["config"]["metrics"] == ["loss"]
    # nothing changed: the workspace is left alone; another sweep: the same workspace is changed
    before = len(service.asked)
    dashboard()
    assert len(service.asked) == before
    (home / "sweeps/s/trials.json").unlink()
    dashboard()
    (view,) = service.views.values()
    assert "Sweep s" not in view["spec"] and view["id"] == "view-1"
