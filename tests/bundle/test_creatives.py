"""The creative parts of a bundle: sealed and opened with it, and refused where they do not fit each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import playbill.creative
from playbill.bundle.creatives import CreativeSpec, write_creatives
from playbill.bundle.manifest import State
from playbill.bundle.open import open_bundle
from playbill.bundle.policy import Policy, Surface, read_policy, write_policy
from playbill.bundle.write import seal, set_state
from playbill.creative.choice import CreativePolicy
from playbill.creative.posterior import Posterior
from playbill.errors import BundleError


@pytest.fixture
def staged(make_bundle: Callable[..., Path], add_creatives: Callable[..., None]) -> Path:
    """Five items with four creatives each."""
    path = make_bundle()
    add_creatives(path)
    return path


def test_it_is_sealed_and_opened_with_its_bundle(staged: Path) -> None:
    for state in (State.EVALUATED, State.GATED):
        set_state(staged, state)
    manifest = seal(staged)
    assert "creative_heads" in manifest.rungs and "creative_head" in manifest.models
    bundle = open_bundle(staged)
    assert bundle.unchecked == [] and bundle.creatives is not None
    spec, prior = bundle.creatives.spec, bundle.creatives.prior
    assert spec is not None and prior is not None and (spec.head, spec.width) == ("head-1", 4)
    assert len(bundle.creatives.columns["creative_id"]) == 20
    assert bundle.creatives.arrays["creative_tone"].tolist() == [0, *[(i // 4 + 1 + i % 4) % 4 + 1 for i in range(20)]]
    (staged / "creative_prior.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"creative_prior.npz: 1 bytes"):
        open_bundle(staged)


def test_bundles_that_choose_no_creatives_read_none(make_bundle: Callable[..., Path]) -> None:
    path = make_bundle()
    pl.DataFrame({"creative_id": [1, 1], "item_id": [99, 99]}).write_parquet(path / "creatives.parquet")
    assert open_bundle(path, require_sealed=False).creatives is None


def _rewrite(path: Path, **columns: Any) -> None:
    table = pl.read_parquet(path / "creatives.parquet")
    table.with_columns(**{name: pl.Series(values) for name, values in columns.items()}).write_parquet(
        path / "creatives.parquet"
    )


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"item_id": [99] * 4 + [i for i in (12, 13, 14, 15) for _ in range(4)]}, "belong to items that the catalogue"),
        ({"status": ["new"] * 20}, "items 11, 12, 13, 14, 15 have creatives, and none of them is approved"),
        ({"is_default": [False] * 4 + [True, False, False, False] * 4}, "items 11 are without a default creative"),
        ({"creative_id": [1] * 20}, "every creative needs a creative_id of its own"),
    ],
)
def test_a_table_of_creatives_that_cannot_be_used_is_refused(staged: Path, columns: Any, told: str) -> None:
    _rewrite(staged, **columns)
    with pytest.raises(BundleError, match=f"creatives.parquet: .*{told}"):
        open_bundle(staged, require_sealed=False)


def _prior(**arrays: Any) -> Callable[[Path], None]:
    whole = {"mean": np.zeros(4), "precision": np.eye(4), "noise": np.float64(4)}
    return lambda path: np.savez(path / "creative_prior.npz", **(whole | arrays))


def _spec(**fields: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        spec = msgspec.json.decode((path / "creatives.json").read_bytes())
        (path / "creatives.json").write_bytes(msgspec.json.encode(spec | fields))

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: (path / "creative_prior.npz").unlink(), "creative_prior.npz: missing, though"),
        (lambda path: (path / "creative_head.onnx").unlink(), "creative_head.onnx: missing, though"),
        (lambda path: (path / "creatives.json").write_text("{}"), "creatives.json: .*head"),
        (lambda path: (path / "creative_vocab" / "creative_tone.parquet").unlink(), "creative_tone"),
        (lambda path: np.savez(path / "creative_arrays.npz", creative_tone=np.zeros(3)), "has 3 rows, expected 21"),
        (_prior(mean=np.zeros(3), precision=np.eye(3)), "has 3 numbers"),
        (_prior(precision=-np.eye(4)), "not symmetric and positive definite"),
        (_prior(mean=np.full(4, np.nan)), "must be finite"),
        (_spec(width=5), "says width 5; they belong to different trainings"),
        (_spec(version=9), "version 9, this Playbill reads up to 2"),
        (_spec(surprise=1), "surprise"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(staged: Path, change: Callable[[Path], None], told: str) -> None:
    change(staged)
    with pytest.raises(BundleError, match=told):
        open_bundle(staged, require_sealed=False)


def test_a_prior_that_is_none_is_not_written(tmp_path: Path) -> None:
    spec = CreativeSpec(head="h", width=2, reward="click")
    with pytest.raises(ValueError, match="positive definite"):
        write_creatives(tmp_path, spec, {}, {}, Posterior(np.zeros(2), np.zeros((2, 2))))


def test_policies_say_how_creatives_are_chosen(make_bundle: Callable[..., Path]) -> None:
    assert b"creatives" not in write_policy(Policy())  # so that what was written before keeps its hash
    chosen = Policy(surfaces={"slate": Surface(creatives=CreativePolicy(floor=0.1))})
    assert read_policy(write_policy(chosen)) == chosen
    with pytest.raises(BundleError, match=r"policy.surfaces.slate.creatives.floor must lie in 0..1, got 2"):
        read_policy(write_policy(chosen).replace(b'"floor": 0.1', b'"floor": 2'))
    with pytest.raises(BundleError, match="thomson"):
        read_policy(write_policy(chosen).replace(b"thompson", b"thomson"))
    told = Path(playbill.creative.__file__).with_name("README.md").read_text()
    [shown] = re.findall(r"```json\n(.*?)```", told, re.DOTALL)
    assert read_policy(shown.encode()).surfaces["slate"].creatives == CreativePolicy(kind="epsilon_greedy", epsilon=1.0)
    path = make_bundle()
    (path / "policy.json").write_bytes(write_policy(chosen))
    with pytest.raises(BundleError, match="creatives.parquet: missing, though policy.json says"):
        open_bundle(path, require_sealed=False)
