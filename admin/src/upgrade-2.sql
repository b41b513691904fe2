-- From version 1 of admin's tables to version 2: roles of accounts, networks of tokens, and the audit log.

ALTER TABLE accounts ADD COLUMN role TEXT NOT NULL DEFAULT 'admin'
    CHECK (role IN ('admin', 'volume-admin', 'auditor'));

-- Networks that a volume token may be used from, in CIDR notation; '' = all.
ALTER TABLE tokens ADD COLUMN networks TEXT NOT NULL DEFAULT '';

-- Volumes of an account of role volume-admin.
CREATE TABLE account_volumes (
    account TEXT NOT NULL REFERENCES accounts(id) ON DELETE CASCADE,
    volume  TEXT NOT NULL REFERENCES volumes(id) ON DELETE CASCADE,
    PRIMARY KEY (account, volume)
) STRICT, WITHOUT ROWID;

-- Who did what. Names as they were then: no row refers to another table.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    account TEXT NOT NULL,                -- its name; '' = admin itself
    token   TEXT NOT NULL,                -- id of the token it was done with
    peer    TEXT NOT NULL,                -- address it came from
    action  TEXT NOT NULL,
    noun    TEXT NOT NULL,
    key     TEXT NOT NULL,
    status  INTEGER NOT NULL,             -- of the answer, as in HTTP
    detail  TEXT NOT NULL                 -- the fields of the request
) STRICT;
CREATE INDEX audit_at ON audit(at);
CREATE TRIGGER audit_is_fixed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is not changed'); END;
-- The retention is a setting; this is its least.
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit WHEN OLD.at > unixepoch() - 30 * 86400
BEGIN SELECT RAISE(ABORT, 'the audit log keeps 30 days'); END;
