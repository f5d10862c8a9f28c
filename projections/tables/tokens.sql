-- name: next_id
SELECT nextval('token_ids');

-- name: write
INSERT INTO tokens (id, version, user_name, role, token_hash, issued_at, expires_at, revoked_at)
VALUES (%(id)s, %(version)s, %(user)s, %(role)s, %(token_hash)s, %(issued_at)s, %(expires_at)s,
        %(revoked_at)s)
    ON CONFLICT (id) DO UPDATE
   SET version = excluded.version,
       revoked_at = excluded.revoked_at;

-- name: lock
SELECT id, version, user_name, role, token_hash, issued_at, expires_at, revoked_at
  FROM tokens
 WHERE id = %(id)s
   FOR UPDATE;

-- name: by_hash
SELECT id, version, user_name, role, token_hash, issued_at, expires_at, revoked_at
  FROM tokens
 WHERE token_hash = %(token_hash)s
   AND revoked_at IS NULL
   AND (expires_at IS NULL OR expires_at > clock_timestamp());

-- name: page
SELECT id, version, user_name, role, token_hash, issued_at, expires_at, revoked_at
  FROM tokens
 WHERE id > %(after)s
 ORDER BY id
 LIMIT %(limit)s;
