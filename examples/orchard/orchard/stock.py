"""The stock: crates in a SQLite file."""

import sqlite3

from orchard.crate import Crate


def add(db: sqlite3.Connection, crate: Crate) -> None:
    """Put `crate` into the stock."""
    db.execute(
        "INSERT INTO crates (fruit, weight_g, price_ct) VALUES (?, ?, ?)",
        (crate.fruit, crate.weight_g, crate.price_ct),
    )


def weight_g(db: sqlite3.Connection, fruit: str) -> int:
    """Grams of `fruit` in the stock."""
    row = db.execute("SELECT COALESCE(SUM(weight_g), 0) FROM crates WHERE fruit = ?", (fruit,))
    return int(row.fetchone()[0])
