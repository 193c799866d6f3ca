"""Settings of the jobs `track` and `dashboard`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class TrackSettings:
    """Hand bundles and what was said of them over to Weights & Biases: each bundle is one run there.

    Evaluation, gate and every other report of a bundle, and the batches and campaigns made with it, go to the bundle's
    run; its files become an artifact, made of the artifacts of its data and of its training runs. What was handed over
    and did not change is left alone. Without WANDB_API_KEY all goes to <home>/tracking, for `wandb sync` to send.

        playbill train logger=wandb         figures of the training, as they come
        playbill track                      every bundle of this home
        playbill track bundle=0f16bdd2da95  one
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    bundle: str = ""
    """Version of the bundle; empty = all."""
    wandb_project: str = "playbill"
    """Project that is written to."""
    force: bool = False
    """Hand over again what was handed over and did not change."""


@dataclass(slots=True, kw_only=True)
class DashboardSettings:
    """Show runs, sweeps and bundles: always as one page, <home>/dashboard/index.html, that needs nothing else.

    With WANDB_API_KEY set, a workspace with the same panels is made in the project, by the public API; its address is
    printed. The workspace shows what `logger=wandb` and `playbill track` handed over.

        playbill dashboard
        playbill dashboard wandb_project=shop entity=my-team
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    wandb_project: str = "playbill"
    """Project of the workspace."""
    entity: str | None = None
    """User or team that the project belongs to; null = the key's own."""
    name: str = "Playbill"
    """Of the workspace."""
    most_runs: int = 12
    """Newest runs drawn as curves in the page; all of them stand in its table."""

    def __post_init__(self) -> None:
        if self.most_runs < 1:
            raise ConfigError(f"most_runs must be >= 1, got {self.most_runs}")
