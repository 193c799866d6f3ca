"""`playbill campaign report`: intent-to-treat lift against the holdouts, of everybody and by segment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from rich.console import Console

from playbill.errors import ConfigError, MeasureError, TableError
from playbill.measure.campaigns.dealt import CAMPAIGN, EVERYWHERE, HELD, Dealt, arms, read_dealt
from playbill.measure.campaigns.page import to_html
from playbill.measure.campaigns.settings import CampaignReportSettings
from playbill.measure.experiments import read as experiment
from playbill.measure.experiments.discovery import q_values
from playbill.measure.experiments.metrics import Metric, parse
from playbill.measure.experiments.settings import ExperimentQuestion
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, Statement, to_json, to_png, to_text
from playbill.tables.files import atomic_folder
from playbill.tables.folder import describe_folder, read_folder
from playbill.tables.schema import CONTRACT, Column, Kind

SHIPPED = Path(__file__).with_name("metrics.yaml")


def run(settings: CampaignReportSettings) -> Reading:
    """Read a campaign, print what it did, and write it.

    Raises:
        ConfigError: a segment that is no column, or protected outside of an audit; a metric file with a fault.
        MeasureError: no such campaign, or nobody was held out of it.
        TableError: no such tables, or a file of what was delivered that cannot be read.
    """
    if not settings.name:
        raise ConfigError("name: expected the name of a campaign: playbill campaign report NAME")
    folder = Path(settings.home) / "campaigns" / settings.name
    tables = Path(settings.home) / "tables" / settings.tables
    dealt = read_dealt(folder)
    _check_segments(settings, tables)
    with Console(stderr=True).status("reading what people did ..."):
        reading = _read(settings, tables, dealt)
    with atomic_folder(folder / "report") as out:
        png = to_png(reading)
        (out / "reading.json").write_bytes(to_json(reading))
        (out / "reading.txt").write_text(to_text(reading))
        (out / "reading.png").write_bytes(png)
        (out / "report.html").write_text(to_html(reading, png))
    console = Console(soft_wrap=True, highlight=False)
    console.print(to_text(reading), markup=False, end="")
    console.print(f"\nwritten to {folder / 'report'}", markup=False)
    return reading


def _read(settings: CampaignReportSettings, tables: Path, dealt: Dealt) -> Reading:
    controls = [control for control in (HELD, EVERYWHERE) if dealt.shares[control] > 0]
    if not controls:
        raise MeasureError(
            f"campaign {settings.name!r} held nobody out (holdouts.campaign and holdouts.everywhere are 0), so "
            "nothing can be said of what it did: whoever got no message differs from the others"
        )
    whole = [compare(settings, tables, arms(dealt, control), control) for control in controls]
    segments, skipped = _segments(settings, tables, arms(dealt, controls[0]), controls[0])
    counted = dealt.rows.group_by("reason").len().sort("len", descending=True)
    label = {"": "sent"}
    return Reading(
        title=f"Campaign {settings.name}: what it did, by the intention to treat",
        statements=[s for reading in whole for s in reading.statements],
        tables={
            "recipients": [{"what": label.get(r, r), "people": n} for r, n in counted.iter_rows()],
            **{f"arms, {c}": reading.tables["arms"] for c, reading in zip(controls, whole, strict=True)},
            **{
                _thousand(c): rows
                for c, reading in zip(controls, whole, strict=True)
                if (rows := _per_thousand(reading))
            },
            **_delivered(settings, dealt),
            **_variants(Path(settings.home) / "campaigns" / settings.name),
            "segments, corrected over all of them and all metrics": segments,
            "segments, too small to be read": skipped,
            "declared, not in this log": whole[0].tables["declared, not in this log"],
        },
        verdict=whole[0].verdict,
        warnings=list(dict.fromkeys(w for reading in whole for w in reading.warnings)),
    )


def compare(settings: CampaignReportSettings, tables: Path, people: pl.DataFrame, control: str) -> Reading:
    """Return the reading of an experiment whose arms are the campaign and one control."""
    metrics = _metrics(settings.metrics)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(Path(scratch), tables, people, settings.name)
        file = folder / "metrics.yaml"
        file.write_bytes(msgspec.yaml.encode(metrics))
        question = ExperimentQuestion(
            experiment=settings.name,
            control=control,
            arms=[control, CAMPAIGN],
            metrics=str(file),
            only=list(metrics),
            until=settings.until,
            window_days=settings.days,
            # campaigns before this one did something to the days before it, but not to the global holdout's
            pre_days=settings.pre_days if control == HELD else 0,
            correction=settings.correction,
            exposure="",
        )
        return experiment.run(question, folder, MeasureSettings(level=settings.level))


def _variants(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what `playbill campaign subjects` said last of subjects and heroes; nothing where it was not asked.

    Raises:
        MeasureError: its report cannot be read.
    """
    found = {}
    for name in ("subjects", "heroes"):
        path = folder / f"{name}_report.json"
        if path.is_file():
            try:
                told = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
                early = ", some messages are younger than 72 hours" if told["early"] else ""
                found[f"{name}, had everybody got one ({told['method']}{early})"] = told[name]
            except (msgspec.MsgspecError, KeyError) as error:
                raise MeasureError(f"{path} cannot be read ({error}); run `playbill campaign subjects` again") from None
    return found


