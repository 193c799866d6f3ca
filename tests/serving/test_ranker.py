"""Rankers by themselves: requests scored together are scored as alone, and a broken one takes no other with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.bundle.open import open_bundle
from playbill.engine.settings import EngineSettings, Provider
from playbill.errors import BundleError, ProviderError
from playbill.serving.ranker import RankAsk, Ranked, Rankers, joined
from playbill.serving.remote import RankerAway, RankerLate, remote_ranker

OUTPUTS = ["p_interact", "p_like"]


@pytest.fixture
def rankers(sealed_home: Path) -> Rankers:
    return Rankers(str(sealed_home), EngineSettings(provider=Provider.auto))


def call(version: str, users: int, candidates: int, seed: int, history: int) -> RankAsk:
    rng = np.random.default_rng(seed)
    person = np.sort(np.concatenate([np.arange(users), rng.integers(0, users, candidates - users)]))
    arrays = {
        "history_value": rng.random((users, history), np.float32),
        "cand_user": person,
        "item_index": rng.integers(1, 1_000, candidates),
        "retrieval_score": rng.random(candidates, np.float32),
    }
    return RankAsk(version, arrays, OUTPUTS)


def calls_of(home: Path, version: str) -> list[RankAsk]:
    history = open_bundle(home / "bundles" / version).spec.history_length
    return [
        call(version, users, n, seed, history) for seed, (users, n) in enumerate([(1, 200), (3, 7), (1, 1), (2, 50)])
    ]


def test_together_as_alone(rankers: Rankers, sealed_home: Path, versions: list[str]) -> None:
    asks = calls_of(sealed_home, versions[0])
    together = rankers.score(asks)
    for ask, answer in zip(asks, together, strict=True):
        [alone] = rankers.score([ask])
        assert answer.provider.endswith("ExecutionProvider")
        assert [len(a) for a in answer.outputs] == [len(ask.arrays["item_index"])] * len(OUTPUTS)
        for mine, other in zip(answer.outputs, alone.outputs, strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-6)
    # what is asked of other outputs, or of another bundle, is answered as that
    odd = RankAsk(versions[0], asks[1].arrays, ["p_like"])
    [first, one, none] = rankers.score([asks[0], odd, RankAsk(versions[1], asks[0].arrays, OUTPUTS)])
    assert len(first.outputs) == 2 and len(one.outputs) == 1 and none == f"bundle {versions[1]} carries no ranker"
    np.testing.assert_allclose(one.outputs[0], together[1].outputs[1], atol=1e-6)


def test_a_broken_call_fails_alone(rankers: Rankers, sealed_home: Path, versions: list[str]) -> None:
    asks = calls_of(sealed_home, versions[0])
    lacking = {name: array for name, array in asks[1].arrays.items() if name != "item_index"}
    found = rankers.score([asks[0], RankAsk(versions[0], lacking, OUTPUTS), asks[2]])
    assert isinstance(found[1], str) and found[1]
    np.testing.assert_allclose(found[0].outputs[0], rankers.score(asks[:1])[0].outputs[0], atol=1e-6)
    assert isinstance(found[2], Ranked)
    [gone] = rankers.score([RankAsk("no-such-bundle", asks[0].arrays, OUTPUTS)])
    assert "no bundle 'no-such-bundle'" in gone


def test_rows_of_several_calls() -> None:
    one = {"cand_user": np.array([0, 0, 1]), "x": np.array([1, 2]), "c": np.array([7, 8, 9])}
    two = {"cand_user": np.array([0, 1, 2, 2]), "x": np.array([3, 4, 5]), "c": np.array([1, 1, 1, 1])}
    both = joined([one, two])
    assert both["cand_user"].tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert both["x"].tolist() == [1, 2, 3, 4, 5] and both["c"].tolist() == [7, 8, 9, 1, 1, 1, 1]


def test_where_it_runs_is_found_out_when_it_is_opened(sealed_home: Path, versions: list[str]) -> None:
    for provider in (Provider.cpu, Provider.auto):
        model = Rankers(str(sealed_home), EngineSettings(provider=provider)).open(versions[0])
        assert model is not None and model.provider in ("CPUExecutionProvider", "CUDAExecutionProvider")
    if model.device == "cpu":
        with pytest.raises(ProviderError, match="a GPU is required"):
            Rankers(str(sealed_home), EngineSettings(require_gpu=True)).open(versions[0])
    with pytest.raises(BundleError, match="no bundle"):
        Rankers(str(sealed_home), EngineSettings()).open("another")


def test_what_a_remote_ranker_says(sealed_home: Path, versions: list[str]) -> None:
    bundle = open_bundle(sealed_home / "bundles" / versions[0])
    [ask, *_] = calls_of(sealed_home, versions[0])
    seen: list[RankAsk] = []

    def late(ask: RankAsk, within_s: float | None) -> Ranked:
        seen.append(ask)
        raise TimeoutError

    ranker = remote_ranker(bundle, late, "CUDAExecutionProvider")
    assert ranker is not None and ranker.device == "gpu"
    assert ranker.outputs == list(bundle.manifest.models["ranker"].outputs)
    with pytest.raises(RankerLate, match="no answer within 40 ms"):
        ranker.run({**ask.arrays, "not_for_it": np.zeros(3)}, OUTPUTS, 0.04)
    assert seen[0].bundle == versions[0] and seen[0].arrays.keys() == ask.arrays.keys()
    ranker = remote_ranker(bundle, lambda ask, within_s: "out of memory", "")
    assert ranker is not None
    with pytest.raises(RankerAway, match="out of memory"):
        ranker.run(ask.arrays, OUTPUTS)
    assert remote_ranker(open_bundle(sealed_home / "bundles" / versions[1]), late, "") is None
