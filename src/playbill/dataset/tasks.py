"""Tasks: what a ranker is asked to predict of an item, declared in words that the log can answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from playbill.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(slots=True, kw_only=True)
class Task:
    """One thing that may follow when a person meets an item; its probability is `p_<name>`.

    {name: click, events: [click]}
    {name: completion, parent: click, events: [play], threshold: 0.8}
    {name: conversion, parent: click, events: [purchase], within_days: 3}
    {name: back_7, parent: click, returns: true, within_days: 7}
    """

    name: str
    """Small letters, digits and _; objectives weigh the task by it."""
    events: list[str] = field(default_factory=list)
    """Names of the events that count; empty: any that a person does with an item (returns: any at all)."""
    threshold: float | None = None
    """An event counts when its value is at least this, and teaches only when it has one; null: that it happened."""
    parent: str | None = None
    """Task that must have come true before, or this cannot: p_<name> is the product of both. Stands before this one."""
    within_days: float | None = None
    """Days within which the event must follow; moments whose days are not over yet teach nothing. null: the row's own
    event, which must then be its parent's too, or, where decisions are learned from, whatever answers the decision."""
    returns: bool = False
    """Whether the person comes back: an event on any item or none, after_days to within_days later."""
    after_days: float = 0.5
    """returns only: what comes sooner still belongs to the same visit."""
    weight: float = 1.0
    """Of the task's loss."""

    def __post_init__(self) -> None:
        where = f"model.tasks: task {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"{where}: name must be small letters, digits and _, a letter first")
        if self.weight < 0:
            raise ConfigError(f"{where}: weight must be >= 0, got {self.weight}")
        if self.within_days is not None and not self.within_days > 0:
            raise ConfigError(f"{where}: within_days must be > 0, got {self.within_days}")
        if self.returns and (self.within_days is None or not 0 <= self.after_days < self.within_days):
            raise ConfigError(
                f"{where}: returns needs 0 <= after_days < within_days, "
                f"got after_days={self.after_days} and within_days={self.within_days}"
            )
        if self.returns and self.threshold is not None:
            raise ConfigError(f"{where}: returns asks whether somebody comes, threshold={self.threshold} has no part")


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raise ConfigError unless the first task stands alone, names are different and parents come before children."""
    if not tasks:
        raise ConfigError("model.tasks is empty: declare at least one task")
    before: set[str] = set()
    for task in tasks:
        if task.name in before:
            raise ConfigError(f"model.tasks names {task.name!r} twice")
        if task.parent is not None and task.parent not in before:
            raise ConfigError(
                f"model.tasks: task {task.name!r} has parent {task.parent!r}, which does not stand before it; "
                f"before it stand: {', '.join(sorted(before)) or 'none'}"
            )
        before.add(task.name)
    if tasks[0].parent is not None or tasks[0].returns or not tasks[0].weight:
        raise ConfigError(
            f"model.tasks: the first task, {tasks[0].name!r}, decides the order of candidates while training: it must "
            "have no parent, a weight above 0, and not be a return"
        )


def check_for_events(tasks: Sequence[Task]) -> None:
    """Raise ConfigError where a task cannot come true on rows that are single events, as its parent is another event.

    An impression can be answered by a click and a play; an event is one or the other.
    """
    for task, parent in zip(tasks, parents(tasks), strict=True):
        if parent < 0 or task.within_days is not None or tasks[parent].within_days is not None:
            continue
        apart = set(task.events).isdisjoint(tasks[parent].events)
        if apart and task.events and tasks[parent].events:
            raise ConfigError(
                f"model.tasks: task {task.name!r} can never come true: it is learned from single events, without "
                f"impressions, and none is both {' or '.join(task.events)} and, as its parent {task.parent!r} asks, "
                f"{' or '.join(tasks[parent].events)}; give it within_days, the time in which it must follow"
            )


def parents(tasks: Sequence[Task]) -> list[int]:
    """Return for each task the place of its parent, -1 where it has none."""
    place = {task.name: i for i, task in enumerate(tasks)}
    return [-1 if task.parent is None else place[task.parent] for task in tasks]
