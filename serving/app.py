"""Playbill as a Ray Serve application: replicas that answer requests, and replicas that rank where the layout has them
apart (see `layout`). Only this file knows Serve.

Retrieval and ranking stand in one process by default because a hop between deployments costs more than both (2 ms
against 1 ms).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Coroutine
from dataclasses import fields, replace
from functools import partial
from typing import Any

import msgspec
import ray
from ray import serve, util
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

import playbill
from playbill.bundle.open import Bundle
from playbill.engine.elsewhere import Elsewhere
from playbill.engine.settings import EngineSettings
from playbill.errors import ConfigError, PlaybillError
from playbill.serving import http, load
from playbill.serving.guard import Guard
from playbill.serving.keys import Key, keys_path
from playbill.serving.layout import composed, most_replicas, ranker_options, replica_options, waits
from playbill.serving.ranker import RankAsk, Ranked, Rankers
from playbill.serving.remote import remote_ranker
from playbill.serving.settings import ServeSettings
from playbill.serving.watcher import Watcher
from playbill.serving.watching import begin_watching
from playbill.state.settings import state_place
from playbill.state.store import Store

NAME = "playbill"
OPENING_S = 30.0  # for others to open a bundle; later they answer when they can

log = logging.getLogger("ray.serve")


class Replica:
    """One process of the server: its own engine, and the state that all replicas share.

    The bundle comes with `reconfigure`, so that a new one replaces it without a restart.
    """

    def __init__(
        self,
        settings: ServeSettings,
        keys_required: bool,
        owner: Key | None,
        ranker: DeploymentHandle[Any] | None = None,
    ) -> None:
        """Open the state; `reconfigure` follows before the first request.

        Args:
            ranker: in the composed layout.
        """
        _keep_inside()
        home = self._home = settings.home
        # where the ranker is apart, a GPU is its concern
        self._require_gpu = settings.require_gpu and ranker is None
        self._others = Others(settings, ranker)
        self._store = Store.open(state_place(home, settings.state), settings=settings.store)
        self._api = http.Api(
            self._store,
            guard=Guard(keys_path(home), required=keys_required, owner=owner, replicas=most_replicas(settings)),
            max_body_bytes=settings.max_body_bytes,
            deadline_ms=settings.deadline_ms,
            replica=serve.get_replica_context().replica_id.unique_id,
            threads=settings.max_ongoing if waits(settings) else 0,
        )
        self._api.word(settings.narrator)
        name = serve.get_replica_context().replica_id.unique_id
        self._watcher = Watcher(
            self._api, self._store, home, name, require_gpu=self._require_gpu, elsewhere=self._others.of
        )
        self._watcher.start()
        figures = settings.figures_host, settings.figures_port
        begin_watching(self._api, self._store, home, name, settings.watch, figures)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load a bundle beside the one that answers, then change over; the event loop goes on answering meanwhile.

        A bundle that cannot be loaded leaves the one before it in place, and says so in health. Ray would take a
        replica whose `reconfigure` raises for broken and end it, and with it a service that was well.
        """
        loop = self._others.loop = asyncio.get_running_loop()
        self._watcher.following = config["follow"]
        if config["follow"] and self._api.ready:
            return  # it has taken up what is published, or does so within a second
        try:
            path = load.bundle_path(self._home, config["bundle"])
            opened = await loop.run_in_executor(
                None,
                partial(
                    load.open_engine,
                    path,
                    self._store,
                    require_gpu=self._require_gpu,
                    without_state=True,
                    elsewhere=self._others.of,
                ),
            )
        except Exception as error:
            if not self._api.ready:
                raise
            log.exception("bundle %s could not be loaded; %s answers on", config["bundle"], self._api.version)
            self._api.failed_bundle = f"{config['bundle']}: {error}"
            return
        self._api.use(*opened)

    def __del__(self) -> None:
        """End what was begun here; Serve calls it once the last request is answered."""
        if hasattr(self, "_api"):
            self._api.close()

    async def check_health(self) -> None:
        """Raise while there is nothing to answer with."""
        if not self._api.ready:
            raise RuntimeError("no bundle is loaded")

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        return await self._api.handle(request)


