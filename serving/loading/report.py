"""What a run says: tables on the console, and files in `<home>/load/<name>/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from playbill.serving.loading.histogram import Histogram
from playbill.serving.loading.search import Found
from playbill.serving.loading.settings import LoadSettings, parse_target
from playbill.serving.loading.step import Step
from playbill.tables.files import write_atomic

_SHOWN = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")
_FEW = 1000  # below so many requests the p99 is the word of ten of them or fewer


class Report(msgspec.Struct, kw_only=True):
    """`report.json`.

    Attributes:
        at: when it began, ISO 8601.
        url, bundle: what was asked; the bundle as it answered first.
        people: size of the audience.
        settings: all of them.
        machine: of the generator.
        steps: in the order in which they were run.
        found: of a search.
    """

    at: str
    url: str
    bundle: str
    people: int
    settings: LoadSettings
    machine: dict[str, Any]
    steps: list[Step]
    found: Found | None = None


def write(folder: Path, report: Report, histograms: dict[str, Histogram]) -> None:
    """Write the figures, the picture, and a file of percentiles a step for HdrHistogram's tools.

    Args:
        histograms: by the name of their file.
    """
    from playbill.serving.loading.plot import latency_png

    folder.mkdir(parents=True, exist_ok=True)
    for name, histogram in histograms.items():
        write_atomic(folder / f"{name}.hgrm", histogram.hgrm().encode())
    target = parse_target(report.settings.find)
    title = f"{report.url}, bundle {report.bundle} (hollow: something failed)"
    write_atomic(folder / "latency.png", latency_png(report.steps, title, target and target[1]))
    write_atomic(folder / "report.json", msgspec.json.format(msgspec.json.encode(report)))


def show(console: Console, report: Report) -> None:
    """Print what was measured, and what to be wary of."""
    settings = report.settings
    known = 1 - settings.unknown - settings.anonymous
    console.print(
        f"[bold]{escape(report.url)}[/], bundle {escape(report.bundle)}: {report.people} people ({known:.0%} of "
        f"requests, {settings.unknown:.0%} unknown, {settings.anonymous:.0%} anonymous), k {settings.k}, "
        f"{settings.duration_s:g} s a step"
    )
    console.print("a second: asked for, came with 200; requests by how they ended; milliseconds from the moment due;")
    console.print("p99 from the moment sent on a connection; the generator: p99 of its lateness, us of CPU a request")
    console.print(_rates(report.steps))
    if any(step.stages for step in report.steps):
        console.print("stages of the server, milliseconds")
        console.print(_stages(report.steps))
    if any(step.events for step in report.steps):
        for step in report.steps:
            if step.events:
                console.print(f"events at {step.rate:g} a second: {_line(step.events)}")
    rungs = sorted({(rung, sum(s.rungs.get(rung, 0) for s in report.steps)) for s in report.steps for rung in s.rungs})
    if rungs:
        console.print("rungs: " + escape(", ".join(f"{rung or 'unnamed'} {count}" for rung, count in rungs)))
    for remark in remarks(report):
        console.print(f"[yellow]{escape(remark)}[/]")
    if report.found is not None:
        console.print(f"[bold]{escape(verdict(report.found, settings))}[/]")


def verdict(found: Found, settings: LoadSettings) -> str:
    """Return a search's answer in words."""
    best = "no rate" if found.rate is None else f"{found.rate:.4g} requests a second"
    missed = "" if found.too_high is None else f"; {found.too_high:.4g} did not"
    limit = "; above that the generator could not keep up, and nothing is known" if found.generator else ""
    return f"{best} kept {settings.find}{missed}{limit}"


def remarks(report: Report) -> list[str]:
    """Return what a reader of the figures should know."""
    found = []
    for step in report.steps:
        at = f"at {step.rate:.4g} a second"
        if step.behind:
            found.append(
                f"{at} the generator could not keep up: it turned to requests {step.lag['p99_ms']:.1f} ms late (p99), "
                f"with {step.cpu_share:.0%} of a core; its machine is too busy, or the rate too high for one process"
            )
        if step.latency["asked"] < _FEW:
            found.append(f"{at} there were {step.latency['asked']} slates: their p99 is the word of a few")
        less = sum(step.late.values())
        if less:
            worst = max(step.late, key=lambda name: step.late[name])
            found.append(
                f"{at} {less} slates had no time for all steps (mostly {worst}): they are in the percentiles, and "
                "a search counts them as too late"
            )
        if step.waited:
            found.append(f"{at} {step.waited} requests waited for one of {step.most_open} connections")
        bad = {name: n for name, n in step.statuses.items() if name != "200"}
        if bad:
            found.append(f"{at} not 200: " + ", ".join(f"{n} {name}" for name, n in bad.items()))
    if report.found is None and len(report.steps) < len(report.settings.rates):
        left = ", ".join(f"{rate:g}" for rate in report.settings.rates[len(report.steps) :])
        found.append(f"nobody answered any more: {left} a second left out")
    return found


def _rates(steps: list[Step]) -> Table:
    table = Table(box=None, pad_edge=False)
    heads = ("rate", "came", "ok", "429", "503", "other", *(n.removesuffix("_ms") for n in _SHOWN))
    for head in (*heads, "sent", "late", "CPU"):
        table.add_column(head, justify="right", overflow="fold")  # on a narrow console too each digit is there
    for step in sorted(steps, key=lambda s: s.rate):
        counted = [step.statuses.get(name, 0) for name in ("200", "429", "503")]
        table.add_row(
            f"{step.rate:.4g}", f"{step.answered_per_s:.1f}", *map(str, counted),
            str(sum(step.statuses.values()) - sum(counted)), *(_ms(step.latency[name]) for name in _SHOWN),
            _ms(step.service["p99_ms"]), _ms(step.lag["p99_ms"]), f"{step.cpu_us:.0f}",
        )  # fmt: skip
    return table


def _stages(steps: list[Step]) -> Table:
    """Return a row for each stage at each rate: as many columns as there are rates would fit on no console."""
    table = Table(box=None, pad_edge=False)
    for head in ("stage", "rate", "p50", "p99"):
        table.add_column(head, justify="left" if head == "stage" else "right", no_wrap=True)
    ordered = sorted(steps, key=lambda s: s.rate)
    for name in dict.fromkeys(name for step in ordered for name in step.stages):
        for n, step in enumerate(ordered):
            took = step.stages.get(name, {})
            shown = escape(name) if n == 0 else ""
            table.add_row(shown, f"{step.rate:.4g}", _ms(took.get("p50_ms")), _ms(took.get("p99_ms")))
    return table


def _line(summary: dict[str, Any]) -> str:
    return ", ".join(f"{name.removesuffix('_ms')} {_ms(summary[name])}" for name in _SHOWN) + " ms"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
