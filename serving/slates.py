"""One part of a batch: a slate for each of its users, from the same engine that answers online."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from playbill.bundle.open import Bundle
from playbill.engine.types import Request, Slate
from playbill.serving import load
from playbill.serving.parts import Plan, request_id, write_part
from playbill.state.settings import StoreSettings, state_place
from playbill.state.store import Store


class SlateWriter:
    """Scores the users of a part and writes it. Made once in each worker process, where it opens bundle and state."""

    def __init__(
        self,
        home: str,
        folder: str,
        plan: Plan,
        require_gpu: bool,
        state: str | None = None,
        limits: StoreSettings | None = None,
    ) -> None:
        """Open everything; `home`, `folder` and `state`, where it is a folder, are absolute."""
        self._folder, self._plan = Path(folder), plan
        store = self._store = Store.open(state_place(home, state), readonly=True, settings=limits)
        self._bundle, self._engine = load.open_engine(
            load.bundle_path(home, plan.bundle), store, require_gpu=require_gpu
        )

    def close(self) -> None:
        """Close the state, so that this process may open it again."""
        self._store.close()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write one part; take and return rows of Ray Data."""
        users = list(row["user_ids"])
        slates = self._engine.recommend([batch_request(self._plan, user) for user in users])
        id_types = (pa.string() if isinstance(users[0], str) else pa.int64(), _arrow_id(self._bundle))
        table = to_table(slates, *id_types, _creative_id(self._bundle), bool(self._bundle.policy.every_rule))
        write_part(self._folder, int(row["part"]), self._plan.run, table)
        return {"part": row["part"], "users": len(users)}


def batch_request(plan: Plan, user_id: int | str) -> Request:
    """Return the request behind one row of a batch; online, it gets the same slate from the same bundle and state."""
    return Request(
        user_id=user_id, request_id=request_id(plan.name, user_id), k=plan.k, surface=plan.surface, at=plan.at
    )


def to_table(
    slates: list[Slate],
    user_id_type: pa.DataType,
    item_id_type: pa.DataType,
    creative_id_type: pa.DataType | None = None,
    rules: bool = False,
) -> pa.Table:
    """Return a row a slate; lists run along the slate's positions.

    Args:
        creative_id_type: None where the bundle chooses no creatives, and there are no columns of them.
        rules: whether the policy has any, and there are columns of them.
    """
    reason = pa.struct([("kind", pa.string()), ("text", pa.string()), ("fact", pa.string())])
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "user_id": (user_id_type, [s.user_id for s in slates]),
        "request_id": (pa.string(), [s.request_id for s in slates]),
        "rung": (pa.string(), [s.rung for s in slates]),
        "rung_reason": (pa.string(), [s.rung_reason for s in slates]),
        "item_ids": (pa.list_(item_id_type), [[i.item_id for i in s.items] for s in slates]),
        "scores": (pa.list_(pa.float64()), [[i.score for i in s.items] for s in slates]),
        "probabilities": (
            pa.list_(pa.map_(pa.string(), pa.float64())),
            [[list(i.probabilities.items()) for i in s.items] for s in slates],
        ),
        "retrievers": (pa.list_(pa.string()), [[i.retriever for i in s.items] for s in slates]),
        "reasons": (
            pa.list_(reason),
            [
                [
                    {"kind": i.reason.kind, "text": i.reason.text, "fact": msgspec.json.encode(i.reason.fact).decode()}
                    for i in s.items
                ]
                for s in slates
            ],
        ),
        "propensities": (pa.list_(pa.float64()), [[i.propensity for i in s.items] for s in slates]),
        **({} if creative_id_type is None else _creatives(slates, creative_id_type)),
        **(_rules(slates) if rules else {}),
        "policy": (pa.string(), [s.policy for s in slates]),
        "bundle": (pa.string(), [s.bundle for s in slates]),
        "state_version": (pa.int64(), [s.state_version for s in slates]),
        "profile_version": (pa.int64(), [s.profile_version for s in slates]),
        "at": (pa.timestamp("us", tz="UTC"), [s.at for s in slates]),
    }
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})


def _creatives(slates: list[Slate], id_type: pa.DataType) -> dict[str, tuple[pa.DataType, list[Any]]]:
    """Return the columns of what each item is shown with; null where it has nothing that may be shown."""
    chances = [[None if isinstance(i.creative_propensity, msgspec.UnsetType) else i.creative_propensity
                for i in s.items] for s in slates]  # fmt: skip
    return {
        "creative_ids": (pa.list_(id_type), [[i.creative_id for i in s.items] for s in slates]),
        "creative_propensities": (pa.list_(pa.float64()), chances),
    }


def _rules(slates: list[Slate]) -> dict[str, tuple[pa.DataType, list[Any]]]:
    """Return the columns of which rules acted on each item, and what rules took from each slate."""
    names, told = pa.list_(pa.list_(pa.string())), pa.map_(pa.string(), pa.int64())
    acted = [[[] if isinstance(i.rules, msgspec.UnsetType) else i.rules for i in s.items] for s in slates]
    removed = [[] if isinstance(s.removed, msgspec.UnsetType) else s.removed for s in slates]
    return {"rules": (names, acted), "removed": (told, [[(r.rule, r.items) for r in mine] for mine in removed])}


def _creative_id(bundle: Bundle) -> pa.DataType | None:
    if bundle.creatives is None:
        return None
    ids = bundle.creatives.columns["creative_id"]
    return pa.string() if any(isinstance(i, str) for i in ids) else pa.int64()


def _arrow_id(bundle: Any) -> pa.DataType:
    return pa.int64() if bundle.items.schema["item_id"].is_integer() else pa.string()
