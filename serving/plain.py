"""The same interface under bare uvicorn, without Ray: what `playbill serve` is measured against, and for debugging.

python -m playbill.serving.plain home=var port=8001
"""

from __future__ import annotations

import sys

import uvicorn

from playbill.serving import load
from playbill.serving.http import Api
from playbill.state.store import Store


def make_api(home: str, bundle: str = "current", *, max_body_bytes: int = 256 * 1024) -> Api:
    """Return an ASGI application that answers from a published bundle and the state of a home."""
    store = Store.open(load.state_path(home))
    api = Api(store, max_body_bytes=max_body_bytes, replica="plain")
    api.use(*load.open_engine(load.bundle_path(home, bundle), store))
    return api


def main(arguments: list[str]) -> None:
    """Serve until a signal comes."""
    given = dict(a.split("=", 1) for a in arguments)
    api = make_api(given.get("home", "var"), given.get("bundle", "current"))
    uvicorn.run(api, host="127.0.0.1", port=int(given.get("port", "8001")), access_log=False, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1:])
