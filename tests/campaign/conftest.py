"""A real home: MovieLens-100K, everybody's ratings in the state, and a bundle of its baselines."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, Surface, check_policy
from playbill.cli import compose
from playbill.state.store import Store


@pytest.fixture(scope="session")
def mail_home(tmp_path_factory: pytest.TempPathFactory, ml100k_tables: Path) -> Path:
    """Never changed, as `mail_bundle`."""
    from playbill.state.ingest import run as ingest
    from playbill.training.export import run as export

    home = tmp_path_factory.mktemp("mails")
    shutil.copytree(ml100k_tables, home / "tables" / "ml-100k")
    ingest(compose("ingest", [f"home={home}"]))
    (home / "path").write_text(str(export(compose("export", [f"home={home}", "half_life_days=30"]))))
    return home


@pytest.fixture(scope="session")
def mail_bundle(mail_home: Path) -> Bundle:
    """With a surface that shows again what the person has seen, so that only a campaign's own windows hide."""
    bundle = open_bundle(Path((mail_home / "path").read_text()), require_sealed=False)
    policy = check_policy(Policy(surfaces={"slate": Surface(), "mail": Surface(suppression={})}))
    return dataclasses.replace(bundle, policy=policy)


@pytest.fixture
def mail_store(mail_home: Path, tmp_path: Path) -> Iterator[Store]:
    """A state that a test may change."""
    shutil.copytree(mail_home / "state", tmp_path / "state")
    with Store.open(tmp_path / "state") as store:
        yield store
