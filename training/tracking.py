"""Where figures go: metrics.csv and system.csv in the run folder always, Weights & Biases when asked for.

Only this file knows wandb. Without WANDB_API_KEY wandb writes its files under the folder it is given, for `wandb sync`
to send later, and contacts nobody. What hangs together in a project:

    dataset artifact ─► training run ─► model artifact ─► run of the bundle ─► bundle artifact
                                                            reports of the bundle, as they come
"""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import ConfigError
from playbill.tables.files import write_atomic
from playbill.training.settings import Logger, TrainSettings
from playbill.training.system import COLUMNS, SystemUse

_ID = "wandb.json"  # beside a run's files: a run that goes on is the same run there
_RUN_FILES = ("run.json", "config.json", "features.json", "metrics.csv", "system.csv")


class Tracker:
    """Takes figures as they come, one row a step.

    Args:
        run_dir: the run's folder.
        columns: names of all figures that will come; metrics.csv has one column for each, after `step`.
        from_step: rows after this step are dropped: the run goes on from there and will write them again.
        settings: for wandb's config; `settings.logger` chooses.
    """

    def __init__(self, run_dir: Path, columns: list[str], from_step: int, settings: TrainSettings) -> None:
        self.run_dir, self.path, self.columns = run_dir, run_dir / "metrics.csv", ["step", *columns]
        self._begin(self.path, self.columns, from_step)
        self._begin(run_dir / "system.csv", ["step", *COLUMNS], from_step)
        self._use = SystemUse()
        self._wandb: Any = None
        if settings.logger is Logger.wandb:
            self._wandb = _start_training(run_dir, settings)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one row. A figure without a column is a mistake of ours and raises ValueError."""
        self._append(self.path, self.columns, step, figures)
        if self._wandb is not None:
            self._wandb.log(dict(figures), step=step)

    def log_system(self, step: int, samples_per_second: float) -> None:
        """Write what the training used since the last call."""
        used = self._use.since(samples_per_second)
        self._append(self.run_dir / "system.csv", ["step", *COLUMNS], step, used)
        if self._wandb is not None:
            self._wandb.log({f"system/{name}": value for name, value in used.items()}, step=step)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Hand over the run's report (plain json values) and what it leaves, and close."""
        if self._wandb is not None:
            self._wandb.summary.update(dict(report))
            self._wandb.log_artifact(_model_artifact(self.run_dir))
            self._wandb.finish()

    def _begin(self, path: Path, columns: list[str], from_step: int) -> None:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rows(path, from_step))
        write_atomic(path, buffer.getvalue().encode())

    def _append(self, path: Path, columns: list[str], step: int, figures: Mapping[str, float]) -> None:
        with path.open("a", newline="") as file:
            row = {"step": step} | {name: f"{value:.8g}" for name, value in figures.items()}
            csv.DictWriter(file, columns, lineterminator="\n").writerow(row)


class BundleRun:
    """The run of one bundle: what it was made of, what was measured of it, what it was used for.

    Open it with `bundle_run`; every opening goes on with the same run.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def report(self, kind: str, payload: Path, headlines: Mapping[str, Any]) -> None:
        """Hand over a report: its file as an artifact, and the figures that panels show into the summary.

        Args:
            kind: evaluation, gate, batch-<name>, ...
            payload: json file.
            headlines: by name; they come to stand under `<kind>/`.
        """
        import wandb

        self._run.summary.update({f"{kind}/{name}": value for name, value in headlines.items()})
        artifact = wandb.Artifact(f"{kind}-{self._run.id}", type="report")
        artifact.add_file(str(payload), name=f"{kind}.json")
        self._run.log_artifact(artifact)

    def picture(self, name: str, path: Path) -> None:
        """Hand over a plot (png)."""
        import wandb

        self._run.log({f"plots/{name}": wandb.Image(str(path))})

    def made_of(self, runs: Sequence[Path], tables: str, fingerprint: str) -> None:
        """Say which data and which finished runs the bundle was made of."""
        for artifact in [_dataset_artifact(tables, fingerprint), *map(_model_artifact, runs)]:
            _use(self._run, artifact)

    def bundle(self, folder: Path, aliases: Sequence[str]) -> None:
        """Hand over the bundle's files."""
        import wandb

        artifact = wandb.Artifact(f"bundle-{folder.name}", type="bundle", metadata={"version": folder.name})
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            artifact.add_file(str(file), name=str(file.relative_to(folder)))
        self._run.log_artifact(artifact, aliases=["latest", *aliases])


