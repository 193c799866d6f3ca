"""The numbers of the world: what a preset in conf/world/ sets, and what `playbill fit` estimates from real logs.

How people respond, in one place (functions in `respond.py` and `messages.py` compute exactly this; p person, i item, c
creative of i, s subject line, h hero picture, o offer):

    taste_p(day)  = cos(a) * taste_p + sin(a) * turn_p, unit vectors at right angles; a = drift_per_year * day / 365
    taste(p, i)   = <taste_p(day), aspects_i>
    price(p, i)   = -price_sensitivity_p * log(price_i / price_median)
    kind(p, o)    = kind_base[kind_p] + depth_o * kind_offer[kind_p] + inclination_p

    click         = examine[position] * sigmoid(clicks.base + appeal_i + clicks.taste * taste(p, i)
                        + title_taste * <taste_p, title_c> + image_taste * <taste_p, image_c> + pull_c
                        + hour_taste * curve(category_i, local hour) + device[device]) * fair_p
    completion    ~ Beta with mean sigmoid(completion_base + completion_taste * taste(p, i) + quality_i)
                    and precision completion_precision: THE TRUE UTILITY of a click, in 0..1
    rating given  = sigmoid(logit(rating_share) + rating_selection * (completion - 0.5))
    stars         = 5 * completion + leniency_p + hype * (standardised log popularity of i), rounded, within 1..5:
                    a biased statement of the utility, given more often by the content
    purchase      = sigmoid(purchases.base + purchases.taste * taste(p, i) + price(p, i) + kind(p, o)), after a click
                    A person is one of four kinds: sure (buys without an offer), persuadable (an offer helps), lost
                    (nothing helps), put off (an offer harms).
    open          = sigmoid(open_base + openness_p + rhythm_taste * log rhythm_p(local hour of week at arrival)
                        + subject_taste * <taste_p, title_s> + pull_s); machines open on their own besides.
                    The wait until then passes as rhythm_p goes: fast in the person's hours, hardly at all at night
    message click = sigmoid(messages.click_base + hero_taste * <taste_p, image_h> + pull_h), after opening
    mail purchase = sigmoid(messages.purchase_base + kind(p, o)), within three days of a mail, depth_o counting only
                    where the person opened it; its delay runs from the click in the mail, else from the opening,
                    and from the arrival where the person did neither
    found         a person who searches draws organic_candidates items by attraction and takes one of them with
                    probability in proportion to exp(organic_taste * taste(p, i))
    attraction    of a day = (1 - feedback_rate) * attraction + feedback_rate * share of yesterday's clicks
    fair_p        = 1 - unfairness.relative for group "b", else 1; see `Unfairness`

`appeal_i`, `quality_i` and `pull_c` are item and creative effects: what draws the eye is not what is finished.
Every part has a switch in `Switches`; a part that is off contributes nothing and draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from playbill.errors import ConfigError
from playbill.world.ranges import check_ranges


@dataclass(slots=True, kw_only=True)
class Switches:
    """Parts of the response model that can be turned off one by one."""

    taste: bool = True
    """Clicks, completion, purchases and search depend on taste(p, i); titles and images have their own switches."""
    position: bool = True
    """Lower positions are examined less; off: everything is examined."""
    title: bool = True
    """Titles of creatives and subject lines of mails meet tastes."""
    image: bool = True
    """Images of creatives and hero pictures of mails meet tastes."""
    hour: bool = True
    """Categories have hours of the day at which they are clicked more."""
    rhythm: bool = True
    """People have hours of the week; off: every hour is as likely for a visit and for an opening."""
    device: bool = True
    """Devices click differently."""
    rating_bias: bool = True
    """Stars are a biased statement of utility; off: completion times five, rounded, given at random."""
    price: bool = True
    """Prices matter, to each person by their sensitivity."""
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
    taste_spread: float = 1.4
    """Length of the personal part of a taste beside its segment's part of 1; 0 makes a segment's people equal."""
    segment_error: float = 0.2
    """Share of people whose declared segment is not their own."""
    anonymous_share: float = 0.3
    """Share of people who never log in: their events carry a session_id alone."""
    activity_mean: float = 0.06
    """Visits a day of the mean person, times the size's `activity`."""
    activity_sd: float = 1.0
    """Standard deviation of the log of visits a day over people."""
    hours: list[float] = field(
        default_factory=lambda: [
            *(0.5, 0.3, 0.2, 0.15, 0.15, 0.25, 0.5, 0.9, 1.1, 1.1, 1.1, 1.15),
            *(1.3, 1.3, 1.2, 1.15, 1.2, 1.3, 1.5, 1.7, 1.9, 1.9, 1.5, 0.9),
        ]
    )
    """How often people are there by local hour of the day, 24 numbers; only their ratios matter."""
    weekdays: list[float] = field(default_factory=lambda: [1.0, 0.95, 0.95, 1.0, 1.05, 1.15, 1.2])
    """The same by day of the week, Monday first."""
    rhythms: int = 64
    """Different rhythms; each person has one of them."""
    rhythm_concentration: float = 1.0
    """How far a rhythm is from the population's: 0 is equal to it; the log varies by +-this over the day."""
    timezones: dict[str, float] = field(
        default_factory=lambda: {"UTC": 0.4, "Africa/Lagos": 0.3, "Asia/Dubai": 0.1, "America/Bogota": 0.2}
    )
    """Share of people by timezone; zones that keep one offset all year (world/people.py lists them)."""
    device_share: dict[str, float] = field(default_factory=lambda: {"mobile": 0.6, "desktop": 0.3, "tv": 0.1})
    """Share of visits by device of the middling person; the same devices as in clicks.device."""
    device_spread: float = 1.0
    """Standard deviation over people of each device's log share: 0 makes habits equal."""
    price_sensitivity_mean: float = 0.8
    """Mean of the log-odds lost when the price rises by a factor of e."""
    price_sensitivity_sd: float = 0.4
    """Its standard deviation over people; it is never negative."""
    contactable_share: float = 0.7
    """Share of the people with an account to whom mail can be sent."""
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
    second_category_share: float = 0.3
    """Share of items that belong to a second category too."""
    new_share: float = 0.4
    """Share of items published after the first day, evenly over the time."""
    popularity_exponent: float = 0.9
    """Zipf exponent of the items' attraction where people find them by themselves."""
    popularity_offset: float = 0.0
    """Share of the items added to every rank before the exponent (Zipf-Mandelbrot): 0 is Zipf, large is exponential."""
    popularity_appeal: float = 0.3
    """Correlation between an item's appeal and its place in popularity; -1..1."""
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
    delay_mean_s: float = 20.0
    """Mean seconds from the slate to a click; the visit goes on, so no click comes after five minutes."""


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
    leniency_mean: float = 0.5
    """Stars that the mean person adds: people are polite."""
    leniency_sd: float = 0.5
    """Standard deviation over people of the stars they add."""
    hype: float = 0.4
    """Stars added for one standard deviation of an item's log popularity."""
    organic_visits_share: float = 0.5
    """Share of visits in which a person finds an item by search besides the slate."""
    organic_taste: float = 2.0
    """Log of the odds for a taste of 1 instead of 0 in what people find by themselves."""
    organic_candidates: int = 8
    """Items that a search lists, drawn by attraction."""
    play_minutes: float = 40.0
    """Minutes that a whole play takes; a play's event comes when it ends."""


