CREATE TABLE refusal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tracking TEXT NOT NULL UNIQUE,
    registration_key TEXT NOT NULL,
    -- Whether the ID scope was one of ours: each kind has a budget of its own.
    known INTEGER NOT NULL,
    repeats INTEGER NOT NULL DEFAULT 0,
    record TEXT NOT NULL
) STRICT;

CREATE INDEX refusal_by_registration ON refusal (registration_key, id);
CREATE INDEX refusal_by_kind ON refusal (known, id);

-- The tracking IDs of refusals that were counted in an earlier one.
CREATE TABLE alias (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tracking TEXT NOT NULL UNIQUE,
    refusal INTEGER NOT NULL
) STRICT;