@contextmanager
def bundle_run(folder: Path, version: str, project: str, config: Mapping[str, Any]) -> Iterator[BundleRun]:
    """Open the run of a bundle, in `folder`, and close it at the end of the block.

    Raises:
        ConfigError: wandb is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _start(folder, project, f"bundle {version}", f"bundle-{version}", "bundle", version, dict(config))
    failed = True
    try:
        yield BundleRun(run)
        failed = False
    finally:
        run.finish(exit_code=int(failed))


def has_key() -> bool:
    """Return whether there is a service to talk to."""
    return bool(os.environ.get("WANDB_API_KEY"))


def save_workspace(spec: Mapping[str, Any], entity: str | None, project: str, known: str | None) -> str:
    """Put our panels into a workspace through the public API; return its address.

    Args:
        spec: as `workspace_model` takes it.
        entity: user or team; None = the key's own.
        project: is created where it is not there.
        known: address of the workspace made before, whose panels are replaced; None makes one.
    Raises:
        ConfigError: wandb or wandb-workspaces is not installed, or the service refuses.
    """
    try:
        import wandb
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ConfigError(f"a workspace needs {error.name}, which is not installed; the page is there") from error
    try:
        api = wandb.Api()
        owner = entity or api.default_entity
        if not owner:
            raise ConfigError("the key has no entity of its own; give entity=")
        workspace = workspace_model(spec, owner, project)
        if known is not None:
            before = workspaces.Workspace.from_url(known)
            before.sections, workspace = workspace.sections, before
        else:
            api.create_project(project, owner)
        workspace.save()
        return str(workspace.url)
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise ConfigError(f"the workspace could not be made: {error}") from error


def workspace_model(spec: Mapping[str, Any], entity: str, project: str) -> Any:
    """Return a wandb_workspaces Workspace of our panels.

    Args:
        spec: {name, sections: [{name, panels: [{kind, title, keys, log}]}]}, as `dashboards.panels.spec` gives it.
    """
    import wandb_workspaces.reports.v2 as blocks
    import wandb_workspaces.workspaces as workspaces

    def column(key: str, log: bool) -> Any:
        kind, _, name = key.partition(":")
        metric = blocks.Config(name) if kind == "config" else blocks.SummaryMetric(name)
        return blocks.ParallelCoordinatesPlotColumn(metric=metric, display_name=name, log=log)

    def panel(given: Mapping[str, Any]) -> Any:
        keys, logs = given["keys"], set(given["log"])
        if given["kind"] == "lines":
            return blocks.LinePlot(title=given["title"], x="Step", y=keys)
        if given["kind"] == "parallel":
            return blocks.ParallelCoordinatesPlot(title=given["title"], columns=[column(k, k in logs) for k in keys])
        return blocks.BarPlot(title=given["title"], metrics=keys)

    sections = [
        workspaces.Section(name=section["name"], is_open=True, panels=[panel(p) for p in section["panels"]])
        for section in spec["sections"]
    ]
    return workspaces.Workspace(entity=entity, project=project, name=spec["name"], sections=sections)


def _rows(path: Path, until_step: int) -> list[dict[str, str]]:
    if until_step <= 0 or not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= until_step]


def _start_training(run_dir: Path, settings: TrainSettings) -> Any:
    """Start, or go on with, the run of a training: its config, and what the data is."""
    record = _json(run_dir / "run.json")
    fingerprint = record.get("tables_fingerprint", "")
    config = msgspec.to_builtins(settings) | {
        "data": {"tables": settings.tables, "fingerprint": fingerprint},
        "versions": record.get("versions", {}),
    }
    run = _start(
        run_dir, settings.wandb_project, settings.run_name, None, "train", settings.tables, config, settings.model.name
    )
    _use(run, _dataset_artifact(settings.tables, fingerprint))
    return run


def _start(
    folder: Path,
    project: str,
    name: str,
    run_id: str | None,
    job: str,
    group: str,
    config: dict[str, Any],
    tag: str = "",
) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own crash reports, which nobody asked for
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("Weights & Biases needs the package wandb; install it, or train with logger=csv") from error
    kept = _json(folder / _ID).get("id")
    if kept is None:
        kept = run_id or secrets.token_hex(6)
        write_atomic(folder / _ID, msgspec.json.encode({"id": kept, "project": project}))
    return wandb.init(
        project=project,
        name=name,
        id=kept,
        resume="allow",
        group=group,
        job_type=job,
        tags=[tag] if tag else [],
        dir=str(folder),
        mode="online" if has_key() else "offline",
        config=config,
        settings=wandb.Settings(silent=True, console="off", x_disable_meta=True),
    )


def _use(run: Any, artifact: Any) -> None:
    """Say that a run reads an artifact, which is made where it is not there yet."""
    if run.offline:
        # use_artifact refuses to work offline because it waits for an answer; this is the record that it sends, and
        # `wandb sync` delivers it
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


def _dataset_artifact(tables: str, fingerprint: str) -> Any:
    """Return what stands for prepared tables: their name and fingerprint; the data stays where it is."""
    import wandb

    artifact = wandb.Artifact(f"tables-{tables}", type="dataset", metadata={"fingerprint": fingerprint})
    with artifact.new_file("fingerprint.json") as file:
        file.write(msgspec.json.encode({"tables": tables, "fingerprint": fingerprint}).decode())
    return artifact


def _model_artifact(run_dir: Path) -> Any:
    """Return what stands for a finished run: its records; the weights travel with the bundle."""
    import wandb

    record = _json(run_dir / "run.json")
    metadata = {k: record.get(k) for k in ("model", "fingerprint", "tables_fingerprint", "metric", "best")}
    artifact = wandb.Artifact(f"run-{run_dir.name}", type="model", metadata=metadata)
    for name in _RUN_FILES:
        if (run_dir / name).is_file():
            artifact.add_file(str(run_dir / name))
    return artifact


def _json(path: Path) -> dict[str, Any]:
    return dict(msgspec.json.decode(path.read_bytes())) if path.is_file() else {}
