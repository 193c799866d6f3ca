"""Stores of both kinds: what takes `new_place` or `place` runs on an LMDB folder and on a real redis-server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def redis_server(start_redis: Callable[..., Any]) -> Any:
    """A redis-server shared by the tests of this folder: each takes a prefix of its own."""
    return start_redis()


@pytest.fixture(scope="session", params=["lmdb", "redis"])
def new_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path | str]:
    """A function that names a place where no store is yet."""
    if request.param == "lmdb":
        return lambda: tmp_path_factory.mktemp("store") / "state"
    server = request.getfixturevalue("redis_server")
    return lambda: server.url(f"test-{uuid.uuid4().hex}")  # the fixture may be made anew, the server is not


@pytest.fixture
def place(new_place: Callable[[], Path | str]) -> Path | str:
    """Where no store is yet."""
    return new_place()
