"""Playbill as a Ray Serve application, a replica of which holds all that a request needs. Only this file knows Serve.

Retrieval and ranking stand in one process because a hop between deployments costs more than both (2 ms against 1 ms).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from ray import serve, util
from ray.util import metrics
from starlette.requests import Request
from starlette.responses import Response

import playbill
from playbill.serving import http, load
from playbill.serving.guard import Guard
from playbill.serving.keys import Key, keys_path
from playbill.serving.settings import ServeSettings
from playbill.serving.watcher import Watcher
from playbill.state.settings import state_place
from playbill.state.store import Store

NAME = "playbill"
LATENCY_BUCKETS_MS = (0.25, 0.5, 1, 1.5, 2, 3, 5, 8, 12, 20, 50, 100, 500)

log = logging.getLogger("ray.serve")


class Replica:
    """One process of the server: its own engine, and the state that all replicas share.

    The bundle comes with `reconfigure`, so that a new one replaces it without a restart.
    """

    def __init__(self, settings: ServeSettings, keys_required: bool, owner: Key) -> None:
        """Open the state; `reconfigure` follows before the first request."""
        _keep_inside()
        home = self._home = settings.home
        self._require_gpu = settings.require_gpu
        self._store = Store.open(state_place(home, settings.state), settings=settings.store)
        self._figures = Figures()
        self._api = http.Api(
            self._store,
            guard=Guard(keys_path(home), required=keys_required, owner=owner, replicas=settings.replicas),
            max_body_bytes=settings.max_body_bytes,
            deadline_ms=settings.deadline_ms,
            replica=serve.get_replica_context().replica_id.unique_id,
            observe=self._figures.observe,
        )
        name = serve.get_replica_context().replica_id.unique_id
        self._watcher = Watcher(self._api, self._store, home, name, require_gpu=settings.require_gpu)
        self._watcher.start()

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load a bundle beside the one that answers, then change over; the event loop goes on answering meanwhile.

        A bundle that cannot be loaded leaves the one before it in place, and says so in health. Ray would take a
        replica whose `reconfigure` raises for broken and end it, and with it a service that was well.
        """
        loop = asyncio.get_running_loop()
        self._watcher.following = config["follow"]
        if config["follow"] and self._api.ready:
            return  # it has taken up what is published, or does so within a second
        try:
            path = load.bundle_path(self._home, config["bundle"])
            opened = await loop.run_in_executor(
                None,
                lambda: load.open_engine(path, self._store, require_gpu=self._require_gpu, without_state=True),
            )
        except Exception as error:
            if not self._api.ready:
                raise
            log.exception("bundle %s could not be loaded; %s answers on", config["bundle"], self._api.version)
            self._api.failed_bundle = f"{config['bundle']}: {error}"
            return
        self._api.use(*opened)
        self._figures.models(opened[1].models())

    async def check_health(self) -> None:
        """Raise while there is nothing to answer with."""
        if not self._api.ready:
            raise RuntimeError("no bundle is loaded")
        engine = self._api.engine()
        self._figures.faults(engine.faults)
        self._figures.shared_lists(engine.depths.shared())

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        return await self._api.handle(request)


class Figures:
    """Counters and latencies of one replica, exported by Ray in Prometheus' form with the prefix `ray_`."""

    def __init__(self) -> None:
        self._latency = metrics.Histogram(
            "playbill_latency_ms",
            "Milliseconds of a request by stage.",
            boundaries=list(LATENCY_BUCKETS_MS),
            tag_keys=("route", "stage", "rung"),
        )
        self._requests = metrics.Counter("playbill_requests", "Requests.", tag_keys=("route", "status"))
        self._slates = metrics.Counter("playbill_slates", "Slates by rung, best: full.", tag_keys=("rung",))
        self._faults = metrics.Gauge(
            "playbill_faults", "Answers for which a part failed, since the bundle was loaded.", tag_keys=("part",)
        )
        self._shared = metrics.Gauge(
            "playbill_shared_lists",
            "Share of their first ten places that two people have in common, on average.",
            tag_keys=("surface",),
        )
        self._models = metrics.Gauge(
            "playbill_model_device", "1 for the provider that runs a model.", tag_keys=("model", "provider", "device")
        )

    def observe(self, route: str, status: int, rung: str, times_ms: Mapping[str, float]) -> None:
        """Note one request."""
        self._requests.inc(1, {"route": route, "status": str(status)})
        for stage, latency_ms in times_ms.items():
            self._latency.observe(latency_ms, {"route": route, "stage": stage, "rung": rung})
        if rung:
            self._slates.inc(1, {"rung": rung})

    def faults(self, faults: Mapping[str, int]) -> None:
        """Note how often parts failed while answering."""
        for part, count in faults.items():
            self._faults.set(count, {"part": part})

    def shared_lists(self, shared: Mapping[str, float]) -> None:
        """Note how much of their lists two people share, by surface."""
        for surface, share in shared.items():
            self._shared.set(share, {"surface": surface})

    def models(self, models: Mapping[str, Mapping[str, str]]) -> None:
        """Note what runs where."""
        for name, where in models.items():
            self._models.set(1, {"model": name, "provider": where["provider"], "device": where["device"]})


def _keep_inside() -> None:
    """Let the port on which replicas hear from Serve's proxy listen on Ray's own address alone, which is loopback.

    Serve binds it to every interface and has no setting for it, and what arrives there is unpickled, if only from
    whoever knows this run's token. Called in a replica, which opens that port after its own constructor.
    """
    from ray._common.network_utils import build_address
    from ray.serve._private import replica

    bind, address = replica.add_port_to_grpc_server, build_address(util.get_node_ip_address(), 0)
    replica.add_port_to_grpc_server = lambda server, everywhere: bind(server, address)


def start(settings: ServeSettings, host: str) -> None:
    """Start Serve's controller and ingress in a Ray that is running.

    Args:
        host: where Serve's own processes listen.
    """
    log.setLevel(logging.WARNING)
    serve.start(
        http_options={
            "host": host,
            "port": settings.port,
            "request_timeout_s": settings.request_timeout_s or None,
        },
        logging_config={"enable_access_log": False},
    )


def deploy(settings: ServeSettings, bundle: str, keys_required: bool, owner: Key, follow: bool) -> None:
    """Run the application with this bundle, or swap the bundle of the one that runs; returns when Serve is content.

    Args:
        bundle: a version, never `current`: replicas that start later must load what the others answer from.
        keys_required: let nobody in while there is no file of keys.
        owner: the key that this process has for itself, the same at every call.
        follow: go on to what is published later, and try what is to be tried.
    """
    deployment = serve.deployment(Replica).options(
        name="Replica",
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_ongoing,
        max_queued_requests=settings.max_queued,
        backpressure_config={"status_code": 503, "retry_after_s": 1},
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=settings.drain_s + 5,
        logging_config={"enable_access_log": False},
        user_config={"bundle": bundle, "follow": follow},
    )
    # Serve gives each deployment a random code version and replaces the replicas when it differs. Ours changes with the
    # code and the settings alone, so that another bundle goes through `reconfigure` (tested: the replicas stay).
    fixed = msgspec.json.encode([playbill.__version__, replace(settings, bundle="", detach=False)])
    deployment._version = hashlib.sha256(fixed).hexdigest()[:16]
    # a swap binds the same: the bundle goes its own way
    application = deployment.bind(replace(settings, bundle="", detach=False), keys_required, owner)
    serve.run(application, name=NAME, route_prefix="/")


def shutdown() -> None:
    """End the application, the ingress and Serve's controller."""
    serve.shutdown()
