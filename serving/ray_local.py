"""A Ray on this machine for the time of one job."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from playbill.serving import processes

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent home
    "RAY_worker_niceness": "0",  # workers run at +15 otherwise, and give way to everything else on the machine
    "RAY_AUTH_MODE": "token",  # who knocks at a port of Ray's must know this run's token
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a share of a GPU may still see it
}
# The only way to tell Ray that a cluster has no other machine, so that its ports need no other interface than loopback;
# named after the systems where that is the default.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
TRIES = 3  # at starting Ray


@contextmanager
def local_ray(
    num_cpus: int,
    object_store_mb: int,
    environment: Mapping[str, str] | None = None,
    metrics_port: int | None = None,
    outside: bool = False,
) -> Iterator[str]:
    """Start a Ray, yield the mark of its processes, and end it with all of them.

    Args:
        num_cpus: what Ray may hand out: a number for its books, not a limit.
        object_store_mb: shared memory.
        environment: what Ray reads when it is imported, so it must not have been imported before.
        metrics_port: where Prometheus finds the figures; None: anywhere.
        outside: listen on every interface and not on loopback alone, the figures included.
    """
    environment = {
        **_ALWAYS,
        **({} if outside else _LOOPBACK),
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        **(environment or {}),
    }
    if "ray" in sys.modules:
        raise RuntimeError("ray was imported before its environment was set; give the job a process of its own")
    os.environ.update(environment)
    mark = processes.mark()
    import ray

    try:
        with _held_back():
            _start(mark, num_cpus, object_store_mb, metrics_port)
        yield mark
    finally:
        ray.shutdown()
        processes.end(mark)


def _start(mark: str, num_cpus: int, object_store_mb: int, metrics_port: int | None) -> None:
    """Start Ray; again where it ran out of its own patience, 30 s that cannot be set, as on a very busy machine."""
    import ray

    for tries_left in reversed(range(TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=object_store_mb * 1_000_000,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _metrics_export_port=metrics_port,
            )
            return
        except Exception as error:  # a bare Exception is what Ray raises here
            if not tries_left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            processes.end(mark)


@contextmanager
def _held_back() -> Iterator[None]:
    """Keep what is written to standard error, by C++ as well, to ourselves; show it when the block fails.

    Ray's core remarks there on each of the settings above that differs from its own.
    """
    with tempfile.TemporaryFile() as held:
        real = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
