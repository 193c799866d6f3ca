"""Where the values of the next trial come from: a grid, draws, or Optuna. No Ray here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from playbill.training.sweeping.journal import FAILED, STOPPED, TRAINED, Trial
from playbill.training.sweeping.settings import Search, SweepSettings
from playbill.training.sweeping.space import Dimension, grid, random_point


class Points(Protocol):
    """A source of points that may learn from trials."""

    def ask(self, number: int) -> dict[str, Any] | None:
        """Return the values of trial `number`, None when there are no more."""

    def tell(self, trial: Trial) -> None:
        """Learn from a trial that ended, in this sitting or an earlier one."""


def points_of(settings: SweepSettings, dimensions: Sequence[Dimension], before: int) -> Points:
    """Return the source that the settings ask for.

    Args:
        before: trials of earlier sittings; they are told one by one.
    """
    if settings.search is Search.optuna:
        return Parzen(dimensions, settings.seed, before)
    return Listed(settings, dimensions)


class Listed:
    """Points that do not depend on what came before: a grid or independent draws."""

    def __init__(self, settings: SweepSettings, dimensions: Sequence[Dimension]) -> None:
        self.settings, self.dimensions = settings, list(dimensions)

    def ask(self, number: int) -> dict[str, Any] | None:
        if self.settings.search is Search.grid:
            return next(islice(grid(self.dimensions), number - 1, None), None)
        return random_point(self.dimensions, self.settings.seed, number)

    def tell(self, trial: Trial) -> None:
        pass


class Parzen:
    """Optuna's tree-structured Parzen estimator.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011; Optuna's TPESampler. Choices are
    handed to it by their place in the list, so that they can be anything.
    """

    def __init__(self, dimensions: Sequence[Dimension], seed: int, before: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.dimensions = list(dimensions)
        # another seed after a resumption: with the same one the first draws would be those made before
        sampler = optuna.samplers.TPESampler(seed=seed + 1_000_003 * before, multivariate=False, constant_liar=True)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.distributions = {d.key: _distribution(d) for d in self.dimensions}
        self.asked: dict[int, Any] = {}

    def ask(self, number: int) -> dict[str, Any]:
        trial = self.study.ask(self.distributions)
        self.asked[number] = trial
        return {d.key: d.values[trial.params[d.key]] if d.kind == "choice" else trial.params[d.key]
                for d in self.dimensions}  # fmt: skip

    def tell(self, trial: Trial) -> None:
        from optuna.trial import TrialState, create_trial

        reached = trial.best is not None and trial.status in (TRAINED, STOPPED)
        if trial.status == FAILED or not reached:
            state, value = TrialState.FAIL, None
        else:
            state, value = TrialState.COMPLETE, trial.best
        if trial.number in self.asked:
            self.study.tell(self.asked.pop(trial.number), value, state=state)
        else:
            params = {d.key: d.values.index(trial.values[d.key]) if d.kind == "choice" else trial.values[d.key]
                      for d in self.dimensions}  # fmt: skip
            self.study.add_trial(
                create_trial(params=params, distributions=self.distributions, value=value, state=state)
            )


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "choice":
        return CategoricalDistribution(range(len(dimension.values)))
    low, high = dimension.values
    kind = IntDistribution if dimension.kind.endswith("integers") else FloatDistribution
    return kind(low, high, log=dimension.kind.startswith("log_"))
