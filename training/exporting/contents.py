"""What every bundle holds, models or not: features, items, policy, baselines, and the reports about the data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from playbill.baselines.item_knn import fit_cooccurrence, fit_transitions
from playbill.baselines.neighbours import write_neighbours
from playbill.baselines.popularity import popularity, trending, write_scores
from playbill.bundle.policy import write_policy
from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import Dataset
from playbill.features.build import write_features
from playbill.tables.folder import has_table
from playbill.training.exporting.plan import Plan


def write_contents(folder: Path, dataset: Dataset, plan: Plan) -> None:
    """Write features.json, vocab/, items.parquet, item_arrays.npz, policy.json, creatives.parquet and data reports."""
    write_features(folder, dataset.spec, dataset.vocabularies)
    dataset.items.write_parquet(folder / "items.parquet")
    np.savez(folder / "item_arrays.npz", allow_pickle=False, **dataset.item_arrays)  # type: ignore[arg-type]  # numpy's stub takes `**arrays` for the flag
    (folder / "policy.json").write_bytes(write_policy(plan.policy))
    if has_table(plan.tables, "creatives"):
        shutil.copyfile(plan.tables / "creatives.parquet", folder / "creatives.parquet")
    (folder / "report").mkdir()
    for name in ("quality.json", "sufficiency.json"):
        if (plan.tables / "report" / name).is_file():
            shutil.copyfile(plan.tables / "report" / name, folder / "report" / name)


def write_baselines(folder: Path, dataset: Dataset, plan: Plan, neighbours: int, half_life_days: float) -> None:
    """Fit and write popularity, trending and both item-kNNs on all that comes before the test part.

    Args:
        neighbours: kept of each item.
        half_life_days: of trending.
    """
    rows = rows_before(dataset, "test")
    pool, num_items = dataset.pool, dataset.spec.num_items
    person, item, at = pool.person[rows], pool.item[rows], pool.at[rows]
    write_scores(folder / "popularity.npy", popularity(item, num_items))
    now = int(at.max()) + 1 if len(at) else 0
    write_scores(folder / "trending.npy", trending(item, at, num_items, now, half_life_days))
    if plan.rungs["item_knn"].carried:
        write_neighbours(folder / "neighbours.npz", fit_cooccurrence(person, item, num_items, most=neighbours))
        write_neighbours(folder / "transitions.npz", fit_transitions(person, item, num_items, most=neighbours))