@dataclass(slots=True, kw_only=True)
class Purchases:
    """Who buys, and what an offer does."""

    base: float = -3.0
    """Log-odds of a purchase after a click at the median price, taste 0."""
    taste: float = 1.0
    """Log-odds for a taste of 1 instead of 0."""
    inclination_sd: float = 0.5
    """Standard deviation over people of their own log-odds of a purchase."""
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
    """Local hours that a policy may choose from, each once."""
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
    """Log-odds of a purchase within three days of a mail, for a kind's base 0."""
    machine_share: float = 0.35
    """Share of people whose mail program opens every mail by itself, soon after it arrives."""


@dataclass(slots=True, kw_only=True)
class Delays:
    """How late responses come."""

    machine_open_mean_s: float = 20.0
    """Mean seconds from arrival to opening by a machine."""
    open_mean_h: float = 5.0
    """Mean hours from arrival to opening by a person."""
    purchase_mean_h: float = 14.0
    """Mean hours to a purchase from a click, or from a mail's opening (its arrival, where it stays unopened)."""
    rating_mean_h: float = 3.0
    """Mean hours from completion to stars."""
    most_h: float = 72.0
    """Nothing comes later; at most 72."""


@dataclass(slots=True, kw_only=True)
class Unfairness:
    """Injected disparity against group "b" of the protected column, for audits that must find it; 0 is a fair world.

    Three things are multiplied by 1 - relative for group "b", each by a rule of its own that looks at nothing else:
    the probability of a click on an impression, the probability that a chosen item is in fact shown, and the
    probability of every offer (the rest goes to the offer of depth 0).
    """

    relative: float = 0.0
    """Share by which group "b" gets less than group "a"; 0 is exactly fair."""
    clicks: bool = True
    """Clicks on impressions are rarer."""
    exposure: bool = True
    """Chosen items are shown more rarely."""
    offers: bool = True
    """Offers are rarer."""


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
        check_ranges(self)
        kinds = self.purchases.kinds
        if abs(sum(kinds.values()) - 1) > 1e-6:
            raise ConfigError(f"purchases.kinds must sum to 1, got {kinds} = {sum(kinds.values())}")
        for name in ("kind_base", "kind_offer"):
            if set(getattr(self.purchases, name)) != set(kinds):
                raise ConfigError(f"purchases.{name} must name the kinds {sorted(kinds)}")
        if set(self.population.device_share) != set(self.clicks.device) or not self.clicks.device:
            raise ConfigError(
                f"population.device_share must name the devices of clicks.device {list(self.clicks.device)}"
            )
        odd = [name for name in self.population.consent_share if not name.isidentifier()]
        if odd:
            raise ConfigError(f"population.consent_share: {odd} cannot be part of a column name; use a plain word")
        if len(self.population.hours) != 24 or len(self.population.weekdays) != 7:
            raise ConfigError("population.hours must have 24 numbers and population.weekdays 7")
        if not sum(self.population.timezones.values()) > 0:
            raise ConfigError("population.timezones must name at least one zone with a share above 0")
        if 0 not in self.messages.offers.values():
            raise ConfigError('messages.offers must have one of depth 0, such as "none"')
        for name, given in {
            "messages.send_hours": self.messages.send_hours,
            "clicks.examination": self.clicks.examination,
        }.items():
            if not given:
                raise ConfigError(f"{name} must have at least one entry")
        hours = self.messages.send_hours
        if len(set(hours)) < len(hours):
            raise ConfigError(f"messages.send_hours must name each hour once, got {list(hours)}")
        if not self.catalogue.creatives_min <= self.catalogue.creatives_max:
            raise ConfigError(
                f"catalogue.creatives_min..creatives_max must be a range, got "
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
