"""Settings of `playbill serve` and `playbill batch`. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from playbill.engine.settings import Provider
from playbill.engine.types import MAX_K
from playbill.errors import ConfigError
from playbill.serving.keys import Scope
from playbill.serving.watch_settings import WatchSettings
from playbill.state.settings import StoreSettings, parse_moment
from playbill.words.settings import EndpointSettings

REPLICA_PORTS = 100  # a bundle swap keeps its replicas, so a hundred ports outlive any number of restarts


class Ingress(Enum):
    """Who accepts the connections."""

    auto = "auto"  # haproxy where its binary is there, else python, said loudly
    haproxy = "haproxy"  # 0.3 ms of CPU a request; the start fails without the binary
    python = "python"  # Ray Serve's own proxy: 4-8 ms of CPU a request


class Layout(Enum):
    """How a server is spread over processes."""

    fused = "fused"  # each replica holds all that a request needs
    composed = "composed"  # the ranker stands in replicas of its own, and scores requests of several others together


class Emit(Enum):
    """What is written instead of starting a server."""

    none = "none"
    serve_config = "serve_config"  # for `serve deploy`, on a Ray cluster that is there
    kuberay = "kuberay"  # a RayService, for Kubernetes with the KubeRay operator


@dataclass(slots=True, kw_only=True)
class RankerSettings:
    """The ranker's own replicas, in the composed layout."""

    replicas: int = 1
    """Processes that score; with one that is away, slates stand on the rung below the ranker."""
    most_replicas: int = 0
    """More come up to this many while load asks for them, see `autoscale`; 0: always `replicas`."""
    batch: int = 8
    """Requests scored in one run at most."""
    batch_wait_ms: float = 2.0
    """How long the first request of a run waits for others; 0 takes those that are there."""
    gpus: float = 0.0
    """GPUs of each replica, or its share of one."""
    provider: Provider = Provider.auto
    """auto, cpu or cuda: where the ranker runs, found out when its replica starts. `require_gpu` forbids the CPU."""

    def __post_init__(self) -> None:
        at_least(self, 1, "replicas", "batch")
        at_least(self, 0, "most_replicas", "batch_wait_ms", "gpus")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ConfigError(f"ranker.gpus: expected a share of one GPU or a whole number, got {self.gpus:g}")


@dataclass(slots=True, kw_only=True)
class AutoscaleSettings:
    """When replicas are added and taken away. They come too late for a burst: see head-room in serving/README.md."""

    most_replicas: int = 0
    """Replicas at most; at least there are `replicas`. 0: always as many."""
    ongoing: float = 0.6
    """Requests at work in one replica, on average, that are right: more, and replicas are added. A fused replica works
    on one at a time, so this is the share of its time that it may be busy, and from 1 on none is ever added."""
    up_after_s: float = 10.0
    """Seconds for which more must be needed before one is added."""
    down_after_s: float = 600.0
    """Seconds for which fewer must do before one is taken away."""

    def __post_init__(self) -> None:
        at_least(self, 0, "most_replicas", "up_after_s", "down_after_s")
        if not 0 < self.ongoing <= 1_000:
            raise ConfigError(f"autoscale.ongoing: expected above 0 and up to 1000, got {self.ongoing:g}")


@dataclass(slots=True, kw_only=True)
class ClusterSettings:
    """What `emit` writes besides the settings themselves."""

    image: str = "playbill-serve:latest"
    """Image of the replicas, docker/serve.Dockerfile."""
    gpu_image: str = "playbill-serve-gpu:latest"
    """Image of rankers with a GPU, docker/serve-gpu.Dockerfile."""
    home: str = "/var/lib/playbill"
    """Folder of bundles and keys as the pods see it."""
    claim: str = "playbill-var"
    """Volume claim that all pods mount there, ReadWriteMany."""
    pod_cpus: int = 4
    """Cores of a pod that Ray hands out, one for each replica or part of the index; the pod asks for one more."""
    replica_memory: str = "4Gi"
    """Memory of a pod that answers requests or holds a part of the index."""
    ranker_memory: str = "8Gi"
    """Memory of a pod that ranks on GPUs."""

    def __post_init__(self) -> None:
        at_least(self, 1, "pod_cpus")
        if not self.home.startswith("/"):
            raise ConfigError(f"cluster.home: expected an absolute path, got {self.home!r}")


