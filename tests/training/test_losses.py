"""Losses against numbers derived by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from playbill.dataset.tasks import Task
from playbill.training.ranking.losses import departure_loss, joint_logits, log_probabilities, task_losses
from playbill.training.retrieval.losses import full_softmax

# two queries and two items of unit length; cosines are
#            item 1  item 2
#   query 0    1.0     0.6
#   query 1    0.0     0.8
QUERY = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
ITEMS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])


def test_full_softmax() -> None:
    # a scale of 2 doubles the cosines: rows (2, 1.2) and (0, 1.6); targets are the items 1 and 2
    # log(1 + exp(1.2 - 2)) = log(1 + exp(-0.8)) = 0.371101;  log(1 + exp(0 - 1.6)) = 0.183901
    both = full_softmax(QUERY, ITEMS, torch.tensor([0, 1]), 2.0)
    torch.testing.assert_close(both, torch.tensor((0.371101 + 0.183901) / 2), atol=1e-6, rtol=0)
    # a weight of 3 against 1, whatever their sum
    weighted = full_softmax(QUERY, ITEMS, torch.tensor([0, 1]), 2.0, torch.tensor([0.3, 0.1]))
    torch.testing.assert_close(weighted, torch.tensor((3 * 0.371101 + 0.183901) / 4), atol=1e-6, rtol=0)


def test_full_softmax_smoothed() -> None:
    # smoothing 0.2: 0.9 of the weight on the target and 0.1 on the other item. Query 0:
    # 0.9 * 0.371101 + 0.1 * log(1 + exp(0.8)) = 0.333991 + 0.1 * 1.171101 = 0.451101
    loss = full_softmax(QUERY[:1], ITEMS, torch.tensor([0]), 2.0, smoothing=0.2)
    torch.testing.assert_close(loss, torch.tensor(0.451101), atol=1e-6, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_gradients_of_the_full_softmax_are_those_of_torch(smoothing: float) -> None:
    torch.manual_seed(4)
    query, items = torch.randn(700, 6, requires_grad=True), torch.randn(1500, 6, requires_grad=True)
    target, weight = torch.randint(1500, (700,)), torch.rand(700)
    ours = full_softmax(query, items, target, 1.7, weight, smoothing)
    each = torch.nn.functional.cross_entropy(
        1.7 * query @ items.t(), target, label_smoothing=smoothing, reduction="none"
    )
    theirs = (each * weight).sum() / weight.sum()
    torch.testing.assert_close(ours, theirs)
    for mine, expected in zip(
        torch.autograd.grad(ours, (query, items)), torch.autograd.grad(theirs, (query, items)), strict=True
    ):
        torch.testing.assert_close(mine, expected, atol=1e-7, rtol=1e-4)


def test_the_full_softmax_in_half_precision_points_the_same_way() -> None:
    torch.manual_seed(4)
    query, items = torch.randn(300, 16, requires_grad=True), torch.randn(500, 16, requires_grad=True)
    target = torch.randint(500, (300,))
    full = torch.autograd.grad(full_softmax(query, items, target, 0.5), (query, items))
    with torch.autocast("cpu", torch.bfloat16):
        loss = full_softmax(query, items, target, 0.5)
    assert loss.dtype == torch.float32
    for mine, expected in zip(torch.autograd.grad(loss, (query, items)), full, strict=True):
        assert torch.cosine_similarity(mine.flatten(), expected.flatten(), 0) > 0.9995


def test_positions_that_weigh_nothing_teach_nothing() -> None:
    query = QUERY.clone().requires_grad_()
    loss = full_softmax(query, ITEMS, torch.tensor([0, 1]), 2.0, torch.tensor([1.0, 0.0]))
    loss.backward()
    assert query.grad is not None and (query.grad[1] == 0).all() and (query.grad[0] != 0).any()
    assert full_softmax(query, ITEMS, torch.tensor([0, 1]), 2.0, torch.zeros(2)) == 0


INTERACT = [Task(name="interact")]
LIKED = [Task(name="interact"), Task(name="like", parent="interact", threshold=4.0, weight=0.5)]
BOUGHT = [Task(name="click"), Task(name="buy", parent="click")]


def test_a_task_without_parent_is_learned_over_all_candidates() -> None:
    # one row: positive with logit 0, negatives with logits 0 and log 3; the last does not count
    # (log 2 + log 2 + 0) / 3 = 0.462098
    logit = torch.tensor([[[0.0], [0.0], [math.log(3)]]])
    label = torch.tensor([[[1.0], [0.0], [0.0]]])
    loss = task_losses(logit, label, torch.tensor([[[1.0], [1.0], [0.0]]]), INTERACT, whole=False)
    torch.testing.assert_close(loss, torch.tensor([0.462098]), atol=1e-6, rtol=0)
    # counted, the last adds log(1 + 3) = 1.386294: 2.772589 / 3 = 0.924196
    loss = task_losses(logit, label, torch.ones(1, 3, 1), INTERACT, whole=False)
    torch.testing.assert_close(loss, torch.tensor([0.924196]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("whole", [False, True])
def test_a_value_is_learned_where_the_parent_came_true_and_there_is_one(whole: bool) -> None:
    # interact costs nothing here (logit 100, all positive); like has logit log 3, so probability 3/4:
    # -log(3/4) = 0.287682 for a like, -log(1/4) = 1.386294 for none, 0 for a row without a value; half of each counts
    own = torch.full((3, 1), math.log(3), requires_grad=True)
    logit = torch.stack([torch.full((3, 1), 100.0), own], -1)
    label = torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]], [[1.0, 1.0]]])
    known = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 0.0]]])
    loss = task_losses(logit, label, known, LIKED, whole)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.143841, 0.693147, 0.0]), atol=1e-6, rtol=0)
    loss.sum().backward()
    assert own.grad is not None and own.grad[2] == 0
    # and where the parent did not come true it is not learned at all
    label[:, 0, 0] = 0
    torch.testing.assert_close(task_losses(logit.detach(), label, known, LIKED[:1], whole), torch.full((3,), 100.0))
    torch.testing.assert_close(task_losses(logit.detach(), label, known, LIKED, whole), torch.full((3,), 100.0))


def test_a_conversion_is_learned_over_all_impressions() -> None:
    # click and buy given a click have logits 0 and log 3: p 1/2 and 3/4, so a purchase has p 3/8
    # not clicked: log 2 - log(5/8) = 0.693147 + 0.470004; bought: log 2 - log(3/8) = 0.693147 + 0.980829
    logit = torch.tensor([[[0.0, math.log(3)]], [[0.0, math.log(3)]]])
    label = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
    loss = task_losses(logit, label, torch.ones(2, 1, 2), BOUGHT, whole=True)
    torch.testing.assert_close(loss, torch.tensor([1.163151, 1.673976]), atol=1e-6, rtol=0)
    # learned from events, of what was interacted with alone: the first row says nothing of it
    loss = task_losses(logit, label, torch.ones(2, 1, 2), BOUGHT, whole=False)
    torch.testing.assert_close(loss, torch.tensor([0.693147, 0.693147 + 0.287682]), atol=1e-6, rtol=0)
    chances = [p.exp().tolist() for p in log_probabilities(logit[:, 0], BOUGHT)]
    assert chances == [pytest.approx([0.5, 0.5]), pytest.approx([0.375, 0.375])]


def test_coming_back_without_a_click_is_no_return_after_one() -> None:
    # p of click 1/2, of a return after one 3/4, together 3/8
    after = [Task(name="click"), Task(name="back", parent="click", returns=True, within_days=7)]
    logit = torch.tensor([[[0.0, math.log(3)]]]).expand(4, 1, 2)
    # came back without a click; with one; clicked and stayed away; clicked, and the week is not over
    label = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]], [[1.0, 0.0]], [[1.0, 1.0]]])
    known = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 0.0]]])
    loss = task_losses(logit, label, known, after, whole=True)
    not_both, both = 0.470004, 0.980829  # -log(5/8), -log(3/8)
    wanted = torch.tensor([math.log(2) + x for x in (not_both, both, not_both, 0.0)])
    torch.testing.assert_close(loss, wanted, atol=1e-6, rtol=0)


def test_products_of_chances_keep_their_logits() -> None:
    """Against float64, where a chance next to 1 keeps its digits; in float32 by way of log p it keeps three."""
    tasks = [Task(name="click"), Task(name="buy", parent="click"), Task(name="keep", parent="buy")]
    draw = np.random.default_rng(0)
    logit = np.concatenate([draw.uniform(-30, 30, (2000, 3)), draw.uniform(-3, 3, (2000, 3)), np.full((1, 3), 30.0)])
    narrow = logit.astype(np.float32)
    wide = narrow.astype(np.longdouble)
    # 1/p - 1 of the product, from what each adds: no chance is ever subtracted from 1
    odds_against = np.zeros(len(wide), np.longdouble)
    for t, found in enumerate(joint_logits(torch.from_numpy(narrow), tasks)):
        less = np.exp(-wide[:, t])
        odds_against = odds_against + less + odds_against * less
        np.testing.assert_allclose(found.numpy(), -np.log(odds_against).astype(np.float64), rtol=2e-6, atol=2e-5)


def test_what_was_not_looked_at_is_not_disliked() -> None:
    # logit 0, looked at with 1/2: taken up with 1/4, left with -log(3/4) = 0.287682; at the top with 1/2: 0.693147
    logit, known = torch.zeros(2, 1, 1), torch.ones(2, 1, 1)
    seen = torch.log(torch.tensor([[0.5], [1.0]]))
    loss = task_losses(logit, torch.zeros(2, 1, 1), known, BOUGHT[:1], whole=True, seen=seen)
    torch.testing.assert_close(loss, torch.tensor([0.287682, 0.693147]), atol=1e-6, rtol=0)
    back = [Task(name="click"), Task(name="back", returns=True, within_days=7)]
    two = torch.zeros(1, 1, 2)
    # whoever comes back need not have looked: -log(3/4) - log(1/2)
    loss = task_losses(two, torch.zeros(1, 1, 2), torch.ones(1, 1, 2), back, whole=True, seen=seen[:1])
    torch.testing.assert_close(loss, torch.tensor([0.980829]), atol=1e-6, rtol=0)


def test_departure_loss_counts_only_what_changes_the_order() -> None:
    # added 1, 3 and, not counted, 100: middle 2, squares 1 and 1, mean 1
    counts = torch.tensor([[1.0, 1.0, 0.0]])
    torch.testing.assert_close(departure_loss(torch.tensor([[1.0, 3.0, 100.0]]), counts), torch.tensor([1.0]))
    assert departure_loss(torch.full((1, 3), 5.0), torch.ones(1, 3)) == pytest.approx(0.0)
