"""Losses of the ranker's tasks. B rows with C candidates each, T tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from playbill.dataset.tasks import Task, parents


def task_losses(
    logits: Tensor, label: Tensor, known: Tensor, tasks: Sequence[Task], whole: bool, seen: Tensor | None = None
) -> Tensor:
    """Return the weighted loss of each row, [B] float32.

    A task without parent is a binary cross-entropy over all candidates, and so is, where `whole`, a task with a parent:
    on the product of both probabilities (the entire space of impressions), which comes true where both did, and is
    known where both are: people come back after slates of which they took nothing up. Otherwise a task with a parent,
    and any whose value must be known, is learned where its parent came true, on its own logit.

    A loss over all candidates is their sum divided by C, those that do not count included, so that a row's loss does
    not depend on which process it meets; a loss where the parent came true is their sum.

    Source: X. Ma et al., Entire Space Multi-Task Model (2018), equations 1 and 3.

    Args:
        logits: [B, C, T] float32; of a task with a parent: given that the parent came true.
        label, known: [B, C, T] float32 of 0 and 1.
        tasks: T, parents before their children.
        whole: rows are impressions.
        seen: [B, C] float32 log p that the candidate was looked at; None: all were.
    """
    total = torch.zeros_like(logits[:, 0, 0])
    above = parents(tasks)
    chances = log_probabilities(logits, tasks, seen) if whole else []
    together: list[tuple[Tensor, Tensor]] = []
    for t, task in enumerate(tasks):
        up, yes, counts = above[t], label[..., t], known[..., t]
        together.append((yes, counts) if up < 0 else (yes * together[up][0], counts * together[up][1]))
        if up >= 0 and (not whole or task.threshold is not None):
            losses = functional.binary_cross_entropy_with_logits(logits[..., t], yes, reduction="none")
            loss = (losses * counts * label[..., up] * known[..., up]).sum(1)
        elif up >= 0 or (seen is not None and not task.returns):
            # log(1 - p) of a product, which is never so near to 1 that the difference is lost
            missed = torch.log(-torch.expm1(chances[t].clamp(max=-1e-6)))
            yes, counts = together[t]
            loss = -((yes * chances[t] + (1 - yes) * missed) * counts).sum(1) / logits.shape[1]
        else:
            losses = functional.binary_cross_entropy_with_logits(logits[..., t], yes, reduction="none")
            loss = (losses * counts).sum(1) / logits.shape[1]
        total = total + task.weight * loss
    return total


def log_probabilities(logits: Tensor, tasks: Sequence[Task], seen: Tensor | None = None) -> list[Tensor]:
    """Return log p of each task, [...] each: of its own chance times that of its parent.

    Args:
        logits: [..., T].
        seen: [...] log p that the candidate was looked at, without which nothing is taken up; None: as if it was. A
            return needs no look at this candidate.
    """
    found: list[Tensor] = []
    for t, (task, up) in enumerate(zip(tasks, parents(tasks), strict=True)):
        # as softplus and not logsigmoid: ONNX writes that as the log of a sigmoid, -inf from -18 on
        own = -functional.softplus(-logits[..., t])
        if up >= 0:
            own = own + found[up]
        elif seen is not None and not task.returns:
            own = own + seen
        found.append(own)
    return found


def joint_logits(logits: Tensor, tasks: Sequence[Task]) -> list[Tensor]:
    """Return the logit of each task's own chance times that of its parent, [...] each.

    From logits alone, 1 / p(both) - 1 = exp(-own) + exp(-parent) + exp(-own - parent): by way of log p a product next
    to 1 would keep three digits in float32, and graph and module would differ by what a map of logits can show.

    Args:
        logits: [..., T].
    """
    found: list[Tensor] = []
    for t, up in enumerate(parents(tasks)):
        own = logits[..., t]
        found.append(own if up < 0 else own - functional.softplus(functional.softplus(own) - found[up]))
    return found


def departure_loss(added: Tensor, counts: Tensor) -> Tensor:
    """Return how far the network departs from the order that the retrieval gave, [B] float32.

    The mean square, within a row's candidates, of what the network adds to the scaled retrieval score. The towers were
    trained against the whole catalogue on all rows, the network on a sample of fewer: without this it gives up an order
    that is better than its own. What it adds to all candidates of a row alike changes no order and is free.

    Args:
        added: [B, C] float32.
        counts: [B, C] float32, 0 for a candidate to leave out.
    """
    number = counts.sum(1, keepdim=True).clamp(min=1)
    middle = (added * counts).sum(1, keepdim=True) / number
    return ((added - middle).square() * counts).sum(1) / number.squeeze(1)
