"""What a gate found: `report/gate.json` of a bundle."""

from __future__ import annotations

import msgspec

from playbill.release.rule_changes import Change
from playbill.release.rules import Judged


class GateReport(msgspec.Struct, kw_only=True):
    """`report/gate.json`.

    Attributes:
        evaluation: fingerprint of the evaluation that was judged.
        against: version of the bundle in use that it was measured beside; empty where there was none.
        preset: file of conf/gate/ that the rules are from; empty where they are of none.
        changed: how they differ from that file.
    """

    bundle: str
    passed: bool
    at: str
    evaluation: str
    against: str = ""
    preset: str = ""
    changed: list[Change] = []
    rules: list[Judged]

    def by(self) -> str:
        """Return by which rules it was judged, every change to them named."""
        if not self.preset:
            return "of no file in conf/gate/"
        return f"{self.preset}{', changed: ' if self.changed else ''}{'; '.join(c.in_words() for c in self.changed)}"

    def loosened(self) -> bool:
        """Return whether it was judged by less than what a file in conf/gate/ asks."""
        return not self.preset or any(change.looser for change in self.changed)
