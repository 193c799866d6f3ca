"""The folder of a training run, and how a run is recognised.

    run.json        what this run is (fingerprint), whether it is finished, its best metric, speed and versions
    config.json     the settings it was started with
    features.json   vocab/   the feature spec and the vocabularies
    metrics.csv     figures as they came
    checkpoints/    last.ckpt to go on from, best.ckpt to use, final.ckpt the weights after the last step

Importing this module does not import torch: a finished run is recognised at once.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from playbill import __version__
from playbill.dataset.counts import DataCounts
from playbill.errors import TrainingError
from playbill.features.build import read_features
from playbill.features.spec import FeatureSpec
from playbill.features.vocabulary import Vocabulary
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder
from playbill.training.creative_settings import Creative
from playbill.training.presets import chosen
from playbill.training.ranking_settings import Ranker
from playbill.training.response_settings import Response
from playbill.training.settings import Preset, TrainSettings, TwoTower

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
MODELS: dict[str, type[TwoTower | Ranker | Creative | Response]] = {
    "two_tower": TwoTower,
    "ranker": Ranker,
    "creative": Creative,
    "response": Response,
}
# settings that say where and how, not what: changing them leaves a finished run finished
_NOT_WHAT = (
    "home",
    "run",
    "retrieval_run",
    "checkpoint_every_steps",
    "log_every_steps",
    "threads",
    "stream_above_events",
    "logger",
    "wandb_project",
    "force",
)


class RunRecord(msgspec.Struct, kw_only=True):
    """run.json.

    Attributes:
        fingerprint: hash of the settings that matter (of a preset: what it stood for), the tables and, of a ranker, the
            retrieval run.
        tables: the tables' name; tables_fingerprint: of their content.
        spec_hash: of features.json.
        retrieval_run: name of the run a ranker reads scores from; retrieval_fingerprint: that run's.
        metric: name of the validation metric, higher is better; best: its best value, at the end of epoch `best_epoch`
            (1-based; 0 = before any training); epochs: passes over the training rows done.
        report: other figures of the best epoch.
        seconds: wall clock of the training in this process (a resumed run counts from its resumption).
        warm_start: what the run began with, where it did not begin from nothing.
        refit_of: run that was made again from training and validation time; metric, best and report are that run's, and
            refit_fingerprint is too. None for a run that was validated itself.
        samples_per_second: training rows (towers: events read) a second while training, validation left out.
        input_share: share of that time in which steps waited for their batch.
        peak_mib: most memory that the process has held.
        versions: of what made it.
        impressions: whether a ranker learned from the slates of the decisions table.
        data: what was learned from, and what was left out; None for runs from before it was counted.
    """

    format: int = FORMAT
    model: str
    fingerprint: str
    tables: str
    tables_fingerprint: str
    spec_hash: str
    retrieval_run: str | None = None
    retrieval_fingerprint: str | None = None
    completed: bool = False
    metric: str = ""
    best: float = 0.0
    best_epoch: int = 0
    epochs: int = 0
    report: dict[str, float] = {}
    seconds: float = 0.0
    samples_per_second: float = 0.0
    input_share: float = 0.0
    peak_mib: float = 0.0
    processes: int = 1
    versions: dict[str, str] = {}
    warm_start: str = ""
    refit_of: str | None = None
    refit_fingerprint: str | None = None
    impressions: bool = False
    data: DataCounts | None = None


@dataclass(slots=True)
class Run:
    """A finished run, read back."""

    path: Path
    record: RunRecord
    settings: TrainSettings
    model: Any
    spec: FeatureSpec
    vocabularies: dict[str, Vocabulary]


def fingerprint(
    settings: TrainSettings, tables_fingerprint: str, retrieval: RunRecord | None, refit: RunRecord | None = None
) -> str:
    """Return sha256 over all that decides what a run ends with.

    Of a preset that is what the data makes of it today, so that a run of what it once stood for does not count as one
    of what it stands for now; and the preset itself, which chooses a precision by the machine. That precision is left
    out: a run does not become another one by being looked at elsewhere.
    """
    what = msgspec.to_builtins(chosen(settings))
    if isinstance(settings.model, Preset):
        what["preset"] = msgspec.to_builtins(settings.model)
    for name in _NOT_WHAT:
        del what[name]
    what["refit"] = None if refit is None else refit.fingerprint
    if refit is None:  # as it was before there were any
        del what["refit"]
    extra = [tables_fingerprint, retrieval.fingerprint if retrieval else None, FORMAT]
    return hashlib.sha256(msgspec.json.encode([what, extra], order="sorted")).hexdigest()


def read_record(run_dir: Path) -> RunRecord | None:
    """Return run.json, or None where there is none that this Playbill can read."""
    path = run_dir / "run.json"
    if not path.is_file():
        return None
    try:
        record = msgspec.json.decode(path.read_bytes(), type=RunRecord)
    except msgspec.MsgspecError:
        return None
    return record if record.format == FORMAT else None


def read_run(run_dir: Path, model: str) -> Run:
    """Return a finished run of this model.

    Raises:
        TrainingError: nothing there, another model, or not finished; says what to run.
    """
    record = read_record(run_dir)
    if record is None:
        raise TrainingError(f"no training run in {run_dir}; run `playbill train model={model}`")
    if record.model != model:
        raise TrainingError(f"{run_dir} is a run of {record.model}, expected {model}")
    if not record.completed:
        raise TrainingError(f"the run in {run_dir} is not finished; run the same `playbill train` again, it will go on")
    raw = msgspec.json.decode((run_dir / "config.json").read_bytes())
    settings = msgspec.convert(raw, TrainSettings)
    settings.model = msgspec.convert(raw["model"], MODELS[model])
    spec, vocabularies = read_features(run_dir)
    if spec.hash() != record.spec_hash:
        raise TrainingError(f"{run_dir}/features.json is not the spec this run was trained with; train again")
    return Run(run_dir, record, settings, settings.model, spec, vocabularies)


def start_run(run_dir: Path, settings: TrainSettings, record: RunRecord) -> None:
    """Make an empty run folder in the place of whatever was there, with config.json and run.json.

    What was there stands aside until the new run is finished: `put_back` restores it, `let_go` removes it.
    """
    before, aside = read_record(run_dir), _aside(run_dir)
    if before is not None and before.completed:
        shutil.rmtree(aside, ignore_errors=True)
        run_dir.replace(aside)
    elif run_dir.exists():
        shutil.rmtree(run_dir)
    (run_dir / "checkpoints").mkdir(parents=True)
    write_atomic(run_dir / "config.json", msgspec.json.format(msgspec.json.encode(settings, order="sorted"), indent=1))
    write_record(run_dir, record)


def put_back(run_dir: Path) -> bool:
    """Return whether a new run that has no checkpoint yet gave way to the finished one that it was to replace."""
    if not _aside(run_dir).is_dir() or any((run_dir / "checkpoints").glob("*.ckpt")):
        return False
    shutil.rmtree(run_dir, ignore_errors=True)
    _aside(run_dir).replace(run_dir)
    return True


def let_go(run_dir: Path) -> None:
    """Remove the run that a finished one has replaced."""
    shutil.rmtree(_aside(run_dir), ignore_errors=True)


def _aside(run_dir: Path) -> Path:
    return run_dir.with_name(f".replaced-{run_dir.name}")


def write_record(run_dir: Path, record: RunRecord) -> None:
    write_atomic(run_dir / "run.json", msgspec.json.format(msgspec.json.encode(record), indent=1))


def new_record(settings: TrainSettings, retrieval: RunRecord | None, refit: RunRecord | None = None) -> RunRecord:
    """Return the record of a run that is about to start; `spec_hash` is filled once the data is open."""
    folder = read_folder(Path(settings.home) / "tables" / settings.tables)
    return RunRecord(
        model=settings.model.name,
        fingerprint=fingerprint(settings, folder.fingerprint, retrieval, refit),
        tables=settings.tables,
        tables_fingerprint=folder.fingerprint,
        spec_hash="",
        retrieval_run=retrieval_name(settings) if retrieval else None,
        retrieval_fingerprint=retrieval.fingerprint if retrieval else None,
        refit_of=settings.refit,
        refit_fingerprint=refit.fingerprint if refit else None,
        versions={"playbill": __version__} | {p: version(p) for p in ("torch", "torchrec", "pytorch-lightning")},
    )


def retrieval_name(settings: TrainSettings) -> str:
    """Return the name of the retrieval run that a ranker reads scores from."""
    return settings.retrieval_run or f"{settings.tables}-two_tower"


def load_weights(module: nn.Module, checkpoint: Path, leave_out: str = "") -> None:
    """Load a checkpoint's weights into a plain module, strictly.

    Args:
        leave_out: weights whose names begin so are for training alone; empty leaves out none.
    Raises:
        TrainingError: no such file, or its weights do not fit.
    """
    import torch

    if not checkpoint.is_file():
        raise TrainingError(f"no checkpoint {checkpoint}; train again with force=true")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    weights = {key.removeprefix("dmp."): value for key, value in state.items()}
    if leave_out:
        weights = {key: value for key, value in weights.items() if not key.startswith(leave_out)}
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise TrainingError(f"{checkpoint} does not fit the model: {error}") from error
