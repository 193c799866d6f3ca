"""From a published bundle to a warm engine: the same lines for a replica, a batch worker and a plain server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playbill.bundle.manifest import check_version
from playbill.bundle.open import Bundle, names_in, open_bundle
from playbill.bundle.write import current
from playbill.engine.elsewhere import HERE, Elsewhere
from playbill.engine.engine import Engine
from playbill.engine.settings import EngineSettings
from playbill.errors import BundleError
from playbill.state.store import Store


def bundle_path(home: Path | str, version: str) -> Path:
    """Return the folder of a bundle; `current` is the published one.

    Raises:
        BundleError: nothing is published yet, a version that is a path, or none that is there; lists those that are.
    """
    folder = Path(home) / "bundles"
    if version == "current":
        published = current(folder)
        if published is None:
            raise BundleError(
                f"no bundle is published in {folder}; run `playbill publish`, or name one: bundle=<version>"
            )
        version = published
    path = folder / check_version(version)
    if not path.is_dir():
        raise BundleError(f"no bundle {version!r} in {folder}; there are {names_in(folder) or 'none'}")
    return path


def open_engine(
    path: Path | str,
    store: Store,
    *,
    require_gpu: bool = False,
    without_state: bool = False,
    elsewhere: Callable[[Bundle], Elsewhere] | None = None,
) -> tuple[Bundle, Engine]:
    """Return a sealed, verified bundle and an engine on it that has answered once.

    Args:
        without_state: answer as for somebody unknown while the store cannot be read.
        elsewhere: returns what other processes hold of the bundle; None: all of it is opened here.
    Raises:
        BundleError: not sealed, altered, or too new.
        ProviderError: `require_gpu`, and a model would run on the CPU.
    """
    bundle = open_bundle(Path(path))
    settings = EngineSettings(require_gpu=require_gpu, without_state=without_state)
    return bundle, Engine.open(bundle, store, settings, HERE if elsewhere is None else elsewhere(bundle))
