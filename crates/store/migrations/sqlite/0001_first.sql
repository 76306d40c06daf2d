-- Names are found by their lower-case key; the spelling they were given in is kept in the record. Times are microseconds
-- since 1970, versions are etags. What is sealed lies in columns of type BLOB and nowhere else; of these, lock tokens, the
-- bodies of messages and the names of uploads, of their blocks and of their content alone lie in the open.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (name, number) VALUES ('etag', 0), ('generation', 0), ('run', 0), ('sealing_key', -1);

CREATE TABLE deployment (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    subscription TEXT NOT NULL,
    tenant TEXT NOT NULL,
    client TEXT NOT NULL,
    client_secret BLOB NOT NULL,
    token_key BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Every address that was ever given away; an address belongs to its owner for ever.
CREATE TABLE address (
    address TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a key is never given twice, since registrations and telemetry outlive a hub.
CREATE TABLE hub (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name_key TEXT NOT NULL UNIQUE,
    address TEXT,
    record TEXT NOT NULL,
    -- A bit for each source of events that its routes ask for; in a column, since every change of a twin looks at it.
    event_sources INTEGER NOT NULL DEFAULT 0,
    policy_keys BLOB NOT NULL,
    extra BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    etag INTEGER NOT NULL
) STRICT;

CREATE TABLE service (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name_key TEXT NOT NULL UNIQUE,
    id_scope_key TEXT NOT NULL UNIQUE,
    address TEXT,
    record TEXT NOT NULL,
    policy_keys BLOB NOT NULL,
    extra BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    etag INTEGER NOT NULL
) STRICT;

CREATE TABLE certificate (
    -- 0 for a hub, 1 for a provisioning service.
    owner_kind INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    name_key TEXT NOT NULL,
    record TEXT NOT NULL,
    etag INTEGER NOT NULL,
    PRIMARY KEY (owner_kind, owner, name_key)
) STRICT;

CREATE TABLE resource_group (
    name_key TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT;

-- Hubs and services that are gone and whose contents are still being removed, a bounded piece at a time.
CREATE TABLE removal (
    owner_kind INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    PRIMARY KEY (owner_kind, owner)
) STRICT, WITHOUT ROWID;

CREATE TABLE enrollment (
    id INTEGER PRIMARY KEY,
    service INTEGER NOT NULL,
    -- 0 for an individual enrollment, 1 for a group.
    kind INTEGER NOT NULL,
    name_key TEXT NOT NULL,
    -- 0 for TPM, 1 for X.509, 2 for a symmetric key.
    mechanism INTEGER NOT NULL,
    record TEXT NOT NULL,
    keys BLOB,
    webhook BLOB,
    etag INTEGER NOT NULL,
    UNIQUE (service, kind, name_key)
) STRICT;

CREATE INDEX enrollment_by_mechanism ON enrollment (service, mechanism, name_key) WHERE kind = 1;

-- By what X.509 groups are found.
CREATE TABLE enrollment_lookup (
    service INTEGER NOT NULL,
    -- 0 for the SHA-256 of a subject public key, in hexadecimal, 1 for the name of a CA certificate.
    kind INTEGER NOT NULL,
    value TEXT NOT NULL,
    enrollment INTEGER NOT NULL,
    PRIMARY KEY (service, kind, value, enrollment)
) STRICT, WITHOUT ROWID;

CREATE INDEX enrollment_lookup_by_enrollment ON enrollment_lookup (enrollment);

CREATE TABLE registration (
    id INTEGER PRIMARY KEY,
    service INTEGER NOT NULL,
    registration_key TEXT NOT NULL,
    record TEXT NOT NULL,
    -- Where the device is assigned at present.
    hub INTEGER,
    device TEXT,
    initial_hub INTEGER,
    -- The group that admitted it last: its key and its spelling.
    group_key TEXT,
    group_name TEXT,
    -- The operation that is under way.
    operation TEXT,
    etag INTEGER NOT NULL,
    UNIQUE (service, registration_key)
) STRICT;

CREATE INDEX registration_by_group ON registration (service, group_key, registration_key) WHERE group_key IS NOT NULL;

CREATE TABLE operation (
    -- The order in which operations are worked on.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    service INTEGER NOT NULL,
    registration_key TEXT NOT NULL,
    registrant TEXT NOT NULL,
    payload TEXT,
    plan TEXT,
    -- The fencing token: how often the operation was handed out.
    attempt INTEGER NOT NULL DEFAULT 0,
    -- A lease holds while this store is open under the same run, and until then.
    lease_run INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER NOT NULL DEFAULT 0,
    ended_at INTEGER,
    outcome TEXT
) STRICT;

CREATE INDEX operation_running ON operation (sequence) WHERE ended_at IS NULL;
CREATE INDEX operation_ended ON operation (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX operation_by_service ON operation (service);

CREATE TABLE identity (
    id INTEGER PRIMARY KEY,
    hub INTEGER NOT NULL,
    device TEXT NOT NULL,
    -- Empty for the device itself.
    module TEXT NOT NULL,
    generation TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    record TEXT NOT NULL,
    keys BLOB,
    messages_waiting INTEGER NOT NULL DEFAULT 0,
    etag INTEGER NOT NULL,
    UNIQUE (hub, device, module)
) STRICT;

CREATE INDEX identity_devices ON identity (hub, enabled) WHERE module = '';

-- The devices of a hub alone, by which they are listed in order without passing over their modules.
CREATE INDEX identity_device_names ON identity (hub, device) WHERE module = '';

CREATE TABLE session (
    identity INTEGER PRIMARY KEY,
    hub INTEGER NOT NULL,
    is_device INTEGER NOT NULL,
    -- Two bits for each known filter; NULL without a session.
    subscriptions INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    -- The run of the store in which the identity connected, 0 when it disconnected: connected is who has the present run.
    connected_run INTEGER NOT NULL DEFAULT 0,
    connection_updated_at INTEGER NOT NULL,
    last_activity_at INTEGER NOT NULL,
    -- What the latest connection announced to be a model of.
    model_id TEXT
) STRICT;

CREATE INDEX session_connected ON session (hub, connected_run, is_device);

-- Identities that were disabled, removed or re-keyed, for whoever holds their connections.
CREATE TABLE identity_change (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL
) STRICT;

-- Documents are the JSON text itself, so that order and numbers survive.
CREATE TABLE twin (
    identity INTEGER PRIMARY KEY,
    tags TEXT NOT NULL,
    desired TEXT NOT NULL,
    desired_metadata TEXT NOT NULL,
    desired_version INTEGER NOT NULL,
    reported TEXT NOT NULL,
    reported_metadata TEXT NOT NULL,
    reported_version INTEGER NOT NULL,
    version INTEGER NOT NULL,
    etag INTEGER NOT NULL,
    -- The configurations that it fulfils, and whether each applies.
    configurations TEXT NOT NULL DEFAULT '{}'
) STRICT;

-- Primitive values of tags, by which queries find twins. Made of the tags alone, and can be made again.
CREATE TABLE twin_tag (
    hub INTEGER NOT NULL,
    path TEXT NOT NULL,
    value TEXT NOT NULL,
    identity INTEGER NOT NULL,
    PRIMARY KEY (hub, path, value, identity)
) STRICT, WITHOUT ROWID;

CREATE TABLE twin_change (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    version INTEGER NOT NULL,
    patch TEXT NOT NULL
) STRICT;

-- What hubs tell of by themselves, until it is passed on to the log of telemetry.
CREATE TABLE hub_event (
    -- AUTOINCREMENT: what is told of connections is put in order by it.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    generation TEXT NOT NULL,
    change INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT
) STRICT;

-- Cloud-to-device messages, in the order enqueued. A row is there for as long as the message waits or a device has it.
CREATE TABLE message (
    -- AUTOINCREMENT: devices tell messages apart by it.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    identity INTEGER NOT NULL,
    record TEXT NOT NULL,
    body BLOB NOT NULL,
    enqueued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL DEFAULT 0,
    -- Who has it: NULL while it waits.
    lock BLOB UNIQUE,
    -- The claim of the connection that has it, for as long as that lives; NULL for a lock that runs out.
    holder INTEGER,
    -- When the sweeper looks at it: at the end of its lock, or of its time; NULL while a connection has it.
    deadline INTEGER
) STRICT;

CREATE INDEX message_by_identity ON message (identity, sequence);
CREATE INDEX message_by_deadline ON message (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX message_by_connection ON message (holder) WHERE holder IS NOT NULL;

CREATE TRIGGER message_came AFTER INSERT ON message BEGIN
    UPDATE identity SET messages_waiting = messages_waiting + 1 WHERE id = NEW.identity;
END;

CREATE TRIGGER message_went AFTER DELETE ON message BEGIN
    UPDATE identity SET messages_waiting = messages_waiting - 1 WHERE id = OLD.identity;
END;

-- What became of messages whose senders want to hear of it.
CREATE TABLE feedback (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    identity INTEGER NOT NULL,
    record TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    -- How often it was handed out.
    delivery_count INTEGER NOT NULL DEFAULT 0,
    -- Of all that was handed out together; what was locked before is free when the time has passed.
    lock BLOB,
    locked_until INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX feedback_by_hub ON feedback (hub, sequence);
CREATE INDEX feedback_by_identity ON feedback (identity);
CREATE INDEX feedback_by_expiry ON feedback (expires_at);
CREATE INDEX feedback_by_lock ON feedback (lock) WHERE lock IS NOT NULL;
CREATE INDEX feedback_by_deadline ON feedback (locked_until) WHERE lock IS NOT NULL;

CREATE TABLE configuration (
    -- AUTOINCREMENT: of equal priorities the one created last applies.
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    id TEXT NOT NULL,
    record TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    -- How many twins fulfil it, and to how many of them it applies.
    targeted INTEGER NOT NULL DEFAULT 0,
    applied INTEGER NOT NULL DEFAULT 0,
    etag INTEGER NOT NULL,
    UNIQUE (hub, id)
) STRICT;

CREATE INDEX configuration_by_hub ON configuration (hub, key);

-- What a configuration has put into the twins of its target, to be withdrawn when another applies.
CREATE TABLE configuration_put (
    identity INTEGER PRIMARY KEY,
    configuration INTEGER NOT NULL,
    puts TEXT NOT NULL
) STRICT;

-- Twins that changed since they were judged.
CREATE TABLE configuration_due (
    identity INTEGER PRIMARY KEY,
    hub INTEGER NOT NULL
) STRICT;

-- Names of configurations that were deleted since a hub's twins were all judged: some twins may still tell of them.
CREATE TABLE configuration_gone (
    hub INTEGER NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (hub, id)
) STRICT, WITHOUT ROWID;

-- Hubs all of whose twins are to be judged, and behind which identity that goes on.
CREATE TABLE configuration_sweep (
    hub INTEGER PRIMARY KEY,
    place INTEGER NOT NULL
) STRICT;

CREATE TRIGGER twin_came AFTER INSERT ON twin BEGIN
    INSERT INTO configuration_due (identity, hub) SELECT i.id, i.hub FROM identity i WHERE i.id = NEW.identity
        AND EXISTS (SELECT 1 FROM configuration c WHERE c.hub = i.hub) ON CONFLICT DO NOTHING;
    -- A module that came is perhaps one that a configuration of its device is for.
    INSERT INTO configuration_due (identity, hub) SELECT d.id, d.hub FROM identity i
        JOIN identity d ON d.hub = i.hub AND d.device = i.device AND d.module = ''
        WHERE i.id = NEW.identity AND i.module > ''
        AND EXISTS (SELECT 1 FROM configuration c WHERE c.hub = i.hub) ON CONFLICT DO NOTHING;
END;

CREATE TRIGGER twin_changed AFTER UPDATE OF tags, desired, reported ON twin BEGIN
    INSERT INTO configuration_due (identity, hub) SELECT i.id, i.hub FROM identity i WHERE i.id = NEW.identity
        AND EXISTS (SELECT 1 FROM configuration c WHERE c.hub = i.hub) ON CONFLICT DO NOTHING;
END;

CREATE TRIGGER identity_changed AFTER UPDATE OF enabled, record ON identity BEGIN
    INSERT INTO configuration_due (identity, hub) SELECT NEW.id, NEW.hub
        WHERE EXISTS (SELECT 1 FROM configuration c WHERE c.hub = NEW.hub) ON CONFLICT DO NOTHING;
END;

CREATE TABLE job (
    -- AUTOINCREMENT: the order in which jobs were created, and a key that is never given twice.
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    id TEXT NOT NULL,
    -- 0 for changes of twins, 1 for direct methods.
    kind INTEGER NOT NULL,
    record TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    starts_at INTEGER NOT NULL,
    deadline INTEGER,
    ended_at INTEGER,
    -- 0 while it waits, 1 while it runs, 2 completed, 3 failed, 4 cancelled.
    status INTEGER NOT NULL DEFAULT 0,
    failure TEXT,
    -- Behind which identity it goes on looking for its own; NULL when it has found them all.
    place INTEGER DEFAULT 0,
    -- How many of its devices stand where.
    pending INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (hub, id)
) STRICT;

CREATE INDEX job_due ON job (starts_at, key) WHERE ended_at IS NULL;
CREATE INDEX job_ended ON job (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX job_by_hub ON job (hub, key);

-- The devices of jobs, and what became of each. They stay when the device goes: they are the job's history.
CREATE TABLE job_device (
    sequence INTEGER PRIMARY KEY,
    job INTEGER NOT NULL,
    hub INTEGER NOT NULL,
    identity INTEGER NOT NULL,
    device TEXT NOT NULL,
    -- Empty for the device itself.
    module TEXT NOT NULL,
    -- 0 while nothing was done, 1 while it is called, 2 done, 3 failed.
    status INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER,
    ended_at INTEGER,
    outcome TEXT,
    UNIQUE (job, identity)
) STRICT;

CREATE INDEX job_device_pending ON job_device (job, sequence) WHERE status = 0;
CREATE INDEX job_device_running ON job_device (job) WHERE status = 1;
CREATE INDEX job_device_by_job ON job_device (job, sequence);
CREATE INDEX job_device_by_device ON job_device (hub, device, sequence);
CREATE INDEX job_device_by_hub ON job_device (hub, sequence);

-- Imports and exports of identities.
CREATE TABLE transfer (
    -- AUTOINCREMENT: the order in which they were created, and a key that is never given twice.
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    id TEXT NOT NULL,
    -- Sealed: the addresses of containers have signatures.
    record BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    -- 0 while it waits, 1 while it runs, 2 completed, 3 failed, 4 cancelled.
    status INTEGER NOT NULL DEFAULT 0,
    -- Percent.
    progress INTEGER NOT NULL DEFAULT 0,
    failure TEXT,
    -- Which file of an import is being carried out (0 of identities, 1 of configurations), how much of it was, and how many
    -- lines of all were not.
    file INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    lines INTEGER NOT NULL DEFAULT 0,
    faults INTEGER NOT NULL DEFAULT 0,
    UNIQUE (hub, id)
) STRICT;

CREATE UNIQUE INDEX transfer_under_way ON transfer (hub) WHERE ended_at IS NULL;

-- Why lines of imports that have not ended were not carried out.
CREATE TABLE transfer_fault (
    transfer INTEGER NOT NULL,
    file INTEGER NOT NULL,
    line INTEGER NOT NULL,
    hub INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (transfer, file, line)
) STRICT, WITHOUT ROWID;

CREATE INDEX transfer_fault_by_hub ON transfer_fault (hub);

-- How far each endpoint of a hub was told of each partition of the log: -1 is of nothing.
CREATE TABLE endpoint_cursor (
    hub INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    partition INTEGER NOT NULL,
    told INTEGER NOT NULL,
    PRIMARY KEY (hub, endpoint, partition)
) STRICT, WITHOUT ROWID;

-- Messages that an endpoint would not take, as the log has them.
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    log_offset INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    record BLOB NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    given_up_at INTEGER NOT NULL,
    -- 1 for one that is to be sent again.
    due INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX dead_letter_by_endpoint ON dead_letter (hub, endpoint, id);

-- Uploads of files that devices have begun and not ended.
CREATE TABLE upload (
    id BLOB PRIMARY KEY,
    hub INTEGER NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    file TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Of what was sent that no file is made of.
    blocks INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX upload_by_identity ON upload (hub, device, module);
CREATE INDEX upload_by_expiry ON upload (expires_at);

CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    hub INTEGER NOT NULL,
    name TEXT NOT NULL,
    -- The names of its content, in order.
    content TEXT NOT NULL,
    properties TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    etag INTEGER NOT NULL,
    UNIQUE (hub, name)
) STRICT;

-- What uploaded bytes are: a piece of a file, or a block of an upload that no file is made of yet.
CREATE TABLE content (
    id BLOB PRIMARY KEY,
    hub INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    file INTEGER,
    upload BLOB,
    -- What a client calls the block; a file's keep their names.
    block BLOB,
    -- When a block is removed that no file is made of.
    expires_at INTEGER,
    UNIQUE (upload, block)
) STRICT, WITHOUT ROWID;

CREATE INDEX content_by_file ON content (file) WHERE file IS NOT NULL;
CREATE INDEX content_by_hub ON content (hub);
CREATE INDEX content_by_expiry ON content (expires_at) WHERE expires_at IS NOT NULL;

-- That files were uploaded, for back-end programs.
CREATE TABLE file_notification (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    hub INTEGER NOT NULL,
    record TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL DEFAULT 0,
    lock BLOB,
    locked_until INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX file_notification_by_hub ON file_notification (hub, sequence);
CREATE INDEX file_notification_by_expiry ON file_notification (expires_at);
CREATE INDEX file_notification_by_lock ON file_notification (lock) WHERE lock IS NOT NULL;
CREATE INDEX file_notification_by_deadline ON file_notification (locked_until) WHERE lock IS NOT NULL;

-- Why devices were admitted; refusals are in a file of their own.
CREATE TABLE decision (
    id INTEGER PRIMARY KEY,
    tracking TEXT NOT NULL UNIQUE,
    registration_key TEXT NOT NULL,
    at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;

CREATE INDEX decision_by_registration ON decision (registration_key, id);

-- How many there are of what is bounded, kept with every row that comes or goes, so that nobody has to count them.
CREATE TABLE tally (
    -- 0 for the devices of a hub, 1 for the individual enrollments of a provisioning service, 2 for its groups, 3 for the
    -- charged bytes of uploaded files, whose owner is 0.
    kind INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (kind, owner)
) STRICT, WITHOUT ROWID;

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

CREATE TRIGGER content_came AFTER INSERT ON content BEGIN
    INSERT INTO tally (kind, owner, amount) VALUES (3, 0, max(NEW.bytes, 4096))
        ON CONFLICT (kind, owner) DO UPDATE SET amount = amount + max(NEW.bytes, 4096);
END;

CREATE TRIGGER content_went AFTER DELETE ON content BEGIN
    UPDATE tally SET amount = amount - max(OLD.bytes, 4096) WHERE kind = 3 AND owner = 0;
END;
