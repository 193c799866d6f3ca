"""The losses over sampled negatives: by hand, against naive float64, and in what they learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from playbill.errors import ConfigError
from playbill.training.retrieval.negatives import Negatives, draw, log_inclusion
from playbill.training.retrieval.sampled import gbce, gbce_beta, sampled_softmax

# two positions and two items; dot products are
#            item 0  item 1
#   query 0    1.0     0.6
#   query 1    0.0     0.8
QUERY = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
ITEMS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
TARGET = torch.tensor([0, 1])
BOTH = torch.tensor([[0, 1]])  # one group; each position's own target is an accidental hit in it


def close(found: Tensor, expected: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-6, rtol=0)


def test_sampled_softmax_by_hand() -> None:
    # scale 2: rows (2, 1.2) and (0, 1.6); the own item among the negatives is masked
    # log(1 + exp(1.2 - 2)) = 0.371101;  log(1 + exp(0 - 1.6)) = 0.183901; their mean 0.277501
    close(sampled_softmax(QUERY, ITEMS, TARGET, BOTH, None, 2.0), 0.277501)
    # weights 3 and 1: (3 * 0.371101 + 0.183901) / 4 = 0.324301
    close(sampled_softmax(QUERY, ITEMS, TARGET, BOTH, None, 2.0, torch.tensor([3.0, 1.0])), 0.324301)


def test_sampled_softmax_takes_out_how_probable_each_item_was() -> None:
    # q = 0.75 and 0.25:  query 0: 2 - log 0.75 = 2.287682 against 1.2 - log 0.25 = 2.586294: 0.853558
    #                     query 1: 1.6 - log 0.25 = 2.986294 against 0 - log 0.75 = 0.287682: 0.065131
    log_q = torch.tensor([0.75, 0.25]).log()
    close(sampled_softmax(QUERY, ITEMS, TARGET, BOTH, log_q, 2.0), (0.853558 + 0.065131) / 2)
    # a constant in log q changes nothing
    close(sampled_softmax(QUERY, ITEMS, TARGET, BOTH, log_q + 5, 2.0), (0.853558 + 0.065131) / 2)


def test_gbce_by_hand() -> None:
    # 2 negatives of 9 items: alpha = 2 / 8; t = 0.75: beta = 0.25 * (0.75 * (1 - 4) + 4) = 0.4375
    assert gbce_beta(2, 9, 0.75) == pytest.approx(0.4375)
    assert gbce_beta(2, 9, 0.0) == 1 and gbce_beta(2, 9, 1.0) == pytest.approx(0.25)
    # query 0: 0.4375 * -log sigmoid(2) = 0.4375 * 0.126928, -log(1 - sigmoid(1.2)) = 1.463282: 1.518813 / 3
    # query 1: 0.4375 * -log sigmoid(1.6) = 0.4375 * 0.183901, -log(1 - sigmoid(0)) = 0.693147: 0.773604 / 3
    close(gbce(QUERY, ITEMS, TARGET, BOTH, 9, 0.75, 2.0), (1.518813 + 0.773604) / 6)


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_huge_logits_overflow_nowhere(size: float) -> None:
    query = (QUERY * size).requires_grad_()
    swapped = TARGET.flip(0)  # the positives are the smaller logits: 0.6 and 0 times `size`
    for loss in (
        sampled_softmax(query, ITEMS, swapped, BOTH, None, 1.0),
        gbce(query, ITEMS, swapped, BOTH, 9, 0.75, 1.0),
    ):
        assert torch.isfinite(torch.autograd.grad(loss, query)[0]).all()
        assert 1000 < loss.detach() < math.inf


def test_nothing_but_the_own_item_is_no_loss() -> None:
    query = QUERY[:1].clone().requires_grad_()
    loss = sampled_softmax(query, ITEMS, TARGET[:1], torch.tensor([[0]]), None, 2.0)
    loss.backward()
    assert loss == 0 and query.grad is not None and not query.grad.any()


def naive(case: dict[str, Tensor], scale: float, beta: float | None) -> Tensor:
    """The losses as their formulas stand, in float64, through autograd."""
    query, items, target, negative = (case[name] for name in ("query", "items", "target", "negative"))
    run = -(-len(query) // len(negative))
    losses = []
    for row in range(len(query)):
        others = negative[row // run]
        others = others[others != target[row]]
        own, rest = query[row] @ items[target[row]] * scale, items[others] @ query[row] * scale
        if beta is None:
            own, rest = own - case["log_q"][target[row]], rest - case["log_q"][others]
            losses.append(torch.logsumexp(torch.cat([own[None], rest]), 0) - own)
        else:
            total = beta * functional.logsigmoid(own) + functional.logsigmoid(-rest).sum()
            losses.append(-total / (negative.shape[1] + 1))
    return (torch.stack(losses) * case["weight"]).sum() / case["weight"].sum()


def made(positions: int, groups: int, sampled: int, items: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "query": torch.randn(positions, 8, generator=generator, dtype=torch.float64),
        "items": torch.randn(items, 8, generator=generator, dtype=torch.float64),
        "target": torch.randint(0, items, (positions,), generator=generator),
        "negative": torch.stack([torch.randperm(items, generator=generator)[:sampled] for _ in range(groups)]),
        "log_q": torch.randn(items, generator=generator, dtype=torch.float64),
        "weight": torch.rand(positions, generator=generator, dtype=torch.float64) * (torch.arange(positions) % 5 > 0),
    }


# G dividing T and not, groups left empty (ceil(9 / 6) = 2 fills five of six), blocks cut inside a group (the last)
@pytest.mark.parametrize(("positions", "groups", "sampled"), [(12, 3, 5), (13, 4, 7), (9, 6, 3), (700, 2, 400)])
@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_formula(
    positions: int, groups: int, sampled: int, beta: bool, dtype: torch.dtype
) -> None:
    case = made(positions, groups, sampled, 2 * sampled)
    case["query"], case["items"] = (case[name].to(dtype).double() for name in ("query", "items"))
    assert (case["negative"].repeat_interleave(-(-positions // groups), 0)[:positions] == case["target"][:, None]).any()
    wide = [case[name].requires_grad_() for name in ("query", "items")]
    power = gbce_beta(sampled, 2 * sampled, 0.75) if beta else None
    expected = naive(case, 1.5, power)
    expected_by = torch.autograd.grad(expected, wide)
    query, items = (tensor.detach().to(dtype).requires_grad_() for tensor in wide)
    rest = (query, items, case["target"], case["negative"])
    weight = case["weight"].float()
    found = gbce(*rest, 2 * sampled, 0.75, 1.5, weight) if beta else None
    if found is None:
        found = sampled_softmax(*rest, case["log_q"].float(), 1.5, weight)
    found_by = torch.autograd.grad(3 * found, (query, items))
    assert found.dtype == torch.float32
    loose = dtype == torch.bfloat16  # 8 bits of mantissa in vectors, logits and the products that make the gradient
    torch.testing.assert_close(found.double(), expected, rtol=0.01 if loose else 1e-5, atol=0)
    for one, other in zip(found_by, expected_by, strict=True):
        assert one.dtype == dtype
        error = (one.double() / 3 - other).norm() / other.norm()
        assert error < (0.02 if loose else 1e-5)
    assert not found_by[0][case["weight"] == 0].any()
    with torch.no_grad():
        again = gbce(*rest, 2 * sampled, 0.75, 1.5, weight) if beta else None
        torch.testing.assert_close(
            sampled_softmax(*rest, case["log_q"].float(), 1.5, weight) if again is None else again, found
        )


def test_no_weight_at_all_is_loss_0() -> None:
    query = QUERY.clone().requires_grad_()
    loss = sampled_softmax(query, ITEMS, TARGET, BOTH, None, 2.0, torch.zeros(2))
    loss.backward()
    assert loss == 0 and query.grad is not None and not query.grad.any()


def test_autocast_leaves_the_sums_alone() -> None:
    case = {name: value.float() if value.is_floating_point() else value for name, value in made(40, 2, 9, 30).items()}
    given = (case["query"], case["items"], case["target"], case["negative"], case["log_q"], 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = sampled_softmax(*given)
    assert mixed == sampled_softmax(*given)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[2, 2\] torch.float32 and \[2, 2\] torch.bfloat16"):
        sampled_softmax(QUERY, ITEMS.bfloat16(), TARGET, BOTH, None, 1.0)
    with pytest.raises(ValueError, match=r"target must be \[T\] with T = 2"):
        sampled_softmax(QUERY, ITEMS, TARGET[:1], BOTH, None, 1.0)
    with pytest.raises(ValueError, match=r"log_q must be \[2\], got \[3\]"):
        sampled_softmax(QUERY, ITEMS, TARGET, BOTH, torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="t must be"):
        gbce(QUERY, ITEMS, TARGET, BOTH, 9, 1.5, 1.0)
    with pytest.raises(ValueError, match="num_items - 1 = 1 negatives, got 2"):
        gbce(QUERY, ITEMS, TARGET, BOTH, 2, 0.5, 1.0)
    with pytest.raises(ValueError, match="distinct"):
        sampled_softmax(QUERY, ITEMS, TARGET, torch.tensor([[1, 1]]), None, 1.0)


ZIPF = 1 / np.arange(1, 2001)
ZIPF = ZIPF / ZIPF.sum()


@pytest.mark.parametrize("kind", list(Negatives))
def test_log_inclusion_is_how_often_an_item_is_drawn(kind: Negatives) -> None:
    rng = np.random.default_rng(5)
    events = np.concatenate([[0], ZIPF * 1e6])
    groups, count, draws = 8, 200, 40
    times = np.zeros(2001)
    for _ in range(draws):
        target = 1 + rng.choice(2000, 2048, p=ZIPF)
        negative = draw(kind, target, groups, count, 2000, 0.5, rng)
        assert negative.shape == (groups, count) and negative.min() >= 1 and negative.max() <= 2000
        assert all(len(np.unique(row)) == count for row in negative)
        np.add.at(times, negative.ravel(), 1)
    expected = np.exp(log_inclusion(kind, events, count, 2048, 0.5).astype(np.float64)) * draws * groups
    for begin, end in ((1, 4), (4, 20), (20, 100), (100, 500), (500, 2001)):
        error = 4 * math.sqrt(expected[begin:end].sum()) + 0.01 * expected[begin:end].sum()
        assert abs(times[begin:end].sum() - expected[begin:end].sum()) < error


def test_in_batch_negatives_come_from_other_groups_first() -> None:
    target = np.repeat(np.arange(1, 9), 4)  # group g has items 2 g + 1 and 2 g + 2
    rng = np.random.default_rng(1)
    apart = draw(Negatives.in_batch, target, 4, 6, 100, 0.5, rng)
    for group, row in enumerate(apart):
        assert set(row) == set(range(1, 9)) - {2 * group + 1, 2 * group + 2}
    # eight distinct targets cannot be twenty negatives
    assert np.array_equal(np.sort(draw(Negatives.in_batch, target, 4, 20, 100, 0.5, rng)), [np.arange(1, 9)] * 4)
    # a small catalogue is taken whole
    for kind in (Negatives.uniform, Negatives.mixed):
        assert np.array_equal(np.sort(draw(kind, target, 2, 20, 9, 0.5, rng)), [np.arange(1, 10)] * 2)
        assert not log_inclusion(kind, np.ones(10), 20, 32).any()


def test_draws_follow_from_their_generator() -> None:
    target = 1 + np.random.default_rng(1).choice(2000, 500, p=ZIPF)
    for kind in Negatives:
        one, other = (draw(kind, target, 3, 50, 2000, 0.5, np.random.default_rng(7)) for _ in range(2))
        assert np.array_equal(one, other)
        assert len({tuple(sorted(row)) for row in one}) == 3  # groups differ


def test_draws_out_of_range_are_refused() -> None:
    rng, target = np.random.default_rng(1), np.array([1, 2])
    with pytest.raises(ConfigError, match=">= 1, got 0"):
        draw(Negatives.uniform, target, 1, 0, 5, 0.5, rng)
    with pytest.raises(ConfigError, match="mixed_share"):
        draw(Negatives.mixed, target, 1, 2, 5, 1.0, rng)
    with pytest.raises(ConfigError, match="0 position"):
        draw(Negatives.in_batch, target[:0], 1, 2, 5, 0.5, rng)
    with pytest.raises(ConfigError, match="0 item"):
        log_inclusion(Negatives.in_batch, np.zeros(1), 2, 5)


@pytest.mark.parametrize("kind", list(Negatives))
def test_gradient_nears_that_of_all_items_as_negatives_grow(kind: Negatives) -> None:
    generator = torch.Generator().manual_seed(3)
    num_items, positions = 200, 256
    share = ZIPF[:num_items] / ZIPF[:num_items].sum()
    rng = np.random.default_rng(3)
    target = 1 + rng.choice(num_items, positions, p=share)
    items = torch.randn(num_items, 8, generator=generator, requires_grad=True)
    query = 0.35 * torch.randn(positions, 8, generator=generator)  # logits with a spread of 1
    whole = functional.cross_entropy(query @ items.t(), torch.from_numpy(target - 1))
    expected = torch.autograd.grad(whole, items)[0]

    def error(count: int, corrected: bool) -> float:
        log_q = torch.from_numpy(log_inclusion(kind, np.concatenate([[0], share * 1e6]), count, positions)[1:])
        total = torch.zeros_like(items)
        for _ in range(60):
            # as in training, where the targets of a step are other ones each time
            others = 1 + rng.choice(num_items, positions, p=share)
            negative = torch.from_numpy(draw(kind, others, 2, count, num_items, 0.5, rng) - 1)
            given = (query, items, torch.from_numpy(target - 1), negative, log_q if corrected else None, 1.0)
            total += torch.autograd.grad(sampled_softmax(*given), items)[0] / 60
        return float((total - expected).norm() / expected.norm())

    errors = [error(count, True) for count in (5, 20, 80)]
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]
    if kind is not Negatives.uniform:  # where popular items are drawn more often, leaving that in costs the most
        assert error(80, False) > 2 * errors[2]
    if kind is not Negatives.in_batch:  # in-batch cannot reach what is not in the batch
        every = torch.arange(num_items).expand(4, -1)
        loss = sampled_softmax(query, items, torch.from_numpy(target - 1), every, torch.zeros(num_items), 1.0)
        torch.testing.assert_close(torch.autograd.grad(loss, items)[0], expected, rtol=1e-4, atol=1e-6)


def recall_at_100(kind: Negatives, corrected: bool) -> float:
    """Train vectors of people and of items on a catalogue with Zipf popularity, and find what people take next."""
    rng = np.random.default_rng(11)
    num_items, people, width = 3000, 300, 8
    taste, kinds = rng.normal(size=(people, width)), rng.normal(size=(num_items, width))
    logits = 0.7 * taste @ kinds.T - 0.8 * np.log(np.arange(1, num_items + 1))
    chance = np.exp(logits - logits.max(axis=1, keepdims=True))
    chance = np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1)
    took = np.stack([np.searchsorted(row, rng.random(80) * row[-1]) for row in chance])
    train, test = took[:, :60], took[:, 60:]
    who, what = np.repeat(np.arange(people), 60), train.ravel()
    log_q = log_inclusion(kind, np.concatenate([[0], np.bincount(what, minlength=num_items)]), 128, 1024)[1:]
    torch.manual_seed(1)
    person, item = (torch.nn.Embedding(size, 16) for size in (people, num_items))
    optimizer = torch.optim.Adam([*person.parameters(), *item.parameters()], lr=0.03)
    for _ in range(10):
        order = rng.permutation(len(who))
        for begin in range(0, len(order) - 1023, 1024):
            rows = order[begin : begin + 1024]
            negative = torch.from_numpy(draw(kind, what[rows] + 1, 2, 128, num_items, 0.5, rng) - 1)
            loss = sampled_softmax(
                person(torch.from_numpy(who[rows])),
                item.weight,
                torch.from_numpy(what[rows]),
                negative,
                torch.from_numpy(log_q) if corrected else None,
                0.5,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    scores = (person.weight @ item.weight.t()).detach()
    top = scores.topk(100, dim=1).indices.numpy()
    return float(np.mean([np.isin(test[row], top[row]).mean() for row in range(people)]))


# measured: 0.473 against 0.334, and 0.492 against 0.414 where half of the negatives are drawn evenly
@pytest.mark.parametrize(("kind", "margin"), [(Negatives.in_batch, 0.1), (Negatives.mixed, 0.05)])
def test_the_correction_finds_more_of_what_people_take(kind: Negatives, margin: float) -> None:
    assert recall_at_100(kind, True) > recall_at_100(kind, False) + margin
