"""Homes with real tables and a staged bundle, and settings small enough for a test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from playbill.release.settings import EvaluateSettings, RivalSettings
from playbill.training.export import run as export
from playbill.training.settings import ExportSettings


@pytest.fixture
def few_rivals() -> RivalSettings:
    """One choice each, two for EASE: what tuning costs is not under test."""
    return RivalSettings(
        refine=0,
        half_life_days=[30.0],
        knn_shrink=[20.0],
        knn_weight_power=[1.0],
        knn_most=[50],
        knn_decay=[1.0],
        knn_length=[200],
        order_window=[20],
        order_distance_power=[1.0],
        order_source_power=[0.3],
        order_target_power=[0.3],
        order_weight_power=[1.0],
        order_smooth=[0.0],
        order_backward=[0.0],
        order_most=[200],
        order_decay=[1.0],
        order_length=[200],
        ease_l2=[200.0, 500.0],
        ials_factors=[16],
        ials_l2=[0.003],
        ials_alpha=[1.0],
        model_length=[10_000],
    )


@pytest.fixture(scope="session")
def counted_home(ml100k_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100K and a bundle of counts and neighbours: no tower was trained, so none is carried."""
    home = tmp_path_factory.mktemp("release")
    (home / "tables").symlink_to(ml100k_tables.parent)
    export(ExportSettings(home=str(home)))
    return home


@pytest.fixture
def home(counted_home: Path, tmp_path: Path) -> Path:
    """A home of one's own, so that a test may break it; baselines once fitted by any test are found again."""
    shutil.copytree(counted_home, tmp_path / "home", symlinks=True)
    cache = counted_home.parent / "rivals"
    cache.mkdir(exist_ok=True)
    (tmp_path / "home" / "cache").mkdir(exist_ok=True)
    (tmp_path / "home" / "cache" / "rivals").symlink_to(cache)
    return tmp_path / "home"


@pytest.fixture
def evaluate_settings(home: Path, few_rivals: RivalSettings) -> Callable[..., EvaluateSettings]:
    def make(**changes: Any) -> EvaluateSettings:
        return EvaluateSettings(
            **{"home": str(home), "rivals": few_rivals, "resamples": 200, "latency_requests": 10} | changes
        )

    return make
