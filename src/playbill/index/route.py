"""How a search goes about an index: how hard it looks, and from which share of the catalogue on it is exact.

Written beside the index as items.json by whoever tuned it, and read with it; an index without one gets the defaults.
"""

from __future__ import annotations

import msgspec

from playbill.errors import SearchError

ROUTE_VERSION = 1


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The least effort found to reach the recall floor among the nearest `depth` items."""

    depth: int
    effort: int


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured when the index was built.

    Attributes:
        steps: by growing depth; `effort` is the number of lists visited (ivf) or of candidates kept (hnsw).
        narrow: filters that leave less than this share of the items, 0..1, are searched exactly.
        rescore: so many times as many items as wanted are fetched and scored again with their exact vectors.
        hot: ascending item_index of items that people are often nearest to; every search scores them all, exactly.
    """

    version: int = ROUTE_VERSION
    steps: list[Step] = []
    narrow: float = 0.2
    rescore: float = 1.0
    hot: list[int] = []

    def effort(self, k: int, share: float, default: int) -> int:
        """Return the effort for the best `k` where a filter leaves `share` of the items.

        They lie as deep as the best k / share of all items; beyond the deepest step effort grows in proportion.
        """
        if not self.steps:
            return round(default / max(share, 1e-6))
        depth = k / max(share, 1e-6)
        for step in self.steps:
            if depth <= step.depth:
                return step.effort
        return round(self.steps[-1].effort * depth / self.steps[-1].depth)


def write_route(route: Route) -> bytes:
    """Return the bytes of items.json."""
    return msgspec.json.format(msgspec.json.encode(route), indent=1) + b"\n"


def read_route(data: bytes, name: str) -> Route:
    """Return the route in `data`.

    Raises:
        SearchError: not a route, of a newer Playbill, or with numbers that cannot be; names the file.
    """
    try:
        route = msgspec.json.decode(data, type=Route)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SearchError(f"{name} is not an index's route: {error}; export again") from None
    if route.version > ROUTE_VERSION:
        raise SearchError(f"{name} has version {route.version}, this Playbill reads up to {ROUTE_VERSION}; upgrade")
    depths = [step.depth for step in route.steps]
    fits = depths == sorted(set(depths)) and all(step.depth > 0 and step.effort > 0 for step in route.steps)
    fits = fits and route.hot == sorted(set(route.hot)) and (not route.hot or route.hot[0] > 0)
    if not fits or not 0 <= route.narrow <= 1 or not 1 <= route.rescore <= 1000:
        raise SearchError(f"{name} holds a route that cannot be (steps, narrow, rescore or hot); export again")
    return route