class Ranker:
    """One process of the ranker, in the composed layout: scores what several replicas ask, many requests in a run."""

    def __init__(self, settings: ServeSettings) -> None:
        _keep_inside()
        ranker = settings.ranker
        self._home = settings.home
        where = EngineSettings(provider=ranker.provider, require_gpu=settings.require_gpu)
        self._rankers = Rankers(settings.home, where)
        self._batched.set_max_batch_size(ranker.batch)
        self._batched.set_batch_wait_timeout_s(ranker.batch_wait_ms / 1e3)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Open the ranker of a bundle; one that cannot be opened leaves those that are open in place, as above."""
        try:
            await self.open(load.bundle_path(self._home, config["bundle"]).name)
        except Exception as error:
            if not len(self._rankers):
                raise
            log.error("the ranker of bundle %s could not be opened: %s", config["bundle"], error)

    async def open(self, version: str) -> str:
        """Open the ranker of a bundle beside those that answer; return the provider that runs it."""
        model = await asyncio.get_running_loop().run_in_executor(None, self._rankers.open, version)
        return "" if model is None else model.provider

    async def __call__(self, ask: RankAsk) -> Ranked | str:
        """Return the outputs of one call, or why there are none."""
        return await self._batched(ask)

    @serve.batch
    async def _batched(self, asks: list[RankAsk]) -> list[Ranked | str]:
        # in a thread, so that the next batch gathers meanwhile
        return await asyncio.get_running_loop().run_in_executor(None, self._rankers.score, asks)


class Others:
    """What a replica finds in other processes: the ranker's replicas, the parts of the index.

    Attributes:
        loop: that the replica runs in, where calls of the ranker start.
    """

    def __init__(self, settings: ServeSettings, ranker: DeploymentHandle[Any] | None) -> None:
        self._ranker, self._parts = ranker, None
        self.loop: asyncio.AbstractEventLoop | None = None
        if settings.shards:
            from playbill.serving.shards import Parts

            self._parts = Parts(settings.home, settings.shards)

    def of(self, bundle: Bundle) -> Elsewhere:
        """Return what others hold of a bundle, opened there if that can be done in time. Not for the event loop."""
        ranker = None
        if self._ranker is not None and "ranker" in bundle.manifest.models:
            ranker = remote_ranker(bundle, self._call, self._open(bundle.version))
        if self._parts is None or not bundle.has("items.faiss"):
            return Elsewhere(ranker)
        self._parts.open(bundle.version, OPENING_S)
        return Elsewhere(ranker, partial(self._parts.send, bundle.version), self._parts.parts)

    def _call(self, ask: RankAsk, within_s: float | None) -> Ranked | str:
        return self._await(self._scored(ask), within_s)

    async def _scored(self, ask: RankAsk) -> Any:
        assert self._ranker is not None
        return await self._ranker.remote(ask)

    def _open(self, version: str) -> str:
        """Let every replica of the ranker open a bundle; return where they run it."""
        until, failed = time.monotonic() + OPENING_S, None
        while (left := until - time.monotonic()) > 0:
            try:
                found = set(self._await(self._everywhere(version), left))
                if found:
                    return sorted(found)[0]
            except Exception as error:  # one that is just coming up, or going
                failed = error
            time.sleep(0.2)  # no replica is up yet
        log.error("the ranker was not told of bundle %s in %g s: %s", version, OPENING_S, failed or "it is not there")
        return "unknown"

    async def _everywhere(self, version: str) -> list[str]:
        assert self._ranker is not None
        return await self._ranker.broadcast("open", version).results_async()

    def _await(self, answer: Coroutine[Any, Any, Any], within_s: float | None) -> Any:
        """Return what a coroutine of the event loop gives, from another thread.

        Raises:
            TimeoutError: nothing within so many seconds; it is given up.
        """
        assert self.loop is not None
        future = asyncio.run_coroutine_threadsafe(answer, self.loop)
        try:
            return future.result(within_s)
        except TimeoutError:
            future.cancel()
            raise


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
    _check_gpus(settings)
    # a swap binds the same: the bundle goes its own way
    fixed = replace(settings, bundle="", detach=False)
    serve.run(_application(fixed, bundle, keys_required, owner, follow), name=NAME, route_prefix="/")


def build(args: dict[str, Any]) -> Application:
    """Return the application of a Serve file, which names this function and the settings of `playbill serve`.

    Whoever runs it is on a cluster: it is reached from outside, so nobody is let in without a key unless `insecure`.

    Raises:
        ConfigError: a setting that there is not, or a value that cannot be.
    """
    try:
        settings = msgspec.convert(args, ServeSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the application's args: {error}") from None
    unknown = sorted(args.keys() - {f.name for f in fields(ServeSettings)})
    if unknown:
        raise ConfigError(f"the application's args name {unknown}, which `playbill serve --help` does not know")
    follow = settings.follow and settings.bundle == "current"
    return _application(settings, settings.bundle, not settings.insecure, None, follow)


def _application(
    settings: ServeSettings, bundle: str, keys_required: bool, owner: Key | None, follow: bool
) -> Application:
    apart = []
    if composed(settings):
        apart = [_deployment(Ranker, settings, ranker_options(settings, bundle)).bind(settings)]
    answering = _deployment(Replica, settings, replica_options(settings, bundle, follow))
    return answering.bind(settings, keys_required, owner, *apart)


def _deployment(of: type, settings: ServeSettings, options: dict[str, Any]) -> serve.Deployment:
    deployment = serve.deployment(of).options(name=of.__name__, **options)
    # Serve gives each deployment a random code version and replaces the replicas when it differs. Ours changes with the
    # code and the settings alone, so that another bundle goes through `reconfigure` (tested: the replicas stay).
    deployment._version = hashlib.sha256(msgspec.json.encode([playbill.__version__, settings])).hexdigest()[:16]
    return deployment


def _check_gpus(settings: ServeSettings) -> None:
    """Raise PlaybillError where Ray would wait for GPUs for ever."""
    wanted, there = settings.ranker.gpus * settings.ranker.replicas, ray.cluster_resources().get("GPU", 0)
    if composed(settings) and wanted > there:
        raise PlaybillError(
            f"ranker.gpus={settings.ranker.gpus:g} for {settings.ranker.replicas} replicas needs {wanted:g} GPUs, Ray "
            f"finds {there:g} on this machine; ask for fewer, or ranker.gpus=0"
        )


def shutdown() -> None:
    """End the application, the ingress and Serve's controller."""
    serve.shutdown()
