"""Creatives on real slates: who is shown what with which probability, what is remembered, and what is learned."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, Surface
from playbill.creative.choice import CreativePolicy, Kind
from playbill.creative.posterior import Posterior
from playbill.creative.quadrature import chance_of_best
from playbill.dataset.dataset import Dataset
from playbill.engine.engine import Engine
from playbill.engine.types import Request, Slate, SlateItem
from playbill.state.decisions import Decision
from playbill.state.events import Declared, Event
from playbill.state.keys import id_key
from playbill.state.store import Store
from playbill.tables.schema import EventKind

AT = 889_000_000_000_000
HOUR_US = 3_600_000_000


@pytest.fixture(scope="session")
def creative_bundle(
    whole_bundle: Path, add_creatives: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("creative") / whole_bundle.name
    shutil.copytree(whole_bundle, path)
    add_creatives(path, reward="click")
    return path


@pytest.fixture
def posters(creative_bundle: Path) -> Bundle:
    return open_bundle(creative_bundle, require_sealed=False, verify=False)


@pytest.fixture
def clicks(dataset: Dataset, tmp_path: Path) -> Any:
    """A store that knows nobody and takes clicks."""
    with Store.open(tmp_path / "clicks") as opened:
        spec = dataset.spec
        kinds = [EventKind(name=name) for name in ("rating", "click", "seen")]
        opened.declare(Declared(events=kinds, user_id_type=spec.user_id_type, item_id_type=spec.item_id_type))
        yield opened


def _with(bundle: Bundle, **policy: Any) -> Bundle:
    surface = Surface(creatives=CreativePolicy(**policy))
    return dataclasses.replace(bundle, policy=Policy(surfaces={"slate": surface}))


def _ask(engine: Engine, **fields: Any) -> tuple[Slate, list[Decision]]:
    given = {"request_id": "r", "at": AT, "k": 20} | fields
    [slate], decisions = engine.decide([Request(**given)])
    return slate, decisions


def _film(item: SlateItem, bundle: Bundle) -> int:
    return bundle.vocabularies["item"].index(item.item_id)


def _show(engine: Engine, store: Store, **fields: Any) -> Slate:
    slate, decisions = _ask(engine, **fields)
    store.record(decisions)
    return slate


def test_every_item_is_shown_with_one_of_its_own_and_its_probability(posters: Bundle, store: Store) -> None:
    """Probabilities recomputed from the tones' vectors by hand: no graph, no engine."""
    engine = Engine.open(posters, store)
    slate, decisions = _ask(engine, user_id=196)
    assert engine.faults == {} and len(decisions) == len(slate.items) == 20
    angles = np.arange(4) * np.pi / 2
    tones = np.stack([np.cos(angles), np.sin(angles)], 1)
    with store.view() as view:
        history = view.profile(196).history[-posters.spec.history_length :]
    ratings = [(past.value - 3) / 2 for past in history]
    taste = sum(ratings) / posters.spec.history_length
    for item, decision in zip(slate.items, decisions, strict=True):
        film = _film(item, posters)
        ids = [10 * film + k for k in range(4)]
        phi = np.stack([np.concatenate([tones[(film + k) % 4], taste * tones[(film + k) % 4]]) for k in range(4)])
        phi -= phi.mean(0)
        expected = chance_of_best(np.zeros(4), np.sqrt((phi**2).sum(-1)))  # the prior: mean 0, precision 1
        assert item.creative_id in ids and decision.eligible == ids
        assert item.creative_propensity == pytest.approx(expected[ids.index(int(item.creative_id))], abs=1e-6)
        np.testing.assert_allclose(decision.propensities, expected, atol=1e-6)
        assert sum(decision.propensities) == pytest.approx(1, abs=1e-12)
        assert (decision.chosen, decision.decision_id) == (item.creative_id, item.decision_id)
    assert slate.items[0].decision_id == "r:0:creative"
    again, _ = _ask(engine, user_id=196)
    assert again.items == slate.items  # the same request draws the same
    other, _ = _ask(engine, user_id=196, request_id="s")
    assert [i.creative_id for i in other.items] != [i.creative_id for i in slate.items]


