"""When people read their mails: learned on the earlier mails, judged on the later ones, then learned from all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from playbill.campaign.mail_log import MailLog
from playbill.campaign.rhythm import HOURS, Week, basis, fit_week, open_chances, people
from playbill.campaign.send_time import SendTimes
from playbill.errors import TrainingError
from playbill.measure.bootstrap import Interval, intervals
from playbill.measure.calibration import Calibration, Calibrator, calibration, fit_calibrator
from playbill.training.campaign.settings import CampaignModelSettings

_WAVES = basis() - basis().mean(0)
_SPREAD = _WAVES.T @ _WAVES / HOURS
_GRID = np.linspace(-12, 6, 181)  # log-odds at which the map of probabilities is written down


class Judged(msgspec.Struct, kw_only=True):
    """What the latest mails said.

    Attributes:
        mails, opened, people: that judged.
        log_loss: of a mail, under the model; `log_loss_of_list` under the list's own share by hour.
        gained: what the model's log loss is less, with its interval over people.
        before, after: observed against expected by tenths, without and with the fitted map; the map is fitted on one
            half of the people and judged on the other.
    """

    mails: int
    opened: int
    people: int
    log_loss: float
    log_loss_of_list: float
    gained: Interval
    before: Calibration
    after: Calibration


class SendTimeReport(msgspec.Struct, kw_only=True):
    """report.json of a run.

    Attributes:
        people: in the users table; `own` of them have shown enough for hours of their own.
        mails, opened, events: learned from; `machines` are people read by a machine, whose early openings,
            `machine_opens`, count nothing.
        taste: log-odds of an open for one unit of the log of how often somebody is there.
        spread: of people about their segment: opening, then the nine waves of `rhythm.basis`.
        judged: on the latest mails.
    """

    people: int
    own: int
    mails: int
    opened: int
    events: int
    machines: int
    machine_opens: int
    segments: int
    taste: float
    spread: list[float]
    judged: Judged


@dataclass(slots=True)
class Logs:
    """Mails before a moment, from it on, and all."""

    earlier: MailLog
    later: MailLog
    whole: MailLog


def learn(logs: Logs, settings: CampaignModelSettings, told: Callable[[str], None]) -> tuple[SendTimes, SendTimeReport]:
    """Return what is to be kept, and its report.

    Raises:
        TrainingError: no mails to learn from, or none to judge by.
    """
    whole = logs.whole
    if not logs.earlier.sent.sum() or not logs.later.opened.sum():
        raise TrainingError(
            f"{int(whole.sent.sum())} mails of the log could be matched to people, {int(whole.opened.sum())} of them "
            "opened: too few to learn from the earlier and judge by the later; log decisions of kind send_hour"
        )
    segments, segment = _numbered(whole.segment)
    told("learning from the earlier mails")
    week = _fit(logs.earlier, segment, len(segments), settings)
    told("asking the later mails")
    judged, fitted = _judge(week, logs, segment, settings.seed)
    told("learning from all mails")
    week = _fit(whole, segment, len(segments), settings)
    known = people(week, whole.there, whole.sent, whole.opened, segment)
    variance = _unsure(week, known.covariance)
    order = np.argsort(whole.user_ids.to_numpy(), kind="stable")
    shown = (whole.there.sum(1) + whole.opened.sum(1)).astype(np.int32)
    to = fitted.logits(_GRID) if fitted.rows else _GRID
    found = SendTimes(
        week=week,
        segments=segments,
        knots=_GRID if fitted.rows else np.zeros(0),
        mapped=to if fitted.rows else np.zeros(0),
        least=settings.least,
        user_ids=whole.user_ids.to_numpy()[order],
        value=known.value[order].astype(np.float32),
        unsure=variance[order].astype(np.float32),
        shown=shown[order],
    )
    report = SendTimeReport(
        people=len(shown),
        own=int((shown >= settings.least).sum()),
        mails=int(whole.sent.sum()),
        opened=int(whole.opened.sum()),
        events=int(whole.there.sum()),
        machines=int(whole.machines.sum()),
        machine_opens=whole.machine_opens,
        segments=len(segments) - 1,
        taste=week.taste,
        spread=week.spread.tolist(),
        judged=judged,
    )
    return found, report


def _fit(log: MailLog, segment: np.ndarray, num: int, settings: CampaignModelSettings) -> Week:
    active = (log.there.sum(1) + log.sent.sum(1)) > 0  # the rest say nothing
    there, sent, opened = (a[active].astype(np.float64) for a in (log.there, log.sent, log.opened))
    return fit_week(there, sent, opened, segment[active], num, settings.rounds)


def _judge(week: Week, logs: Logs, segment: np.ndarray, seed: int) -> tuple[Judged, Calibrator]:
    """Return what the later mails say of a week learned from the earlier, and the map that makes it true there."""
    earlier, later = logs.earlier, logs.later
    mine = np.flatnonzero(later.sent.sum(1))
    known = people(week, earlier.there[mine], earlier.sent[mine], earlier.opened[mine], segment[mine])
    chance = open_chances(week, known)
    row, hour = np.nonzero(later.sent[mine])
    times, opened = later.sent[mine][row, hour], later.opened[mine][row, hour]
    which = np.repeat(np.arange(len(row)), times)
    place = np.arange(len(which)) - np.repeat(np.concatenate([[0], np.cumsum(times)[:-1]]), times)
    label = place < opened[which]
    p, unit = chance[row, hour][which], mine[row][which]
    share = (earlier.opened.sum(0) + 1) / (
        earlier.sent.sum(0) + 1 / max(earlier.opened.sum() / earlier.sent.sum(), 1e-3)
    )
    of_list = np.clip(share, 1e-4, 1 - 1e-4)[hour][which]
    fitted = fit_calibrator(p, label)
    after = np.empty(len(p))
    for half in (0, 1):  # nobody's own mails fit the map that they are judged by
        theirs = unit % 2 == half
        one = fit_calibrator(p[~theirs], label[~theirs])
        after[theirs] = one(p[theirs]) if one.rows else p[theirs]
    better = _loss(of_list, label) - _loss(after, label)
    sums = np.bincount(unit, better, minlength=len(later.sent))[mine]
    gained = intervals({"gained": sums * len(mine) / len(p)}, seed=seed)["gained"]
    judged = Judged(
        mails=len(p),
        opened=int(label.sum()),
        people=len(mine),
        log_loss=float(_loss(after, label).mean()),
        log_loss_of_list=float(_loss(of_list, label).mean()),
        gained=gained,
        before=calibration(p, label, unit, task="open", least_events=100, seed=seed),
        after=calibration(after, label, unit, task="open", least_events=100, seed=seed),
    )
    return judged, fitted


def _loss(p: np.ndarray, label: np.ndarray) -> np.ndarray:
    loss: np.ndarray = -np.log(np.where(label, p, 1 - p))
    return loss


def _unsure(week: Week, covariance: np.ndarray) -> np.ndarray:
    """Return [P] the variance of each person's log-odds, averaged over the hours of the week."""
    moved = np.einsum("pij,ij->p", covariance[:, 1:, 1:], _SPREAD)
    variance: np.ndarray = covariance[:, 0, 0] + week.taste**2 * moved
    return variance


def _numbered(names: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the segments, "" first, and each person's place among them."""
    segments = ["", *sorted(set(names) - {""})]
    place = {name: row for row, name in enumerate(segments)}
    return segments, np.asarray([place[name] for name in names], np.int64)
