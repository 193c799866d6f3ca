"""Logging policies: exact probabilities, honest draws, and pools that are fair and can be dealt again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from playbill.errors import WorldError
from playbill.world.build import build, items_there
from playbill.world.draws import Stream, bits, uniform
from playbill.world.identifiers import MAIL, Sessions
from playbill.world.knowledge import MEMORY, Tally, beliefs, nothing_known
from playbill.world.parameters import Parameters
from playbill.world.policies import choose, probabilities
from playbill.world.pools import deal, make_deck, runs
from playbill.world.settings import LoggingPolicy, PolicyKind, Size

KINDS = list(PolicyKind)


def policy(kind: PolicyKind, epsilon: float = 0.2, temperature: float = 1.0) -> LoggingPolicy:
    return LoggingPolicy(kind=kind, epsilon=epsilon, temperature=temperature)


def test_each_policy_by_hand() -> None:
    values, counts = np.array([[0.0, np.log(3.0), 0.0]]), np.array([[0, 3, 1]])
    expected = {
        PolicyKind.uniform: [1 / 3, 1 / 3, 1 / 3],
        PolicyKind.popularity: [1 / 7, 4 / 7, 2 / 7],  # counts plus one: 1, 4, 2
        PolicyKind.epsilon_greedy: [0.1, 0.8, 0.1],  # 0.3 / 3 each, and 0.7 for the best
        PolicyKind.softmax: [1 / 5, 3 / 5, 1 / 5],  # exp(values): 1, 3, 1
    }
    for kind, chances in expected.items():
        np.testing.assert_allclose(probabilities(policy(kind, epsilon=0.3), values, counts), [chances], atol=1e-15)
    # half the temperature squares the weights: 1, 9, 1
    cold = probabilities(policy(PolicyKind.softmax, temperature=0.5), values)
    np.testing.assert_allclose(cold, [[1 / 11, 9 / 11, 1 / 11]], atol=1e-15)
    # a candidate that does not exist has no share
    allowed = np.array([[True, False, True]])
    for kind, chances in (
        (PolicyKind.uniform, [0.5, 0, 0.5]),
        (PolicyKind.popularity, [1 / 3, 0, 2 / 3]),
        (PolicyKind.epsilon_greedy, [0.85, 0, 0.15]),  # a tie: the first
        (PolicyKind.softmax, [0.5, 0, 0.5]),
    ):
        np.testing.assert_allclose(probabilities(policy(kind, 0.3), values, counts, allowed), [chances], atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    values=arrays(np.float64, (3, 5), elements=st.floats(-50, 50)),
    counts=arrays(np.int64, (3, 5), elements=st.integers(0, 10**9)),
    eligible=arrays(bool, (3, 5)),
    epsilon=st.floats(0, 1),
    temperature=st.floats(0.05, 100),
    draw=st.floats(1e-16, 1 - 1e-16),
)
def test_propensities_are_a_distribution(kind, values, counts, eligible, epsilon, temperature, draw) -> None:  # type: ignore[no-untyped-def]  # hypothesis gives the types
    eligible[:, 2] = True
    chances = probabilities(policy(kind, epsilon, temperature), values, counts, eligible)
    np.testing.assert_allclose(chances.sum(-1), 1, atol=1e-12)
    assert np.all(chances >= 0) and np.all(chances[~eligible] == 0)
    if kind is PolicyKind.epsilon_greedy:
        least = np.broadcast_to(epsilon / eligible.sum(-1, keepdims=True), chances.shape)
        assert np.all(chances[eligible] >= least[eligible] - 1e-15)
    index, propensity = choose(chances, np.full(3, draw))
    np.testing.assert_array_equal(propensity, chances[np.arange(3), index])
    assert np.all(propensity > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_choices_come_as_often_as_stated(kind: PolicyKind) -> None:
    values, counts = np.array([0.3, -1.0, 2.0, 0.0, 0.9]), np.array([5, 0, 40, 1, 9])
    chances = probabilities(policy(kind), values, counts)
    n = 40_000
    index, propensity = choose(np.tile(chances, (n, 1)), uniform(3, Stream.CHOOSE_ITEM, np.arange(n)))
    share = np.bincount(index, minlength=5) / n
    assert np.all(np.abs(share - chances) <= 4 * np.sqrt(chances * (1 - chances) / n))
    # the inverse of the propensity weighs every candidate alike
    weight = np.bincount(index, 1 / propensity, minlength=5) / n
    assert np.all(np.abs(weight - 1) <= 4 * np.sqrt((1 / chances - 1) / n))


def test_edges_of_the_draw_choose_a_possible_candidate() -> None:
    chances = np.array([[0.0, 0.25, 0.0, 0.75, 0.0]] * 3)
    index, _ = choose(chances, np.array([5e-324, 0.25, np.nextafter(1, 0)]))
    assert index.tolist() == [1, 3, 3]


def test_bad_input_is_named() -> None:
    with pytest.raises(WorldError, match=r"softmax: 1 values are not finite, the first at \[0, 1\]"):
        probabilities(policy(PolicyKind.softmax), np.array([[0.0, np.nan]]))
    with pytest.raises(WorldError, match="none that is eligible"):
        probabilities(policy(PolicyKind.uniform), np.zeros((2, 2)), eligible=np.array([[True, True], [False, False]]))
    with pytest.raises(WorldError, match="0 or more, got -2"):
        probabilities(policy(PolicyKind.popularity), np.zeros(2), np.array([1, -2]))
    with pytest.raises(WorldError, match="needs counts"):
        probabilities(policy(PolicyKind.popularity), np.zeros(2))


@settings(max_examples=40, deadline=None)
@given(available=st.integers(1, 5000), fresh=st.integers(0, 5000), length=st.integers(1, 12), pool=st.integers(1, 10))
def test_runs_cut_the_whole_deck(available: int, fresh: int, length: int, pool: int) -> None:
    fresh = min(fresh, available)
    if available < length:
        with pytest.raises(WorldError, match="size.items"):
            runs(available, fresh, length, pool)
        return
    edges = runs(available, fresh, length, pool)
    assert edges[0] == 0 and edges[-1] == available and np.all(np.diff(edges) >= 1)
    assert (len(edges) - 1) % length == 0 and (len(edges) - 1) // length == min(pool, available // length)


def test_pools_are_distinct_and_reach_every_item() -> None:
    world = build(Parameters(), Size(people=50, items=300, days=30, slate_length=5, pool=6), seed=4)
    day = 20
    deck, fresh = make_deck(world, day, np.arange(300)[::-1])
    there = items_there(world, day)
    assert sorted(deck.tolist()) == list(range(there)) and fresh > 0
    known = there - fresh
    assert deck[:known].tolist() == list(range(known))  # by recent clicks, the new arrivals last
    key = bits(0, Stream.VISIT_KEY, np.arange(6000))
    pools = deal(world, deck, fresh, key)
    assert pools.shape == (6000, 5, 6)
    flat = np.sort(pools.reshape(6000, -1), axis=1)
    assert np.all(np.diff(flat, axis=1) > 0), "candidates of a request are distinct"
    assert set(np.unique(pools)) == set(range(there))
    # every position sees the head as often: the best seller's run is dealt round
    head = runs(there, fresh, 5, 6)[1]
    shares = np.array([(pools[:, k] < head).any(-1).mean() for k in range(5)])
    assert np.all(np.abs(shares - 1 / 5) <= 4 * np.sqrt(0.2 * 0.8 / 6000))
    np.testing.assert_array_equal(deal(world, deck, fresh, key[100:103]), pools[100:103])


@settings(max_examples=30, deadline=None)
@given(people=st.integers(1, 500_000), days=st.integers(1, 700), data=st.data())
def test_session_ids_lead_back(people: int, days: int, data: st.DataObject) -> None:
    sessions = Sessions(people, days)
    day = data.draw(st.integers(0, days - 1))
    person = np.array(data.draw(st.lists(st.integers(0, people - 1), min_size=1, max_size=20, unique=True)))
    number = np.arange(len(person)) % (MAIL + 1)
    ids = sessions.ids(day, person, number)
    assert np.all(ids >= 0) and len(np.unique(ids)) == len(ids)
    back_day, back_person, back_number = sessions.back(ids)
    assert np.all(back_day == day)
    np.testing.assert_array_equal(back_person, person)
    np.testing.assert_array_equal(back_number, number)


def test_a_tally_counts_late_successes_on_their_day() -> None:
    tally = Tally(3, latest=2)
    tally.tried(np.array([0, 0, 2]))
    tally.succeeded(np.array([0, 2, 2]), np.array([0, 1, 9]))
    tally.close_day()
    assert tally.trials.tolist() == [2, 0, 1] and tally.successes.tolist() == [1, 0, 0]
    tally.close_day()
    assert tally.trials.tolist() == [2 * MEMORY, 0, MEMORY] and tally.successes.tolist() == [MEMORY, 0, 1]
    tally.close_day()
    np.testing.assert_allclose(tally.successes, [MEMORY**2, 0, MEMORY + 1])  # what comes later comes on the last day


def test_a_shop_knows_nothing_on_its_first_day_and_counts_afterwards() -> None:
    world = build(Parameters(), Size(people=50, items=100, days=5), seed=1)
    known = nothing_known(world)
    first = beliefs(world, known)
    assert np.all(first.item_value == 0) and np.all(first.creative_value == 0) and np.all(first.item_count == 0)
    assert all(np.all(value == 0) for value in first.mail_value.values())
    known.item.tried(np.repeat([7, 8], 100))
    known.item.succeeded(np.full(30, 7), np.zeros(30, np.int64))
    assert np.all(beliefs(world, known).item_value == 0), "today is not known before it is over"
    known.close_day()
    assert np.all(np.argmax(beliefs(world, known).item_value, axis=1) == 7)
