"""`playbill ask`: asks a running server for one slate and prints it. Standard library and rich, so it runs anywhere."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from playbill.errors import ConfigError, PlaybillError, RefusedError

_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(slots=True, kw_only=True)
class AskSettings:
    """`playbill ask user_id=196 k=10` prints what the server answers; without a user_id it asks as a visitor.

    `playbill ask user_id=196 hide=50 'more_of=[Drama]'` says first what the person wants, which holds from then on.
    """

    home: str = "var"
    """Root of all that Playbill writes; a server that runs from here is found without its address."""
    url: str | None = None
    """Address of the server; null: of the one that runs from `home`, else http://127.0.0.1:8000."""
    key: str | None = None
    """API key that may recommend; null: of the environment variable PLAYBILL_KEY, which no list of processes shows."""
    user_id: str | None = None
    """The person; null for an anonymous visitor."""
    session_id: str | None = None
    """The visit; null for none."""
    k: int = 10
    """Items wanted."""
    surface: str = "slate"
    """Where the slate is shown; also similar (with item_id), rerank (with items), trending, and home, a page."""
    item_id: str | None = None
    """The item whose like is wanted, for surface=similar."""
    items: list[str] = field(default_factory=list)
    """Item ids to put in order, for surface=rerank: items=[50,181,258]."""
    filter: str | None = None
    """Condition that all items meet, over columns of the items table: filter='"price < 20 and title is not null"'."""
    hide: str | None = None
    """An item that is not to be shown any more; said before asking."""
    less_like: str | None = None
    """An item of which, and of whose like, less is wanted; said before asking."""
    forget: str | None = None
    """An event of the person that is to be forgotten; done before asking."""
    more_of: list[str] | None = None
    """Categories of which more is wanted; with `never`, in place of all that was declared: [] takes it back."""
    never: list[str] | None = None
    """Categories of which nothing is to be shown."""
    exploration: float | None = None
    """Probability that an exploration slot is drawn by chance, 0..1, never below the policy's floor; null: as the
    surface has it."""
    request_id: str | None = None
    """Keys every random choice: the same id gives the same slate; null lets the server make one."""
    timeout_s: float = 10.0
    """Seconds to wait for the answer."""
    as_json: bool = False
    """Print the answer as it came."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k: expected at least 1, got {self.k}")
        if self.exploration is not None and not 0 <= self.exploration <= 1:
            raise ConfigError(f"exploration: expected a probability in 0..1, got {self.exploration}")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url: expected http:// or https://, got {self.url!r}")


def run(settings: AskSettings) -> None:
    """Ask once and print the slate."""
    body: dict[str, Any] = {"k": settings.k, "surface": settings.surface}
    for name in ("user_id", "session_id", "request_id", "filter", "item_id", "items", "exploration"):
        if getattr(settings, name) not in (None, []):
            body[name] = getattr(settings, name)
    url = settings.url or address(Path(settings.home))
    for method, path, wish in _wishes(settings):
        post(url, path, wish, settings.timeout_s, settings.key, method)
    route = "/v1/home" if settings.surface == "home" else "/v1/recommend"
    slate, wall_ms = post(url, route, body, settings.timeout_s, settings.key)
    console = Console()
    if settings.as_json:
        console.print_json(json.dumps(slate))
    else:
        show(console, slate, wall_ms)


def _wishes(settings: AskSettings) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what is to be said before asking: method, path and body of each."""
    who = {n: getattr(settings, n) for n in ("user_id", "session_id") if getattr(settings, n) is not None}
    said: list[tuple[str, str, dict[str, Any]]] = []
    kinds = {"hide": "not_this_item", "less_like": "less_like_this", "forget": "forget_event"}
    for name, kind in kinds.items():
        if (given := getattr(settings, name)) is not None:
            said.append(
                ("POST", "/v1/feedback", {**who, "kind": kind, "event_id" if name == "forget" else "item_id": given})
            )
    if settings.more_of is not None or settings.never is not None:
        declared = {"more": settings.more_of, "never": settings.never}
        wanted = [{"kind": kind, "categories": names} for kind, names in declared.items() if names]
        said.append(("PUT", "/v1/preferences", {**who, "preferences": wanted}))
    return said


def address(home: Path) -> str:
    """Return the address of the server that runs from a home, as `playbill serve` wrote it down; else the usual one."""
    try:
        where = json.loads((home / "serve.json").read_bytes())["settings"]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where["host"], where["host"])
        return f"http://[{host}]:{where['port']}" if ":" in host else f"http://{host}:{where['port']}"
    except (OSError, ValueError, KeyError):
        return "http://127.0.0.1:8000"


