CREATE TABLE message (
    hub INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    -- Bytes of the partition before this message. Like the time, it never falls as the sequence rises, so that both are
    -- found by halving and need no index.
    offset INTEGER NOT NULL,
    at INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (hub, partition, sequence)
) STRICT, WITHOUT ROWID;

-- Where each partition stood when the file was begun, so that numbers go on when all earlier files are gone.
CREATE TABLE tail (
    hub INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (hub, partition)
) STRICT, WITHOUT ROWID;
