"""What an export will hold, found out before anything heavy is read: rungs, runs, and the version that follows."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from playbill import __version__
from playbill.blend.model import FILE as BLEND_FILE
from playbill.blend.model import SCORE, Blend, read_blend, write_blend
from playbill.bundle.answers import ENJOY, unlike
from playbill.bundle.campaign_files import campaign_files, checksums
from playbill.bundle.policy import Policy, Surface, check_policy, check_weights, read_policy, read_policy_yaml
from playbill.bundle.rungs import Rung
from playbill.dataset.dataset import dataset_fingerprint
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tasks import Task
from playbill.errors import BlendError, BundleError, ConfigError, TrainingError
from playbill.features.settings import FeatureSettings
from playbill.tables.files import sha256_file
from playbill.tables.folder import read_folder
from playbill.tables.sufficiency import read_sufficiency
from playbill.training.exporting.baselines import Tuned, find_tuned
from playbill.training.runs import Run, read_record, read_run
from playbill.training.settings import ExportSettings, Weights, filled_columns

EXPORT_FORMAT = 2  # grows when the same inputs come to give another bundle


@dataclass(slots=True, kw_only=True)
class Plan:
    """One export.

    Attributes:
        tables: folder of the tables; tables_fingerprint: of their content.
        bundles: folder of the bundles.
        version: 12 hex digits that follow from all that goes in; the same inputs give the same version.
        rungs: every rung the data was judged for, carried or not.
        towers, ranker, creative: finished runs, None where that rung is not carried.
        response: finished run of the model of answers, whose probability is `enjoy`; None where there is none.
        ranker_weights: in what the ranker's graph is to hold its numbers.
        beside: further runs in the same pair of towers.
        tuned: baselines of a run of `playbill tune`, or why there is none.
        blend: what orders the retrievers' candidates, where one was asked for.
        campaign: by name in the bundle, files of the runs that campaigns stand on; campaign_runs: those runs.
        features, split: how the dataset is opened; those of the runs where there are any.
    """

    tables: Path
    tables_fingerprint: str
    bundles: Path
    version: str
    rungs: dict[str, Rung]
    towers: Run | None
    beside: list[Run]
    ranker: Run | None
    creative: Run | None
    response: Run | None
    features: FeatureSettings
    split: SplitSettings
    policy: Policy
    tuned: Tuned
    ranker_weights: Weights = Weights.float32
    blend: Blend | None = None
    campaign: dict[str, Path] = field(default_factory=dict)
    campaign_runs: list[Path] = field(default_factory=list)

    @property
    def carried(self) -> list[str]:
        return [name for name, rung in self.rungs.items() if rung.carried]

    def twin(self) -> list[str] | None:
        """Return the fingerprints of the runs from which all of these towers were made again; None: not all were."""
        runs = [] if self.towers is None else [self.towers, *self.beside]
        found = [run.record.refit_fingerprint for run in runs]
        return [f for f in found if f is not None] if found and None not in found else None

    def filled(self) -> int:
        """Return how many columns of the item vectors only fill them up."""
        runs = [] if self.towers is None else [self.towers, *self.beside]
        return filled_columns([run.model for run in runs])

    def origin(self) -> dict[str, str]:
        """Return where the parts come from, for the manifest; split and features are json."""
        origin = {
            "tables": self.tables.name,
            "split": msgspec.json.encode(self.split).decode(),
            "features": msgspec.json.encode(self.features).decode(),
        }
        runs = {"run": self.towers, "ranker_run": self.ranker, "creative_run": self.creative}
        if self.towers is not None and not self.beside:  # what a warm start begins with
            origin["weights"] = sha256_file(checkpoint(self.towers))
        towers = [] if self.towers is None else [self.towers, *self.beside]
        origin |= {"tower_runs": ",".join(run.record.fingerprint for run in towers)} if towers else {}
        if any(run.record.refit_of is not None for run in towers):
            origin["tower_learned"] = "train+valid"
        if self.tuned.folder is not None:
            origin["baselines_run"] = self.tuned.folder.name
        origin |= {"blend": self.blend.name} if self.blend is not None else {}
        if self.campaign_runs:
            origin["campaign_runs"] = ",".join(run.name for run in self.campaign_runs)
        origin |= {"beside": ",".join(run.path.name for run in self.beside)} if self.beside else {}
        if self.ranker is not None:  # what its probabilities speak of, and where that was learned
            origin["tasks"] = msgspec.json.encode(self.ranker.model.tasks).decode()
            origin["impressions"] = str(self.ranker.record.impressions).lower()
        if self.response is not None:  # likewise
            names = [event.name for event in self.response.spec.events]
            task = Task(name=ENJOY, events=names, threshold=self.response.model.like_threshold)
            origin["enjoy"] = msgspec.json.encode(task).decode()
            origin["response_run"] = self.response.path.name
            origin["response_features"] = msgspec.json.encode(self.response.settings.features).decode()
        return origin | {name: run.path.name for name, run in runs.items() if run is not None}


def make_plan(settings: ExportSettings) -> Plan:
    """Return what an export with these settings holds.

    Raises:
        TableError: no such tables.
        TrainingError: a run that was asked for by name is missing or unfinished, or a run does not belong to these
            tables or to the other run.
        ConfigError: the policy file cannot be read.
        BlendError: no such blend, or it was fitted on other tables.
    """
    home = Path(settings.home)
    tables = home / "tables" / settings.tables
    fingerprint = read_folder(tables).fingerprint
    rungs = {name: _carry(name, rung) for name, rung in read_sufficiency(tables).rungs.items()}
    towers = ranker = creative = None
    if rungs["towers"].carried:
        towers, rungs["towers"] = _find(home, settings.run, settings.tables, "two_tower", fingerprint, rungs["towers"])
    beside = _beside(home, settings.beside, towers, fingerprint)
    if rungs["ranker"].carried:
        if towers is None:
            rungs["ranker"] = _without(rungs["ranker"], "the ranker reads the towers' scores, and they are not carried")
        else:
            ranker, rungs["ranker"] = _find(
                home, settings.ranker_run, settings.tables, "ranker", fingerprint, rungs["ranker"]
            )
    if rungs["creative_heads"].carried:
        if towers is None:
            why = "creative heads read the query tower, and towers are not carried"
            rungs["creative_heads"] = _without(rungs["creative_heads"], why)
        else:
            creative, rungs["creative_heads"] = _find(
                home, settings.creative_run, settings.tables, "creative", fingerprint, rungs["creative_heads"]
            )
    response = None
    if ranker is not None or settings.response_run is not None:
        of_ranker = rungs["ranker"]
        response, _ = _find(home, settings.response_run, settings.tables, "response", fingerprint, of_ranker)
    if response is not None:
        _check_response(response, towers, ranker)
    for reader in (ranker, creative):
        if towers is not None and reader is not None:
            _check_pair(towers, reader)
    policy = _policy(settings, [] if ranker is None else [task.name for task in ranker.model.tasks], response)
    features = settings.features if towers is None else towers.settings.features
    split = settings.split if towers is None else towers.settings.split
    index = asdict(settings.index)
    del index["threads"]
    tuned = find_tuned(home, settings.baselines_run, settings.tables, fingerprint, split)
    inputs = [
        [EXPORT_FORMAT, __version__, dataset_fingerprint(tables, features, split)],
        [
            None if run is None else [run.record.fingerprint, sha256_file(checkpoint(run))]
            for run in (towers, *beside, ranker)
        ],
        [rungs, policy, index, settings.neighbours, settings.half_life_days],
        tuned.inputs(),
    ]
    if creative is not None:
        inputs.append([creative.record.fingerprint, sha256_file(checkpoint(creative))])
    if response is not None:
        inputs.append([response.record.fingerprint, sha256_file(checkpoint(response))])
    if ranker is not None and settings.ranker_weights is not Weights.float32:
        inputs.append([settings.ranker_weights.value])
    if settings.near is not None:
        inputs.append(["near", settings.near])
    blend = None
    if settings.blend is not None:
        blend = _blend(home / "blends" / settings.blend / BLEND_FILE, settings.tables, fingerprint)
        inputs.append([hashlib.sha256(write_blend(blend)).hexdigest()])
    runs = [_campaign_run(home, name, settings.tables, fingerprint) for name in settings.campaign_runs]
    campaign = campaign_files(runs)
    stems = {path.stem for path in campaign.values()}
    rungs = {name: rung for name, rung in rungs.items() if _OF_CAMPAIGNS.get(name, ("",))[0] not in stems}
    if campaign:
        inputs.append(["campaign", checksums(campaign)])
    return Plan(
        tables=tables,
        tables_fingerprint=fingerprint,
        bundles=home / "bundles",
        version=hashlib.sha256(msgspec.json.encode(inputs, order="sorted")).hexdigest()[:12],
        rungs=rungs,
        towers=towers,
        beside=beside,
        ranker=ranker,
        creative=creative,
        response=response,
        features=features,
        split=split,
        policy=policy,
        tuned=tuned,
        ranker_weights=settings.ranker_weights,
        blend=blend,
        campaign=campaign,
        campaign_runs=runs,
    )


# what the data suffices for that campaigns use: the stem of its files, and the job that learns it
_OF_CAMPAIGNS = {"send_time": ("send_time", "train-campaign"), "uplift": ("offers", "train-offers")}


def _campaign_run(home: Path, name: str, tables: str, fingerprint: str) -> Path:
    """Return the folder of a finished run of a campaign's models, learned on these tables."""
    path = home / "runs" / name if (home / "runs" / name).is_dir() else Path(name)
    try:
        record = msgspec.json.decode((path / "run.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise TrainingError(f"campaign_runs: {path} is no finished run ({error}); train it, or name another") from error
    if record.get("tables", fingerprint) != fingerprint:
        raise TrainingError(f"campaign_runs: {path} was trained on other tables than {tables} holds now; train again")
    return path


def checkpoint(run: Run) -> Path:
    """Return the checkpoint of a run that is used."""
    return run.path / "checkpoints" / "best.ckpt"


def _carry(name: str, rung: Rung) -> Rung:
    if rung.carried and name in _OF_CAMPAIGNS:
        stem, job = _OF_CAMPAIGNS[name]
        return _without(rung, f"campaign_runs names no run that holds {stem}; run `playbill {job}`, and name it there")
    return rung


def _without(rung: Rung, why: str) -> Rung:
    return msgspec.structs.replace(rung, carried=False, missing=why)


def _find(
    home: Path, asked: str | None, tables: str, model: str, fingerprint: str, rung: Rung
) -> tuple[Run | None, Rung]:
    """Return a run and its rung; without a run of the default name the rung is left out, and says so."""
    path = home / "runs" / (asked or f"{tables}-{model}")
    record = read_record(path)
    if asked is None and (record is None or not record.completed):
        return None, _without(rung, f"no finished run in {path.name}; run `playbill train model={model}`, then export")
    run = read_run(path, model)
    if run.record.tables_fingerprint != fingerprint:
        raise TrainingError(f"{path} was trained on other tables than {tables} holds now; train again")
    if not checkpoint(run).is_file():
        raise TrainingError(f"{checkpoint(run)} is missing; train again with force=true")
    return run, rung


def _beside(home: Path, names: list[str], towers: Run | None, fingerprint: str) -> list[Run]:
    """Return the runs whose vectors stand beside those of `towers`."""
    runs = []
    for name in names:
        run = read_run(home / "runs" / name, "two_tower")
        if towers is None:
            raise TrainingError(f"beside={names} needs a run to stand beside; give run=<name>")
        if run.record.tables_fingerprint != fingerprint:
            raise TrainingError(f"{run.path} was trained on other tables; train again")
        if run.spec.hash() != towers.spec.hash() or run.settings.split != towers.settings.split:
            raise TrainingError(f"{run.path} and {towers.path} have different features or splits; train one again")
        runs.append(run)
    return runs


def _check_pair(towers: Run, reader: Run) -> None:
    name, record = reader.record.model, reader.record
    # a ranker is validated where a refit has learned, so it learns from the scores of the run before
    if record.retrieval_fingerprint not in (towers.record.fingerprint, towers.record.refit_fingerprint):
        raise TrainingError(
            f"the {name} in {reader.path} learned from the scores of {record.retrieval_run} as it was then, not "
            f"of {towers.path.name} as it is now; train the {name} again, or name the right runs"
        )
    if reader.spec.hash() != towers.spec.hash():
        raise TrainingError(f"{reader.path} and {towers.path} have different feature specs; train the {name} again")


def _check_response(response: Run, towers: Run | None, ranker: Run | None) -> None:
    """Raise TrainingError unless a model of answers fits what it will stand beside."""
    if towers is None or ranker is None:
        raise TrainingError(
            f"{ENJOY} of {response.path} is weighed beside a ranker's tasks; train towers and ranker too"
        )
    if other := unlike(response.spec, towers.spec):
        raise TrainingError(f"{other} of {response.path} differ from those of {towers.path}; train it with the same")
    if response.settings.split != towers.settings.split:
        raise TrainingError(
            f"{response.path} was trained with another split than {towers.path}, so it may have learned what the "
            "bundle will be asked; train it with the same split.*"
        )
    if any(task.name == ENJOY for task in ranker.model.tasks):
        raise TrainingError(
            f"the ranker in {ranker.path} has a task {ENJOY!r}, and so is called what {response.path} says; name the "
            "task otherwise and train the ranker again"
        )


def _blend(path: Path, tables: str, fingerprint: str) -> Blend:
    blend = read_blend(path)
    if blend.tables_fingerprint != fingerprint:
        raise BlendError(f"{path} was fitted on other tables than {tables} holds now; run `playbill blend` again")
    return blend


def _policy(settings: ExportSettings, tasks: list[str], response: Run | None) -> Policy:
    """Return the policy to ship; where it says nothing of weights, a surface wants what the ranker's tasks can say.

    Args:
        tasks: of the ranker, empty where there is none.
        response: what says ENJOY.
    """
    policy = _read_policy(settings.policy_file)
    usual = Surface().weights
    if tasks and not set(usual) <= set(tasks):
        own = {
            name: msgspec.structs.replace(surface, weights={tasks[0]: 1.0}) if surface.weights == usual else surface
            for name, surface in policy.surfaces.items()
        }
        policy = msgspec.structs.replace(policy, surfaces=own)
    surfaces = dict(policy.surfaces)
    for name, weights in settings.objectives.items():
        # of a name that the policy lacks, the surface that would have answered: home stays a page
        surfaces[name] = msgspec.structs.replace(policy.surface(name), weights=dict(weights))
    asking = [name for name, surface in surfaces.items() if ENJOY in surface.weights and ENJOY not in tasks]
    if asking and response is None:
        raise ConfigError(
            f"the objective of {', '.join(asking)} weighs {ENJOY}, which no finished run says; run `playbill train "
            "model=response`, then export"
        )
    try:
        shipped = check_policy(msgspec.structs.replace(policy, surfaces=surfaces))
        if tasks:  # without a ranker the rungs below it have weights of their own
            answers = [] if response is None else [ENJOY]
            check_weights(shipped, [*tasks, *answers, *([] if settings.blend is None else [SCORE])])
    except BundleError as error:
        raise ConfigError(f"objectives: {error}") from None
    return shipped


def _read_policy(file: str | None) -> Policy:
    if file is None:
        return Policy()
    try:
        read_it = read_policy_yaml if Path(file).suffix in (".yaml", ".yml") else read_policy
        return read_it(Path(file).read_bytes())
    except OSError as error:
        raise ConfigError(f"policy_file {file!r} cannot be read: {error}") from error
