-- name: lock
-- One sealer at a time; readers of seals do not wait.
LOCK TABLE seals IN EXCLUSIVE MODE;

-- name: newest
SELECT size, position, root, note FROM seals ORDER BY size DESC LIMIT 1;

-- name: keys
-- The public keys, oldest first; the last one is in use.
SELECT vkey FROM seal_keys ORDER BY number;

-- name: add_key
INSERT INTO seal_keys (vkey) VALUES (%(vkey)b);

-- name: hash
-- The leaf hashes of the next events, and their positions. What is hashed is `leaf_of` in
-- domain/proof/seals.py, after a zero byte. Only hashes leave the database: half the cost for the machine.
SELECT coalesce(array_agg(position), '{}'), coalesce(string_agg(hash, ''::bytea), ''::bytea)
  FROM (SELECT notification_id AS position,
               sha256('\x0001'::bytea || int8send(notification_id) || uuid_send(originator_id)
                      || int8send(originator_version) || int4send(octet_length(topic))
                      || convert_to(topic, 'UTF8') || state) AS hash
          FROM ledger_events
         WHERE notification_id > %(after)b
         ORDER BY notification_id
         LIMIT %(limit)b) AS next_events;

-- name: tiles
SELECT level, number, hashes
  FROM seal_tiles
  JOIN unnest(%(levels)b::smallint[], %(numbers)b::bigint[]) AS wanted (level, number)
       USING (level, number);

-- name: write_tiles
-- A full tile is written once; one that is not full grows.
INSERT INTO seal_tiles (level, number, last_position, hashes)
SELECT *
  FROM unnest(%(levels)b::smallint[], %(numbers)b::bigint[], %(last_positions)b::bigint[],
              %(hashes)b::bytea[]) AS tile
    ON CONFLICT (level, number)
    DO UPDATE SET hashes = EXCLUDED.hashes, last_position = EXCLUDED.last_position;

-- name: write_seal
INSERT INTO seals (size, position, root, note)
VALUES (%(size)b, %(position)b, %(root)b, %(note)b);

-- name: sign_anew
UPDATE seals SET note = %(note)b WHERE size = %(size)b;

-- name: places
-- In which tile of leaves each of these positions is.
SELECT place.position,
       (SELECT number
          FROM seal_tiles
         WHERE level = 0 AND last_position >= place.position
         ORDER BY last_position
         LIMIT 1)
  FROM unnest(%(positions)b::bigint[]) AS place (position);

-- name: history
-- All events of one stream, as they are stored, oldest first.
SELECT notification_id, originator_version, topic, state
  FROM ledger_events
 WHERE originator_id = %(id)b
 ORDER BY originator_version;

-- name: all_seals
SELECT size, position, root, note FROM seals ORDER BY size;

-- name: leaf_tiles
SELECT number, hashes FROM seal_tiles WHERE level = 0 ORDER BY number;

-- name: upper_tiles
SELECT level, number, hashes FROM seal_tiles WHERE level > 0;

-- name: payloads
SELECT digest, size_bytes, codec, data FROM payloads;
