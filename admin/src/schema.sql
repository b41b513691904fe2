-- Version 1 of admin's tables (PRAGMA user_version). Times are whole seconds since 1970.

CREATE TABLE accounts (
    id         TEXT PRIMARY KEY,          -- UUID
    name       TEXT NOT NULL UNIQUE,
    notes      TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE providers (
    code TEXT PRIMARY KEY,
    name TEXT NOT NULL
) STRICT;

CREATE TABLE regions (
    id       TEXT PRIMARY KEY,            -- provider '/' code
    provider TEXT NOT NULL REFERENCES providers(code),
    code     TEXT NOT NULL,
    name     TEXT NOT NULL
) STRICT;

CREATE TABLE block_stores (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    kind       TEXT NOT NULL DEFAULT 'hosted' CHECK (kind IN ('hosted', 'file', 's3')),
    region     TEXT REFERENCES regions(id),
    path       TEXT NOT NULL DEFAULT '',  -- of kind file
    endpoint   TEXT NOT NULL DEFAULT '',  -- of kind s3, as the next two
    bucket     TEXT NOT NULL DEFAULT '',
    prefix     TEXT NOT NULL DEFAULT '',
    notes      TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE meta_stores (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    address    TEXT NOT NULL,             -- host:port that mounts connect to
    region     TEXT REFERENCES regions(id),
    notes      TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE volumes (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    meta_store  TEXT NOT NULL REFERENCES meta_stores(id),
    block_store TEXT NOT NULL REFERENCES block_stores(id),
    block_size  INTEGER NOT NULL,         -- bytes
    compression TEXT NOT NULL,
    retention   INTEGER NOT NULL,         -- seconds, -1 = for ever
    max_blocks  INTEGER NOT NULL,         -- 0 = no limit, as the next
    max_inodes  INTEGER NOT NULL,
    flags       TEXT NOT NULL,            -- JSON of wire's Flags
    notes       TEXT NOT NULL DEFAULT '',
    created_at  INTEGER NOT NULL,
    retired_at  INTEGER
) STRICT;
-- A retired volume gives its name back.
CREATE UNIQUE INDEX volumes_name ON volumes(name) WHERE retired_at IS NULL;

-- Tokens of every kind: the secret is not here, only its SHA-256. Exactly one owner.
CREATE TABLE tokens (
    id           TEXT PRIMARY KEY,        -- 32 hex digits
    kind         TEXT NOT NULL CHECK (kind IN ('account', 'volume', 'meta')),
    hash         BLOB NOT NULL CHECK (length(hash) = 32),
    account      TEXT REFERENCES accounts(id) ON DELETE CASCADE,
    volume       TEXT REFERENCES volumes(id) ON DELETE CASCADE,
    meta_store   TEXT REFERENCES meta_stores(id) ON DELETE CASCADE,
    mount_path   TEXT NOT NULL DEFAULT '/',
    flags        TEXT NOT NULL DEFAULT '{}',
    notes        TEXT NOT NULL DEFAULT '',
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    last_used_by TEXT NOT NULL DEFAULT '',
    CHECK ((kind = 'account') = (account IS NOT NULL)),
    CHECK ((kind = 'volume') = (volume IS NOT NULL)),
    CHECK ((kind = 'meta') = (meta_store IS NOT NULL))
) STRICT;
CREATE INDEX tokens_account ON tokens(account) WHERE account IS NOT NULL;
CREATE INDEX tokens_volume ON tokens(volume) WHERE volume IS NOT NULL;
CREATE INDEX tokens_meta_store ON tokens(meta_store) WHERE meta_store IS NOT NULL;
CREATE INDEX tokens_expiry ON tokens(expires_at) WHERE expires_at IS NOT NULL;
