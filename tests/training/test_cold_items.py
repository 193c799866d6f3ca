"""An item that nobody has met stands on its content: near its like, whether its content is a vector or words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch", reason="training needs the training packages")

from playbill.dataset.dataset import open_dataset  # noqa: E402  # after the check that torch is there
from playbill.features.encoder import encode_items  # noqa: E402
from playbill.features.settings import FeatureSettings  # noqa: E402
from playbill.features.spec import Side  # noqa: E402
from playbill.tables.folder import read_folder, read_table, write_folder  # noqa: E402
from playbill.tables.schema import Column, Kind  # noqa: E402
from playbill.tables.vectors import fixed_size  # noqa: E402
from playbill.training.retrieval.plain import load_plain  # noqa: E402
from playbill.training.settings import Query, TrainSettings, TwoTower  # noqa: E402
from playbill.training.train import run  # noqa: E402

WIDTH = 24


def genre_vectors(items: pa.Table) -> np.ndarray:
    """Return what an embedding of each film might be: its genres through a random matrix, and noise."""
    rng = np.random.default_rng(0)
    names = sorted({genre for row in items["categories"].to_pylist() for genre in row})
    axes = dict(zip(names, rng.normal(size=(len(names), WIDTH)), strict=True))
    rows = [sum((axes[g] for g in row), np.zeros(WIDTH)) for row in items["categories"].to_pylist()]
    return np.asarray(rows + 0.3 * rng.normal(size=(len(rows), WIDTH)), np.float32)


@pytest.fixture(scope="module")
def home(ml100k_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100K without the events of every fifth film, its genres told by a vector alone."""
    home, folder = tmp_path_factory.mktemp("cold"), read_folder(ml100k_tables)
    events, items = read_table(ml100k_tables, "events"), read_table(ml100k_tables, "items")
    cold = pa.array(items["item_id"].to_numpy()[::5])
    events = events.filter(pa.compute.invert(pa.compute.is_in(events["item_id"], value_set=cold)))
    items = items.select(["item_id", "title"]).append_column(
        "plot", fixed_size(genre_vectors(items), np.ones(items.num_rows, bool))
    )
    columns = {**folder.columns, "items": [c for c in folder.columns["items"] if c.name in ("item_id", "title")]}
    columns["items"] = [*columns["items"], Column(name="plot", kind=Kind.VECTOR)]
    tables = {"events": events, "items": items}
    columns = {name: list(columns[name]) for name in tables}
    write_folder(home / "tables" / "cold", tables, source="ml-100k", columns=columns, events=folder.events)
    return home


def test_a_film_without_events_lands_near_films_of_its_genres(home: Path, ml100k_tables: Path) -> None:
    model = TwoTower(
        query=Query.pooled, dim=16, hidden=32, max_epochs=2, unknown_share=0.1, half_life_days=0, away_days=0
    )
    features = FeatureSettings(history_length=20, context=[])
    settings = TrainSettings(home=str(home), tables="cold", model=model, features=features, threads=1)
    run(settings)
    dataset = open_dataset(home / "tables" / "cold", features, settings.split)
    assert [f.name for f in dataset.spec.side(Side.ITEM)] == ["plot"]
    _, tower = load_plain([home / "runs" / "cold-two_tower"], dataset.item_arrays)
    items = read_table(home / "tables" / "cold", "items")
    # the cold films as a catalogue meets them: ids that training never had, and what is told of them
    fresh = {
        "item_id": [-i for i in items["item_id"].to_pylist()[::5]],
        "plot": items["plot"].take(list(range(0, items.num_rows, 5))),
    }
    arrays = encode_items(fresh, dataset.spec, dataset.vocabularies)
    assert (arrays["item_index"] == 0).all()
    known = np.setdiff1d(np.arange(items.num_rows), np.arange(0, items.num_rows, 5))
    met = np.bincount(dataset.pool.item, minlength=items.num_rows + 1)[1:]
    known = known[met[known] >= 20]
    with torch.no_grad():
        cold = tower({name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()
        warm = {"item_index": known + 1, "item_plot": dataset.item_arrays["item_plot"][known + 1]}
        rows = tower({name: torch.from_numpy(array) for name, array in warm.items()}).numpy()
    genres = pl.from_arrow(read_table(ml100k_tables, "items"))["categories"].to_list()  # type: ignore[index]  # a frame
    names = sorted({g for row in genres for g in row})
    flags = np.asarray([[name in row for name in names] for row in genres], float)
    like = (
        flags[::5] @ flags[known].T / np.maximum(flags[::5].sum(1)[:, None], 1)
    )  # share of its genres that are shared
    near = np.argsort(-(cold @ rows.T), axis=1)[:, :10]
    found, chance = np.take_along_axis(like, near, 1).mean(), like.mean()
    # 0.378 against 0.243 by chance when this was written
    assert found > 1.3 * chance, (found, chance)
