"""One part of an index, where it stands: answers from any state of the catalogue that it was told of."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from playbill.index.item_index import ItemIndex
from playbill.index.live import LiveIndex, live, search_live, with_items, without
from playbill.index.sharded import Ask, Away, Heard, Send, Told


class Shard:
    """A part, and the states of it that were asked for last. For any thread."""

    def __init__(self, main: ItemIndex, memory_mb: int = 256) -> None:
        """Make one that knows itself as it was built.

        Args:
            main: the part, see `split`.
            memory_mb: for states; the least used go first, and are told again when they are asked for.
        """
        self._built, self._most_bytes, self._bytes = live(main), memory_mb * 1_000_000, 0
        self._states: OrderedDict[str, LiveIndex] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._built)

    def answer(self, ask: Ask) -> Heard | None:
        """Return what the part finds, by its own numbers; None where it does not know the state and is not told it.

        Raises:
            SearchError: shapes that do not fit.
        """
        state = self._state(ask.state, ask.told)
        if state is None:
            return None
        if not len(ask.queries):
            return Heard(([], []))
        if ask.fully:
            state = replace(state, main=replace(state.main, parts=1))
        allowed = None
        if ask.allowed is not None:
            bits = np.unpackbits(ask.allowed).astype(bool)[
                : state.size
            ]  # the whole may have later items than this part
            allowed = np.zeros(state.size, bool)
            allowed[: len(bits)] = bits
        found = search_live(state, ask.queries, ask.k, ask.exclude, allowed)
        there = len(state) if allowed is None else _left(state, allowed)
        out = [0] * len(ask.queries) if ask.exclude is None else list(map(len, ask.exclude))
        return Heard(found, any(len(row) + n < min(ask.k, there) for row, n in zip(found[1], out, strict=True)))

    def _state(self, name: str, told: Told | None) -> LiveIndex | None:
        if not name:
            return self._built
        with self._lock:
            if name in self._states:
                self._states.move_to_end(name)
                return self._states[name]
        if told is None:
            return None
        made = self._made(told)
        with self._lock:
            if name not in self._states:
                self._states[name] = made
                self._bytes += made.nbytes
            while self._bytes > self._most_bytes and len(self._states) > 1:
                self._bytes -= self._states.popitem(last=False)[1].nbytes
        return made

    def _made(self, told: Told) -> LiveIndex:
        state = with_items(self._built, told.fresh_ids, told.fresh)
        if told.hidden is None:
            return state
        gone = np.flatnonzero(np.unpackbits(told.hidden)[: len(self._built.hidden)])
        # what is hidden because it was replaced stands among the fresh ones
        return without(state, gone[~np.isin(gone, told.fresh_ids) & (gone > 0)])


def _left(state: LiveIndex, allowed: np.ndarray) -> int:
    """Return how many items of a state a filter leaves."""
    built = state.main.ids()
    return int(np.count_nonzero((allowed[: len(state.hidden)] & ~state.hidden)[built])) + int(
        np.count_nonzero(allowed[state.fresh_ids])
    )


def in_process(shards: Sequence[Shard | None]) -> Send:
    """Return what reaches parts that stand in this process, one after the other; None is one that is away."""

    def send(asks: Mapping[int, Ask], within_s: float | None) -> dict[int, Heard | Away | None]:
        found: dict[int, Heard | Away | None] = {}
        for part, ask in asks.items():
            shard = shards[part]
            found[part] = Away("it is not there") if shard is None else shard.answer(ask)
        return found

    return send
