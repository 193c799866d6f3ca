"""Amazon Toys through nothing but a configuration of the parquet source: sequences without times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from playbill.cli import compose
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import SourceError
from playbill.features.settings import FeatureSettings
from playbill.sources.prepare import run
from playbill.tables.folder import read_folder, read_table
from playbill.tables.schema import Kind


@pytest.fixture(scope="module")
def toys(shared_data: Path) -> Path:
    return shared_data / "amazon-toys"


@pytest.fixture(scope="module")
def path(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("toys")
    return run(compose("prepare", ["source=amazon-toys", f"source.folder={toys}", f"home={home}"]))


def test_tables(toys: Path, path: Path) -> None:
    folder = read_folder(path)
    assert path.name == "amazon-toys" and folder.rows == {"items": 11_924, "events": 167_597}
    assert [(c.name, c.kind) for c in folder.columns["items"]] == [
        ("item_id", Kind.ID),
        ("categories", Kind.CATEGORIES),
    ]
    raw = pq.read_table(toys / "toys_attributes.parquet").to_pylist()
    items = read_table(path, "items").to_pylist()
    assert items == [{"item_id": r["item"], "categories": [str(a) for a in r["attributes"]]} for r in raw]
    assert read_table(path, "events")["seq"].null_count == 0


def test_leave_last_out(toys: Path, path: Path) -> None:
    """The last toy of each person's sequence is the test item, whether ordered by `seq` or by the time made of it."""
    raw = pq.read_table(toys / "toys.parquet")
    raw = raw.take(pc.sort_indices(raw, [("user", "ascending"), ("seq", "descending")]))
    first = np.flatnonzero(np.diff(raw["user"].to_numpy(), prepend=-1))
    last = dict(zip(raw["user"].take(first).to_pylist(), raw["item"].take(first).to_pylist(), strict=True))
    for column in ("seq", None):
        split = SplitSettings(kind=SplitKind.leave_last_out, order_column=column)
        dataset = open_dataset(path, FeatureSettings(context=[]), split)
        pool, test = dataset.pool, np.flatnonzero(dataset.split.part == 2)
        assert len(pool) == 167_597 and pool.item.min() > 0
        items = dataset.vocabularies["item"].values
        found = {dataset.user_ids[p]: items[i - 1] for p, i in zip(pool.person[test], pool.item[test], strict=True)}
        assert found == last and len(found) == 19_412


def test_folder_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="source.folder is not set"):
        run(compose("prepare", ["source=amazon-toys", f"home={tmp_path}"]))
    with pytest.raises(SourceError, match="toys_attributes.parquet does not exist"):
        run(compose("prepare", ["source=amazon-toys", f"source.folder={tmp_path}", f"home={tmp_path}"]))
