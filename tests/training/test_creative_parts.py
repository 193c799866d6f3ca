"""Parts of the creative heads by themselves, where what they should find was put in by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from playbill.features.spec import Encoding, Field, Side
from playbill.training.creative.data import CreativeData
from playbill.training.creative.decisions import Decisions
from playbill.training.creative.module import CreativeModel, CreativeModule
from playbill.training.creative.network import CreativeNet, centred
from playbill.training.creative.own import pooled
from playbill.training.creative.places import places
from playbill.training.creative.prior import fit_prior
from playbill.training.creative.profile import DRAWN, contents, profile
from playbill.training.creative.scoring import pair_features
from playbill.training.creative_settings import Creative
from playbill.training.fit import fit, processes
from playbill.training.progress import Report
from playbill.training.settings import TrainSettings


def test_effects_are_found_with_the_title_held_fixed(tmp_path: Path) -> None:
    """Popular items have images of tag 1, which are shown more often besides; what tags do to persons comes back."""
    draw = np.random.default_rng(0)
    items, each, n, width = 40, 4, 30_000, 4
    tag = draw.integers(1, 7, items * each)
    popular = np.array([(tag[i * each : (i + 1) * each] == 1).sum() for i in range(items)]) - 1.0
    direction = np.vstack([np.zeros(width), np.eye(6, width)]).astype(np.float32)
    people = draw.standard_normal((2_000, width)).astype(np.float32)
    item = draw.integers(0, items, n)
    eligible = item[:, None] * each + np.arange(each)
    chance = np.where(tag[eligible] == 1, 3.0, 1.0)
    chance /= chance.sum(1, keepdims=True)
    shown = (chance.cumsum(1) < draw.random(n)[:, None]).sum(1)
    moment = draw.integers(0, len(people), n)
    # a pull of 0.5 for tag 2 for everybody, and 1 for each person in the direction of the tag
    likeness = (people[moment] * direction[tag[eligible[np.arange(n), shown]]]).sum(1)
    logit = -2 + popular[item] + likeness + 0.5 * (tag[eligible[np.arange(n), shown]] == 2)
    decisions = Decisions(
        moment=moment,
        item=item + 1,
        position=np.zeros(n, np.int64),
        eligible=(eligible + 1).astype(np.int32),
        shown=shown,
        clicked=(draw.random(n) < expit(logit)).astype(np.float32),
        at=np.arange(n),
    )
    field = Field(name="tone", side=Side.CREATIVE, encoding=Encoding.CATEGORY, size=7)
    arrays = {"creative_index": np.arange(items * each + 1), "creative_tone": np.concatenate([[0], tag])}
    catalogue = np.zeros((items + 1, width), np.float32)
    places = {field.array: direction}
    data = CreativeData([field], arrays, people, catalogue, people, catalogue, places, decisions, decisions)
    model = Creative(main=3, match=2, batch_size=1000, max_epochs=12, learning_rate=0.02, weight_decay=0.1)
    settings = TrainSettings(home=str(tmp_path), model=model, threads=1)
    with processes(settings):
        module = CreativeModule(data, settings)
        fit(module, settings, model.max_epochs, Report("heads", 1000, 360), None, None)
        assert module.dmp is not None
        state = {name: value.detach().clone() for name, value in module.dmp.module.state_dict().items()}
    trained = CreativeModel(data, settings)
    trained.load_state_dict(state)
    prior = fit_prior(trained, data, model.weight_sd)
    score = pair_features(trained.head, arrays, people, decisions, np.arange(n)) @ prior.mean
    truth = np.einsum("rd,red->re", people[moment], direction[tag[eligible]]) + 0.5 * (tag[eligible] == 2)
    score, truth = score - score.mean(1, keepdims=True), truth - truth.mean(1, keepdims=True)
    assert np.corrcoef(score.ravel(), truth.ravel())[0, 1] > 0.9
    assert 0.85 < (score * truth).sum() / (truth**2).sum() < 1.15
    # what makes items popular, and is shown more often, is not credited to the tag: for nobody in particular it is 0
    middle = trained.head(
        torch.zeros(1, width),
        torch.zeros(7, dtype=torch.int64),
        {"creative_index": torch.zeros(7, dtype=torch.int64), "creative_tone": torch.arange(7)},
    )
    level = middle.detach().numpy() @ prior.mean
    assert abs(level[1] - level[3:].mean()) < 0.2 and 0.3 < level[2] - level[3:].mean() < 0.7


def test_a_title_is_not_credited_to_its_creatives() -> None:
    """Whatever is added to all of an item's creatives is gone; what is shown less often is no less centred."""
    there = torch.tensor([[True, True, True], [True, True, False]])
    score = torch.tensor([[1.0, 2.0, 6.0], [1.0, 3.0, 99.0]])
    assert centred(score, there).tolist() == [[-2.0, -1.0, 3.0], [-1.0, 1.0, 0.0]]
    assert torch.equal(centred(score + torch.tensor([[5.0], [-7.0]]), there), centred(score, there))


