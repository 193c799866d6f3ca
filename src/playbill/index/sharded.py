"""An index in parts that stand elsewhere, as whoever asks sees it; `split` says who holds what, `shard` who answers.

A `Sharded` is one state of a catalogue, as `LiveIndex` is, and never changes. What is fresh and what is hidden is told
to the part that holds it. A part knows its states by name and is told one when it first needs it, so one that starts
anew needs nobody who looks after it. A part that does not answer in time is left out, and `Patience` says so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from playbill.errors import SearchError
from playbill.index.item_index import ItemIndex
from playbill.index.search import Found
from playbill.index.settings import Kind
from playbill.index.split import item_of, merge, number_in_part, part_of, rows_of


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """One state of one part, by its own numbers.

    Attributes:
        fresh_ids: [F] int64 ascending; `fresh` [F, d] float32, their vectors.
        hidden: packed bits of [n + 1] bool; None where nothing is hidden.
    """

    fresh_ids: np.ndarray
    fresh: np.ndarray
    hidden: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A search of one part, by its own numbers.

    Attributes:
        state: name of the state to answer from, empty for the part as it was built.
        queries: [B, d] float32, none to make a state ready and nothing else.
        exclude: B arrays of int64, or None.
        allowed: packed bits of [m + 1] bool, or None.
        fully: as many as are wanted, where the part has them, wherever they lie.
        told: the state, where the part may not know it.
    """

    state: str
    queries: np.ndarray
    k: int
    exclude: Sequence[np.ndarray] | None = None
    allowed: np.ndarray | None = None
    fully: bool = False
    told: Told | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a part found, by its own numbers.

    Attributes:
        found: as `search` returns it.
        short: it brings fewer than are wanted of somebody's, and has more.
    """

    found: Found
    short: bool = False


@dataclass(frozen=True, slots=True)
class Away:
    """No answer, and why."""

    why: str


# Asks parts, waits so many seconds at most (None: as long as it takes), and returns what each says: what it found, None
# where it does not know the state, or why it says nothing.
Send = Callable[[Mapping[int, Ask], float | None], dict[int, Heard | Away | None]]


@dataclass(slots=True)
class Patience:
    """How long one search may wait for others, and whom it did without.

    Attributes:
        within_s: seconds, None for as long as it takes.
        lost: why a part was left out, by its number from 0 on.
        parts: how many there are.
    """

    within_s: float | None = None
    lost: dict[int, str] = field(default_factory=dict)
    parts: int = 0

    @property
    def nobody(self) -> bool:
        """Whether no part answered."""
        return bool(self.parts) and len(self.lost) == self.parts

    def told(self) -> str:
        """Return what is to be said of the answer, empty where everybody was heard."""
        if not self.lost:
            return ""
        if self.nobody:
            return f"none of {self.parts} index parts answers: {'; '.join(sorted(set(self.lost.values())))}"
        which = ", ".join(str(part + 1) for part in sorted(self.lost))
        why = "; ".join(sorted(set(self.lost.values())))
        return f"found without index part {which} of {self.parts}: {why}"


@dataclass(frozen=True, slots=True, eq=False)
class Sharded:
    """One state; use `sharded` for the first.

    Attributes:
        send: reaches the parts.
        parts: how many there are.
        kind: of the index.
        held: [M] int64 ascending, the built item_index values; None where that is all of 1..N.
        fresh_ids, fresh, hidden, version: as in `LiveIndex`.
        states: by part, the name of its state.
    """

    send: Send
    parts: int
    kind: Kind
    width: int
    held: np.ndarray | None
    fresh_ids: np.ndarray
    fresh: np.ndarray
    hidden: np.ndarray
    states: tuple[str, ...]
    version: int = 0

    @property
    def built(self) -> int:
        """Items that were built in, hidden ones among them."""
        return len(self.hidden) - 1 if self.held is None else len(self.held)

    def __len__(self) -> int:
        hidden = self.hidden[1:] if self.held is None else self.hidden[self.held]
        return self.built - int(np.count_nonzero(hidden)) + len(self.fresh_ids)

    @property
    def nbytes(self) -> int:
        """Memory that this state takes here."""
        return self.fresh_ids.nbytes + self.fresh.nbytes + self.hidden.nbytes

    @property
    def size(self) -> int:
        """Rows that a filter by item_index must have: the largest item_index + 1."""
        return max(len(self.hidden), int(self.fresh_ids[-1]) + 1 if len(self.fresh_ids) else 0)


def sharded(index: ItemIndex, parts: int, send: Send) -> Sharded:
    """Return the first state: all parts as they were built.

    Args:
        index: the whole that was split; memory-mapped it costs nothing here.
    """
    hidden = np.zeros(len(index.embeddings), bool)
    hidden[0] = True
    none = np.empty(0, np.int64), np.empty((0, index.width), np.float32)
    return Sharded(send, parts, index.kind, index.width, index.held, *none, hidden, ("",) * parts)


def changed(state: Sharded, fresh_ids: np.ndarray, fresh: np.ndarray, hidden: np.ndarray) -> Sharded:
    """Return the next state; only parts that hold something that changed get another name for theirs."""
    new = replace(state, fresh_ids=fresh_ids, fresh=fresh, hidden=hidden, version=state.version + 1)
    return replace(new, states=tuple(_name(told_to(new, part)) for part in range(state.parts)))


def told_to(state: Sharded, part: int) -> Told:
    """Return what a part is told of a state."""
    mine = part_of(state.fresh_ids, state.parts) == part
    hidden = rows_of(state.hidden, part, state.parts)
    return Told(
        number_in_part(state.fresh_ids[mine], state.parts),
        state.fresh[mine],
        np.packbits(hidden) if hidden[1:].any() else None,
    )


def make_ready(state: Sharded, patience: Patience | None = None) -> None:
    """Tell all parts of a state, so that the first search need not; who is away is told when it is asked."""
    nobody = np.empty((0, state.width), np.float32)
    asks = {part: Ask(name, nobody, 0, told=told_to(state, part)) for part, name in enumerate(state.states) if name}
    if asks:
        state.send(asks, None if patience is None else patience.within_s)


def absent(state: Sharded, within_s: float) -> dict[str, str]:
    """Return which parts do not answer within so many seconds, and why, by a name for each."""
    nobody = np.empty((0, state.width), np.float32)
    answers = state.send({part: Ask("", nobody, 0) for part in range(state.parts)}, within_s)
    return {
        f"index part {part + 1} of {state.parts}": answer.why
        for part, answer in sorted(answers.items())
        if isinstance(answer, Away)
    }


def search_parts(
    state: Sharded,
    queries: np.ndarray,
    k: int,
    exclude: Sequence[np.ndarray] | None,
    allowed: np.ndarray | None,
    patience: Patience | None,
) -> Found:
    """Return what `search_live` promises, from the parts that answer; nothing where none does.

    Args:
        patience: notes who does not.
    Raises:
        SearchError: no part answers, and there is nobody to tell.
    """
    told_of, patience = patience is not None, patience or Patience()
    until = None if patience.within_s is None else time.perf_counter() + patience.within_s
    asks = {part: _ask(state, part, queries, k, exclude, allowed) for part in range(state.parts)}
    heard = _heard(state, asks, until)
    found = _merged(state, heard, k, len(queries))
    more = [part for part, answer in heard.items() if isinstance(answer, Heard) and answer.short]
    if more and min(map(len, found[1])) < k:  # what lies where the whole would look is not enough
        again = _heard(state, {part: replace(asks[part], fully=True) for part in more}, until)
        heard |= {part: answer for part, answer in again.items() if isinstance(answer, Heard)}
        found = _merged(state, heard, k, len(queries))
    patience.parts = state.parts
    patience.lost |= {part: answer.why for part, answer in heard.items() if isinstance(answer, Away)}
    if patience.nobody and not told_of:
        raise SearchError(patience.told())
    return found


def _heard(state: Sharded, asks: Mapping[int, Ask], until: float | None) -> dict[int, Heard | Away]:
    """Return what parts say before a moment of the clock; who does not know the state is told it."""

    def left() -> float | None:
        return None if until is None else until - time.perf_counter()

    answers = state.send(asks, left())
    strange = [part for part, answer in answers.items() if answer is None]
    if strange:
        told = {part: replace(asks[part], told=told_to(state, part)) for part in strange}
        answers.update(state.send(told, left()))
    return {part: answers.get(part) or Away("it does not know the state of the catalogue") for part in asks}


def _merged(state: Sharded, heard: Mapping[int, Heard | Away], k: int, num_queries: int) -> Found:
    """Return the best k of what was heard, by item_index."""
    parts: list[Found] = []
    for part, answer in heard.items():
        if isinstance(answer, Heard):
            scores, numbers = answer.found
            parts.append((scores, [item_of(row, part, state.parts) for row in numbers]))
    if not parts:
        return [np.empty(0, np.float32)] * num_queries, [np.empty(0, np.int64)] * num_queries
    return merge(parts, k)


def _ask(
    state: Sharded,
    part: int,
    queries: np.ndarray,
    k: int,
    exclude: Sequence[np.ndarray] | None,
    allowed: np.ndarray | None,
) -> Ask:
    mine = None
    if exclude is not None:
        mine = [number_in_part(row[part_of(row, state.parts) == part], state.parts) for row in exclude]
    some = None if allowed is None else np.packbits(rows_of(allowed, part, state.parts))
    return Ask(state.states[part], queries, k, mine, some)


def _name(told: Told) -> str:
    """Return a name for a state of a part that only this state has; empty where nothing changed since it was built."""
    if not len(told.fresh_ids) and told.hidden is None:
        return ""
    content = hashlib.blake2b(told.fresh_ids.tobytes(), digest_size=16)
    content.update(np.ascontiguousarray(told.fresh).tobytes())
    content.update(b"" if told.hidden is None else told.hidden.tobytes())
    return content.hexdigest()
