-- name: intern
-- Give a number to routing keys that have none. The advisory lock makes the numbers appear in
-- order, so that a transaction that has read up to one has not missed a smaller one.
  WITH one_at_a_time AS MATERIALIZED (SELECT pg_advisory_xact_lock(%(lock)b))
INSERT INTO lanes (tag, required_programs)
SELECT tag, string_to_array(required_programs, ' ; ')
  FROM one_at_a_time, unnest(%(tags)b::text[], %(required_programs)b::text[])
       AS new (tag, required_programs)
    ON CONFLICT DO NOTHING;

-- name: after
-- The routing keys that came after those already known.
SELECT id, tag, required_programs FROM lanes WHERE id > %(known)b::integer ORDER BY id;
