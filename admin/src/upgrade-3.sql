-- From version 2 of admin's tables to version 3: limits of volume tokens.

-- Of all sessions of a token together; 0 = no limit. Requests and bytes are per second.
ALTER TABLE tokens ADD COLUMN max_sessions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN ops_per_second INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN bytes_per_second INTEGER NOT NULL DEFAULT 0;
