"""Each act that the data carries: fitted on early moments, made true on later ones, judged on the latest, then kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl

from playbill.campaign.act_features import ActLog, Words
from playbill.campaign.act_models import Model
from playbill.campaign.acts import NEXT, Act, Acts, Spec, eligible
from playbill.tables.sufficiency import Rung
from playbill.training.campaign.acts_dates import Dates, judge_dates
from playbill.training.campaign.acts_fit import candidates, fit
from playbill.training.campaign.acts_judge import Foretold, choose, judge, make_true
from playbill.training.campaign.acts_moments import Moments, Past, moments, needed_days, shifted
from playbill.training.campaign.acts_returns import Returns, learn_returns
from playbill.training.campaign.acts_settings import ActSettings


class ActReport(msgspec.Struct, kw_only=True):
    """report.json of a run.

    Attributes:
        days, people, events: of the log.
        rungs: of every act, the number that decided whether the data carries it.
        acts: what the latest moments said of those that it does.
        lacking: what is missing for the others.
        dates: of the next purchase.
        returns: what mails held back at random said.
    """

    days: float
    people: int
    events: int
    rungs: dict[str, Rung]
    acts: dict[str, Foretold]
    lacking: dict[str, str]
    dates: Dates | None = None
    returns: Returns | None = None


def acts_of(settings: ActSettings) -> list[Act]:
    """Return the acts that are asked for."""
    return [
        Act(name="churn_30", horizon=30, complement=True),
        Act(name="churn_90", horizon=90, complement=True),
        Act(name=f"return_{settings.return_days}", horizon=settings.return_days),
        Act(name="purchase_30", horizon=30),
        Act(name=NEXT, horizon=settings.edges[-1]),
        Act(name="value_30", horizon=30),
        Act(name="value_90", horizon=90),
    ]


def learn(
    tables: Path, log: ActLog, words: Words, settings: ActSettings, told: Callable[[str], None]
) -> tuple[Acts, ActReport]:
    """Return what is to be kept, and its report; acts that the data does not carry are left out of both."""
    spec = Spec(
        words=words,
        least_events=settings.least_events,
        least_days=settings.least_days,
        edges=settings.edges,
        acts=[],
        lacking={},
    )
    past = Past(log, words, lambda rows: eligible(rows, spec))
    acts = Acts(spec, {})
    report = ActReport(
        days=log.days,
        people=log.events["user_id"].n_unique(),
        events=len(log.events),
        rungs={},
        acts={},
        lacking={},
    )
    kept: list[Act] = []
    for act in acts_of(settings):
        told(f"learning {act.name}")
        short = _short_of_log(act, log, words, settings)
        if short is None:
            at = moments(log, words.days, act.horizon, settings.step_days, settings.cutoffs)
            short = _short_of_rows(act, past, at, settings)
        report.rungs[act.name] = short
        if not short.carried:
            report.lacking[act.name] = f"{act.name}: {short.missing}"
            continue
        final, model = _learn(act, past, at, settings, report)
        kept.append(final)
        acts.models[act.name] = model
    spec = msgspec.structs.replace(spec, acts=kept, lacking=report.lacking)
    acts = Acts(spec, acts.models)
    for act in kept:
        if act.name.startswith("return"):
            told("asking mails that were held back")
            report.returns, without, with_mail = learn_returns(tables, past, act, acts, settings.seed)
            acts = Acts(msgspec.structs.replace(spec, without=without, with_mail=with_mail), acts.models)
    return acts, report


def _learn(act: Act, past: Past, at: Moments, settings: ActSettings, report: ActReport) -> tuple[Act, Model]:
    """Return the act and its model as they are kept, after the same was judged at moments that it had not seen."""
    edges, seed = settings.edges, settings.seed
    early, later, latest = (past.rows(act, some, edges) for some in (at.learn, at.calibrate, at.judge))
    models = {name: fit(name, act, early, seed) for name in candidates(act)}
    chosen = choose(act, models, later)
    true = {name: make_true(act, model, later) for name, model in models.items()}
    report.acts[act.name] = judge(true, models, chosen, latest, seed)
    if act.name == NEXT:
        spec = Spec(words=past.words, least_events=0, least_days=0, edges=edges, acts=[true[chosen]], lacking={})
        report.dates = judge_dates(
            Acts(spec, {NEXT: models[chosen]}), past.waits(at.calibrate), past.waits(at.judge), seed
        )
    now = shifted(at, act.horizon, settings.step_days)
    model = fit(chosen, act, past.rows(act, now.learn, edges), seed)
    return make_true(act, model, latest), model


def _short_of_log(act: Act, log: ActLog, words: Words, settings: ActSettings) -> Rung | None:
    """Return what the log lacks for an act; None where that cannot be told before its rows are counted."""
    if act.name.startswith(("purchase", "next", "value")) and not log.events["bought"].any():
        asked = ", ".join(words.purchases)
        return Rung(carried=False, have=0, need=1, missing=f"no event is a purchase: none is named {asked}")
    if act.name.startswith("value") and not words.money:
        return Rung(carried=False, have=0, need=1, missing="no event declares a unit of money (such as EUR)")
    need, have = needed_days(settings.history_days, act.horizon), log.days
    if have < need:
        text = f"needs {need:.0f} days of events, there are {int(have)}"
        return Rung(carried=False, have=int(have), need=round(need), missing=text)
    return None


def _short_of_rows(act: Act, past: Past, at: Moments, settings: ActSettings) -> Rung:
    """Return whether each part of the moments has people and cases enough."""
    for name, some in (("judges", at.judge), ("calibrates", at.calibrate), ("is learned from", at.learn)):
        people = int(pl.concat([past.known(moment)["person"] for moment in some]).n_unique())
        if people < settings.least_people:
            text = f"needs {settings.least_people} people of whom enough is known in what {name}, there are {people}"
            return Rung(carried=False, have=people, need=settings.least_people, missing=text)
        y = past.rows(act, some, settings.edges).y
        cases = int(min((y > 0).sum(), (y == 0).sum())) if not act.name.startswith("value") else int((y > 0).sum())
        if cases < settings.least_cases:
            text = f"needs {settings.least_cases} cases, and as many that are none, in what {name}, there are {cases}"
            return Rung(carried=False, have=cases, need=settings.least_cases, missing=text)
    return Rung(carried=True, have=int(past.log.days), need=round(needed_days(past.words.days, act.horizon)))
