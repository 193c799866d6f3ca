"""A declaration in a file of one's own is a choice like those in conf/."""

from __future__ import annotations

from pathlib import Path

import pytest

from playbill.cli import compose
from playbill.errors import ConfigError

GOOD = "name: autumn\nblocks: [{name: picks, k: 3}]\nsubjects: copy.json\ncaps: [{most: 3, days: 7}]\n"


def test_a_file_is_a_choice_and_the_command_line_goes_before_it(tmp_path: Path) -> None:
    file = tmp_path / "autumn.yaml"
    file.write_text(GOOD)
    for job in ("campaign-run", "campaign-plan"):
        found = compose(job, [f"campaign={file}", "campaign.seed=7", "campaign.caps=[]"]).campaign
        assert (found.name, found.blocks[0].k, found.seed, found.caps) == ("autumn", 3, 7, [])
    file.write_text(GOOD.replace("k: 3", "k: 5"))
    assert compose("campaign-run", [f"campaign={file}"]).campaign.blocks[0].k == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("caps", "capps"), r"autumn.yaml, line 4: no field 'capps'; nearest is 'caps'$"),
        (GOOD.replace("k: 3", "k: 3, surfac: home"), r"line 2: no field 'blocks.0.surfac'; nearest is 'surface'$"),
        (
            GOOD + "holdouts:\n  everywhere: 0.1\n  campain: 0\n",
            "line 7: no field 'holdouts.campain'; nearest is 'campaign'",
        ),
        (
            GOOD + "offers:\n  levels:\n    - name: a\n      discout: 0.1\n",
            "line 8: no field 'offers.levels.0.discout'",
        ),
        ("name: [", "autumn.yaml cannot be read: while parsing.*line 1"),
        ("- a\n", "expected fields as in conf/campaign/"),
        (GOOD.replace("k: 3", "k: 0"), r"blocks\[0\].k"),
    ],
)
def test_what_is_wrong_in_it_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "autumn.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        compose("campaign-run", [f"campaign={file}"])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such.yaml cannot be read"):
        compose("campaign-run", [f"campaign={tmp_path}/no_such.yaml"])