def test_content_stands_where_its_items_stand() -> None:
    """People at +x choose items of tag 1, those at -x items of tag 2; numbers find the same direction."""
    fields = [
        Field(name="tone", side=Side.CREATIVE, encoding=Encoding.CATEGORY, size=3),
        Field(name="light", side=Side.CREATIVE, encoding=Encoding.NUMBER),
    ]
    owner = np.array([1, 1, 2, 2, 3, 4, 0])  # the last belongs to no item
    light = np.where(owner > 2, -1.0, 1.0).astype(np.float32)
    arrays = {"creative_tone": np.where(owner > 2, 2, 1), "creative_light": light}
    draw = np.random.default_rng(0)
    side = draw.choice([-1.0, 1.0], 4000)
    people = np.stack([side, draw.standard_normal(4000)], 1).astype(np.float32)
    chosen = np.where(side > 0, draw.integers(1, 3, 4000), draw.integers(3, 5, 4000))
    found = places(fields, arrays, owner, chosen, people)
    assert found["creative_tone"][1, 0] > 0.45 and found["creative_tone"][2, 0] < -0.45
    assert found["creative_light"][0, 0] > 0.9 and abs(found["creative_light"][0, 1]) < 0.05
    assert np.abs(found["creative_tone"][0]).max() == 0  # a value that no creative has
    # the mean person leans nowhere, and the others keep their side
    mean = np.array([0.6, 0.8], np.float32)
    turned = places(fields, arrays, owner, chosen, people, mean)
    assert np.abs(turned["creative_tone"] @ mean).max() < 1e-6
    assert turned["creative_tone"][1, 0] > 0.2 and turned["creative_tone"][2, 0] < -0.2


