"""Rankers by themselves: several requests of several replicas scored in one run. What a ranker replica does; no Ray."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from playbill.bundle.open import open_bundle
from playbill.engine.runtime import Model, open_model
from playbill.engine.settings import EngineSettings
from playbill.errors import trace
from playbill.serving import load

_KEPT = 2  # bundles: the one that answers, and the one before it or on trial
_USER = "cand_user"  # by candidate, the row of its person; see `engine.rank`

Arrays = dict[str, np.ndarray]

log = logging.getLogger("playbill.ranker")


@dataclass(frozen=True, slots=True)
class RankAsk:
    """One call of a ranker's graph, as `engine.rank` makes it.

    Attributes:
        bundle: version whose ranker is asked.
        arrays: [U, ...] for what is of persons, [N, ...] for what is of candidates.
        outputs: names of what is wanted, [N] each.
    """

    bundle: str
    arrays: Arrays
    outputs: list[str]


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was asked for.

    Attributes:
        outputs: in the order of the names.
        provider: that ran the graph.
    """

    outputs: list[np.ndarray]
    provider: str


class Rankers:
    """The rankers of the bundles that were asked for last. For any thread."""

    def __init__(self, home: str, settings: EngineSettings) -> None:
        """Make some that know no bundle yet.

        Args:
            settings: where graphs run: `provider` and `require_gpu` decide when the process runs, not before.
        """
        self._home, self._settings = home, settings
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._models)

    def open(self, version: str) -> Model | None:
        """Return the ranker of a bundle, opened and verified where it was not; None where the bundle carries none.

        Raises:
            BundleError: no such bundle, or one that was altered.
            ProviderError: `require_gpu`, and it would run on the CPU.
        """
        with self._lock:
            if version in self._models:
                self._models.move_to_end(version)
                return self._models[version]
            bundle = open_bundle(load.bundle_path(self._home, version))
            if not bundle.has("ranker.onnx"):
                return None
            model = self._models[version] = open_model(bundle.file("ranker.onnx"), self._settings)
            while len(self._models) > _KEPT:
                self._models.popitem(last=False)
            log.warning("ranker of bundle %s on %s (%s)", version, model.device, model.provider)
            return model

    def score(self, asks: Sequence[RankAsk]) -> list[Ranked | str]:
        """Return for each call its outputs, or why there are none; calls that fit together share a run."""
        found: list[Ranked | str] = [""] * len(asks)
        groups: dict[tuple[str, ...], list[int]] = {}
        for place, ask in enumerate(asks):
            groups.setdefault((ask.bundle, *ask.outputs), []).append(place)
        for places in groups.values():
            mine = [asks[place] for place in places]
            try:
                answers: Sequence[Ranked | str] = self._run(mine)
            except Exception:  # one odd request must not take the others' answers
                answers = [self._alone(ask) for ask in mine]
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def _alone(self, ask: RankAsk) -> Ranked | str:
        try:
            return self._run([ask])[0]
        except Exception as error:
            log.error("a ranker failed\n%s", trace(error))
            return (str(error).splitlines() or [type(error).__name__])[0]

    def _run(self, asks: Sequence[RankAsk]) -> list[Ranked]:
        model = self.open(asks[0].bundle)
        if model is None:
            raise ValueError(f"bundle {asks[0].bundle} carries no ranker")
        lengths = [len(ask.arrays[_USER]) for ask in asks]
        answers = model.run(joined([ask.arrays for ask in asks]), asks[0].outputs)
        cuts = np.cumsum(lengths)[:-1]
        by_output = [np.split(answer, cuts) for answer in answers]
        return [Ranked(list(mine), model.provider) for mine in zip(*by_output, strict=True)]


def joined(calls: Sequence[Arrays]) -> Arrays:
    """Return the arrays of several calls as those of one: rows behind rows, each candidate at its person's new row."""
    if len(calls) == 1:
        return calls[0]
    arrays = {name: np.concatenate([call[name] for call in calls]) for name in calls[0] if name != _USER}
    before, users = 0, []
    for call in calls:
        users.append(call[_USER] + before)
        before += int(call[_USER][-1]) + 1  # every person has a candidate, and the last one's stand last
    return {**arrays, _USER: np.concatenate(users)}
