"""What the probabilities of a bundle's ranker are worth on held-out time, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from playbill.bundle.answers import ENJOY, NAME
from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.judging import MOST_SLATES, Judged, judge
from playbill.dataset.labels import row_labels
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tallied import rows_at
from playbill.dataset.tasks import Task
from playbill.engine.answers import open_answers
from playbill.engine.rank import PREFIX
from playbill.engine.runtime import Model, open_model
from playbill.features.encoder import Arrays
from playbill.features.settings import FeatureSettings
from playbill.measure.binary import auc
from playbill.measure.calibration import Calibration, calibration
from playbill.release.answers import ask_rows
from playbill.release.roads import CPU

# of bundles that do not say what their ranker was asked
_USUAL = [Task(name="interact"), Task(name="like", parent="interact", threshold=4.0)]


class CalibrationReport(msgspec.Struct, kw_only=True):
    """`report/calibration.json`.

    Attributes:
        rows: what the candidates are, in words.
        tasks: those of which something is known in the test part.
        notes: tasks that could not be judged, and why.
    """

    rows: str
    tasks: list[Calibration]
    notes: list[str] = []


def measure_calibration(
    bundle: Bundle, tables: Path, dataset: Dataset, *, resamples: int, seed: int, level: float
) -> CalibrationReport:
    """Return observed against expected for every task of the bundle's ranker, and of `enjoy`, on the test part.

    Args:
        bundle: carries towers and a ranker, with the features of `dataset`.
        tables: folder that the dataset was opened from.
        resamples, seed, level: of the intervals over people.
    """
    tasks = tasks_of(bundle)
    names = [task.name for task in tasks]
    impressions = learned_from_impressions(bundle)
    judged = judged_by(bundle, tables, dataset, "test", [PREFIX + name for name in names])
    report = CalibrationReport(
        rows="items shown in the test part"
        if impressions
        else "the 100 unseen items nearest to each person when the test part begins; true is what they do in it",
        tasks=[],
    )
    for t, name in enumerate(names):
        known = judged.known[:, t] > 0 if len(judged.person) else np.zeros(0, bool)
        if not known.any():
            report.notes.append(f"{name}: nothing in the test part says whether it came true")
            continue
        p = np.clip(judged.answers[PREFIX + name][known].astype(np.float64), 0, 1)
        report.tasks.append(
            calibration(
                p,
                judged.label[known, t],
                judged.person[known],
                task=name,
                resamples=resamples,
                seed=seed,
                level=level,
            )
        )
    if NAME in bundle.manifest.models:
        found, note = _enjoyed(bundle, tables, resamples=resamples, seed=seed, level=level)
        report.tasks += [found] if found is not None else []
        report.notes.append(note)
    return report


def judged_by(
    bundle: Bundle, tables: Path, dataset: Dataset, part: str, outputs: Sequence[str], slates: int = MOST_SLATES
) -> Judged:
    """Return what a bundle's ranker says of the candidates of a part, and what came true of them.

    Args:
        bundle, tables, dataset: as for `measure_calibration`.
        part: valid or test.
        outputs: of the ranker's graph.
        slates: newest ones that are looked at, where it learned from impressions.
    """
    tower, ranker = (open_model(bundle.file(f"{name}.onnx"), CPU) for name in ("query_tower", "ranker"))

    def rank(arrays: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(outputs, ranker.run(arrays, list(outputs)), strict=True))

    return judge(
        tables,
        dataset,
        part,
        tasks_of(bundle),
        impressions=learned_from_impressions(bundle),
        query=lambda arrays: _query(tower, arrays),
        items=np.asarray(bundle.array("item_embeddings"), np.float32),
        rank=rank,
        slates=slates,
    )


def learned_from_impressions(bundle: Bundle) -> bool:
    """Return whether the bundle's ranker learned from slates as they were shown."""
    return bundle.manifest.origin.get("impressions") == "true"


def in_words(task: Calibration) -> str:
    """Return a task's figures in a line."""
    ratios = [t.ratio.value for t in task.tenths if t.enough and t.ratio is not None]
    error = f"error {task.error.value:.4f} [{task.error.low:.4f}, {task.error.high:.4f}]"
    if not ratios:
        return f"{task.task}: too few events ({task.events:.0f}) for any tenth, {error}"
    return (
        f"{task.task}: observed / expected {min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} of "
        f"{len(task.tenths)} tenths, {error} ({task.error_by_chance:.4f} by chance)"
    )


def tasks_of(bundle: Bundle) -> list[Task]:
    """Return the tasks that the bundle's ranker was trained for."""
    told = bundle.manifest.origin.get("tasks")
    return _USUAL if told is None else msgspec.json.decode(told, type=list[Task])


def enjoy_task(bundle: Bundle) -> list[Task]:
    """Return the task that the bundle's model of answers speaks of; none where it carries no such model."""
    told = bundle.manifest.origin.get("enjoy")
    return [] if told is None else [msgspec.json.decode(told, type=Task)]


def _enjoyed(
    bundle: Bundle, tables: Path, *, resamples: int, seed: int, level: float
) -> tuple[Calibration | None, str]:
    """Return the calibration of `enjoy`, asked as it is served, and a note on what it was asked about."""
    origin, answers, tasks = bundle.manifest.origin, open_answers(bundle, CPU), enjoy_task(bundle)
    features = msgspec.json.decode(origin["response_features"], type=FeatureSettings)
    dataset = open_dataset(tables, features, msgspec.json.decode(origin["split"], type=SplitSettings))
    rows = rows_at(dataset, "test", running=True)
    label, known = row_labels(tables, dataset, rows, tasks, int(rows.now.max(initial=0)) + 1)
    said, yes = known[:, 0] > 0, label[:, 0] > 0
    if not (yes[said].any() and (~yes[said]).any()):
        return None, f"{ENJOY}: the test part holds no two different answers"
    of_items = answers.of_items(dataset.pool.item[rows.target_row])
    p = np.clip(ask_rows(answers.graph, answers.book, dataset, rows, of_items), 0, 1)[said]
    found = calibration(p, yes[said], rows.person[said], task=ENJOY, resamples=resamples, seed=seed, level=level)
    return found, (
        f"{ENJOY}: asked about what people tried in the test part, {len(p):,} answers; people's histories as of each, "
        f"items counted until the part begins; AUC {auc(yes[said], p):.4f}"
    )


def _query(tower: Model, arrays: Arrays) -> np.ndarray:
    vectors: np.ndarray = tower.run(arrays, tower.outputs[:1])[0]
    return vectors
