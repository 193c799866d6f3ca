"""What every bundle holds, models or not: features, items, policy, baselines, and the reports about the data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from playbill.bundle.policy import write_policy
from playbill.dataset.dataset import Dataset
from playbill.features.build import write_features
from playbill.tables.folder import has_table
from playbill.training.exporting.baselines import write_lately, write_places, write_tuned, write_usual
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


def write_baselines(
    folder: Path, dataset: Dataset, plan: Plan, neighbours: int, half_life_days: float, near: str | None = None
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Write the baselines, tuned ones where there are any; return by retriever its file and its numbers.

    Args:
        neighbours: kept of each item where nothing was tuned; half_life_days: of trending there.
        near: column of the users table that says where somebody is.
    Raises:
        TrainingError: there is no such column of text, or it is protected or sensitive.
    """
    personal = plan.rungs["item_knn"].carried
    write_lately(folder, dataset)
    if near is not None:
        write_places(folder, dataset, plan.tables, near, half_life_days)
    if plan.tuned.folder is not None:
        return write_tuned(folder, plan.tuned, personal)
    return write_usual(folder, dataset, personal, neighbours, half_life_days)
