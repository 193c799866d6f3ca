"""Settings of the job `tune`."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.dataset.settings import SplitSettings
from playbill.release.rival_settings import RivalSettings


@dataclass(slots=True, kw_only=True)
class TuneSettings:
    """`playbill tune`: the numbers of every baseline, picked on validation, and the baselines fitted with them.

    Popularity, trending, both item-kNNs, EASE and iALS. `playbill export` puts them into the bundle; evaluate and
    reproduce take the same numbers instead of searching again. Stopped in the middle and started again, it goes on.

        playbill tune                                                   the demo's tables
        playbill tune tables=my_shop split.kind=leave_last_out          each person's last event is held out
        playbill tune 'rivals.order_most=[500]' rivals.refine=3         a longer table, a finer search
    """

    home: str = "var"
    """Root of all that Playbill writes; this job writes <home>/runs/<run>."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    run: str | None = None
    """Name of the run; null = <tables>-baselines, which export and evaluate look for."""
    split: SplitSettings = field(default_factory=SplitSettings)
    """What is held out: validation picks, and nothing of the test part is looked at."""
    rivals: RivalSettings = field(default_factory=RivalSettings)
    """What is tuned over."""
    force: bool = False
    """Search again although nothing changed."""

    @property
    def run_name(self) -> str:
        return self.run or f"{self.tables}-baselines"