def _thousand(control: str) -> str:
    what = {HELD: "what this campaign did", EVERYWHERE: "what all campaigns do together, this one included"}[control]
    return f"{what}, a thousand people who were dealt to it, against the {control}"


def _per_thousand(reading: Reading) -> list[dict[str, Any]]:
    """Return the effects of a reading as rows in people (or money) a thousand; none where the deal is contradicted."""
    if not all(s.randomised for s in reading.statements):
        return []
    return [
        {
            "metric": row["metric"], "without": 1000 * row["control_figure"], "with": 1000 * row["arm_figure"],
            "more": 1000 * row["difference"], "low": 1000 * row["low"], "high": 1000 * row["high"],
            "relative": row["relative"], "relative_low": row["relative_low"], "relative_high": row["relative_high"],
            "p_value": row["p"], "q_value": row["q"],
        }
        for row in reading.tables["intent to treat"]
    ]  # fmt: skip


def _metrics(own: str) -> dict[str, Metric]:
    """Return what a campaign is read with: the shipped metrics, and those of a file of one's own."""
    found = parse(SHIPPED.read_bytes(), SHIPPED.name)
    if own:
        try:
            found |= parse(Path(own).read_bytes(), own)
        except OSError as error:
            raise ConfigError(f"metrics: {own} cannot be read ({error.strerror or error})") from error
    return found


def _folder(folder: Path, tables: Path, people: pl.DataFrame, campaign: str) -> Path:
    """Make a folder of tables in which the deal stands as the assignment of an experiment; the events are linked."""
    for name in ("users", "events"):
        (folder / f"{name}.parquet").symlink_to((tables / f"{name}.parquet").resolve())
    decisions = people.select(
        decision_id=pl.concat_str(pl.lit(f"{campaign}:"), pl.col("user_id").cast(pl.String)),
        request_id=pl.lit(campaign),
        kind=pl.lit("experiment_arm"),
        chosen="arm",
        at="at",
        user_id="user_id",
        propensity="share",
    )
    decisions.write_parquet(folder / "decisions.parquet")
    known, there = {c.name: c for c in CONTRACT["decisions"]}, read_folder(tables)
    columns = {"decisions": [known.get(n, Column(name=n, kind=Kind.TEXT)) for n in decisions.columns]}
    describe_folder(folder, source=there.source, columns={**there.columns, **columns}, events=there.events)
    return folder


def _check_segments(settings: CampaignReportSettings, tables: Path) -> None:
    known = {column.name: column for column in read_folder(tables).columns.get("users", [])}
    for name in settings.segments:
        if name not in known:
            raise ConfigError(f"segments: users has no column {name!r}; it has {', '.join(known)}")
        if (known[name].protected or known[name].sensitive) and not settings.audit:
            raise ConfigError(
                f"segments: {name!r} is protected or sensitive: it serves audits; audit=true makes it one"
            )


def _segments(
    settings: CampaignReportSettings, tables: Path, people: pl.DataFrame, control: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row each metric and segment, and the segments that are too small."""
    rows: list[dict[str, Any]] = []
    told: list[Statement] = []
    small: list[dict[str, Any]] = []
    for column in settings.segments:
        users = pl.read_parquet(tables / "users.parquet", columns=["user_id", column])
        named = people.join(users, on="user_id", how="left").with_columns(pl.col(column).cast(pl.String))
        for value, mine in sorted(named.partition_by(column, as_dict=True).items(), key=lambda pair: str(pair[0])):
            name = f"{column} = {value[0]}"
            if len(mine) < settings.least_segment or mine["arm"].n_unique() < 2:
                small.append({"segment": name, "people": len(mine)})
                continue
            for s in compare(settings, tables, mine.drop(column), control).statements:
                if s.estimate is not None:
                    told.append(s)
                    rows.append({"segment": name, "metric": s.name.partition(",")[0], "people": s.n})
    p_values = [s.details["p_value"] for s in told]
    for row, s, q in zip(rows, told, q_values(p_values, settings.correction).tolist(), strict=True):
        row |= {"difference": s.estimate, "low": s.low, "high": s.high, "p_value": s.details["p_value"], "q_value": q}
    return rows, small


def _delivered(settings: CampaignReportSettings, dealt: Dealt) -> dict[str, list[dict[str, Any]]]:
    """Return what the sender says it did, by what was decided; a holdout that was written to anyway shows here."""
    if not settings.delivered:
        return {}
    file = Path(settings.delivered)
    try:
        given = pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
        given = given.select(pl.col("user_id").cast(dealt.rows.schema["user_id"]), pl.col("sent").cast(pl.Boolean))
    except (OSError, pl.exceptions.PolarsError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TableError(f"delivered: {file}: expected columns user_id and sent (true or false): {first}") from error
    rows = dealt.rows.join(given.unique("user_id"), on="user_id", how="left")
    decided = pl.when("send").then(pl.lit("sent")).otherwise("reason").alias("decided")
    counted = rows.group_by(decided).agg(
        pl.len().alias("people"),
        pl.col("sent").fill_null(False).sum().alias("delivered"),
        pl.col("sent").is_null().sum().alias("not in the file"),
    )
    return {"delivered": counted.sort("people", descending=True).to_dicts()}
