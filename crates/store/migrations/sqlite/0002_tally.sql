-- How many there are of what is bounded, kept with every row that comes or goes, so that nobody has to count them.
CREATE TABLE tally (
    -- 0 for the devices of a hub, 1 for the individual enrollments of a provisioning service, 2 for its groups.
    kind INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (kind, owner)
) STRICT, WITHOUT ROWID;

INSERT INTO tally (kind, owner, amount) SELECT 0, hub, count(*) FROM identity WHERE module = '' GROUP BY hub;
INSERT INTO tally (kind, owner, amount) SELECT 1 + kind, service, count(*) FROM enrollment GROUP BY service, kind;

CREATE TRIGGER device_came AFTER INSERT ON identity WHEN NEW.module = '' BEGIN
    INSERT INTO tally (kind, owner, amount) VALUES (0, NEW.hub, 1)
        ON CONFLICT (kind, owner) DO UPDATE SET amount = amount + 1;
END;

CREATE TRIGGER device_went AFTER DELETE ON identity WHEN OLD.module = '' BEGIN
    UPDATE tally SET amount = amount - 1 WHERE kind = 0 AND owner = OLD.hub;
END;

CREATE TRIGGER enrollment_came AFTER INSERT ON enrollment BEGIN
    INSERT INTO tally (kind, owner, amount) VALUES (1 + NEW.kind, NEW.service, 1)
        ON CONFLICT (kind, owner) DO UPDATE SET amount = amount + 1;
END;

CREATE TRIGGER enrollment_went AFTER DELETE ON enrollment BEGIN
    UPDATE tally SET amount = amount - 1 WHERE kind = 1 + OLD.kind AND owner = OLD.service;
END;
