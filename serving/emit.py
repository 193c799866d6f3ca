"""`playbill serve emit=...`: a server's settings as a file for a Ray cluster, or for Kubernetes with KubeRay.

Never run on a cluster by us: the files are checked against Serve's own schema and what a RayService may hold, no more.

    serve_config   `serve deploy FILE`: http options, the application, and each deployment's replicas and resources
    kuberay        `kubectl apply -f FILE`: a RayService with the same in it, pods for replicas and parts of the index,
                   pods with GPUs for rankers that ask for them, Ray's token, and a volume where bundles and keys lie
"""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from playbill.errors import ConfigError
from playbill.serving.ingress import serve_environment
from playbill.serving.layout import RANKER, REPLICA, composed, ranker_options, replica_options
from playbill.serving.settings import Emit, Ingress, ServeSettings
from playbill.state.redis_server import PASSWORD
from playbill.tables.files import write_atomic

APPLICATION = "playbill.serving.app:build"
# no concern of the replicas
_HERE = ("home", "emit", "to", "cluster", "detach", "stop", "host", "ingress", "start_timeout_s")
_HEAD = "# written by playbill serve emit={}; never run on a cluster by those who wrote the writer\n"
_RAYLET = "http://localhost:52365/api/local_raylet_healthz"
_PROBE = f"import urllib.request as r, sys; sys.exit(b'success' not in r.urlopen('{_RAYLET}', timeout=2).read())"
_USER = 10001  # of the images


def write(settings: ServeSettings) -> Path:
    """Write what `emit` asks for, and return where.

    Raises:
        ConfigError: settings that cannot hold on a cluster.
    """
    check(settings)
    made = serve_config(settings) if settings.emit is Emit.serve_config else ray_service(settings)
    path = Path(str(settings.to))
    write_atomic(path, (_HEAD.format(settings.emit.value) + _dump(made)).encode())
    return path


def check(settings: ServeSettings) -> None:
    """Raise ConfigError for what replicas on several machines cannot share."""
    state = settings.state or ""
    if not state.startswith(("redis://", "rediss://")):
        raise ConfigError(
            f"emit={settings.emit.value}: replicas on several machines share their state over Redis; give "
            "\"state='redis://host:6379/0?prefix=shop'\", in both kinds of quotes"
        )
    if urlsplit(state).password:
        raise ConfigError(
            f"emit={settings.emit.value}: the file would hold the password of Redis; the pods have it from the secret "
            f"playbill-redis, or set {PASSWORD} where Ray starts"
        )


def serve_config(settings: ServeSettings) -> dict[str, Any]:
    """Return what `serve deploy` takes, see `ray.serve.schema.ServeDeploySchema`."""
    follow = settings.follow and settings.bundle == "current"
    deployments = [{"name": REPLICA, **replica_options(settings, settings.bundle, follow)}]
    if composed(settings):
        deployments.append({"name": RANKER, **ranker_options(settings, settings.bundle)})
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": "0.0.0.0",
            "port": settings.port,
            **({"request_timeout_s": settings.request_timeout_s} if settings.request_timeout_s else {}),
        },
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "playbill",
                "route_prefix": "/",
                "import_path": APPLICATION,
                "args": {"home": settings.cluster.home, **given(settings)},
                "deployments": deployments,
            }
        ],
    }


