CREATE TABLE crates (
    id INTEGER PRIMARY KEY,
    fruit TEXT NOT NULL,
    weight_g INTEGER NOT NULL CHECK (weight_g > 0),
    price_ct INTEGER NOT NULL CHECK (price_ct >= 0)
);
