"""`playbill campaign copy`: propose, approve and reject the variants of a file, and say how each stands."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from playbill.campaign.brand import BrandRules, faults
from playbill.campaign.copy_file import Copy, add, judge, read_copy, sendable, write_copy
from playbill.campaign.copy_settings import CampaignCopySettings
from playbill.campaign.copywriter import EndpointCopyWriter
from playbill.errors import ConfigError, PlaybillError
from playbill.words.endpoint import Endpoint

console = Console(soft_wrap=True, highlight=False)


def run(settings: CampaignCopySettings) -> Copy:
    """Do what is asked, and show the file as it is then.

    Raises:
        ConfigError: no file named, no such file or variant, or rules that nothing can keep; the file stays as it was.
        PlaybillError: some of what was proposed breaks a rule; the rest is in the file.
        EndpointError: the writer does not answer; the file stays as it was.
    """
    if not settings.file:
        raise ConfigError("file: expected the path of a file of subjects: playbill campaign copy FILE")
    path = Path(settings.file)
    if settings.facts or settings.rules:
        _make(path, settings)
    copy = read_copy(path)
    refused = add(copy, settings.texts, settings.by, settings.images)
    if settings.wanted:
        writer = EndpointCopyWriter(Endpoint(settings.writer))
        written = writer.subjects(copy.facts, copy.rules, settings.wanted)
        refused += add(copy, written, f"model {settings.writer.model}")
    for names, approve in ((settings.approve, True), (settings.reject, False)):
        for name in names:
            judge(copy, name, settings.by, approve)
    if settings.texts or settings.wanted or settings.approve or settings.reject:
        write_copy(path, copy)  # once, so that all of it is done or nothing
    _show(path, copy)
    if refused:
        raise PlaybillError("not taken: " + "; ".join(refused))
    return copy


def _make(path: Path, settings: CampaignCopySettings) -> None:
    if path.exists():
        raise ConfigError(
            f"facts: {path} is there and has its own; change them in the file, and approve its variants again"
        )
    try:
        rules = msgspec.convert(settings.rules, BrandRules)
    except (msgspec.ValidationError, ConfigError) as error:
        raise ConfigError(f"rules: {error}") from None
    write_copy(path, Copy(facts=settings.facts, rules=rules))


def _show(path: Path, copy: Copy) -> None:
    may, why = sendable(copy)
    table = Table(title=f"{path}: {len(may)} of {len(copy.variants)} may be sent", title_justify="left")
    for name in ("", "text", "proposed by", "state", "by", "at"):
        table.add_column(name)
    names = {variant.name for variant in may}
    for variant in copy.variants:
        state = "changed since it was approved" if variant.state == "approved" and variant.name not in names else ""
        text = f"{variant.text} · {variant.image}" if variant.image else variant.text
        table.add_row(
            variant.name,
            text,
            variant.proposed_by,
            state or variant.state,
            variant.approved_by or variant.rejected_by,
            variant.at,
        )
    console.print(table)
    broken = [fault for v in copy.variants for fault in faults(v.name, v.text, copy.rules, copy.facts)]
    for line in dict.fromkeys([*broken, *why]):
        console.print(f"[yellow]{line}[/]")
