"""Packed attention against its padded twin, and every query encoder's two forms against each other."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from playbill.training.retrieval.attention import (  # noqa: E402
    TIME_KNOTS,
    Layout,
    by_padding,
    heads_of,
    packed_attention,
    padded_attention,
    time_bias,
    toeplitz,
)
from playbill.training.retrieval.encoders import build_encoder  # noqa: E402
from playbill.training.settings import Query, TwoTower  # noqa: E402

LENGTHS = [5, 1, 9, 2]
HEADS, DIM, LONGEST = 2, 8, 12


def layout() -> Layout:
    torch.manual_seed(3)
    days = torch.cat([torch.rand(n, dtype=torch.float64).cumsum(0) * 9 for n in LENGTHS])
    return Layout([0, *itertools.accumulate(LENGTHS)], days)


def naive(query: Tensor, key: Tensor, value: Tensor, place: Tensor, time: Tensor | None, softmax: bool) -> Tensor:
    """One sequence after the other by the padded form, with torch's own gradients."""
    where, found = layout(), []
    for low, high in itertools.pairwise(where.offsets):
        q, k, v = (heads_of(t[low:high], HEADS).transpose(0, 1).unsqueeze(0) for t in (query, key, value))
        bias = toeplitz(place, high - low).unsqueeze(0)
        if time is not None:
            days = where.days[low:high]
            bias = bias + time_bias(time, (days.unsqueeze(1) - days).float()).unsqueeze(0)
        causal = torch.ones(high - low, high - low, dtype=torch.bool).tril()
        found.append(padded_attention(q, k, v, bias, causal, softmax)[0].transpose(0, 1).flatten(1))
    return torch.cat(found)


@pytest.mark.parametrize(("softmax", "timed"), list(itertools.product((False, True), (False, True))))
def test_packed_attention_and_its_gradients_equal_the_padded_form(softmax: bool, timed: bool) -> None:
    torch.manual_seed(0)
    total = sum(LENGTHS)
    leaves = [torch.randn(total, DIM, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    place = torch.randn(HEADS, LONGEST, dtype=torch.float64, requires_grad=True)
    time = torch.randn(HEADS, TIME_KNOTS, dtype=torch.float64, requires_grad=True) if timed else None
    leaves += [place] if time is None else [place, time]
    pull = torch.randn(total, DIM, dtype=torch.float64)

    ours = packed_attention(*leaves[:3], layout(), HEADS, softmax, place, time)
    theirs = naive(*leaves[:3], place, time, softmax)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # the softmax is in float32
    more = 5  # rows that only fill a matrix up
    filled = [torch.cat([leaf, torch.randn(more, DIM, dtype=torch.float64)]) for leaf in leaves[:3]]
    other = by_padding(*filled, layout(), HEADS, softmax, place, time)  # a GPU's
    torch.testing.assert_close(other[:total], theirs, rtol=1e-5, atol=1e-6)
    assert len(other) == total + more and not other[total:].any()
    for mine, expected in zip(
        torch.autograd.grad((ours * pull).sum(), leaves),
        torch.autograd.grad((theirs * pull).sum(), leaves),
        strict=True,
    ):
        # sums over sequences are kept in float32
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


def test_a_later_event_changes_no_earlier_state() -> None:
    for query in Query:
        torch.manual_seed(1)
        encoder = build_encoder(settings(query), LONGEST).eval()
        x = torch.randn(sum(LENGTHS), DIM)
        changed = x.clone()
        changed[4] += 1.0  # the last event of the first sequence
        with torch.no_grad():
            before, after = encoder.packed(x, layout()), encoder.packed(changed, layout())
        same = (before == after).all(1)
        assert same.tolist() == [row != 4 for row in range(len(x))], query


@pytest.mark.parametrize(("query", "timed"), list(itertools.product(Query, (False, True))))
def test_the_newest_state_of_padded_histories_is_the_packed_one(query: Query, timed: bool) -> None:
    torch.manual_seed(2)
    encoder = build_encoder(replace(settings(query), time_bias=timed), LONGEST).eval()
    for name, weight in encoder.named_parameters():
        if name.endswith("time"):
            torch.nn.init.normal_(weight)
    where = layout()
    x = torch.randn(sum(LENGTHS), DIM)
    padded, days = torch.zeros(len(LENGTHS), LONGEST, DIM), torch.zeros(len(LENGTHS), LONGEST)
    for row, (low, high) in enumerate(itertools.pairwise(where.offsets)):
        padded[row, : high - low] = x[low:high].flip(0)
        days[row, : high - low] = (where.days[high - 1] - where.days[low:high]).flip(0).float()
    there = torch.arange(LONGEST) < torch.tensor(LENGTHS).unsqueeze(1)
    with torch.no_grad():
        packed = encoder.packed(x, where)[torch.tensor(where.offsets[1:]) - 1]
        newest = encoder.newest(padded, there, torch.log1p(days))
    torch.testing.assert_close(newest, packed, rtol=1e-4, atol=1e-5)


def settings(query: Query) -> TwoTower:
    return TwoTower(query=query, dim=DIM, heads=HEADS, blocks=2, hidden=16, dropout=0.3)