@dataclass(slots=True, kw_only=True)
class ServeSettings:
    """`playbill serve` starts a server, or swaps the bundle of the one that runs from the same `home`.

    `detach=true` leaves it running in the background, `stop=true` stops it.
    """

    home: str = "var"
    """Folder of everything Playbill writes; one server runs from one home."""
    state: str | None = None
    """Folder of the store, or Redis for servers on several machines: "state='redis://host:port/0?prefix=shop'" in both
    kinds of quotes; null: <home>/state."""
    bundle: str = "current"
    """Version of a published bundle; `current` is what `playbill publish` pointed to last."""
    follow: bool = True
    """With bundle=current: answer from what is published later within a second or two, and try what `playbill publish
    trial=canary|shadow` asks to be tried. A swap to a named bundle ends it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the server to the network, and asks for API keys: see `playbill keys`."""
    port: int = 8000
    """Port of the HTTP interface."""
    replicas: int = 2
    """Processes that answer; each uses one core. With two or more, one may fail without a failed request."""
    detach: bool = False
    """Leave the server running in the background and return when it answers."""
    stop: bool = False
    """Stop the server that runs from this home."""
    ingress: Ingress = Ingress.auto
    """auto, haproxy or python."""
    insecure: bool = False
    """Let everybody in although `host` can be reached from outside and there are no API keys."""
    require_gpu: bool = False
    """Refuse to start when a model would run on the CPU; in the composed layout this is about the ranker alone."""
    layout: Layout = Layout.fused
    """fused, or composed for a ranker that needs a GPU or has to scale by itself: 2 ms more a request, see `ranker`."""
    ranker: RankerSettings = field(default_factory=RankerSettings)
    """Replicas of the ranker, in the composed layout."""
    autoscale: AutoscaleSettings = field(default_factory=AutoscaleSettings)
    """When there are more replicas than `replicas`."""
    shards: int = 0
    """Parts into which the index is split, each in a process of its own, for one that a machine is too small for; 0:
    each replica searches it itself."""
    emit: Emit = Emit.none
    """serve_config writes a file for `serve deploy`, kuberay a RayService for Kubernetes, with these settings, to `to`;
    nothing is started."""
    to: str | None = None
    """File that `emit` writes."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Images and volumes of what `emit=kuberay` writes."""
    max_body_bytes: int = 256 * 1024
    """Larger request bodies are refused with 413."""
    deadline_ms: float = 100.0
    """Time for a slate from the arrival of its request at a replica on: a step that would come too late is passed over
    for a cheaper rung. A request may ask for less (`x-playbill-deadline-ms`); 0 is as long as it takes."""
    request_timeout_s: float = 5.0
    """A request that takes longer is answered 408; 0 waits for ever."""
    max_ongoing: int = 8
    """Requests that one replica works on at a time."""
    max_queued: int = 64
    """Requests that wait for one replica; more are answered 503 with Retry-After."""
    drain_s: float = 5.0
    """Seconds for which a replica that is taken away goes on answering. Give 30 behind other load balancers."""
    start_timeout_s: float = 120.0
    """Give up when the server does not answer within this time."""
    haproxy_threads: int = 1
    """Threads of HAProxy; one carries more than ten thousand requests a second."""
    figures_host: str = "127.0.0.1"
    """Address of the figures of Playbill, HAProxy and Ray; another than loopback opens Ray's own ports as well, which
    ask for a token of this run."""
    haproxy_stats_port: int = 8404
    """HAProxy's page of figures."""
    haproxy_metrics_port: int = 9101
    """HAProxy's Prometheus figures."""
    proxy_port: int = 8500
    """Ray Serve's own proxy, to which HAProxy turns when no replica answers."""
    replica_ports: int = 30000
    """First of the hundred ports that replicas listen on."""
    figures_port: int = 9103
    """Prometheus figures of Playbill: of all replicas on this machine together."""
    metrics_port: int = 9102
    """Prometheus figures of Ray."""
    object_store_mb: int = 100
    """Shared memory of Ray, in MB; serving itself passes nothing through it."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """Limits of the store, and how Redis is reached."""
    watch: WatchSettings = field(default_factory=WatchSettings)
    """By what it is seen from outside, beside its figures."""
    narrator: EndpointSettings = field(default_factory=EndpointSettings)
    """A model that phrases reasons, in the background; without one they stand in the engine's words."""

    def __post_init__(self) -> None:
        at_least(self, 1, "replicas", "max_body_bytes", "max_ongoing", "max_queued", "haproxy_threads")
        at_least(self, 0, "request_timeout_s", "drain_s", "deadline_ms", "shards")
        at_least(self, 1, "start_timeout_s")
        at_least(self, 76, "object_store_mb")  # Ray refuses less
        for name, port in self.ports().items():
            if not 1 <= port <= 65535:
                raise ConfigError(f"{name}: expected a port between 1 and 65535, got {port}")
        if self.replica_ports > 65535 - REPLICA_PORTS:
            raise ConfigError(f"replica_ports: expected at most {65535 - REPLICA_PORTS}, got {self.replica_ports}")
        ports = list(self.ports().values())
        clash = next((p for p in ports if ports.count(p) > 1), None)
        if clash is not None:
            names = [name for name, port in self.ports().items() if port == clash]
            raise ConfigError(f"{' and '.join(names)}: expected different ports, got {clash} for each")
        if (self.emit is Emit.none) != (self.to is None):
            raise ConfigError("emit and to: expected both, as in emit=kuberay to=playbill.yaml, got one of them")
        if self.stop and self.detach:
            raise ConfigError("stop and detach: expected one of them, got both")

    def ports(self) -> dict[str, int]:
        """Return every fixed port by the name of its setting."""
        names = ("port", "haproxy_stats_port", "haproxy_metrics_port", "proxy_port", "replica_ports", "figures_port",
                 "metrics_port")  # fmt: skip
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True, kw_only=True)
class BatchSettings:
    """`playbill batch` writes one slate a user to `<home>/batch/<name>/part-*.parquet`, and `_SUCCESS` last.

    A run that was killed goes on where it stopped; a finished one is left as it is.
    """

    home: str = "var"
    """Folder of everything Playbill writes."""
    state: str | None = None
    """Folder of the store, or redis://host:port/0?prefix=shop for servers on several machines; null: <home>/state."""
    bundle: str = "current"
    """Version of a published bundle; `current` is what `playbill publish` pointed to last."""
    name: str = "all"
    """Name of the batch: its folder, and part of every request id."""
    tables: str = "ml-100k"
    """Name of a source prepared with `playbill prepare`; its users are the audience, or whoever did something."""
    audience: str | None = None
    """Parquet file with a column `user_id`; null: every user of the tables."""
    k: int = 20
    """Items a user."""
    surface: str = "slate"
    """Surface that the slates are made for."""
    at: str | None = None
    """Moment that the slates are made for: ISO 8601 or UTC microseconds; null: when the batch first began."""
    shard_users: int = 256
    """Users in one output file, which is also the unit of work that a killed run may lose."""
    workers: int = 0
    """Scoring processes; 0: one a core."""
    require_gpu: bool = False
    """Refuse to start when a model would run on the CPU."""
    force: bool = False
    """Score again what is already there."""
    object_store_mb: int = 100
    """Shared memory of Ray, in MB."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """Limits of the store, and how Redis is reached."""

    def __post_init__(self) -> None:
        at_least(self, 1, "k", "shard_users")
        if self.k > MAX_K:
            raise ConfigError(f"k: expected at most {MAX_K}, got {self.k}")
        at_least(self, 0, "workers")
        at_least(self, 76, "object_store_mb")
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"name: expected the name of a folder, got {self.name!r}")
        parse_moment(self.at)


class Action(Enum):
    """What `playbill keys` does."""

    list = "list"
    add = "add"
    revoke = "revoke"


@dataclass(slots=True, kw_only=True)
class KeysSettings:
    """`playbill keys add name=shop scopes=[recommend,events] rate=50` prints a new API key, once.

    `playbill keys list` shows all, `playbill keys revoke name=shop` ends one.
    """

    home: str = "var"
    """Folder of everything Playbill writes; the keys are in its `keys.json`."""
    action: Action = Action.list
    """list, add or revoke."""
    name: str = ""
    """Of the key: who uses it. No two living keys have the same."""
    scopes: list[Scope] = field(default_factory=list)
    """What it may do, of recommend, events, items (the catalogue) and admin (bundle, health in full); none includes
    another."""
    rate: float | None = None
    """Requests a second over all replicas, each of which lets through its part; null: no limit of its own."""
    burst: int | None = None
    """Requests that may come at once after a pause; null: one second's worth."""

    def __post_init__(self) -> None:
        if self.action is Action.list:
            given = [n for n in ("name", "scopes", "rate", "burst") if getattr(self, n)]
            if given:
                raise ConfigError(f"{' and '.join(given)}: nothing to list by; did you mean `playbill keys add`?")
            return
        if not self.name:
            raise ConfigError(f"name: expected the name of the key to {self.action.value}, got none")
        if self.action is Action.revoke:
            given = [n for n in ("scopes", "rate", "burst") if getattr(self, n)]
            if given:
                raise ConfigError(f"{' and '.join(given)}: a revoked key has none; did you mean `playbill keys add`?")
            return
        if not self.scopes:
            raise ConfigError(f"scopes: expected at least one of [{','.join(s.value for s in Scope)}], got none")
        if self.rate is not None and not (math.isfinite(self.rate) and 0 < self.rate <= 1e6):
            raise ConfigError(f"rate: expected requests a second above 0 and up to 1000000, got {self.rate:g}")
        if self.burst is not None and self.rate is None:
            raise ConfigError("burst: has a meaning beside a rate alone; give rate= too")
        if self.burst is not None and not 1 <= self.burst <= 1_000_000:
            raise ConfigError(f"burst: expected 1 to 1000000 requests, got {self.burst}")


def at_least(settings: object, low: float, *names: str) -> None:
    """Raise ConfigError when one of the named fields is below `low`."""
    for name in names:
        value = getattr(settings, name)
        if value < low:
            raise ConfigError(f"{name}: expected at least {low}, got {value}")