def test_creatives_of_uncertain_record_are_tried_more_often(posters: Bundle, store: Store) -> None:
    """What single creatives have of their own may be wrong, each by itself: Thompson sampling draws more widely."""
    parts = posters.creatives
    assert parts is not None and parts.prior is not None
    sure = dataclasses.replace(parts, prior=Posterior(parts.prior.mean, 1e6 * parts.prior.precision))
    _, before = _ask(Engine.open(dataclasses.replace(posters, creatives=sure), store), user_id=196)
    own_sd = np.zeros(len(parts.columns["creative_id"]) + 1)
    doubted = [row for row, i in enumerate(parts.columns["creative_id"]) if i % 10 == 0]
    own_sd[1 + np.asarray(doubted)] = 1.0
    wide = dataclasses.replace(sure, arrays=dict(parts.arrays) | {"own_sd": own_sd})
    engine = Engine.open(dataclasses.replace(posters, creatives=wide), store)
    _, after = _ask(engine, user_id=196)
    assert engine.faults == {} and [d.eligible for d in before] == [d.eligible for d in after]
    for decision in after:
        # one normal of deviation 1 beside three that are 0: the largest in half of all draws
        assert decision.propensities[0] == pytest.approx(0.5, abs=0.02)


def test_drawn_shares_are_the_logged_probabilities(posters: Bundle, store: Store) -> None:
    engine = Engine.open(posters, store)
    requests = [Request(user_id=196, request_id=f"r{n}", at=AT, k=5) for n in range(600)]
    slates, decisions = engine.decide(requests)
    first = [d for d in decisions if d.item_id == slates[0].items[0].item_id]
    chance = np.asarray(first[0].propensities)
    counts = np.asarray([sum(d.chosen == i for d in first) for i in first[0].eligible])
    assert len(first) == 600 and np.abs(counts / 600 - chance).max() < 4 * np.sqrt(0.25 / 600)


def test_batches_answer_as_one_by_one(posters: Bundle, store: Store) -> None:
    engine = Engine.open(posters, store)
    requests = [Request(user_id=u, request_id=f"r{u}", at=AT, k=7) for u in (1, 196, 405, 22)]
    together, _ = engine.decide(requests)
    for request, slate in zip(requests, together, strict=True):
        alone = engine.recommend([request])[0]
        assert [i.creative_id for i in alone.items] == [i.creative_id for i in slate.items]
        for one, other in zip(alone.items, slate.items, strict=True):
            assert one.creative_propensity == pytest.approx(other.creative_propensity, abs=1e-6)


def test_bundles_without_creatives_say_nothing_of_them(bundle: Bundle, store: Store) -> None:
    [slate], decisions = Engine.open(bundle, store).decide([Request(user_id=196, request_id="r", at=AT)])
    assert bundle.creatives is None and decisions == []
    told = msgspec.json.decode(msgspec.json.encode(slate))
    assert {"creative_propensity", "decision_id"} & set(told["items"][0]) == set()
    assert all(item["creative_id"] is None for item in told["items"])


@pytest.mark.parametrize("kind", list(Kind))
def test_every_policy_is_served(posters: Bundle, clicks: Store, kind: Kind) -> None:
    engine = Engine.open(_with(posters, kind=kind, floor=0.04), clicks)
    _, decisions = _ask(engine)
    chance = np.asarray([d.propensities for d in decisions])
    np.testing.assert_allclose(chance.sum(-1), 1, atol=1e-9)
    if kind is Kind.DEFAULT:
        assert all(d.chosen == d.eligible[0] and d.propensity == 1 and d.lesson is None for d in decisions)
    else:
        assert (chance >= 0.01 - 1e-12).all() and all(d.lesson is not None for d in decisions)


