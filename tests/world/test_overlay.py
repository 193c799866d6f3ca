"""A file of one's own numbers changes what it names and nothing else, and is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from playbill import cli
from playbill.errors import ConfigError
from playbill.world.overlay import overlay
from playbill.world.parameters import Clicks, Parameters, field_names
from playbill.world.ranges import RANGES


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def test_what_is_named_changes_and_the_rest_stays(tmp_path: Path) -> None:
    base = Parameters(name="hard", clicks=Clicks(taste=1.25))
    text = "name: mine\nclicks: {base: -2, device: {tv: 0.75}, examination: [1, 0.5]}\nswitches: {drift: false}\n"
    mine = overlay(base, write(tmp_path, text))
    assert mine.name == "mine" and mine.clicks.base == -2 and mine.clicks.taste == 1.25
    assert mine.clicks.device == {"mobile": 0.0, "desktop": -0.1, "tv": 0.75}
    assert mine.clicks.examination == [1, 0.5] and not mine.switches.drift and mine.switches.taste
    assert mine.messages == base.messages and mine.population == base.population
    assert base == Parameters(name="hard", clicks=Clicks(taste=1.25)), "the base stays as it was"


def test_a_shipped_preset_is_such_a_file() -> None:
    shipped = Path(cli.__file__).parent / "conf" / "world" / "hard.yaml"
    hard = overlay(Parameters(), shipped)
    assert hard.name == "hard" and hard.population.anonymous_share == 0.6
    assert hard == cli.compose("generate", ["world=hard"]).world, "and means the same as the preset"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clicks: {tatse: 1}", r"no field 'clicks.tatse'; nearest is 'clicks.taste'"),
        ("klicks: {taste: 1}", r"no field 'klicks'; nearest is 'clicks"),
        ("defaults: [something]", "no field 'defaults'"),
        ("clicks: 3", "clicks must be a mapping of its fields, got 3"),
        ("clicks:", "clicks must be a mapping of its fields, got None"),
        ("clicks: {taste: {deep: 1}}", r"Expected `float`, got `object` - at `\$.clicks.taste`"),
        ("clicks: {taste: strong}", r"Expected `float`, got `str` - at `\$.clicks.taste`"),
        ("switches: {drift: 1}", "Expected `bool`, got `int`"),
        ("clicks: {taste: .nan}", r"clicks.taste=nan \(allowed -50..50\)"),
        ("feedback_rate: 1.5", r"feedback_rate=1.5 \(allowed 0..1\)"),
        ("clicks: {examination: [1, 1.2]}", r"clicks.examination\[1\]=1.2 \(allowed 0..1\)"),
        ("purchases: {kinds: {sure: 0.5}}", r"purchases.kinds must sum to 1"),
        ("purchases: {kind_base: {new: 0.5}}", r"purchases.kind_base must name the kinds"),
        ("messages: {send_hours: [3, 3]}", r"messages.send_hours must name each hour once, got \[3, 3\]"),
        ("- 1", "must be a mapping such as"),
        ("", "must be a mapping such as"),
        ("clicks: {", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as error:
        overlay(Parameters(), file)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: .*No such file"):
        overlay(Parameters(), tmp_path / "nowhere.yaml")


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "feedback_rate: -1\ndelays: {most_h: 100}\n")
    with pytest.raises(
        ConfigError, match=r"feedback_rate=-1.0 .*delays.most_h=100.0|delays.most_h=100.0 .*feedback_rate=-1.0"
    ):
        overlay(Parameters(), file)


def test_every_range_belongs_to_a_field() -> None:
    assert set(RANGES) <= set(field_names(Parameters()))
