"""Subjects chosen while a campaign runs: by hand where hands do, and against draws whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.campaign.adaptive import estimates
from playbill.campaign.delays import MOST_H, fit_delays, revealed
from playbill.campaign.thompson import Tally, believed, chances, choose, tally
from playbill.errors import ConfigError


def test_delays_are_learned_though_the_late_ones_are_not_there_yet() -> None:
    """20,000 opens with a mean delay of 20 hours, cut at 72; messages are 3 to 100 hours old."""
    dice = np.random.default_rng(0)
    delay = dice.exponential(20, 60_000)
    delay = delay[delay <= MOST_H]
    age = dice.uniform(3, 100, len(delay))
    seen = delay <= age
    share = fit_delays(delay[seen], age[seen])
    hours = np.arange(MOST_H + 1)
    truth = (1 - np.exp(-hours / 20)) / (1 - np.exp(-MOST_H / 20))
    assert share[-1] == 1 and (np.diff(share) >= 0).all()
    assert np.abs(share - truth)[1:].max() < 0.03
    naive = np.searchsorted(np.sort(delay[seen]), hours) / seen.sum()
    assert np.abs(naive - truth).max() > 0.05  # what was seen, as if it were all


def test_what_no_message_is_old_enough_to_say_an_earlier_campaign_says() -> None:
    dice = np.random.default_rng(1)
    hours = np.arange(MOST_H + 1)
    before = (1 - np.exp(-hours / 20)) / (1 - np.exp(-MOST_H / 20))
    delay = dice.exponential(20, 40_000)
    share = fit_delays(delay[delay <= 12], np.full(int((delay <= 12).sum()), 12.0), before)
    np.testing.assert_allclose(share[13:], before[13:])
    assert np.abs(share - before)[1:].max() < 0.03
    np.testing.assert_array_equal(fit_delays(np.zeros(0), np.zeros(0), before), before)


def test_a_message_counts_as_far_as_it_can_have_been_opened() -> None:
    share = np.linspace(0, 1, MOST_H + 1)
    np.testing.assert_allclose(revealed(share, np.asarray([-2, 0, 36, 72, 500])), [0, 0, 0.5, 1, 1])
    found = tally(np.asarray([0, 0, 1]), np.asarray([1, 1, 0]), np.asarray([True, False, False]),
                  np.asarray([0.2, 0.2, 0.5]), (2, 2))  # fmt: skip
    np.testing.assert_allclose(found.opened, [[0, 1], [0, 0]])
    np.testing.assert_allclose(found.messages, [[0, 1.2], [0.5, 0]])  # an open is a whole message


def test_what_is_special_of_a_segment_counts_as_far_as_it_is_more_than_chance() -> None:
    dice = np.random.default_rng(2)
    rates = np.asarray([[0.2, 0.3], [0.2, 0.3], [0.2, 0.3]])
    messages = np.full((3, 2), 4_000.0)
    alike = believed(Tally(dice.binomial(4_000, rates).astype(float), messages))[0]
    assert (alike[:, 1] - alike[:, 0]).std() < 0.03 and (alike[:, 1] > alike[:, 0]).all()
    crossed = np.asarray([[0.3, 0.2], [0.2, 0.3], [0.2, 0.3]])
    apart, spread = believed(Tally(dice.binomial(4_000, crossed).astype(float), messages))
    np.testing.assert_array_equal(apart.argmax(1), [0, 1, 1])
    truth = np.log(crossed / (1 - crossed))
    assert (np.abs(apart - truth) < 4 * spread).all() and spread.max() < 0.1
    nothing, wide = believed(Tally(np.zeros((2, 3)), np.zeros((2, 3))))
    assert np.ptp(nothing) < 1e-9 and wide.min() > 0.2


def test_no_variant_falls_below_the_floor_and_the_propensity_is_what_is_drawn_from() -> None:
    mean = np.log(np.asarray([[0.5, 0.2, 0.1]]))
    chance = chances(mean, np.full((1, 3), 0.01), 0.05)
    np.testing.assert_allclose(chance, [[0.9, 0.05, 0.05]], atol=1e-6)
    uniforms = np.random.default_rng(3).random(40_000)
    picked, propensity = choose(np.repeat(chance, 40_000, 0), uniforms)
    np.testing.assert_allclose(np.bincount(picked) / 40_000, chance[0], atol=0.005)
    np.testing.assert_array_equal(propensity, chance[0][picked])
    with pytest.raises(ConfigError, match="30 variants cannot each have a probability of 0.05"):
        chances(np.zeros((1, 30)), np.ones((1, 30)), 0.05)


def test_the_final_intervals_hold_where_segments_are_sent_different_variants() -> None:
    """Two segments, each sent what it likes: whoever weighs messages by their own propensity favours happy segments."""
    dice, truth = np.random.default_rng(5), np.asarray([[0.40, 0.36], [0.05, 0.08]])
    inside = 0
    for _ in range(100):
        segment, wave = dice.integers(2, size=4000), np.repeat([0, 1], 2000)
        liked = np.asarray([[0.97, 0.03], [0.03, 0.97]])[segment]
        propensity = np.where((wave == 0)[:, None], 0.5, liked)
        variant, _ = choose(propensity, dice.random(4000))
        opened = dice.random(4000) < truth[segment, variant]
        told = estimates(wave, variant, opened, propensity, 2, segment)
        means = truth[segment].mean(0)
        inside += int((np.abs(told.rate - means) <= 1.96 * told.error).sum())
    assert 0.9 <= inside / 200 <= 0.99


def test_the_final_intervals_hold_though_the_choice_followed_what_was_seen() -> None:
    """400 campaigns of five waves with two variants that are alike: the plain mean of either is too low."""
    dice = np.random.default_rng(4)
    inside, bias, plain = 0, [], []
    for _ in range(400):
        wave = np.repeat(np.arange(5), 200)
        variant, opened = np.zeros(1000, np.int64), np.zeros(1000, bool)
        propensity = np.zeros((1000, 2))
        for now in range(5):
            mine, past = wave == now, wave < now
            zero = np.zeros(int(past.sum()), np.int64)
            seen = tally(zero, variant[past], opened[past], np.ones(len(zero)), (1, 2))
            propensity[mine] = chances(*believed(seen), 0.05) if now else 0.5
            variant[mine], _ = choose(propensity[mine], dice.random(200))
            opened[mine] = dice.random(200) < 0.2
        told = estimates(wave, variant, opened, propensity, 2)
        inside += int((np.abs(told.rate - 0.2) <= 1.96 * told.error).sum())
        bias += (told.rate - 0.2).tolist()
        plain += [opened[variant == v].mean() - 0.2 for v in range(2)]
        assert told.best.sum() == pytest.approx(1)
    assert 0.92 <= inside / 800 <= 0.98
    assert abs(np.mean(bias)) < -0.7 * np.mean(plain)  # weights follow what was seen too: a little is left