def test_locale_comes_from_the_request_the_person_or_the_policy(posters: Bundle, clicks: Store) -> None:
    clicks.set_features({5: {"locale": "it"}})
    engine = Engine.open(_with(posters, locale="en"), clicks)
    counts = {
        name: {len(d.eligible) for d in _ask(engine, **fields)[1]}
        for name, fields in {
            "request": {"context": {"locale": "it-IT"}},
            "person": {"user_id": 5},
            "policy": {},
            "request before person": {"user_id": 5, "context": {"locale": "de"}},
        }.items()
    }
    assert counts == {"request": {4}, "person": {4}, "policy": {3}, "request before person": {3}}


def test_an_approval_withdrawn_acts_on_the_next_request(posters: Bundle, clicks: Store) -> None:
    engine = Engine.open(posters, clicks)
    slate = _show(engine, clicks, session_id="visit")
    item = slate.items[0]
    film = _film(item, posters)
    clicks.set_creatives({int(item.creative_id): {"status": "withdrawn"}})
    after, decisions = _ask(engine, session_id="visit", request_id="s")
    [now] = [d for d in decisions if d.item_id == item.item_id]
    assert now.chosen != item.creative_id and item.creative_id not in now.eligible and len(now.eligible) == 3
    assert [i.creative_id for i in after.items[1:]] == [i.creative_id for i in slate.items[1:]]
    # an end comes without anybody's doing
    ids = [10 * film + k for k in range(4)]
    clicks.set_creatives({i: {"status": "approved", "approved_until": AT + HOUR_US} for i in ids})
    assert len(_ask(engine, request_id="t")[1][0].eligible) == 4
    late, decisions = _ask(engine, request_id="u", at=AT + HOUR_US)
    assert late.items[0].item_id == item.item_id and late.items[0].creative_id is None
    assert late.items[0].creative_propensity is msgspec.UNSET and len(decisions) == 19 and engine.faults == {}


def test_a_session_keeps_its_creatives_though_the_belief_moves(posters: Bundle, clicks: Store) -> None:
    engine = Engine.open(posters, clicks)
    first = _show(engine, clicks, session_id="visit")
    shown = [i.creative_id for i in first.items]
    for number in range(30):
        _show(engine, clicks, session_id=f"other {number}", request_id=f"o{number}")
    again, decisions = _ask(engine, session_id="visit", request_id="later")
    assert [i.creative_id for i in again.items] == shown
    assert all(i.creative_propensity == 1.0 for i in again.items)
    assert all(d.lesson is None for d in decisions)  # there was no choice to learn from
    elsewhere, _ = _ask(engine, session_id="another", request_id="later")
    assert [i.creative_id for i in elsewhere.items] != shown


def test_two_sessions_of_one_person_each_keep_their_creatives(posters: Bundle, clicks: Store) -> None:
    engine = Engine.open(_with(posters, switch_cost=0.0), clicks)
    shown = {
        session: [i.creative_id for i in _show(engine, clicks, user_id=9, session_id=session, request_id=session).items]
        for session in ("phone", "desk")
    }
    assert shown["phone"] != shown["desk"]
    for turn in ("phone", "desk", "phone"):
        again = _show(engine, clicks, user_id=9, session_id=turn, request_id=f"{turn} again")
        assert [i.creative_id for i in again.items] == shown[turn]
        assert all(i.creative_propensity == 1.0 for i in again.items)
    visit = [i.creative_id for i in _show(engine, clicks, session_id="v", request_id="v").items]
    known = _show(engine, clicks, user_id=9, session_id="v", request_id="known now")
    assert [i.creative_id for i in known.items] == visit


def test_another_session_pays_for_another_image(posters: Bundle, clicks: Store) -> None:
    free, dear = (Engine.open(_with(posters, switch_cost=cost), clicks) for cost in (0.0, 50.0))
    slate = _show(free, clicks, user_id=9, session_id=1)
    shown = [i.creative_id for i in slate.items]
    kept, decisions = _ask(dear, user_id=9, session_id=2, request_id="s")
    assert [i.creative_id for i in kept.items] == shown
    assert all(0.99 < i.creative_propensity <= 1 for i in kept.items) and len(decisions) == 20
    changed, _ = _ask(free, user_id=9, session_id=2, request_id="s")
    assert [i.creative_id for i in changed.items] != shown
    stranger, _ = _ask(dear, user_id=10, session_id=3, request_id="s")
    assert [i.creative_id for i in stranger.items] != shown


