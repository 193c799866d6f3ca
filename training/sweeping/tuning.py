"""The part that knows Ray: trials as actors that each follow a training, Tune's loop over them, and a Ray for it."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from playbill.errors import TrainingError
from playbill.training.sweeping.journal import Trial
from playbill.training.sweeping.settings import Scheduler, SweepSettings

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent home
    "RAY_worker_niceness": "0",  # workers run at +15 otherwise, and so would the trainings
    "RAY_AUTH_MODE": "token",  # its ports listen on every interface, so who knocks must know this run's token
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths on the command line are meant from where it was typed
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a training that failed has no figure to give
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our journal is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep, which goes on when it is typed again
    "TUNE_MAX_PENDING_TRIALS_PG": "1",  # or searches are asked for points that only later results would teach
}
_OBJECT_STORE_MB = 80  # the least that Ray takes; trials hand over a few numbers
_NEVER = 10**9  # an epoch beyond any: a training ends by itself, and is not stopped while it writes its record
_TRIES = 3  # Ray gives itself 30 s to start, which a busy machine may need more than once


@contextmanager
def own_ray(settings: SweepSettings, parallel: int) -> Iterator[None]:
    """Start a Ray on this machine for the time of a sweep.

    Raises:
        RuntimeError: ray was imported before, so that what it reads on import cannot be set any more.
    """
    if "ray" in sys.modules:
        raise RuntimeError("ray was imported before its environment was set; give the sweep a process of its own")
    os.environ.update(_ENVIRONMENT | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    import ray

    for tries_left in reversed(range(_TRIES)):
        try:
            with _held_back():
                ray.init(
                    address="local",
                    num_cpus=parallel * settings.threads,
                    num_gpus=None if settings.gpus else 0,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_MB * 1_000_000,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            break
        except Exception as error:  # a bare Exception is what Ray raises here
            ray.shutdown()
            if not tries_left or "timed out during startup" not in str(error):
                raise
    try:
        yield
    finally:
        ray.shutdown()


def visible_gpus() -> float:
    """Return how many GPUs the Ray that runs has found."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def run_trials(
    settings: SweepSettings,
    parallel: int,
    wanted: int,
    next_trial: Callable[[], Trial | None],
    before: Sequence[Trial],
    process: Callable[[dict[str, Any]], Any],
    on_epoch: Callable[[int, dict[str, float], float], None],
    on_end: Callable[[int, bool, str], None],
) -> None:
    """Run trials until `next_trial` has no more or `wanted` were run.

    Args:
        next_trial: gives what to run next.
        before: trials of earlier sittings that ended: the scheduler is told their curves.
        process: makes a TrainProcess from {number, arguments}, in the trial's own process; must be importable there.
        on_epoch: called with number, figures and seconds so far.
        on_end: called with number, whether the training reached its own end, and why it failed ("" if it did not).
    """
    from ray import tune
    from ray.tune.search import Searcher

    class Follow(tune.Trainable):
        """One trial: an actor whose step is an epoch of the training that it started."""

        def setup(self, config: dict[str, Any]) -> None:
            self.process = process(config)

        def step(self) -> dict[str, Any]:
            try:
                figures, over = self.process.next_epoch()
            except TrainingError as error:
                return {"done": True, "over": True, "failed": str(error)}
            return {**figures, "done": over, "over": over, "failed": ""}

        def cleanup(self) -> None:
            self.process.stop()

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass  # the training keeps its own

        def load_checkpoint(self, checkpoint: Any) -> None:
            pass

    class Next(Searcher):
        """Hands Tune the trials of the journal in its order."""

        def set_search_properties(
            self, metric: str | None, mode: str | None, config: dict[str, Any] | None, **_: Any
        ) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            trial = next_trial()
            if trial is None:
                return Searcher.FINISHED
            return {"number": trial.number, "arguments": trial.arguments}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            pass  # the listener below knows more

        def save(self, checkpoint_path: str) -> None:
            pass  # the journal is the record

        def restore(self, checkpoint_path: str) -> None:
            pass

        def __reduce__(self) -> Any:
            return object, ()  # Tune pickles its parts for a restoration that we never ask for

    class Listener(tune.Callback):
        def __reduce__(self) -> Any:
            return object, ()

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            if not result["failed"]:
                figures = {name: result[name] for name in ("epoch", "metric", "best", "best_epoch")}
                on_epoch(trial.config["number"], figures, result["time_total_s"])

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            last = trial.last_result or {}
            on_end(trial.config["number"], bool(last.get("over")), last.get("failed", ""))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            # the training itself is told of by `failed`: this is an actor that died, of want of memory for one
            on_end(trial.config["number"], False, "the process that followed it died")

    scheduler = None
    if settings.scheduler is Scheduler.asha:
        scheduler = tune.schedulers.AsyncHyperBandScheduler(
            time_attr="epoch",
            metric="metric",
            mode="max",
            max_t=_NEVER,
            grace_period=settings.grace_epochs,
            reduction_factor=settings.reduction,
        )
        for trial in before:
            told = SimpleNamespace(trial_id=f"before-{trial.number}")
            scheduler.on_trial_add(None, told)
            for epoch, value in enumerate(trial.curve, 1):
                scheduler.on_trial_result(None, told, {"epoch": epoch, "metric": value})
    for name in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's failure is told by us
    with tempfile.TemporaryDirectory(prefix="playbill-sweep-") as scratch, _muted():
        tune.Tuner(
            tune.with_resources(Follow, {"cpu": settings.threads, "gpu": settings.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=Next(metric="metric", mode="max"),
                scheduler=scheduler,
                num_samples=wanted,
                max_concurrent_trials=parallel,
                metric=None if scheduler else "metric",
                mode=None if scheduler else "max",
            ),
            run_config=tune.RunConfig(storage_path=str(Path(scratch)), verbose=0, callbacks=[Listener()]),
        ).fit()


@contextmanager
def _muted() -> Iterator[None]:
    """Keep warnings of libraries about themselves away: they are nothing that who sweeps could change."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _held_back() -> Iterator[None]:
    """Keep what Ray's core remarks on standard error to ourselves; show it when the block fails."""
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
