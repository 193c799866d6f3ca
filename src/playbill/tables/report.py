"""The reports of a preparation, as a person reads them in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from playbill.tables.faults import FaultGroup
from playbill.tables.quality import Quality
from playbill.tables.settings import Action
from playbill.tables.sufficiency import Sufficiency
from playbill.tables.validate import Validation

_COLOUR = {Action.reject: "red", Action.quarantine: "yellow", Action.warn: "cyan"}
_WORST_FIRST = (Action.reject, Action.quarantine, Action.warn)


def describe(group: FaultGroup) -> str:
    """Return one group of faults as lines of text: where, which rule, how often, and its first rows and values."""
    place = ".".join(part for part in (group.table, group.column) if part)
    lines = [
        f"{place}: {group.rule} ({group.action}), {group.count:,}x" + (f": {group.detail}" if group.detail else "")
    ]
    if group.file:
        lines.append(f"  in {group.file}")
    rows = [f"row {e.row}: {e.value!r}" for e in group.examples if e.row is not None]
    if rows:
        more = group.count - len(rows)
        lines.append("  " + ", ".join(rows) + (f", and {more:,} more" if more else ""))
    return "\n".join(lines)


def ordered(faults: list[FaultGroup]) -> list[FaultGroup]:
    """Return groups of faults with those that reject first."""
    return sorted(faults, key=lambda group: _WORST_FIRST.index(group.action))


def print_validation(validation: Validation, console: Console) -> None:
    table = Table("table", *(_right(name) for name in ("rows in", "kept", "quarantined")), title="validation")
    for name, rows in validation.tables.items():
        table.add_row(name, f"{rows.rows_in:,}", f"{rows.rows_kept:,}", f"{rows.rows_quarantined:,}")
    console.print(table)
    for group in ordered(validation.faults):
        # markup off: a value may look like markup
        console.print(describe(group), style=_COLOUR[group.action], markup=False, highlight=False, soft_wrap=True)


def print_quality(quality: Quality, console: Console) -> None:
    table = Table("measure", _right("value"), title="quality")
    for name, of_table in quality.tables.items():
        gaps = [f"{column} {n / of_table.rows:.1%}" for column, n in of_table.nulls.items() if n and of_table.rows]
        table.add_row(f"{name}: rows", f"{of_table.rows:,}")
        if gaps:
            table.add_row(f"{name}: nulls", ", ".join(gaps))
    if (events := quality.events) is not None:
        table.add_row("people who did something", f"{events.people:,}")
        if events.sessions:
            table.add_row("sessions without a user_id", f"{events.sessions:,}")
        table.add_row("items that were met", f"{events.items:,}")
        table.add_row("density", f"{events.density:.3%}")
        if events.first_at and events.last_at:
            table.add_row("time span (UTC)", f"{events.first_at:%Y-%m-%d %H:%M} to {events.last_at:%Y-%m-%d %H:%M}")
        table.add_row("events per person, p25 p50 p99", _three(events.per_user))
        table.add_row("events per item, p25 p50 p99", _three(events.per_item))
        table.add_row("anonymous events", f"{events.anonymous_share:.1%}")
        table.add_row("written twice (same person, event, item, time)", f"{events.same_moment:,}")
        table.add_row("met again (same person, event, item, other time)", f"{events.repeats:,}")
        table.add_row("items without an event", f"{events.cold_items:,}")
    console.print(table)


def print_sufficiency(sufficiency: Sufficiency, console: Console) -> None:
    table = Table("rung", "carried", _right("have"), _right("need"), "missing", title="sufficiency")
    for name, rung in sufficiency.rungs.items():
        carried = "[green]yes[/]" if rung.carried else "[yellow]no[/]"
        table.add_row(name, carried, f"{rung.have:,}", f"{rung.need:,}", rung.missing)
    console.print(table)


def _three(quantiles: dict[str, float]) -> str:
    return " ".join(f"{quantiles[name]:,.0f}" for name in ("p25", "p50", "p99") if name in quantiles) or "none"


def _right(name: str) -> Column:
    return Column(name, justify="right")