def test_clicks_teach_what_people_like(posters: Bundle, clicks: Store) -> None:
    """Everybody likes the tone of angle 0: after 60 slates it is shown most, with probabilities that say so."""
    engine = Engine.open(posters, clicks)
    prior = engine.creative_step._belief
    assert prior is not None and prior.version == 0
    rng = np.random.default_rng(0)

    def bright(item: SlateItem) -> bool:
        film = _film(item, posters)
        return (film + int(item.creative_id) - 10 * film) % 4 == 0

    before = np.mean([[bright(i) for i in _ask(engine, request_id=f"b{n}")[0].items] for n in range(20)])
    for number in range(60):
        slate = _show(engine, clicks, request_id=f"v{number}", session_id=f"v{number}", at=AT + number * HOUR_US // 60)
        events = [
            Event(
                event_id=f"{number}-{item.position}", event="click", session_id=f"v{number}", at=slate.at + 1_000_000,
                creative_id=item.creative_id, decision_id=item.decision_id,
            )
            for item in slate.items
            if rng.random() < (0.5 if bright(item) else 0.1)
        ]  # fmt: skip
        if events:
            clicks.append(events)
    with clicks.view() as view:
        evidence = view.learned("head-1")
    assert evidence is not None and evidence.impressions == 60 * 20 and 120 < evidence.rewards < 600

    after = np.mean([[bright(i) for i in _ask(engine, request_id=f"a{n}", session_id=n)[0].items] for n in range(20)])
    assert 0.15 < before < 0.35 and after > 0.8
    belief = engine.creative_step._belief
    assert isinstance(belief.posterior, Posterior) and belief.version == evidence.version
    assert belief.posterior.mean[0] > 0.5 > abs(belief.posterior.mean[1])


def test_who_denies_training_teaches_nothing_and_who_denies_personalisation_is_not_remembered(
    posters: Bundle, clicks: Store
) -> None:
    spec = msgspec.structs.replace(posters.spec, purposes=["training", "personalisation"])
    engine = Engine.open(dataclasses.replace(posters, spec=spec), clicks)
    allow = {"consent_training": True, "consent_personalisation": True}
    clicks.set_features(
        {1: allow, 2: allow | {"consent_training": False}, 3: {**allow, "consent_personalisation": False}}
    )
    for user, teaches, remembered in ((1, True, True), (2, False, True), (3, True, False)):
        slate, decisions = _ask(engine, user_id=user, request_id=f"u{user}")
        assert all((d.lesson is not None) == teaches for d in decisions)
        assert {d.user_id for d in decisions} == {user if remembered else None}
        clicks.record(decisions)
        with clicks.view() as view:
            assert bool(view.shown(user, None)) == remembered
        assert slate.user_id == user


def test_a_new_creative_starts_near_its_like(posters: Bundle, clicks: Store) -> None:
    engine = Engine.open(posters, clicks)
    slate, decisions = _ask(engine, k=1)
    item, before = slate.items[0], decisions[0]
    film = _film(item, posters)
    same_tone_as_first = posters.creatives.columns["tone"][(film - 1) * 4]
    clicks.set_creatives(
        {
            7_000_001: {"item_id": item.item_id, "tone": same_tone_as_first, "status": "approved"},
            7_000_002: {"item_id": item.item_id, "tone": "dark"},  # nobody approved it
            7_000_003: {"item_id": 123_456_789, "tone": "dark", "status": "approved"},  # of nothing we have
        }
    )
    _, decisions = _ask(engine, k=1, request_id="s")
    now = decisions[0]
    assert now.eligible == [*before.eligible, 7_000_001]
    assert now.propensities[-1] == pytest.approx(now.propensities[0], abs=1e-6)
    assert engine.describe()["creatives"]["late"] == 2


ODD = [None, True, -1, 2**63 - 1, 1.5, "", "approved", [1], {"a": 1}]


@given(
    known=st.dictionaries(
        st.sampled_from(
            ["item_id", "status", "approved_until", "locale", "kind", "channel", "is_default", "tone", "x"]
        ),
        st.sampled_from(ODD),
        max_size=4,
    ),
    late=st.dictionaries(st.sampled_from(["item_id", "status", "tone", "locale"]), st.sampled_from(ODD), max_size=3),
    locale=st.sampled_from([*ODD[:3], "it", "x" * 60]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_noted_of_creatives_slates_are_answered(
    posters: Bundle, clicks: Store, known: dict[str, Any], late: dict[str, Any], locale: Any
) -> None:
    engine = Engine.open(_with(posters, locale="fr"), clicks)
    [first, *_] = _ask(engine, request_id="before")[0].items
    film = _film(first, posters)
    clicks.set_creatives({10 * film: known, 10 * film + 1: known, 9_000_000: {"item_id": first.item_id} | late})
    slate, decisions = _ask(engine, context={"locale": locale})
    assert len(slate.items) == 20 and engine.faults == {}
    for made in decisions:
        assert made.chosen in made.eligible and sum(made.propensities) == pytest.approx(1)


@pytest.mark.parametrize("broken", ["raises", "nan"])
def test_a_head_that_fails_leaves_the_defaults(posters: Bundle, clicks: Store, broken: str) -> None:
    engine = Engine.open(posters, clicks)
    head = engine.parts.creative_head

    class Broken:
        inputs, outputs = head.inputs, head.outputs

        def run(self, arrays: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
            if broken == "raises":
                raise RuntimeError("no memory")
            return [answer * np.nan for answer in head.run(arrays, outputs)]

    engine.creative_step.head = Broken()
    slate, decisions = _ask(engine)
    assert engine.faults["creative_head"] == 1
    assert [i.creative_id for i in slate.items] == [10 * _film(i, posters) for i in slate.items]
    assert all(i.creative_propensity == 1.0 for i in slate.items) and all(d.lesson is None for d in decisions)


def test_a_memory_that_is_damaged_costs_the_creatives_and_not_the_slate(posters: Bundle, clicks: Store) -> None:
    engine = Engine.open(posters, clicks)
    clicks._tables.write(lambda txn: txn.put("shown", b"u" + id_key(5), b"\xc1"), {})
    slate, decisions = _ask(engine, user_id=5)
    assert len(slate.items) == 20 and decisions == [] and engine.faults == {"creatives": 1}
    assert len(_ask(engine, user_id=6)[1]) == 20


def test_without_a_head_an_explicit_policy_explores_evenly(
    creative_bundle: Path, tmp_path: Path, clicks: Store
) -> None:
    """How a shop that has no log of creatives yet comes by one."""
    path = tmp_path / creative_bundle.name
    shutil.copytree(creative_bundle, path)
    draft = msgspec.json.decode((path / "state.json").read_bytes())
    draft["manifest"]["rungs"].remove("creative_heads")
    del draft["manifest"]["models"]["creative_head"]
    (path / "state.json").write_bytes(msgspec.json.encode(draft))
    rungs = msgspec.json.decode((path / "rungs.json").read_bytes())
    rungs["creative_heads"]["carried"] = False
    (path / "rungs.json").write_bytes(msgspec.json.encode(rungs))
    assert open_bundle(path, require_sealed=False, verify=False).creatives is None  # nobody asked for any
    policy = Policy(surfaces={"slate": Surface(creatives=CreativePolicy(kind=Kind.EPSILON_GREEDY, epsilon=1.0))})
    (path / "policy.json").write_bytes(msgspec.json.encode(policy))
    bundle = open_bundle(path, require_sealed=False, verify=False)
    _, decisions = _ask(Engine.open(bundle, clicks))
    assert all(d.propensities == pytest.approx([0.25] * 4) and d.lesson is None for d in decisions)
