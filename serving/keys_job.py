"""`playbill keys`: makes, lists and revokes the API keys of a home. A server that runs from it takes part at once."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from playbill.serving.keys import add_key, keys_path, read_keys, revoke_key
from playbill.serving.settings import Action, KeysSettings

console = Console(stderr=True, highlight=False, soft_wrap=True)


def run(settings: KeysSettings) -> None:
    """Do what `action` says."""
    path = keys_path(Path(settings.home).absolute())
    if settings.action is Action.add:
        first = read_keys(path) is None
        key, text = add_key(path, settings.name, settings.scopes, settings.rate, settings.burst)
        print(text)  # alone on standard output, so that a script can take it
        console.print(
            f"key {key.name} may {', '.join(s.value for s in key.scopes)}. It is shown this once; {path} has its hash",
            markup=False,
        )
        if first:
            console.print("it is the first: from now on a server of this home lets nobody in without a key")
    elif settings.action is Action.revoke:
        key = revoke_key(path, settings.name)
        console.print(f"key {key.name} opens nothing any more, on a server that runs within a second", markup=False)
    else:
        _list(path)


def _list(path: Path) -> None:
    keys = read_keys(path)
    if keys is None:
        console.print(f"no keys: there is no {path}, and a server on loopback lets everybody in", markup=False)
        return
    table = Table("name", "id", "may", "rate", "made", "revoked", box=None, pad_edge=False)
    for key in keys:
        rate = "" if key.rate is None else f"{key.rate:g}/s"
        scopes = ", ".join(s.value for s in key.scopes)
        table.add_row(key.name, key.id, scopes, rate, key.created_at[:10], (key.revoked_at or "")[:10])
    Console().print(table)
