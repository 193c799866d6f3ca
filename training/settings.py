"""Settings of the jobs `train` and `export`. Imports nothing heavy: `playbill train --help` answers at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbill.dataset.settings import SplitSettings
from playbill.errors import ConfigError
from playbill.features.settings import FeatureSettings
from playbill.index.settings import IndexSettings

if TYPE_CHECKING:
    from playbill.training.ranking_settings import Ranker


class Query(Enum):
    """How a history becomes a query vector."""

    pooled = "pooled"  # weighted views of the history: the cheapest to train and to serve
    gru = "gru"  # a recurrent network
    sasrec = "sasrec"  # a causal transformer
    hstu = "hstu"  # pointwise attention with biases for distance in places (and time): the best where order matters


class Similarity(Enum):
    """What query and item vectors are compared by while training; exported vectors have unit length either way."""

    cosine = "cosine"  # bounded, divided by `temperature`
    dot = "dot"  # free length, so an item can be liked by many: learns faster; temperature has no part


class Loss(Enum):
    """What a position's next item is compared with."""

    full_softmax = "full_softmax"  # every item of the catalogue; exact, and the better choice up to some 50,000 items
    uniform = "uniform"  # a sample of the catalogue, drawn evenly
    in_batch = "in_batch"  # items that are next somewhere in the step, corrected for how often that is (logQ)
    mixed = "mixed"  # some of both, corrected likewise
    gbce = "gbce"  # a sample drawn evenly, each for itself: generalised binary cross-entropy


class Tables(Enum):
    """How embedding tables are kept and updated."""

    dense = "dense"  # replicated, with Adam: right where a step touches most rows (full_softmax, small catalogues)
    fused = "fused"  # sharded by TorchRec, row-wise Adagrad inside the backward pass: cost follows the touched rows


class Weights(Enum):
    """In what the ranker's graph holds its numbers."""

    float32 = "float32"
    half_tables = "half_tables"  # tables in half precision: half the bytes, answers off by about 1e-4
    int8 = "int8"  # products of 8 bits: quicker, answers off by about 1e-2


class Logger(Enum):
    """Where figures go besides metrics.csv in the run folder."""

    csv = "csv"  # nowhere else
    wandb = "wandb"  # Weights & Biases; written to the run folder alone when WANDB_API_KEY is not set


