"""The numbers of the world: what a preset in conf/world/ sets, and what `playbill fit` estimates from real logs.

How people respond, in one place (functions in `respond.py` compute exactly this; p person, i item, c creative):

    taste(p, i)   = <taste_p, aspects_i>, both unit vectors of `aspects` entries, the person's drifting with time
    click         = examine[position] * sigmoid(click_base + appeal_i + click_taste * taste(p, i)
                        + title_taste * <taste_p, title_c> + image_taste * <taste_p, image_c> + pull_c
                        + hour_taste * rhythm(category_i, hour) + device_effect[device])
    completion    ~ Beta with mean sigmoid(completion_base + completion_taste * taste(p, i) + quality_i)
                    and precision completion_precision: THE TRUE UTILITY of a click, in 0..1
    rating        given with a probability that rises with completion; the stars are completion, stretched by the
                    person's leniency and the item's hype: a biased statement of the utility
    purchase      sigmoid(purchase_base + purchase_taste * taste(p, i) - price_sensitivity_p * log(price_i / median))
                    a person is one of: sure (buys without an offer), persuadable (an offer helps), lost (nothing
                    helps), put off (an offer harms); see `Purchases`
    open          sigmoid(open_base + openness_p + rhythm_taste * log rhythm_p(hour of week at arrival)
                        + subject_taste * <taste_p, subject_c> + pull_c), late by `Delays`; machines open on their own

`appeal_i`, `quality_i` and `pull_c` are item and creative effects: what draws the eye is not what is finished.
Every part has a switch in `Switches`; a part that is off contributes nothing and draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class Switches:
    """Parts of the response model that can be turned off one by one."""

    taste: bool = True
    """Clicks, completion and purchases depend on the person's taste."""
    position: bool = True
    """Lower positions are examined less; off: everything is examined."""
    title: bool = True
    """The creative's title matters."""
    image: bool = True
    """The creative's image matters."""
    hour: bool = True
    """Categories have hours, and people have hours of the week."""
    device: bool = True
    """Devices click differently."""
    rating_bias: bool = True
    """Stars are a biased statement of utility; off: they are completion times five, rounded."""
    offers: bool = True
    """Offers change purchases."""
    machine_opens: bool = True
    """Mail programs open mails on their own."""
    delays: bool = True
    """Responses come late; off: at once."""
    drift: bool = True
    """Tastes move over time."""
    feedback: bool = True
    """What was clicked becomes more popular the next day."""


@dataclass(slots=True, kw_only=True)
class Population:
    """Who the people are."""

    aspects: int = 8
    """Length of the taste and aspect vectors."""
    segments: int = 10
    """Groups around which tastes scatter; a declared feature says which, with errors."""
    taste_spread: float = 0.7
    """Length of the personal part of a taste beside its segment's part of 1; 0 makes a segment's people equal."""
    segment_error: float = 0.2
    """Share of people whose declared segment is not their own."""
    anonymous_share: float = 0.3
    """Share of people who never log in: their events carry a session_id alone."""
    activity_mean: float = 0.06
    """Visits a day of the mean person."""
    activity_sd: float = 1.0
    """Standard deviation of the log of visits a day over people."""
    rhythm_concentration: float = 2.0
    """How far a person's hour-of-week rhythm is from the population's: 0 is equal to it."""
    price_sensitivity_mean: float = 0.8
    """Mean of the log-odds lost when the price rises by a factor of e."""
    price_sensitivity_sd: float = 0.4
    """Its standard deviation over people; it is never negative."""
    consent_share: dict[str, float] = field(
        default_factory=lambda: {"personalisation": 0.85, "training": 0.8, "marketing": 0.5}
    )
    """Share of people who allow each purpose; column consent_<purpose>."""
    drift_per_year: float = 0.5
    """Angle in radians that a taste turns in a year."""


