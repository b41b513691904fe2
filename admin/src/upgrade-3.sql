-- From version 2 of admin's tables to version 3.

-- Key of an encrypted volume under its secret, JSON of wire's WrappedKey; '' = not encrypted.
ALTER TABLE volumes ADD COLUMN wrapped_key TEXT NOT NULL DEFAULT '';
