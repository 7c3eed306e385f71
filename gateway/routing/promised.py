"""What the promise of quality allows: the safest tier until a price is certified, then that price. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.config.settings import Settings
from gateway.routing.policy import Choice, fixed_to


class Promised(Struct, frozen=True):
    """What holds for each model."""

    against: str
    """The tier that the promise compares with, and that acts where no price is certified."""
    prices: Mapping[str, float]
    """The certified price by model. A model that is missing gets the tier."""

    @classmethod
    def at_first(cls, settings: Settings) -> Promised | None:
        """Before the evidence was looked at; None if nothing is to act."""
        quality = settings.quality
        return cls(quality.against, {}) if quality and quality.until == "safe" else None

    def price(self, model: str, price: float) -> float:
        """The price at which a request is decided. One that is held counts the price that it would have."""
        return min(price, self.prices.get(model, price))

    def holds(self, model: str) -> bool:
        """Whether the model has no certified price."""
        return model not in self.prices


def held_choice(choice: Choice, index: int) -> Choice:
    """The rung of the promised tier in place of a choice, as far as the bounds allow it."""
    return fixed_to(choice, index, "uncertified")