@dataclass(slots=True, kw_only=True)
class TwoTower:
    """Retrieval: a query tower over the history and an item tower, trained on all positions of all histories."""

    name: str = "two_tower"
    """Ends the run's folder name; leave it."""
    query: Query = Query.pooled
    """pooled, gru, sasrec or hstu."""
    dim: int = 64
    """Width of the item table, of all layers and of both towers' output."""
    blocks: int = 2
    """Layers of the query tower; pooled has one."""
    heads: int = 4
    """Attention heads (pooled: views of the history)."""
    time_bias: bool = False
    """Attention also knows how long ago an event was; half as fast, worth it where times are exact."""
    field_dim: int = 16
    """Width of the tables of all other features."""
    hidden: int = 64
    """Width of the hidden layer where content of items, and fields of people and moments, are mixed in."""
    dropout: float = 0.2
    """Share of inputs dropped in the towers while training, 0 <= x < 1."""
    similarity: Similarity = Similarity.dot
    """dot or cosine."""
    temperature: float = 0.07
    """cosine: divided by it before the softmax; small sharpens."""
    loss: Loss = Loss.full_softmax
    """full_softmax, uniform, in_batch, mixed or gbce."""
    label_smoothing: float = 0.0
    """Share of the target spread over the whole catalogue (full_softmax only), 0 <= x < 1."""
    negatives: int = 512
    """Sampled losses: negatives that each position is compared with."""
    negative_groups: int = 8
    """Sampled losses: parts of a step that have negatives of their own; cost grows with positions times negatives."""
    mixed_share: float = 0.5
    """loss=mixed: share of the negatives drawn evenly from the catalogue, 0 < x < 1."""
    gbce_t: float = 0.75
    """loss=gbce: 0 = plain binary cross-entropy, 1 = probabilities as calibrated as without sampling."""
    unknown_share: float = 0.02
    """Share of items that lose their id for a step while training, so that new items can stand on content alone."""
    stale_share: float = 0.7
    """Share of events learned from a random older state of the history: teaches what comes later, not next."""
    empty_share: float = 0.05
    """Share of events learned from an empty history: teaches what to show to a newcomer."""
    away_days: float = 1.0
    """What a person did after being away so long is learned from what was known before; 0 = no such difference."""
    visit_share: float = 0.02
    """Share of all other events that is learned, where away_days makes a difference: what a visit brings next says
    little of the visits to come. Rises to 1 where fewer than a tenth of the events follow an absence."""
    half_life_days: float = 14.0
    """Age at which a training event's weight has halved, down to weight_floor; 0 = all weigh the same."""
    weight_floor: float = 0.1
    """Weight of the oldest training events relative to the newest, 0 <= x <= 1."""
    tables: Tables = Tables.dense
    """dense or fused."""
    batch_tokens: int = 1024
    """Events a step, all processes together."""
    max_epochs: int = 10
    """Passes over the training events at most."""
    patience_epochs: int = 5
    """Stop after so many validations without a better metric; 0 = never."""
    validate_every: int = 1
    """Epochs between validations."""
    averaging: float = 0.0
    """Weights that are validated and used are a running mean with this memory (0.999: a thousand steps); 0 = off."""
    learning_rate: float = 0.002
    """Of Adam, for dense parameters; it rises over warmup_steps and falls to a tenth along a cosine."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from nothing."""
    table_learning_rate: float = 0.05
    """Of row-wise Adagrad, when tables=fused; follows the same curve."""
    weight_decay: float = 0.1
    """Decoupled, per step and learning rate, on dense parameters (on the tables too when tables=dense)."""

    def __post_init__(self) -> None:
        check_model(self)
        for name in ("heads", "blocks", "batch_tokens", "negatives", "negative_groups", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must be >= 1, got {getattr(self, name)}")
        if self.dim % self.heads:
            raise ConfigError(f"model.dim ({self.dim}) must be a multiple of model.heads ({self.heads})")
        if not self.temperature > 0:
            raise ConfigError(f"model.temperature must be > 0, got {self.temperature}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"model.label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.away_days < 0 or not 0 < self.visit_share <= 1:
            raise ConfigError(
                f"model.away_days must be >= 0 and visit_share in (0, 1], got {self.away_days} and {self.visit_share}"
            )
        if self.warmup_steps < 0:
            raise ConfigError(f"model.warmup_steps must be >= 0, got {self.warmup_steps}")
        if not 0 <= self.averaging < 1:
            raise ConfigError(f"model.averaging must be in [0, 1), got {self.averaging}")
        if not 0 < self.mixed_share < 1 or not 0 <= self.gbce_t <= 1:
            raise ConfigError(
                f"model.mixed_share must be in (0, 1) and gbce_t in [0, 1], got {self.mixed_share} and {self.gbce_t}"
            )


def filled_columns(models: Sequence[TwoTower]) -> int:
    """Return how many columns fill exported item vectors up to unit length: 4 where vectors of free length are among
    them, so that rows stay a multiple of 16 bytes."""
    return 4 if any(m.similarity is Similarity.dot for m in models) else 0


class Effort(Enum):
    """How long a preset may train. What comes later is learned as quickly either way: `best` has more runs of it."""

    fast = "fast"  # about ten minutes on two cores for a million events
    best = "best"  # about an hour, and several runs side by side: `playbill export` puts them in one bundle


class Aim(Enum):
    """What a preset's model is asked for."""

    auto = "auto"  # next for a leave-last-out split, later for a split by time
    next = "next"  # the very next event: sessions, feeds
    later = "later"  # whatever comes: mails, home pages


@dataclass(slots=True, kw_only=True)
class Preset:
    """A retrieval model chosen by the data's size and shape; config.json of the run says what was chosen.

    It also chooses features.history_length where that is left as it is, and precision: bf16-mixed where the hardware
    has it.
    """

    name: str = "two_tower"
    """Ends the run's folder name; leave it."""
    effort: Effort = Effort.fast
    """fast or best."""
    aim: Aim = Aim.auto
    """auto, next or later."""


@dataclass(slots=True, kw_only=True)
class TrainSettings:
    """Train a model on prepared tables and leave it in <home>/runs/<tables>-<model>.

    Rerun with nothing changed: says "up to date". Stopped in the middle: goes on from the last checkpoint, and ends
    with the same weights. Changed: starts afresh and says so. The ranker needs a finished two_tower run of the same
    tables.

        playbill train                                        the retrieval model on the demo's tables
        playbill train model=ranker                           then the ranker
        playbill train model=creative tables=my_shop          which image of an item a person answers, from decisions
        playbill train warm_start=current since=2026-11-20    go on from the published bundle with what is new
        playbill train refit=my_shop-two_tower                learn validation time too, as long as that run did best
        playbill train model=fast tables=my_shop              a model chosen by the data's size and shape
        playbill train model.loss=in_batch model.tables=fused for catalogues too large for a full softmax
        python -m torch.distributed.run --nproc-per-node 2 -m playbill.cli train     two processes
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    run: str | None = None
    """Name of the run's folder; null = <tables>-<model>, and -warm or -refit behind it for those."""
    model: Any = None  # TwoTower, Preset or Ranker: a declared type would shut out the others
    """A choice: two_tower (what null means), fast or best (chosen by the data), ranker, creative, response."""
    retrieval_run: str | None = None
    """ranker and creative only: the finished two_tower run whose scores or vectors it reads; null =
    <tables>-two_tower."""
    warm_start: str | None = None
    """two_tower only: begin with the weights of this bundle's run, vocabularies grown: a version, or `current`."""
    since: str | None = None
    """two_tower only: learn events from this moment on (ISO 8601, UTC where no zone is named); null = all. Histories
    still reach back before it."""
    refit: str | None = None
    """A finished two_tower run that is made again from training and validation time together: its model, features,
    split and seed, and as many passes as validation found best. Nothing is left to validate it on, only to test."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """What enters the models; the ranker needs the same as its retrieval run."""
    split: SplitSettings = field(default_factory=SplitSettings)
    """Which events train, validate and test."""
    seed: int = 1
    """Of weights, order, dropout and negatives. Same seed, machine and process count: same weights, bit for bit."""
    precision: str = "32-true"
    """32-true, or bf16-mixed on CPUs with amx_bf16 or avx512_bf16 and on GPUs."""
    accumulate_grad_batches: int = 1
    """Only 1: embedding tables are updated inside each backward pass."""
    gradient_clip: float = 1.0
    """Largest norm of the dense gradients; 0 = no limit."""
    metric_k: int = 10
    """The validation metric is ndcg_at_<k> over the full catalogue, seen items left out."""
    checkpoint_every_steps: int = 100
    """Steps between writes of last.ckpt, from which a stopped run goes on."""
    log_every_steps: int = 20
    """Steps whose mean loss makes one row of metrics.csv."""
    stream_above_events: int = 10_000_000
    """Logs of more events are folded through files under <home>/cache and read from there; changes no result."""
    threads: int = 0
    """Threads of torch in each process; 0 = OMP_NUM_THREADS where set, else this process's share of the cores."""
    logger: Logger = Logger.csv
    """csv or wandb."""
    wandb_project: str = "playbill"
    """Project that logger=wandb writes to."""
    force: bool = False
    """Train again although a finished run with the same settings and data is there."""

    def __post_init__(self) -> None:
        self.model = TwoTower() if self.model is None else self.model
        for name in ("run", "refit", "retrieval_run"):
            given = getattr(self, name)
            if given is not None and (not given or given.startswith(".") or Path(given).name != given):
                raise ConfigError(f"{name} must be the name of a folder in <home>/runs, got {given!r}")
        known = [("", self), ("model.", self.model)] if is_dataclass(self.model) else [("", self)]  # else: from a json
        for where, settings in known:
            for name in (f.name for f in fields(settings)):
                value = getattr(settings, name)
                if isinstance(value, float) and not math.isfinite(value):
                    raise ConfigError(f"{where}{name} must be finite, got {value}")
        if self.accumulate_grad_batches != 1:
            raise ConfigError(
                f"accumulate_grad_batches must be 1, got {self.accumulate_grad_batches}: embedding tables are updated "
                "inside each backward pass, so gradients cannot be gathered over several; raise model.batch_tokens "
                "(model.batch_size of a ranker)"
            )
        if self.precision not in ("32-true", "bf16-mixed"):
            why = ": fp16 needs scaled gradients, which the fused tables would apply as they are" * (
                "16" in self.precision
            )
            raise ConfigError(f"precision must be 32-true or bf16-mixed, got {self.precision!r}{why}")
        if self.since is not None:
            self.since_us()
        if self.refit is not None and (self.warm_start is not None or self.since is not None):
            raise ConfigError(
                "refit learns from nothing, as the run it names did: it goes with neither warm_start nor since"
            )
        for name in ("metric_k", "checkpoint_every_steps", "log_every_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("seed", "gradient_clip", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")

    def since_us(self) -> int | None:
        """Return `since` in UTC microseconds, None for all events.

        Raises:
            ConfigError: not a moment.
        """
        if self.since is None:
            return None
        try:
            moment = datetime.fromisoformat(self.since)
        except ValueError as error:
            raise ConfigError(f"since must be a moment such as 2026-11-20T06:00, got {self.since!r}") from error
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1e6)

    @property
    def run_name(self) -> str:
        if self.run is not None:
            return self.run
        if self.refit is not None:
            return f"{self.refit}-refit"
        return f"{self.tables}-{self.model.name}" + ("" if self.warm_start is None else "-warm")


@dataclass(slots=True, kw_only=True)
class ExportSettings:
    """Write trained models, index and baselines into a staged bundle, <home>/bundles/<version>.

    The version follows from all that goes in: rerun with nothing changed, it says "up to date". What the data cannot
    carry, or was not trained, is left out; rungs.json and the slates say why.

        playbill export                              the finished runs of the demo's tables
        playbill export tables=my_shop               another source's
        playbill export index.kind=ivf_sq8           an index for larger catalogues
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    run: str | None = None
    """Finished two_tower run; null = <tables>-two_tower, and a bundle without towers where that does not exist."""
    beside: list[str] = field(default_factory=list)
    """Further two_tower runs of the same features, whose vectors stand beside the run's in one pair of towers."""
    ranker_run: str | None = None
    """Finished ranker run; null = <tables>-ranker, and a bundle without ranker where that does not exist."""
    creative_run: str | None = None
    """Finished run of creative heads; null = <tables>-creative, and a bundle without them where that does not exist."""
    response_run: str | None = None
    """Finished run of model=response; null = <tables>-response, and a bundle without `enjoy` where there is none."""
    baselines_run: str | None = None
    """Finished run of `playbill tune`; null = <tables>-baselines, and item-kNNs with the usual numbers without it."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """Only for a bundle without towers: what is known of people and items. Otherwise as in the run."""
    split: SplitSettings = field(default_factory=SplitSettings)
    """Only for a bundle without towers: what is held out from the counts. Otherwise as in the run."""
    index: IndexSettings = field(default_factory=IndexSettings)
    """How items.faiss is built."""
    neighbours: int = 200
    """Neighbours kept of each item, in both item-kNNs, where no baselines were tuned."""
    half_life_days: float = 7.0
    """Trending: days after which an event counts half."""
    near: str | None = None
    """Column of the users table that says where somebody is, such as region or timezone: what is trending there becomes
    a shelf of pages, for places with at least 50 people. Not one that is protected or sensitive. null = none."""
    campaign_runs: list[str] = field(default_factory=list)
    """Runs of `playbill train-campaign` and the like, by name in <home>/runs or by path, whose models campaigns use."""
    blend: str | None = None
    """Name of a blend written by `playbill blend`, which then orders the retrievers' candidates; null = none."""
    policy_file: str | None = None
    """A policy to ship, .json or .yaml (fields: src/playbill/bundle/policy.py, rules.py); null = the defaults."""
    ranker_weights: Weights = Weights.float32
    """float32, half_tables or int8; a lighter graph is used only where validation loses nothing that counts, see
    report/lighter.json."""
    objectives: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each surface wants, in place of its policy's weights: objectives.slate='{completion: 1, back_7: 3}'. Weights
    are of the ranker's tasks, of `enjoy` where a response run is carried, and of retrievers; another objective needs an
    export, and no training."""
    force: bool = False
    """Export again although this version is there. A sealed bundle is never replaced."""

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ConfigError(f"neighbours must be >= 1, got {self.neighbours}")
        if not self.half_life_days > 0:
            raise ConfigError(f"half_life_days must be > 0, got {self.half_life_days}")


def check_model(model: TwoTower | Ranker) -> None:
    """Raise ConfigError where a field that both models have is out of range."""
    for name in ("dim", "field_dim", "hidden", "max_epochs"):
        if getattr(model, name) < 1:
            raise ConfigError(f"model.{name} must be >= 1, got {getattr(model, name)}")
    if model.dim % 4 or model.field_dim % 4:
        raise ConfigError(
            f"model.dim ({model.dim}) and model.field_dim ({model.field_dim}) "
            "must be multiples of 4: table rows are read four floats at a time"
        )
    for name in ("stale_share", "empty_share"):
        if not 0 <= getattr(model, name) <= 1:
            raise ConfigError(f"model.{name} must be in [0, 1], got {getattr(model, name)}")
    for name in ("dropout", "unknown_share"):
        if not 0 <= getattr(model, name) < 1:
            raise ConfigError(f"model.{name} must be in [0, 1), got {getattr(model, name)}")
    if model.half_life_days < 0 or not 0 <= model.weight_floor <= 1:
        raise ConfigError(
            "model.half_life_days must be >= 0 and model.weight_floor in [0, 1], "
            f"got {model.half_life_days} and {model.weight_floor}"
        )
    for name in ("learning_rate", "table_learning_rate"):
        if not getattr(model, name) > 0:
            raise ConfigError(f"model.{name} must be > 0, got {getattr(model, name)}")
    if model.patience_epochs < 0 or model.weight_decay < 0:
        raise ConfigError(
            f"model.patience_epochs and model.weight_decay must be >= 0, "
            f"got {model.patience_epochs} and {model.weight_decay}"
        )
