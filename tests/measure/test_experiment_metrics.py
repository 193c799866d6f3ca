"""Declarations of metrics: the shipped ones, one's own, and every way to get them wrong."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from playbill.errors import ConfigError
from playbill.measure.experiments.metrics import Better, Kind, Take, declared, parse

SHIPPED = {
    "conversion": Kind.PROPORTION,
    "revenue_per_visitor": Kind.MEAN,
    "click_through": Kind.RATIO,
    "time_to_purchase": Kind.TIME,
    "repeat_visit": Kind.PROPORTION,
    "session_depth": Kind.RATIO,
    "feature_adoption": Kind.PROPORTION,
    "churn": Kind.PROPORTION,
    "latency": Kind.RATIO,
    "error_rate": Kind.RATIO,
    "unsubscribes": Kind.PROPORTION,
}


def test_the_usual_metrics_ship() -> None:
    metrics = declared()
    assert {name: metric.kind for name, metric in metrics.items()} == SHIPPED
    assert {name for name, metric in metrics.items() if metric.guardrail} == {"latency", "error_rate", "unsubscribes"}
    assert all(metric.meaning for metric in metrics.values())
    lower = {name for name, metric in metrics.items() if metric.better is Better.LOWER}
    assert lower == {"time_to_purchase", "churn", "latency", "error_rate", "unsubscribes"}


def test_the_comment_of_the_shipped_file_names_every_field() -> None:
    from playbill.measure.experiments.metrics import Count, Guardrail, Metric

    comment = "\n".join(
        line
        for line in files("playbill.measure.experiments").joinpath("metrics.yaml").read_text().splitlines()
        if line.startswith("#")
    )
    for cls in (Metric, Count, Guardrail):
        missing = [field for field in cls.__struct_fields__ if f"{field}:" not in comment]
        assert not missing, f"metrics.yaml does not explain {missing}"


def test_own_metrics_stand_beside_the_shipped_ones(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(
        "minutes_watched: {kind: mean, count: {events: [play], take: value}, window_days: null, cap: 600}\n"
        "conversion: {kind: proportion, count: {events: [subscribe]}, window_days: 7}\n"
    )
    metrics = declared(str(own))
    assert set(metrics) == {*SHIPPED, "minutes_watched"}
    assert metrics["minutes_watched"].window_days is None and metrics["minutes_watched"].count.take is Take.VALUE
    assert metrics["conversion"].count.events == ["subscribe"]
    assert list(declared(str(own), ["churn", "minutes_watched"])) == ["churn", "minutes_watched"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m: {knid: mean, count: {events: [x]}}", "mine: m: no field 'knid'; nearest is 'kind'"),
        ("m: {kind: mean, count: {event: [x]}}", "mine: m.count: no field 'event'; nearest is 'events'"),
        ("m: {kind: mean, count: {events: [x]}, guardrail: {limits: 1}}", "m.guardrail: no field 'limits'; nearest is"),
        ("m: {kind: men, count: {events: [x]}}", "m: Invalid enum value 'men'"),
        ("m: {kind: mean}", "m: Object missing required field `count`"),
        ("m: {kind: mean, count: {}}", "count `events` or `decisions`, one of the two"),
        ("m: {kind: mean, count: {events: [x], decisions: [item]}}", "one of the two"),
        ("m: {kind: mean, count: {decisions: [itme]}}", "no decisions of kind 'itme'; nearest is 'item'"),
        ("m: {kind: mean, count: {decisions: [item], take: value}}", "decisions carry no value"),
        ("m: {kind: mean, count: {events: [x], needs: [sesion_id]}}", "nearest is 'session_id'"),
        ("m: {kind: ratio, count: {events: [x]}}", "`per`, the denominator, belongs to kind: ratio"),
        ("m: {kind: mean, count: {events: [x]}, per: {events: [y]}}", "`per`, the denominator, belongs to kind: ratio"),
        ("m: {kind: mean, count: {events: [x]}, at_least: 2}", "`at_least` and `absent` belong to kind: proportion"),
        ("m: {kind: time, count: {events: [x]}, window_days: null}", "kind: time needs window_days"),
        ("m: {kind: time, count: {events: [x]}, from_days: 2}", "kind: time starts at the assignment"),
        ("m: {kind: mean, count: {events: [x]}, cap: -1}", "`cap` is a number > 0"),
        ("m: {kind: mean, count: {events: [x]}, from_days: 14}", "the days counted end at window_days=14"),
        ("m: {kind: mean, count: {events: [x]}, guardrail: {}}", "`limit` or `relative_limit`, one of the two"),
        ("m: {kind: mean, count: {events: [x]}, guardrail: {limit: -1}}", "one of the two, >= 0"),
        (
            "m: {kind: mean, count: {events: [x]}, better: neither, guardrail: {limit: 1}}",
            "which direction is worse",
        ),
        ("m: [1, 2]", "expected a name, and below it"),
        ("m: {", "is no YAML"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "mine")
    assert words in str(caught.value)


def test_unknown_names_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no metric 'convresion'; nearest is 'conversion'"):
        declared("", ["convresion"])
    with pytest.raises(ConfigError, match="cannot be read"):
        declared(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "field", ["window_days: .nan", "window_days: .inf", "at_least: .nan", "guardrail: {limit: .nan}"]
)
def test_numbers_of_a_metric_are_numbers(field: str) -> None:
    with pytest.raises(ConfigError, match="is no number: (nan|inf)"):
        parse(f"m: {{kind: proportion, better: higher, count: {{events: [click]}}, {field}}}".encode(), "here")
