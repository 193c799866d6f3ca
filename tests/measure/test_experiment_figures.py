"""Effects of arms on hand-computed cases and against scipy, statsmodels and exact leave-one-out figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from playbill.errors import MeasureError
from playbill.measure.experiments.discovery import q_values
from playbill.measure.experiments.effects import Effect, Sample, compare
from playbill.measure.experiments.guardrails import Outcome, check
from playbill.measure.experiments.influence import of_mean, of_ratio, of_restricted_time
from playbill.measure.experiments.metrics import Better, Count, Guardrail, Kind, Metric
from playbill.measure.experiments.settings import Correction
from playbill.measure.sequential import difference_sequence, half_width_in_errors, progress_of


def means(arm: list[float], control: list[float]) -> tuple[Sample, Sample]:
    return Sample(figure=of_mean(np.array(arm))), Sample(figure=of_mean(np.array(control)))


def test_a_proportion_by_hand() -> None:
    # arm 3 of 4 = 0.75, control 1 of 4 = 0.25: difference 0.5, relative 0.75 / 0.25 - 1 = 2
    # variance of one person: p (1 - p) n / (n - 1) = 0.1875 * 4 / 3 = 0.25 in both; of the means 0.25 / 4 = 0.0625
    # standard error sqrt(0.0625 + 0.0625) = 0.353553; Welch with equal variances: 6 degrees, t(0.975) = 2.446912
    effect = compare(*means([1, 1, 1, 0], [1, 0, 0, 0]))
    assert effect.difference == 0.5 and effect.arm == 0.75 and effect.control == 0.25
    assert effect.standard_error == pytest.approx(0.3535534, abs=1e-7)
    assert effect.degrees == pytest.approx(6)
    assert (effect.low, effect.high) == pytest.approx(
        (0.5 - 2.446912 * 0.3535534, 0.5 + 2.446912 * 0.3535534), abs=1e-6
    )
    # the control's mean is 0.25 / sqrt(0.0625) = 1 standard error from 0: nothing is said relative to it
    assert effect.relative is None and effect.relative_low is None


def test_a_relative_effect_by_hand() -> None:
    # arm 11, 13: mean 12, variance 2, of the mean 1; control 9, 11: mean 10, variance 2, of the mean 1
    # relative 12 / 10 - 1 = 0.2; delta method: variance 1 / 10^2 + 12^2 / 10^4 * 1 = 0.01 + 0.0144 = 0.0244
    # 2 degrees of freedom, t(0.975) = 4.302653
    effect = compare(*means([11, 13], [9, 11]))
    assert effect.relative == pytest.approx(0.2)
    half = 4.3026527 * math.sqrt(0.0244)
    assert (effect.relative_low, effect.relative_high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)


def test_means_are_welchs_test() -> None:
    draw = np.random.default_rng(1)
    arm, control = draw.exponential(3, 90), draw.exponential(2, 40)
    ours = compare(Sample(figure=of_mean(arm)), Sample(figure=of_mean(control)), level=0.9)
    theirs = stats.ttest_ind(arm, control, equal_var=False)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.9)), rel=1e-9)


def test_a_ratio_by_hand() -> None:
    # three people: clicks 1, 0, 2 of 2, 2, 4 shown: 3 / 8 = 0.375, mean shown 8 / 3
    # influence (x - 0.375 y) / (8/3): (1 - 0.75) = 0.25, (0 - 0.75) = -0.75, (2 - 1.5) = 0.5, times 3/8
    figure = of_ratio(np.array([1, 0, 2]), np.array([2, 2, 4]))
    assert figure.value == 0.375
    assert figure.influence == pytest.approx([0.09375, -0.28125, 0.1875])


def test_a_ratio_with_equal_denominators_is_a_mean() -> None:
    clicks = np.array([0.0, 1, 3, 2, 0])
    ratio, mean = of_ratio(clicks, np.full(5, 4.0)), of_mean(clicks / 4)
    assert ratio.value == pytest.approx(mean.value)
    assert ratio.influence == pytest.approx(mean.influence)


def test_a_restricted_time_by_hand() -> None:
    # days 1 (bought), 2 (no longer watched), 3 (bought), 6 (watched until then), horizon 4
    # survival 1 on [0, 1), 3/4 on [1, 3), and of the 2 left on day 3 one buys: 3/8 on [3, 4)
    # area 1 + 2 * 3/4 + 1 * 3/8 = 2.875
    figure = of_restricted_time(np.array([1.0, 2, 3, 6]), np.array([True, False, True, False]), 4)
    assert figure.value == pytest.approx(2.875)
    # Greenwood: sum of area right of t squared * d / (r (r - d)): day 1: right 1.875, 1 / (4 * 3); day 3: 0.375, 1 / 2
    greenwood = 1.875**2 / 12 + 0.375**2 / 2
    assert figure.influence.sum() == pytest.approx(0, abs=1e-12)
    assert (figure.influence**2).sum() / 4**2 == pytest.approx(greenwood)


def test_a_restricted_time_of_people_all_watched_is_a_mean() -> None:
    days = np.array([0.0, 0.5, 3, 3, 8, 20])
    figure = of_restricted_time(days, np.ones(6, bool), 7)
    assert figure.value == pytest.approx(np.minimum(days, 7).mean())
    assert figure.influence == pytest.approx(np.minimum(days, 7) - np.minimum(days, 7).mean())


def test_a_restricted_time_is_the_area_under_statsmodels_curve() -> None:
    from statsmodels.duration.survfunc import SurvfuncRight

    draw = np.random.default_rng(2)
    days, watched = np.ceil(draw.exponential(9, 300)), np.ceil(draw.uniform(0, 20, 300))  # whole days: many ties
    seen, happened = np.minimum(days, watched), days <= watched
    figure = of_restricted_time(seen, happened, 10)
    curve = SurvfuncRight(seen, happened)
    times, heights = np.append(0, curve.surv_times), np.append(1, curve.surv_prob)
    inside = times < 10
    area = (heights[inside] * np.diff(np.append(times[inside], 10))).sum()
    assert figure.value == pytest.approx(area)
    # the influence of the curve at one day is Greenwood's error: compare over a horizon narrow enough to be that day
    at = np.searchsorted(curve.surv_times, 5, "right") - 1
    narrow = of_restricted_time(seen, happened, 6 - 1e-9).influence - of_restricted_time(seen, happened, 5).influence
    error = math.sqrt((narrow**2).sum()) / 300
    assert error == pytest.approx(curve.surv_prob_se[at], rel=1e-6)


def test_nobody_watched_to_the_horizon_has_no_restricted_time() -> None:
    with pytest.raises(MeasureError, match=r"nobody was watched for 14 days \(longest 3\)"):
        of_restricted_time(np.array([1.0, 3]), np.array([True, False]), 14)


def test_cuped_is_the_regression_on_arm_and_earlier_value() -> None:
    import statsmodels.api as sm

    draw = np.random.default_rng(3)
    before = draw.gamma(2, 2, 4000)
    arm = draw.random(4000) < 0.5
    now = before + draw.normal(size=4000) + 0.3 * arm
    effect = compare(*(Sample(figure=of_mean(now[x]), earlier=before[x]) for x in (arm, ~arm)))
    fit = sm.OLS(now, sm.add_constant(np.column_stack([arm, before]))).fit(cov_type="HC3")
    assert effect.difference == pytest.approx(fit.params[1], abs=2e-3)
    assert effect.standard_error == pytest.approx(fit.bse[1], rel=5e-3)
    rho = np.corrcoef(now - 0.3 * arm, before)[0, 1]
    assert effect.variance_reduction == pytest.approx(rho**2, abs=0.02)
    assert effect.plain_difference == pytest.approx(now[arm].mean() - now[~arm].mean())


def test_a_relative_effect_with_cuped_is_the_exact_jackknife() -> None:
    draw = np.random.default_rng(10)
    before = draw.gamma(4, 1, (2, 150))
    now = before * np.array([[3.0], [1.0]]) + draw.normal(size=(2, 150)) * 0.3  # three times as much: a large ratio

    def relative(x: np.ndarray, y: np.ndarray, x_before: np.ndarray, y_before: np.ndarray) -> Effect:
        return compare(
            Sample(figure=of_mean(x), earlier=x_before), Sample(figure=of_mean(y), earlier=y_before), level=0.95
        )

    whole = relative(now[0], now[1], before[0], before[1])
    variance = 0.0
    for side in (0, 1):
        for i in range(150):
            rows = [[now[0], now[1]], [before[0], before[1]]]
            for part in rows:
                part[side] = np.delete(part[side], i)
            without = relative(*rows[0], *rows[1]).relative
            assert without is not None and whole.relative is not None
            variance += 149 / 150 * (without - whole.relative) ** 2
    assert whole.relative is not None and whole.relative_high is not None
    error = (whole.relative_high - whole.relative) / stats.t.ppf(0.975, whole.degrees)
    assert error == pytest.approx(math.sqrt(variance), rel=0.04)  # to first order


def test_cuped_stays_away_where_one_person_is_the_whole_past() -> None:
    draw = np.random.default_rng(4)
    earlier = np.zeros(50)
    earlier[7] = 1000.0
    one = Sample(figure=of_mean(draw.normal(size=50)), earlier=earlier)
    other = Sample(figure=of_mean(draw.normal(size=50)), earlier=np.zeros(50))
    assert compare(one, other).variance_reduction is None


def test_equal_clusters_are_statsmodels_sandwich() -> None:
    import statsmodels.api as sm

    draw = np.random.default_rng(5)
    cluster = np.repeat(np.arange(80), 5)
    arm = cluster < 30
    now = draw.normal(size=80)[cluster] + draw.normal(size=400) + 0.5 * arm
    effect = compare(*(Sample(figure=of_mean(now[x]), cluster=cluster[x]) for x in (arm, ~arm)))
    fit = sm.OLS(now, sm.add_constant(arm.astype(float))).fit(
        cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}
    )
    # theirs without a correction: sums of squares by arm; ours scales each by clusters / (clusters - 1)
    sums = np.bincount(cluster, weights=now - fit.predict())
    theirs = (sums[:30] ** 2).sum() / 150**2 + (sums[30:] ** 2).sum() / 250**2
    assert fit.bse[1] == pytest.approx(math.sqrt(theirs))
    ours = (sums[:30] ** 2).sum() / 150**2 * 30 / 29 + (sums[30:] ** 2).sum() / 250**2 * 50 / 49
    assert effect.standard_error == pytest.approx(math.sqrt(ours))
    assert effect.clusters == 80 and not effect.warnings


def test_clusters_of_different_size_are_the_exact_jackknife() -> None:
    draw = np.random.default_rng(6)
    cluster = np.repeat(np.arange(12), draw.integers(1, 30, 12))
    now = draw.normal(size=12)[cluster] + draw.normal(size=len(cluster))
    arm = cluster < 6
    effect = compare(*(Sample(figure=of_mean(now[x]), cluster=cluster[x]) for x in (arm, ~arm)))
    variance = 0.0
    for side in (arm, ~arm):
        without = [now[side & (cluster != c)].mean() for c in np.unique(cluster[side])]
        variance += 5 / 6 * ((np.array(without) - now[side].mean()) ** 2).sum()
    assert effect.standard_error == pytest.approx(math.sqrt(variance))
    assert any("6 clusters in an arm" in w for w in effect.warnings)


def test_what_a_household_shares_cancels_between_arms() -> None:
    # five households of two, one person in each arm, who differ by exactly 1 but for noise of +-0.1
    base, noise = np.array([1.0, 5, 9, 13, 17]), np.array([0.1, -0.1, 0.1, -0.1, 0.0])
    home = np.arange(5)
    paired = compare(Sample(figure=of_mean(base + 1 + noise), cluster=home), Sample(figure=of_mean(base), cluster=home))
    # paired t: the differences 1.1, 0.9, 1.1, 0.9, 1.0 have standard deviation 0.1, the mean 0.1 / sqrt(5)
    assert paired.standard_error == pytest.approx(0.1 / math.sqrt(5))
    assert paired.degrees == 4
    assert any("5 clusters have people in both arms" in w for w in paired.warnings)


def test_always_valid_intervals_are_those_of_the_sequence() -> None:
    plain = compare(*means([3, 4, 5, 6] * 50, [2, 3, 4, 5] * 50))
    wide = compare(*means([3, 4, 5, 6] * 50, [2, 3, 4, 5] * 50), progress=0.5)
    assert wide.high - wide.difference == pytest.approx(float(half_width_in_errors(0.5)) * wide.standard_error)
    assert wide.high > plain.high and wide.p_value > plain.p_value


def test_always_valid_intervals_of_unequal_arms_are_those_of_the_sequence() -> None:
    """Means of 900 against 100 people, and ratios of as many households: one road, whatever the figure."""
    draw = np.random.default_rng(6)
    few, many = draw.lognormal(0, 0.4, 100), draw.lognormal(0, 1.2, 900)
    progress = float(progress_of(900, 100, 2000, (0.9, 0.1)))
    effect = compare(*means(few, many), progress=progress)
    arms = [(np.array([len(x)]), np.array([x.mean()]), np.array([x.var(ddof=1)])) for x in (many, few)]
    found = difference_sequence(*arms[0], *arms[1], planned_n=2000, shares=(0.9, 0.1))
    assert [effect.low, effect.high, effect.p_value] == pytest.approx([found.low[0], found.high[0], found.p_value[0]])
    # the small arm has shown little variance: the pooled error is the larger one
    assert effect.high - effect.difference > 1.5 * float(half_width_in_errors(progress)) * effect.standard_error

    def homes(values: np.ndarray, first: int) -> Sample:
        twice = np.repeat(values, 2)
        cluster = np.repeat(np.arange(first, first + len(values)), 2)
        return Sample(figure=of_ratio(twice, np.ones(len(twice))), cluster=cluster)

    by_home = compare(homes(few, 0), homes(many, 1000), progress=progress)
    assert [by_home.low, by_home.high, by_home.p_value] == pytest.approx([effect.low, effect.high, effect.p_value])


def test_without_variation_or_people_there_is_no_interval() -> None:
    with pytest.raises(MeasureError, match="nobody differs from anybody"):
        compare(*means([0, 0, 0], [0, 0, 0]))
    with pytest.raises(MeasureError, match="two people or more in both arms, got 1 and 3"):
        compare(*means([0], [0, 1, 0]))
    with pytest.raises(MeasureError, match="2 of 4 are no numbers, first row 1: nan, row 3: inf"):
        of_mean(np.array([1.0, math.nan, 2.0, math.inf]))
    with pytest.raises(MeasureError, match="denominators sum to 0"):
        of_ratio(np.zeros(3), np.zeros(3))


def test_a_skewed_metric_warns() -> None:
    few = [0.0] * 60 + [1000.0]
    assert any("skewed" in w for w in compare(*means(few, [0.0, 1.0] * 30)).warnings)
    assert not compare(*means([0.0, 1.0] * 400, [0.0, 1.0] * 400)).warnings


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 30), st.floats(0.1, 50), st.floats(-20, 20))
def test_effects_follow_units_and_sides(seed: int, n: int, m: int, factor: float, shift: float) -> None:
    """Other units scale the effect, a shift leaves it, and exchanging the arms turns its sign."""
    draw = np.random.default_rng(seed)
    a, b, before = draw.normal(2, 1, n), draw.normal(1, 1, m), draw.normal(size=n + m)

    def read(x: np.ndarray, y: np.ndarray, x_before: np.ndarray, y_before: np.ndarray) -> Effect:
        return compare(
            Sample(figure=of_mean(x), earlier=x_before), Sample(figure=of_mean(y), earlier=y_before), level=0.9
        )

    plain = read(a, b, before[:n], before[n:])
    moved = read(a * factor + shift, b * factor + shift, before[:n] * 3 - 7, before[n:] * 3 - 7)
    turned = read(b, a, before[n:], before[:n])
    assert moved.difference == pytest.approx(plain.difference * factor, rel=1e-6, abs=1e-9)
    assert moved.standard_error == pytest.approx(plain.standard_error * factor, rel=1e-6, abs=1e-12)
    assert turned.difference == pytest.approx(-plain.difference, rel=1e-9, abs=1e-12)
    assert turned.p_value == pytest.approx(plain.p_value, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from(list(Correction)))
def test_q_values_are_statsmodels(p: list[float], correction: Correction) -> None:
    from statsmodels.stats.multitest import multipletests

    method = {"bh": "fdr_bh", "by": "fdr_by"}[correction.value]
    assert q_values(p, correction) == pytest.approx(multipletests(p, method=method)[1], abs=1e-12)


def test_q_values_by_hand() -> None:
    # 0.01 * 3/1 = 0.03, 0.02 * 3/2 = 0.03, 0.04 * 3/3 = 0.04
    assert q_values([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.03])
    # Benjamini-Yekutieli: times 1 + 1/2 + 1/3 = 11/6
    assert q_values([0.04, 0.01, 0.02], Correction.by) == pytest.approx([0.04 * 11 / 6, 0.055, 0.055])
    with pytest.raises(MeasureError, match=r"1 of 2 do not, first row 1: nan"):
        q_values([0.5, math.nan])


@pytest.mark.parametrize(
    ("better", "low", "high", "outcome"),
    [
        # limit 10: the arm adds this much where lower is better
        (Better.LOWER, 28.0, 32.0, Outcome.FAIL),
        (Better.LOWER, -1.0, 4.0, Outcome.PASS),
        (Better.LOWER, 2.0, 6.0, Outcome.PASS),  # worse, and tolerated
        (Better.LOWER, 7.0, 15.0, Outcome.UNDECIDED),
        # and takes this much where higher is better
        (Better.HIGHER, -32.0, -28.0, Outcome.FAIL),
        (Better.HIGHER, -4.0, 50.0, Outcome.PASS),
        (Better.HIGHER, -15.0, -7.0, Outcome.UNDECIDED),
    ],
)
def test_a_guardrail_holds_the_interval_against_its_limit(
    better: Better, low: float, high: float, outcome: Outcome
) -> None:
    metric = Metric(kind=Kind.MEAN, count=Count(events=["x"]), better=better, guardrail=Guardrail(limit=10))
    # two people an arm at the middle +- d: the variance of a mean is d^2, t(0.975) with 2 degrees is 4.302653
    middle, half = (low + high) / 2, (high - low) / 2
    d = half / 4.3026527 / math.sqrt(2)
    effect = compare(*means([middle + 100 - d, middle + 100 + d], [100 - d, 100 + d]))
    assert (effect.low, effect.high) == pytest.approx((low, high), abs=1e-5)
    verdict = check(metric, effect)
    assert verdict.outcome is outcome
    assert verdict.harm == pytest.approx(middle if better is Better.LOWER else -middle)