def ray_service(settings: ServeSettings) -> dict[str, Any]:
    """Return a RayService, version ray.io/v1, that KubeRay 1.5 or later takes (it brings Ray's token)."""
    cluster, on_gpus = settings.cluster, composed(settings) and settings.ranker.gpus > 0
    ranker = settings.ranker
    least, most = settings.replicas + settings.shards, _most(settings) + settings.shards
    if composed(settings) and not on_gpus:
        least, most = least + ranker.replicas, most + max(ranker.replicas, ranker.most_replicas)
    # no pod's end takes all replicas with it
    apart = 2 if settings.replicas > 1 else 1
    cores = cluster.pod_cpus
    groups = [
        _group(settings, "replicas", cluster.image, cluster.replica_memory, cores, 0,
               max(apart, math.ceil(least / cores)), max(apart, math.ceil(most / cores))),
    ]  # fmt: skip
    if on_gpus:
        gpus = max(1, math.ceil(ranker.gpus))
        fit = max(1, int(gpus / ranker.gpus))  # rankers of a pod
        groups.append(
            _group(settings, "rankers", cluster.gpu_image, cluster.ranker_memory, fit, gpus,
                   math.ceil(ranker.replicas / fit), math.ceil(max(ranker.replicas, ranker.most_replicas) / fit)),
        )  # fmt: skip
    grows = any(group["maxReplicas"] > group["minReplicas"] for group in groups)
    head = _pod(settings, "ray-head", cluster.image, "4Gi", 2, 0)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "playbill"},
        "spec": {
            "serveConfigV2": _dump(serve_config(settings)),
            "rayClusterConfig": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},
                **({"enableInTreeAutoscaling": True} if grows else {}),
                # nothing that answers runs on the head: what it does for the cluster must not wait
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head},
                "workerGroupSpecs": groups,
            },
        },
    }


def given(settings: ServeSettings) -> dict[str, Any]:
    """Return the settings that replicas need and that are not as they are anyway."""
    mine, usual = (msgspec.to_builtins(s) for s in (settings, ServeSettings()))
    return {
        name: _differing(value, usual[name])
        for name, value in mine.items()
        if name not in _HERE and value != usual[name]
    }


def _differing(value: Any, usual: Any) -> Any:
    if isinstance(value, dict) and isinstance(usual, dict):
        return {name: part for name, part in value.items() if part != usual.get(name)}
    return value


def _most(settings: ServeSettings) -> int:
    return max(settings.replicas, settings.autoscale.most_replicas)


def _group(
    settings: ServeSettings, name: str, image: str, memory: str, cores: int, gpus: int, least: int, most: int
) -> dict[str, Any]:
    return {
        "groupName": name,
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": {"num-cpus": str(cores)},
        # a core more than Ray hands out: HAProxy and Ray's own processes run beside the replicas
        "template": _pod(settings, "ray-worker", image, memory, cores + 1, gpus),
    }


def _pod(settings: ServeSettings, name: str, image: str, memory: str, cores: int, gpus: int) -> dict[str, Any]:
    size = {"cpu": str(cores), "memory": memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        **serve_environment(settings, settings.ingress is not Ingress.python),
    }
    secret = {"name": "playbill-redis", "key": "password", "optional": True}
    probe = {"exec": {"command": ["python", "-c", _PROBE]}, "periodSeconds": 5, "timeoutSeconds": 4}
    ports = [{"containerPort": settings.port, "name": "serve"}]
    if name == "ray-head":
        ports += [
            {"containerPort": 6379, "name": "gcs-server"},
            {"containerPort": 8265, "name": "dashboard"},
            {"containerPort": 10001, "name": "client"},
        ]
    return {
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "fsGroup": _USER},
            "terminationGracePeriodSeconds": int(settings.drain_s) + 30,
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "ports": ports,
                    "env": [
                        *({"name": key, "value": value} for key, value in environment.items()),
                        {"name": PASSWORD, "valueFrom": {"secretKeyRef": secret}},
                    ],
                    "resources": {"requests": size, "limits": size},
                    "volumeMounts": [
                        {"name": "playbill", "mountPath": settings.cluster.home},
                        {"name": "shared-memory", "mountPath": "/dev/shm"},
                    ],
                    # our own: those that KubeRay would add call wget, which the images do not have
                    "readinessProbe": {**probe, "failureThreshold": 3},
                    "livenessProbe": {**probe, "initialDelaySeconds": 60, "failureThreshold": 24},
                }
            ],
            "volumes": [
                {"name": "playbill", "persistentVolumeClaim": {"claimName": settings.cluster.claim}},
                {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            ],
        }
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and what stands twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump(made: dict[str, Any]) -> str:
    found: str = yaml.dump(made, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return found


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
