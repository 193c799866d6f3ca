"""A server that runs is told apart from the one that is asked for by the settings that differ, each by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from playbill.errors import ConfigError
from playbill.serving.serve import _refuse_changes
from playbill.serving.settings import ServeSettings
from playbill.serving.slatelog.settings import SlateLogSettings
from playbill.serving.watch_settings import LogForm, WatchSettings


def test_the_settings_that_differ_are_named_old_and_new() -> None:
    running = ServeSettings(home="/shop", bundle="a")
    watch = WatchSettings(log=LogForm.json, slates=replace(SlateLogSettings(), durable=not SlateLogSettings().durable))
    with pytest.raises(ConfigError) as caught:
        _refuse_changes(replace(running, bundle="b", replicas=running.replicas + 1, watch=watch), running)
    said = str(caught.value)
    durable = SlateLogSettings().durable
    assert f"(replicas {running.replicas} -> {running.replicas + 1}, " in said
    assert "watch.log text -> json" in said and f"watch.slates.durable {durable} -> {not durable}" in said
    assert "Settings(" not in said and "traces" not in said


def test_another_bundle_alone_is_a_swap() -> None:
    running = ServeSettings(home="/shop", bundle="a")
    _refuse_changes(replace(running, bundle="b", stop=True), running)