@dataclass(slots=True, kw_only=True)
class Catalogue:
    """What the items and creatives are."""

    categories: int = 20
    """Categories, each with a centre in aspect space and hours of its own."""
    aspect_spread: float = 0.6
    """Length of the item's own part of its aspects beside its category's part of 1."""
    new_share: float = 0.4
    """Share of items published after the first day, evenly over the time."""
    popularity_exponent: float = 0.9
    """Zipf exponent of the items' attraction where people find them by themselves."""
    appeal_sd: float = 0.4
    """Standard deviation of the items' log-odds of a click."""
    quality_sd: float = 0.6
    """Standard deviation of the items' log-odds of completion; independent of appeal."""
    price_median: float = 12.0
    """Median price, in the shop's currency."""
    price_sd: float = 0.6
    """Standard deviation of the log price."""
    providers: int = 30
    """Providers; an item has one, Zipf-distributed."""
    creatives_min: int = 3
    """Fewest artworks of an item."""
    creatives_max: int = 8
    """Most artworks of an item."""
    pull_sd: float = 0.2
    """Standard deviation of a creative's own log-odds of a click: the same for everybody."""
    subjects: int = 12
    """Subject lines of messages."""
    heroes: int = 12
    """Hero pictures of messages."""


@dataclass(slots=True, kw_only=True)
class Clicks:
    """What makes a click on an impression."""

    base: float = -2.6
    """Log-odds of a click on an examined impression of a middling item."""
    taste: float = 2.0
    """Log-odds for a taste of 1 instead of 0."""
    title_taste: float = 0.5
    """Log-odds for a title that stresses the person's own aspect instead of one at right angles."""
    image_taste: float = 0.8
    """The same for the image."""
    hour_taste: float = 0.3
    """Log-odds for one standard deviation of a category's hour curve."""
    device: dict[str, float] = field(default_factory=lambda: {"mobile": 0.0, "desktop": -0.1, "tv": 0.2})
    """Log-odds by device."""
    examination: list[float] = field(
        default_factory=lambda: [1.0, 0.85, 0.72, 0.62, 0.54, 0.47, 0.42, 0.37, 0.33, 0.30, 0.27, 0.25]
    )
    """Probability that a position is looked at, position 0 first; positions beyond the end take the last value."""


@dataclass(slots=True, kw_only=True)
class Outcomes:
    """What follows a click: completion (the true utility), stars, and what people find by themselves."""

    completion_base: float = 0.0
    """Log-odds of the mean completion at taste 0."""
    completion_taste: float = 1.5
    """Log-odds for a taste of 1 instead of 0."""
    completion_precision: float = 4.0
    """Sum of the Beta distribution's two parameters: small is all or nothing."""
    rating_share: float = 0.15
    """Probability of stars after a click at completion 0.5."""
    rating_selection: float = 1.5
    """Log-odds of giving stars for completion 1 instead of 0: the content speak more."""
    leniency_sd: float = 0.5
    """Standard deviation over people of the stars they add."""
    hype: float = 0.4
    """Stars added for one standard deviation of an item's log popularity."""
    organic_visits_share: float = 0.5
    """Share of visits in which a person finds an item by search besides the slate."""
    organic_taste: float = 2.0
    """Log-odds for taste in what people find by themselves."""


@dataclass(slots=True, kw_only=True)
class Purchases:
    """Who buys, and what an offer does."""

    base: float = -3.0
    """Log-odds of a purchase after a click at the median price, taste 0."""
    taste: float = 1.0
    """Log-odds for a taste of 1 instead of 0."""
    kinds: dict[str, float] = field(
        default_factory=lambda: {"sure": 0.15, "persuadable": 0.3, "lost": 0.45, "put_off": 0.1}
    )
    """Share of people by how they answer an offer; sums to 1."""
    kind_base: dict[str, float] = field(
        default_factory=lambda: {"sure": 1.5, "persuadable": 0.0, "lost": -1.5, "put_off": 0.5}
    )
    """Log-odds added without an offer, by kind."""
    kind_offer: dict[str, float] = field(
        default_factory=lambda: {"sure": 0.1, "persuadable": 1.5, "lost": 0.0, "put_off": -1.2}
    )
    """Log-odds added by a full offer (depth 1), by kind; `Messages.offers` gives each offer's depth."""


