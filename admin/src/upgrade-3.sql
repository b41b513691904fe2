-- From version 2 of admin's tables to version 3.

-- Key of an encrypted volume under its secret, JSON of wire's WrappedKey; '' = not encrypted.
ALTER TABLE volumes ADD COLUMN wrapped_key TEXT NOT NULL DEFAULT '';

-- Limits of volume tokens, of all sessions of one together; 0 = no limit. Requests and bytes are per second.
ALTER TABLE tokens ADD COLUMN max_sessions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN ops_per_second INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN bytes_per_second INTEGER NOT NULL DEFAULT 0;
