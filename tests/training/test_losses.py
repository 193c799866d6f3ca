"""Losses against numbers derived by hand."""

from __future__ import annotations

import math

import pytest
import torch

from playbill.training.ranking.losses import departure_loss, interact_loss, like_loss
from playbill.training.retrieval.losses import full_softmax, in_batch_softmax

# two queries and two items of unit length; cosines are
#            item 1  item 2
#   query 0    1.0     0.6
#   query 1    0.0     0.8
QUERY = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
ITEMS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])


def test_full_softmax() -> None:
    # temperature 0.5 doubles the cosines: rows (2, 1.2) and (0, 1.6); targets are items 1 and 2
    # log(1 + exp(1.2 - 2)) = log(1 + exp(-0.8)) = 0.371101;  log(1 + exp(0 - 1.6)) = 0.183901
    loss = full_softmax(QUERY, ITEMS, torch.tensor([1, 2]), 0.5)
    torch.testing.assert_close(loss, torch.tensor([0.371101, 0.183901]), atol=1e-6, rtol=0)


def test_full_softmax_smoothed() -> None:
    # smoothing 0.2: 0.9 of the weight on the target and 0.1 on the other item. Query 0:
    # 0.9 * 0.371101 + 0.1 * log(1 + exp(0.8)) = 0.333991 + 0.1 * 1.171101 = 0.451101
    loss = full_softmax(QUERY[:1], ITEMS, torch.tensor([1]), 0.5, smoothing=0.2)
    torch.testing.assert_close(loss, torch.tensor([0.451101]), atol=1e-6, rtol=0)


def test_in_batch_softmax_takes_out_how_often_an_item_turns_up() -> None:
    # item 1 is three quarters of all positives, item 2 a quarter: logits minus log q of their column
    #   query 0: 2 - log 0.75 = 2.287682, 1.2 - log 0.25 = 2.586294; own is the first:
    #            log(1 + exp(0.298612)) = 0.853558
    #   query 1: 0 - log 0.75 = 0.287682, 1.6 - log 0.25 = 2.986294; own is the second:
    #            log(1 + exp(-2.698612)) = 0.065131
    log_q = torch.tensor([0.75, 0.25]).log()
    loss = in_batch_softmax(QUERY, ITEMS, torch.tensor([1, 2]), log_q, 0.5, group=2)
    torch.testing.assert_close(loss, torch.tensor([0.853558, 0.065131]), atol=1e-6, rtol=0)


def test_in_batch_softmax_masks_the_same_item_in_another_row() -> None:
    # three rows, the first and the last with item 1. Query 0 sees its own item and item 2 only:
    # log(1 + exp(1.2 - 2)) = 0.371101. Unmasked, item 1 would stand against itself: log(2 + exp(-0.8)) = 0.896
    query, items = QUERY[[0, 1, 0]], ITEMS[[0, 1, 0]]
    loss = in_batch_softmax(query, items, torch.tensor([1, 2, 1]), torch.zeros(3), 0.5, group=3)
    torch.testing.assert_close(loss[0], torch.tensor(0.371101), atol=1e-6, rtol=0)
    torch.testing.assert_close(loss[2], loss[0])
    # query 1 stands against item 1 twice: log(1 + 2 exp(-1.6)) = 0.339178
    torch.testing.assert_close(loss[1], torch.tensor(0.339178), atol=1e-6, rtol=0)


def test_groups_never_see_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.nn.functional.normalize(torch.randn(7, 4, generator=generator), dim=1)
    items = torch.nn.functional.normalize(torch.randn(7, 4, generator=generator), dim=1)
    index, log_q = torch.arange(1, 8), torch.randn(7, generator=generator)
    whole = in_batch_softmax(query, items, index, log_q, 0.1, group=3)
    parts = [
        in_batch_softmax(query[s], items[s], index[s], log_q[s], 0.1, group=3)
        for s in (slice(0, 3), slice(3, 6), slice(6, 7))
    ]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert whole[6] == 0  # alone in its group: nothing to tell apart


def test_interact_loss() -> None:
    # one row: positive with logit 0, negatives with logits 0 and log 3; the last does not count
    # (log 2 + log 2 + 0) / 3 = 0.462098
    loss = interact_loss(torch.tensor([[0.0, 0.0, math.log(3)]]), torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor([0.462098]), atol=1e-6, rtol=0)
    # counted, the last adds log(1 + 3) = 1.386294: 2.772589 / 3 = 0.924196
    loss = interact_loss(torch.tensor([[0.0, 0.0, math.log(3)]]), torch.ones(1, 3))
    torch.testing.assert_close(loss, torch.tensor([0.924196]), atol=1e-6, rtol=0)


def test_like_loss_is_0_where_nothing_is_known() -> None:
    # logit log 3 is probability 3/4: -log(3/4) = 0.287682 for a like, -log(1/4) = 1.386294 for none
    logit = torch.full((3,), math.log(3), requires_grad=True)
    loss = like_loss(logit, torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(loss.detach(), torch.tensor([0.287682, 1.386294, 0.0]), atol=1e-6, rtol=0)
    loss.sum().backward()
    assert logit.grad is not None and logit.grad[2] == 0


def test_departure_loss_counts_only_what_changes_the_order() -> None:
    # added 1, 3 and, not counted, 100: middle 2, squares 1 and 1, mean 1
    counts = torch.tensor([[1.0, 1.0, 0.0]])
    torch.testing.assert_close(departure_loss(torch.tensor([[1.0, 3.0, 100.0]]), counts), torch.tensor([1.0]))
    assert departure_loss(torch.full((1, 3), 5.0), torch.ones(1, 3)) == pytest.approx(0.0)