@dataclass(slots=True, kw_only=True)
class Messages:
    """Mails: when they go out, who opens, what machines do."""

    every_days: int = 7
    """Days between two mails to a person who may be contacted; 0 sends none."""
    send_hours: list[int] = field(default_factory=lambda: [7, 9, 12, 15, 18, 20])
    """Local hours that a policy may choose from."""
    offers: dict[str, float] = field(
        default_factory=lambda: {"none": 0.0, "free_shipping": 0.4, "ten_percent": 0.7, "twenty_percent": 1.0}
    )
    """Depth of each offer, 0..1."""
    open_base: float = -1.4
    """Log-odds of a person opening a mail."""
    openness_sd: float = 1.0
    """Standard deviation of openness over people."""
    rhythm_taste: float = 0.8
    """Log-odds for one unit of the log of a person's rhythm at arrival."""
    subject_taste: float = 0.6
    """Log-odds for a subject that stresses the person's own aspect."""
    hero_taste: float = 0.6
    """Log-odds of a click after opening, for a hero that does so."""
    click_base: float = -2.0
    """Log-odds of a click after opening."""
    purchase_base: float = -3.5
    """Log-odds of a purchase within three days of a mail at the median price, taste 0, for kind base 0."""
    machine_share: float = 0.35
    """Share of people whose mail program opens every mail by itself within a minute."""


@dataclass(slots=True, kw_only=True)
class Delays:
    """How late responses come."""

    open_mean_h: float = 5.0
    """Mean hours from arrival to opening by a person."""
    purchase_mean_h: float = 14.0
    """Mean hours from click or mail to purchase."""
    rating_mean_h: float = 3.0
    """Mean hours from completion to stars."""
    most_h: float = 72.0
    """Nothing comes later."""


@dataclass(slots=True, kw_only=True)
class Unfairness:
    """Injected disparity, for audits that must find it; 0 is a fair world."""

    relative: float = 0.0
    """Group "b" of the protected column gets this share fewer offers, shown items and clicks than group "a"."""


@dataclass(slots=True, kw_only=True)
class Parameters:
    """All numbers of the response model; see the top of world/parameters.py for the formulas."""

    name: str = "easy"
    """Of this set of numbers."""
    fitted_from: list[str] = field(default_factory=list)
    """Real logs that numbers were estimated from; the fit report says which number from which."""
    switches: Switches = field(default_factory=Switches)
    """Parts that are on."""
    population: Population = field(default_factory=Population)
    """People."""
    catalogue: Catalogue = field(default_factory=Catalogue)
    """Items and creatives."""
    clicks: Clicks = field(default_factory=Clicks)
    """Clicks on impressions."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    """Completion, stars, organic plays."""
    purchases: Purchases = field(default_factory=Purchases)
    """Purchases and offers."""
    messages: Messages = field(default_factory=Messages)
    """Mails."""
    delays: Delays = field(default_factory=Delays)
    """Lateness."""
    feedback_rate: float = 0.05
    """Share of an item's attraction that is replaced each day by its share of yesterday's clicks."""
    unfairness: Unfairness = field(default_factory=Unfairness)
    """Injected disparity."""

    def __post_init__(self) -> None:
        kinds = self.purchases.kinds
        if abs(sum(kinds.values()) - 1) > 1e-6:
            raise ConfigError(f"purchases.kinds must sum to 1, got {kinds} = {sum(kinds.values())}")
        for name in ("kind_base", "kind_offer"):
            if set(getattr(self.purchases, name)) != set(kinds):
                raise ConfigError(f"purchases.{name} must name the kinds {sorted(kinds)}")
        shares = {"anonymous_share": self.population.anonymous_share, "new_share": self.catalogue.new_share}
        shares |= {f"consent_share.{k}": v for k, v in self.population.consent_share.items()}
        shares |= {"machine_share": self.messages.machine_share, "feedback_rate": self.feedback_rate}
        shares |= {f"examination[{k}]": v for k, v in enumerate(self.clicks.examination)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} must lie in 0..1, got {share}")
        if not self.clicks.examination:
            raise ConfigError("clicks.examination must give at least the first position's probability")
        if not 1 <= self.catalogue.creatives_min <= self.catalogue.creatives_max:
            raise ConfigError(
                f"catalogue.creatives_min..creatives_max must be a range from 1, got "
                f"{self.catalogue.creatives_min}..{self.catalogue.creatives_max}"
            )


def field_names(parameters: object, prefix: str = "") -> list[str]:
    """Return every dotted field name of a settings dataclass, for reports and for naming a typo's nearest field."""
    names: list[str] = []
    for f in fields(parameters):  # type: ignore[arg-type]  # any dataclass instance
        value = getattr(parameters, f.name)
        nested = hasattr(value, "__dataclass_fields__")
        names += field_names(value, f"{prefix}{f.name}.") if nested else [prefix + f.name]
    return names
