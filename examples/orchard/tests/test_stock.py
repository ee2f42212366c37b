import sqlite3
import unittest
from pathlib import Path

from orchard import FarmError
from orchard.crate import Crate, split
from orchard.stock import add, weight_g

MIGRATIONS = Path(__file__).parents[1] / "migrations"


def migrated() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    for path in sorted(MIGRATIONS.glob("*.sql")):
        db.executescript(path.read_text("utf-8"))
    return db


class StockTest(unittest.TestCase):
    def test_weights_add_up(self) -> None:
        db = migrated()
        add(db, Crate("plum", 4000, 320))
        add(db, Crate("plum", 1500, 320))
        add(db, Crate("apple", 9000, 210))
        self.assertEqual(weight_g(db, "plum"), 5500)
        self.assertEqual(weight_g(db, "pear"), 0)
        db.close()

    def test_split_keeps_the_weight(self) -> None:
        taken, left = split(Crate("plum", 4000, 320), 1200)
        self.assertEqual((taken.weight_g, left.weight_g), (1200, 2800))
        self.assertEqual(taken.value_ct(), 384)

    def test_split_refuses_too_much(self) -> None:
        with self.assertRaises(FarmError):
            split(Crate("plum", 4000, 320), 4000)


if __name__ == "__main__":
    unittest.main()