def post(
    url: str,
    path: str,
    body: dict[str, Any],
    timeout_s: float = 10.0,
    key: str | None = None,
    method: str = "POST",
) -> tuple[dict[str, Any], float]:
    """Return the server's answer and the milliseconds it took, the connection included.

    Args:
        key: an API key; None: that of PLAYBILL_KEY, if there is one.
    Raises:
        ConfigError: the key cannot stand in a header.
        RefusedError: the answer is a refusal; says why.
        PlaybillError: nobody answers, or not in json.
    """
    request = urllib.request.Request(
        url.rstrip("/") + path, json.dumps(body).encode(), {"content-type": "application/json"}, method=method
    )
    key = os.environ.get("PLAYBILL_KEY", "").strip() if key is None else key
    if key:
        if not _PRINTABLE.fullmatch(key):
            raise ConfigError("key: expected an API key of `playbill keys add`, got something with spaces or controls")
        # unredirected: wherever the server may send us, the key is for it alone
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            answer = json.loads(response.read())
    except urllib.error.HTTPError as error:
        raise _refusal(url, error) from error
    except OSError as error:  # URLError and timeouts are OSErrors
        reason = getattr(error, "reason", error)
        raise PlaybillError(f"nobody answers at {url} ({reason}); start a server with `playbill serve`") from error
    except ValueError as error:
        raise PlaybillError(f"{url} did not answer in json: is it a Playbill server?") from error
    return answer, (time.perf_counter() - began) * 1e3


def show(console: Console, slate: dict[str, Any], wall_ms: float) -> None:
    """Print a slate or a page: a row an item, by shelf, and a line about who and what answered."""
    who = "an anonymous visitor" if slate["user_id"] is None else f"user {slate['user_id']}"
    if "shelves" in slate:
        for shelf in slate["shelves"]:
            console.print(_table(shelf["items"], f"{shelf['title']}  ({shelf['expected_utility']:.2f})"))
    else:
        console.print(_table(slate["items"], f"For {who}"))
    for left_out in slate.get("removed", []):
        console.print(f"{left_out['rule']}: {left_out['items']} left out", markup=False, highlight=False)
    rung = slate["rung"] + (f" ({slate['rung_reason']})" if slate["rung_reason"] else "")
    console.print(
        f"rung {rung} · bundle {slate['bundle']} · policy {slate['policy']} · state {slate['state_version']} · "
        f"engine {slate['latency_ms']:.1f} ms, over HTTP {wall_ms:.1f} ms · request {slate['request_id']}",
        markup=False,
        highlight=False,
    )


def _table(items: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    tasks = list(dict.fromkeys(task for item in items for task in item["probabilities"]))
    table.add_column("#", justify="right")
    table.add_column("title")
    for task in tasks:
        table.add_column(f"p({task})", justify="right")
    # what is certain needs no column
    chance = any(item["propensity"] != 1 for item in items)
    creatives = any(item.get("creative_id") is not None for item in items)
    for name in [*(["p(place)"] if chance else []), *(["creative", "p(creative)"] if creatives else [])]:
        table.add_column(name, justify="right")
    table.add_column("retriever")
    table.add_column("reason")
    for item in items:
        probabilities = [f"{item['probabilities'][t]:.2f}" if t in item["probabilities"] else "" for t in tasks]
        title = item["title"] or str(item["item_id"])
        drawn = [f"{item['propensity']:.3g}"] if chance else []
        if creatives:
            shown, p = item.get("creative_id"), item.get("creative_propensity")
            drawn += ["" if shown is None else str(shown), "" if p is None else f"{p:.3g}"]
        cells = (title, *probabilities, *drawn, item["retriever"], item["reason"]["text"])
        table.add_row(str(item["position"] + 1), *map(escape, cells))
    return table


def _refusal(url: str, error: urllib.error.HTTPError) -> RefusedError:
    text = error.read().decode(errors="replace")
    try:
        problem = json.loads(text)
        field, reason = problem["field"] or "", str(problem["reason"])
        said = f"{field}: {reason}" if field else reason
    except (ValueError, KeyError, TypeError):
        field, reason = "", text.strip()[:200]
        said = reason
    here = "; here: key=<key>, or PLAYBILL_KEY in the environment" if error.code == 401 else ""
    wait = error.headers.get("retry-after") or ""
    retry_after_s = float(wait) if wait.isdecimal() else 1.0
    return RefusedError(f"{url} refused: {error.code}, {said}{here}", error.code, field, reason, retry_after_s)
