"""One crate of one kind of fruit."""

from dataclasses import dataclass

from orchard import FarmError


@dataclass(frozen=True)
class Crate:
    """A crate; `weight_g` is the fruit alone, in grams, `price_ct` a kilogram's price in cents."""

    fruit: str
    weight_g: int
    price_ct: int

    def value_ct(self) -> int:
        """What the crate is worth, in cents, rounded down."""
        return self.weight_g * self.price_ct // 1000


def split(crate: Crate, weight_g: int) -> tuple[Crate, Crate]:
    """Take `weight_g` grams out of `crate`; returns what was taken and what is left."""
    if not 0 < weight_g < crate.weight_g:
        raise FarmError(f"cannot take {weight_g} g out of {crate.weight_g} g: take less")
    taken = Crate(crate.fruit, weight_g, crate.price_ct)
    return taken, Crate(crate.fruit, crate.weight_g - weight_g, crate.price_ct)
