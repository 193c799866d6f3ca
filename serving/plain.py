"""The same interface under bare uvicorn, without Ray: what `playbill serve` is measured against, and for debugging.

python -m playbill.serving.plain home=var port=8001 [state=redis://host:6379/0] [host=0.0.0.0 [insecure=true]]
    [figures_port=9103] [slates=true|durable] [log=json] [traces=http://127.0.0.1:4318/v1/traces]
    [narrator_url=http://127.0.0.1:11434/v1 narrator_model=NAME [narrator_key_from=VARIABLE]]
"""

from __future__ import annotations

import os
import sys

import uvicorn

from playbill.errors import PlaybillError
from playbill.serving import load
from playbill.serving.guard import Guard, check_exposure
from playbill.serving.http import Api
from playbill.serving.keys import keys_path
from playbill.serving.slatelog.settings import SlateLogSettings
from playbill.serving.watch_settings import LogForm, WatchSettings
from playbill.serving.watcher import Watcher
from playbill.serving.watching import begin_watching
from playbill.state.settings import state_place
from playbill.state.store import Store
from playbill.words.settings import EndpointSettings

NO_SLATES = SlateLogSettings(on=False)


def make_api(
    home: str,
    bundle: str = "current",
    *,
    state: str | None = None,
    max_body_bytes: int = 256 * 1024,
    keys_required: bool = False,
    figures: tuple[str, int] | None = None,
    watch: WatchSettings | None = None,
    narrator: EndpointSettings | None = None,
) -> Api:
    """Return an ASGI application that answers from a published bundle and the state of a home, by the keys of it."""
    store = Store.open(state_place(home, state))
    guard = Guard(keys_path(home), required=keys_required)
    api = Api(store, guard=guard, max_body_bytes=max_body_bytes, replica="plain")
    api.word(narrator or EndpointSettings())
    api.use(*load.open_engine(load.bundle_path(home, bundle), store, without_state=True))
    if bundle == "current":
        watcher = Watcher(api, store, home, f"plain-{os.getpid()}")
        api.closing.append(watcher.stop)
        watcher.start()
    begin_watching(api, store, home, f"plain-{os.getpid()}", watch or WatchSettings(slates=NO_SLATES), figures)
    return api


def main(arguments: list[str]) -> None:
    """Serve until a signal comes."""
    given = {"home": "var", "bundle": "current", "host": "127.0.0.1", "port": "8001", "insecure": "false", "state": "",
             "figures_port": "", "slates": "false", "log": "text", "traces": "", "narrator_url": "",
             "narrator_model": "", "narrator_key_from": ""}  # fmt: skip
    given |= dict(a.split("=", 1) for a in arguments)
    try:
        required, remark = check_exposure(given["home"], given["host"], given["insecure"] == "true")
        figures = ("127.0.0.1", int(given["figures_port"])) if given["figures_port"] else None
        state, logged = given["state"] or None, given["slates"]
        slates = SlateLogSettings(on=logged in ("true", "durable"), durable=logged == "durable")
        watch = WatchSettings(slates=slates, log=LogForm[given["log"]], traces=given["traces"] or None, traces_share=1)
        narrator = EndpointSettings(url=given["narrator_url"] or None, model=given["narrator_model"],
                                    key_from=given["narrator_key_from"] or None)  # fmt: skip
        api = make_api(given["home"], given["bundle"], state=state, keys_required=required, figures=figures,
                       watch=watch, narrator=narrator)  # fmt: skip
    except PlaybillError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if remark:
        print(remark, file=sys.stderr)
    # the websocket protocols' libraries warn of their own past; there are no websockets here
    uvicorn.run(
        api, host=given["host"], port=int(given["port"]), access_log=False, log_level="warning", ws="none",
        server_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
