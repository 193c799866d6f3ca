"""A campaign's declaration: the one that is shipped, and the faults of others by the name of their field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from playbill import cli
from playbill.campaign.settings import Audience, Block, Campaign, Cap, Holdouts, QuietHours, Window
from playbill.errors import ConfigError

CONF = Path(cli.__file__).parent / "conf" / "campaign"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_what_is_shipped_is_a_declaration(name: str) -> None:
    ConfigStore.instance().store(group="campaign", name="declaration_schema", node=Campaign)
    with initialize_config_module("playbill.conf", version_base="1.3"):
        found = OmegaConf.to_object(compose(f"campaign/{name}")["campaign"])
    assert isinstance(found, Campaign) and found.name == name
    assert all(isinstance(block, Block) for block in found.blocks)


def test_the_weekly_list_comes_on_monday_morning() -> None:
    ConfigStore.instance().store(group="campaign", name="declaration_schema", node=Campaign)
    with initialize_config_module("playbill.conf", version_base="1.3"):
        found: Any = OmegaConf.to_object(compose("campaign/monday")["campaign"])
    assert found.window.weekdays == [0] and max(found.window.hours) < 12 and found.blocks[0].novelty_days == 180


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Big Sale"}, "name: expected a word"),
        ({"audience": Audience(file="a", filter="b = 1")}, "audience: file and filter"),
        ({"audience": Audience(filter="age >")}, "audience.filter: character"),
        ({"blocks": []}, "blocks: expected one at least"),
        ({"blocks": [Block(name="a"), Block(name="a")]}, "blocks: .* name of its own"),
        ({"blocks": [Block(name="a"), Block(name="b", k=0)]}, r"blocks\[1\].k: expected 1 to 1000, got 0"),
        ({"blocks": [Block(name="a", k=2, least=3)]}, r"blocks\[0\].least: expected 0 to 2, got 3"),
        ({"blocks": [Block(name="a", novelty_days=-1)]}, r"blocks\[0\].novelty_days"),
        ({"blocks": [Block(name="a", novelty_days=float("nan"))]}, r"blocks\[0\].novelty_days"),
        ({"blocks": [Block(name="a", filter="price <")]}, r"blocks\[0\].filter: character"),
        ({"blocks": [Block(name="a", surface="")]}, r"blocks\[0\].surface"),
        ({"purpose": ""}, "purpose: expected a word"),
        ({"channels": []}, "channels: expected one"),
        ({"channels": ["email", "e mail"]}, r"channels\[1\]"),
        ({"quiet": QuietHours(from_hour=24)}, "quiet.from_hour: expected 0 to 23, got 24"),
        ({"caps": [Cap(most=-1, days=1)]}, r"caps\[0\].most"),
        ({"caps": [Cap(most=1, days=0)]}, r"caps\[0\].days"),
        ({"caps": [Cap(most=1, days=1, channel="push")]}, r"caps\[0\].channel: 'push' is none of email"),
        ({"holdouts": Holdouts(everywhere=1.5)}, "holdouts.everywhere: expected 0 to 1, got 1.5"),
        ({"holdouts": Holdouts(campaign=-0.1)}, "holdouts.campaign"),
        ({"holdouts": Holdouts(salt="")}, "holdouts.salt"),
        ({"window": Window(start="soon")}, "window.start: expected a time"),
        ({"window": Window(days=8)}, "window.days"),
        ({"window": Window(hours=[])}, "window.hours: expected one"),
        ({"window": Window(weekdays=[0, 7])}, r"window.weekdays\[1\]: expected 0 to 6, got 7"),
        ({"window": Window(timezone="Nowhere/Land")}, "window.timezone: 'Nowhere/Land' is no IANA"),
        ({"window": Window(explore=2)}, "window.explore"),
        ({"subjects": ""}, "subjects: expected the path"),
        ({"bought_days": -1}, "bought_days"),
    ],
)
def test_a_fault_names_its_field(fields: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"name": "a", "blocks": [Block(name="a")], "subjects": "subjects.json"}
    assert Campaign(**good).name == "a"
    with pytest.raises(ConfigError, match=f"^{said}"):
        Campaign(**{**good, **fields})
