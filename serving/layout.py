"""How the parts of a server are spread over processes: deployments and what each asks of a machine. Knows no Ray.

fused     each replica holds all that a request needs: the cheapest, as a hop between processes costs more than a model
composed  replicas hold all but the ranker, which stands in replicas of its own and scores several requests at once:
          for rankers that need a GPU, or that are so large that they have to scale by themselves
"""

from __future__ import annotations

from typing import Any

from playbill.serving.settings import Layout, ServeSettings

REPLICA, RANKER = "Replica", "Ranker"


def replica_options(settings: ServeSettings, bundle: str, follow: bool) -> dict[str, Any]:
    """Return the options of the deployment that answers requests, as Serve names them in code and in its files.

    Args:
        bundle: version to answer from, or `current`.
        follow: go on to what is published later.
    """
    return {
        **_number(settings, settings.replicas, settings.autoscale.most_replicas, settings.autoscale.ongoing),
        "max_ongoing_requests": settings.max_ongoing,
        "max_queued_requests": settings.max_queued,
        "backpressure_config": {"status_code": 503, "retry_after_s": 1},
        "ray_actor_options": {"num_cpus": 1},
        **_supervision(settings),
        "user_config": {"bundle": bundle, "follow": follow},
    }


def ranker_options(settings: ServeSettings, bundle: str) -> dict[str, Any]:
    """Return the options of the deployment that scores candidates, in the composed layout."""
    ranker = settings.ranker
    return {
        **_number(settings, ranker.replicas, ranker.most_replicas, ranker.batch),  # as many as share a run
        # two batches: one that is scored, and one that gathers meanwhile
        "max_ongoing_requests": 2 * ranker.batch,
        "max_queued_requests": settings.max_queued,
        "ray_actor_options": {"num_cpus": 1, **({"num_gpus": ranker.gpus} if ranker.gpus else {})},
        **_supervision(settings),
        "user_config": {"bundle": bundle},
    }


def most_replicas(settings: ServeSettings) -> int:
    """Return how many replicas answer requests at most."""
    return max(settings.replicas, settings.autoscale.most_replicas)


def cpus(settings: ServeSettings) -> int:
    """Return the cores that the processes of a server have in Ray's books, one for each that computes."""
    rankers = max(settings.ranker.replicas, settings.ranker.most_replicas) if composed(settings) else 0
    return most_replicas(settings) + rankers + settings.shards + 1


def composed(settings: ServeSettings) -> bool:
    """Return whether the ranker stands in replicas of its own."""
    return settings.layout is Layout.composed


def waits(settings: ServeSettings) -> bool:
    """Return whether answering a request means waiting for other processes."""
    return composed(settings) or settings.shards > 0


def _number(settings: ServeSettings, least: int, most: int, ongoing: float) -> dict[str, Any]:
    scale = settings.autoscale
    if most <= least:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": ongoing,
            "upscale_delay_s": scale.up_after_s,
            "downscale_delay_s": scale.down_after_s,
        }
    }


def _supervision(settings: ServeSettings) -> dict[str, Any]:
    return {
        "health_check_period_s": 2,
        "health_check_timeout_s": 10,
        "graceful_shutdown_timeout_s": settings.drain_s + 5,
        "logging_config": {"enable_access_log": False},
    }