def test_profiles_say_what_was_chosen_less_what_everybody_chooses() -> None:
    """By hand: two items whose places and images are opposite, and a third that has no image."""
    field = Field(name="light", side=Side.CREATIVE, encoding=Encoding.NUMBER)
    arrays = {"creative_light": np.array([3.0, 5.0, 1.0, 3.0, 9.0], np.float32)}  # 4 and 2 on average
    owner, items = np.array([1, 1, 2, 2, 0]), np.array([[9.0], [1.0], [-1.0], [0.0]], np.float32)
    table = contents([field], arrays, owner, items, np.array([1, 2, 3, 3, 0]))
    size = 2**-0.5  # root mean square of the places over choices; images spread over those that have one alone
    np.testing.assert_allclose(table, [[0, 0], [1 / size, 1], [-1 / size, -1], [0, 0]], atol=1e-6)
    histories = torch.tensor([[1, 1, 2, -1], [-1, -1, -1, -1], [0, 99, 3, 1]])
    found = profile(histories, torch.from_numpy(table))
    expected = np.array([table[1] / (3 + DRAWN), [0, 0], table[1] / (2 + DRAWN)])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_single_creatives_are_believed_as_far_as_their_records_go() -> None:
    """Popular items, shown more of their worse images: own effects come back, their spread with them."""
    draw, items, each, n = np.random.default_rng(4), 150, 4, 120_000
    owner = np.concatenate([[0], np.repeat(np.arange(1, items + 1), each)])
    own = np.where(owner > 0, 0.5 * draw.standard_normal(len(owner)), 0)
    level = np.concatenate([[0], draw.standard_normal(items)])
    item = 1 + (items * draw.random(n) ** 2).astype(np.int64)
    shown = 1 + each * (item - 1) + np.minimum((each * draw.random(n) ** (1 + (item % 2))).astype(np.int64), each - 1)
    features = draw.standard_normal((n, 2))
    title = np.full(n, -3.0)
    clicked = (draw.random(n) < expit(title + level[item] + own[shown] + features @ [0.3, 0.0])).astype(np.float64)
    found = pooled(features, title, item, shown, clicked, owner, items + 1, 0.2, 1.0, 1.0)
    assert 0.4 < found.spread < 0.6  # told 0.2, found in the log
    assert found.weights == pytest.approx([0.3, 0.0], abs=0.05)
    truth = own - np.bincount(owner, own)[owner] / np.bincount(owner)[owner]
    error, much = found.own - truth, np.bincount(shown, minlength=len(owner)) > 400
    assert np.abs(np.bincount(owner, found.own)).max() < 1e-9 and found.own[0] == 0
    assert np.sqrt((error[much] ** 2).mean()) < 0.25 and np.corrcoef(found.own[much], truth[much])[0, 1] > 0.85
    # how far it may be wrong is how far it is wrong, and one that was never shown may be anything
    seen = np.bincount(shown, minlength=len(owner)) > 0
    assert 0.8 < (error[seen] / found.own_sd[seen]).std() < 1.2
    assert found.own_sd[0] == pytest.approx(found.spread) and found.own_sd[much].max() < 0.35


def test_weights_count_what_a_creative_has_of_its_own_as_it_is() -> None:
    field = Field(name="tone", side=Side.CREATIVE, encoding=Encoding.CATEGORY, size=3)
    net = CreativeNet([field], num_creatives=4, contents=torch.zeros(2, 8), field_dim=4, main=2, match=3)
    assert net.width == 1 + 2 + 3 + 1 == len(net.weights()) and float(net.weights().detach()[-1]) == 1
    assert net.inputs == ["creative_index", "creative_tone"]


def test_people_are_read_once_and_meet_the_creatives_of_their_pairs() -> None:
    """Features of pairs are those of each person alone, computed one by one from the definition."""
    torch.manual_seed(3)
    fields = [
        Field(name="tones", side=Side.CREATIVE, encoding=Encoding.CATEGORIES, size=5, width=3),
        Field(name="tone", side=Side.CREATIVE, encoding=Encoding.CATEGORY, size=4),
        Field(name="look", side=Side.CREATIVE, encoding=Encoding.VECTOR, width=2),
        Field(name="light", side=Side.CREATIVE, encoding=Encoding.NUMBER),
    ]
    net = CreativeNet(fields, num_creatives=6, contents=torch.zeros(2, 8), field_dim=4, main=2, match=3)
    for field in fields:
        getattr(net, f"place_{field.array}").normal_()
    arrays = {
        "creative_index": torch.tensor([1, 2, 0, 5]),
        "creative_tones": torch.tensor([[1, 2, -1], [4, -1, -1], [-1, -1, -1], [3, 3, 0]]),
        "creative_tone": torch.tensor([1, 0, 3, 2]),
        "creative_look": torch.randn(4, 2),
        "creative_light": torch.randn(4),
    }
    person, user = torch.randn(2, 8), torch.tensor([1, 0, 0, 1])
    with torch.no_grad():
        found = net(person, user, arrays)
    for row, whose in enumerate(user):
        tones = [tag for tag in arrays["creative_tones"][row].tolist() if tag >= 0]
        where = net.place_creative_tones[tones].mean(0) if tones else torch.zeros(8)
        expected = [
            person[whose] @ where,
            person[whose] @ net.place_creative_tone[arrays["creative_tone"][row]],
            person[whose] @ (arrays["creative_look"][row] @ net.place_creative_look),
            person[whose] @ (arrays["creative_light"][row] * net.place_creative_light[0]),
        ]
        assert found[row, :4].tolist() == pytest.approx([float(e) for e in expected], abs=1e-5)
