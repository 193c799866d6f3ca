"""`playbill demo`: the whole road on MovieLens-100K, one command after the other, as you would type them.

Every step is a subprocess of the same command line, so the demo holds no logic of its own and shows what is there.
Each job knows when its output is up to date, which makes a second run quick.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from playbill.errors import ConfigError, PlaybillError


@dataclass(slots=True, kw_only=True)
class DemoSettings:
    """Fetches, prepares, trains, exports, evaluates, gates, publishes, scores everybody, serves, asks, stops."""

    home: str = "var"
    """Root of all that Playbill writes."""
    source: str = "ml-100k"
    """A choice of `playbill prepare source=`, and the name of its tables."""
    user_id: str = "196"
    """The real person to ask for."""
    k: int = 10
    """Length of the slates that are printed."""
    port: int = 8000
    """Where the server listens, on loopback."""
    leave_serving: bool = False
    """Leave the server running at the end instead of stopping it."""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port must lie in 1..65535, got {self.port}")
        if self.k < 1:
            raise ConfigError(f"k must be at least 1, got {self.k}")


def steps(settings: DemoSettings) -> list[tuple[str, list[str]]]:
    """Return what each step is for, and the arguments of `playbill` that do it, up to the server's start."""
    home, tables = f"home={settings.home}", f"tables={settings.source}"
    return [
        ("fetch and validate real ratings", ["prepare", f"source={settings.source}", home]),
        ("train retrieval on the earlier 80 % of time", ["train", "model=two_tower", tables, home]),
        ("train ranking on the same", ["train", "model=ranker", tables, home]),
        ("export towers, ranker, index and baselines", ["export", tables, home]),
        ("measure on held-out time beside baselines", ["evaluate", tables, home]),
        ("hold it against the release rules", ["gate", home]),
        ("make it the current bundle", ["publish", home]),
        ("fold everybody's events into the state store", ["ingest", tables, home]),
        ("score everybody to parquet", ["batch", tables, home]),
        ("start the server", ["serve", home, f"port={settings.port}", "detach=true"]),
    ]


def run(settings: DemoSettings) -> int:
    """Walk the road; return 0, or raise PlaybillError naming the step that failed and the command to repeat it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    took: list[tuple[str, float]] = []
    url = f"url=http://127.0.0.1:{settings.port}"
    stop = ["serve", f"home={settings.home}", "stop=true"]
    asks = [
        (f"ask for person {settings.user_id}", ["ask", f"user_id={settings.user_id}", f"k={settings.k}", url]),
        ("ask for somebody unknown", ["ask", f"k={settings.k}", url]),
    ]
    started = False
    try:
        for about, arguments in [*steps(settings), *asks]:
            started = started or arguments[0] == "serve"
            console.rule(f"[bold]{about}[/]", align="left")
            console.print(f"[dim]$ playbill {' '.join(arguments)}[/]", highlight=False)
            begin = time.perf_counter()
            _playbill(arguments)
            took.append((arguments[0], time.perf_counter() - begin))
    finally:
        if started and not (settings.leave_serving and len(took) == len(steps(settings)) + len(asks)):
            console.rule("[bold]stop the server[/]", align="left")
            _playbill(stop)
    table = Table("step", "seconds", box=None, title=f"the road took {sum(s for _, s in took):.0f} s")
    for name, seconds in took:
        table.add_row(name, f"{seconds:.1f}")
    console.print(table)
    tables = f"tables={settings.source} home={settings.home}"
    console.print(
        "more out of the same data: settings of the baselines picked on validation, and one order out of several\n"
        f"retrievers: playbill tune {tables}; playbill export {tables}; playbill blend {tables}",
        highlight=False,
    )
    if settings.leave_serving:
        console.print(
            f"the server is left running at http://127.0.0.1:{settings.port}; stop it with: playbill {' '.join(stop)}"
        )
    return 0


def _playbill(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "playbill.cli", *arguments])
    if done.returncode:
        raise PlaybillError(
            f"step failed with exit code {done.returncode}; repeat it with: playbill {' '.join(arguments)}"
        )
