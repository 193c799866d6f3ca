"""How likely people are to stay away, to come, to buy, when and for how much, from the files `acts.json`, `acts.npz`.

Each act was fitted and calibrated by `playbill train-acts`; one that the data did not carry is not answered, and
`lacking` says what is missing. Of a person of whom too little is known nothing is said either: `reason` is

    too_new     fewer events or days than an answer needs
    unknown     nothing done in the window that answers rest on
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from scipy.special import expit, logit

from playbill.campaign.act_features import DAY_US, ActLog, Words, features, matrix
from playbill.campaign.act_models import Model, packed, unpacked, with_interval
from playbill.campaign.send_time import mapped
from playbill.errors import FeatureError
from playbill.tables.files import write_atomic

FILE, ARRAYS = "acts.json", "acts.npz"
TOO_NEW, UNKNOWN = "too_new", "unknown"
FORMAT = 1
NEXT = "next_purchase"


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One fitted act.

    Attributes:
        name: such as churn_30; also its column.
        horizon: days ahead.
        complement: the model says how likely its contrary is.
        knots, mapped: log-odds and what they turned out to be; none for amounts.
        factor, power: an amount is factor * model ** power.
    """

    name: str
    horizon: float
    complement: bool = False
    knots: list[float] = []
    mapped: list[float] = []
    factor: float = 1.0
    power: float = 1.0


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """acts.json, the models' numbers aside.

    Attributes:
        words: what events mean, and the window.
        least_events, least_days: below which somebody is too new.
        edges: days ahead at which the stretches of the next purchase end.
        acts: those that the data carries.
        lacking: what is missing, by act.
        without, with_mail: knots and what they become, of the chance to return without and with a mail; empty: never
            was a mail held back at random often enough.
    """

    words: Words
    least_events: int
    least_days: float
    edges: list[float]
    acts: list[Act]
    lacking: dict[str, str]
    without: tuple[list[float], list[float]] = ([], [])
    with_mail: tuple[list[float], list[float]] = ([], [])


class _File(msgspec.Struct, kw_only=True):
    format: int
    spec: Spec
    models: dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class Acts:
    """What is believed of acts; `models` by name of the act."""

    spec: Spec
    models: dict[str, Model]

    def answer(self, log: ActLog, at: int, user_ids: Sequence[int | str]) -> pl.DataFrame:
        """Return a row for each person, in their order: user_id, reason, and a column an act.

        Probabilities and amounts are float64, null where nothing can be said. `next_purchase_at`, with `_from` and
        `_to` between which it lies in four cases of five, are UTC; null where it is later than the last of `edges`.
        `return_without_mail` and `return_with_mail` are there where mails were held back at random.

        Args:
            log: of `read_acts_log`, with the words of these acts.
            at: UTC microseconds; later events are not looked at.
        """
        wanted = pl.DataFrame({"user_id": pl.Series(user_ids, dtype=log.events.schema["user_id"])})
        people = wanted.unique(maintain_order=True)
        only = ActLog(
            log.events.join(people, on="user_id", how="semi"),
            log.sends.join(people, on="user_id", how="semi"),
            log.first,
            log.last,
        )
        known = features(only, self.spec.words, at)
        fine = eligible(known, self.spec)
        answered = self.of(known.filter(fine), at)
        new = known.filter(~fine).select("user_id", reason=pl.lit(TOO_NEW))
        rows = pl.concat([answered.with_columns(reason=pl.lit("")), new], how="diagonal")
        rows = wanted.join(rows, on="user_id", how="left", maintain_order="left")
        return rows.with_columns(pl.col("reason").fill_null(UNKNOWN)).select("user_id", "reason", *answered.columns[1:])

    def of(self, known: pl.DataFrame, at: int) -> pl.DataFrame:
        """Return what is believed of people, as `answer`, from rows of `act_features.features`."""
        x = matrix(known)
        columns: dict[str, object] = {"user_id": known["user_id"]}
        for act in self.spec.acts:
            if act.name == NEXT:
                columns |= self._dates(act, x, at)
            elif act.name.startswith("value"):
                columns[act.name] = amounts(self.models[act.name](x, act.horizon), act)
            else:
                columns[act.name] = self.chance(act, x)
                if act.name.startswith("return") and self.spec.without[0]:
                    odds = _log_odds(columns[act.name])  # type: ignore[arg-type]  # an array, by the line above
                    for name, (knots, to) in (("without", self.spec.without), ("with", self.spec.with_mail)):
                        columns[f"return_{name}_mail"] = expit(mapped(odds, np.asarray(knots), np.asarray(to)))
        return pl.DataFrame(columns)

    def chance(self, act: Act, x: np.ndarray) -> np.ndarray:
        """Return [n] calibrated probabilities of an act. Args: x [n, F] (for stretches `with_interval`)."""
        p = calibrated(self.models[act.name](x, act.horizon), act)
        return 1 - p if act.complement else p

    def stays_away(self, act: Act, x: np.ndarray) -> np.ndarray:
        """Return [n, len(edges)] the probability that nothing was bought by each edge."""
        edges = [0.0, *self.spec.edges]
        left = np.ones((len(x), len(edges)))
        for j, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
            hazard = self.chance(act, with_interval(x, j, (low + high) / 2, len(self.spec.edges)))
            left[:, j + 1] = left[:, j] * (1 - hazard)
        return left[:, 1:]

    def _dates(self, act: Act, x: np.ndarray, at: int) -> dict[str, object]:
        left = self.stays_away(act, x)
        found: dict[str, object] = {}
        for name, share in (("at", 0.5), ("from", 0.1), ("to", 0.9)):
            days = days_until(left, self.spec.edges, share)
            moment = pl.Series(np.where(np.isfinite(days), at + days * DAY_US, np.nan)).fill_nan(None)
            found[f"{NEXT}_{name}"] = moment.cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
        return found


