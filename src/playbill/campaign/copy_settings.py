"""Settings of `playbill campaign copy`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from playbill.errors import ConfigError
from playbill.words.settings import EndpointSettings


@dataclass(slots=True, kw_only=True)
class CampaignCopySettings:
    """`playbill campaign copy autumn.json` shows a file of subjects, or of heroes: who proposed what, who approved it,
    and which brand rule each breaks. Nothing is sent but what somebody approved here and nobody changed since.

        playbill campaign copy autumn.json 'facts=["Half price until Sunday"]' 'rules={banned: [free]}'
        playbill campaign copy autumn.json 'texts=["Half price until Sunday"]' by=ada
        playbill campaign copy autumn.json wanted=5 writer.url=http://127.0.0.1:11434/v1 writer.model=NAME
        playbill campaign copy autumn.json approve=[v1,v3] reject=[v2] by=grace

    `playbill campaign run campaign.subjects=autumn.json` sends them.
    """

    file: str = ""
    """The file; it is made where there is none and facts or rules are given."""
    facts: list[str] = field(default_factory=list)
    """Of a new file: what may be claimed, in the words in which it may be."""
    rules: dict[str, Any] = field(default_factory=dict)
    """Of a new file: length, banned, claims, tokens, required; see src/playbill/campaign/brand.py."""
    texts: list[str] = field(default_factory=list)
    """Variants that `by` proposes."""
    images: list[str] = field(default_factory=list)
    """Of heroes: where the picture of each of the texts is."""
    wanted: int = 0
    """Variants that the writer is asked for."""
    approve: list[str] = field(default_factory=list)
    """Names of variants that `by` approves."""
    reject: list[str] = field(default_factory=list)
    """Names of variants that `by` rejects."""
    by: str = ""
    """Who proposes, approves or rejects."""
    writer: EndpointSettings = field(default_factory=EndpointSettings)
    """A model that proposes; without a url there is none."""

    def __post_init__(self) -> None:
        if (self.texts or self.approve or self.reject) and not self.by.strip():
            raise ConfigError("by: expected the name of whoever proposes, approves or rejects, got none")
        if self.images and len(self.images) != len(self.texts):
            raise ConfigError(f"images: expected one for each of {len(self.texts)} texts, got {len(self.images)}")
        if not 0 <= self.wanted <= 100:
            raise ConfigError(f"wanted: expected 0 to 100, got {self.wanted}")
        if self.wanted and self.writer.url is None:
            raise ConfigError("writer.url: expected the endpoint of a model, since variants are wanted; got none")
        both = sorted(set(self.approve) & set(self.reject))
        if both:
            raise ConfigError(f"approve: {', '.join(both)} are to be rejected too; say one of both")