def eligible(known: pl.DataFrame, spec: Spec) -> pl.Series:
    """Return [n] bool: of whom enough is known, of rows of `features`."""
    return (known["events"] >= spec.least_events) & (known["tenure"] >= spec.least_days)


def calibrated(p: np.ndarray, act: Act) -> np.ndarray:
    """Return what the probabilities of an act's model turned out to be."""
    if not act.knots:
        return p
    found: np.ndarray = expit(mapped(_log_odds(p), np.asarray(act.knots), np.asarray(act.mapped)))
    return found


def amounts(p: np.ndarray, act: Act) -> np.ndarray:
    """Return what the amounts of an act's model turned out to be."""
    found: np.ndarray = act.factor * np.maximum(p, 0) ** act.power
    return found


def days_until(left: np.ndarray, edges: Sequence[float], share: float) -> np.ndarray:
    """Return [n] days by which a share of the chances has come true; infinite where that is beyond the last edge.

    Within a stretch the hazard is taken to be the same throughout.

    Args:
        left: [n, J] falling, the probability that it has not happened by each edge.
    """
    log_left = np.log(np.maximum(np.hstack([np.ones((len(left), 1)), left]), 1e-12))
    aim = np.log(1 - share)
    passed = log_left <= aim
    j = passed.argmax(1)
    rows, days = np.arange(len(left)), np.asarray([0.0, *edges])
    before, after = log_left[rows, np.maximum(j - 1, 0)], log_left[rows, j]
    part = (before - aim) / np.maximum(before - after, 1e-12)
    found: np.ndarray = np.where(passed.any(1), days[j - 1] + part * (days[j] - days[j - 1]), np.inf)
    return found


def _log_odds(p: np.ndarray) -> np.ndarray:
    found: np.ndarray = logit(np.clip(p, 1e-7, 1 - 1e-7))
    return found


def write(folder: Path, acts: Acts) -> None:
    """Write both files of a folder."""
    models: dict[str, dict[str, object]] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, model in acts.models.items():
        models[name], of_model = packed(model)
        arrays |= {f"{name}/{key}": value for key, value in of_model.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes names for its own flag
    write_atomic(folder / ARRAYS, buffer.getvalue())
    file = _File(format=FORMAT, spec=acts.spec, models=models)
    write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(file), indent=1))


def read(folder: Path) -> Acts | None:
    """Return what `write` wrote; None where the folder has no such file.

    Raises:
        FeatureError: files of another format, or that do not fit each other.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        file = msgspec.json.decode((folder / FILE).read_bytes(), type=_File)
        if file.format != FORMAT:
            raise ValueError(f"format {file.format}, this version reads {FORMAT}")
        with np.load(io.BytesIO((folder / ARRAYS).read_bytes()), allow_pickle=False) as saved:
            of_models: dict[str, dict[str, np.ndarray]] = {name: {} for name in file.models}
            for key in saved.files:
                name, _, part = key.rpartition("/")
                of_models[name][part] = saved[key]
        models = {name: unpacked(plain, of_models[name]) for name, plain in file.models.items()}
        if missing := {act.name for act in file.spec.acts} - set(models):
            raise ValueError(f"no model of {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise FeatureError(f"{folder} holds no models of acts: {error}; run `playbill train-acts`") from error
    return Acts(file.spec, models)
