-- name: hold
SELECT pg_advisory_lock(%(lock)s, hashtext(%(name)s));

-- name: try_to_hold
SELECT pg_try_advisory_lock(%(lock)s, hashtext(%(name)s));

-- name: let_go
SELECT pg_advisory_unlock(%(lock)s, hashtext(%(name)s));

-- name: shadows
-- The schemas whose names are those of shadows.
SELECT nspname FROM pg_namespace
 WHERE starts_with(nspname, %(prefix)s)
   AND substr(nspname, length(%(prefix)s) + 1) ~ '^[0-9a-f]{8}$'
 ORDER BY nspname;

-- name: quoted
-- Names, one inside of the other, as PostgreSQL writes them.
SELECT string_agg(quote_ident(name), '.' ORDER BY place)
  FROM unnest(%(names)s::text[]) WITH ORDINALITY AS part (name, place);

-- name: options
-- The settings of a table's storage, and of that of its large values.
SELECT c.relname, prefix || option_name, option_value
  FROM pg_class c
  LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
 CROSS JOIN LATERAL (
       SELECT '' AS prefix, * FROM pg_options_to_table(c.reloptions)
        UNION ALL
       SELECT 'toast.', * FROM pg_options_to_table(t.reloptions)) AS option
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace AND c.relname = ANY(%(tables)s);

-- name: sizes
-- How many bytes the rows of tables take, the largest table first.
SELECT c.relname, pg_table_size(c.oid)
  FROM pg_class c
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
   AND c.relname = ANY(%(tables)s)
 ORDER BY 2 DESC, 1;

-- name: primary_keys
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
   AND c.relname = ANY(%(tables)s)
   AND k.contype = 'p';

-- name: constraints
-- What else must be unique, or exclude one another.
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
   AND c.relname = ANY(%(tables)s)
   AND k.contype IN ('u', 'x')
 ORDER BY 1, 2;

-- name: indexes
-- The indexes that belong to no constraint.
SELECT c.relname, i.relname, pg_get_indexdef(i.oid)
  FROM pg_index x
  JOIN pg_class i ON i.oid = x.indexrelid
  JOIN pg_class c ON c.oid = x.indrelid
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
   AND c.relname = ANY(%(tables)s)
   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid)
 ORDER BY 1, 2;

-- name: columns
-- Columns with settings of their own for statistics. What was -1 is NULL since version 17.
SELECT c.relname, a.attname, nullif(a.attstattarget, -1),
       ARRAY(SELECT ARRAY[option_name, option_value] FROM pg_options_to_table(a.attoptions))
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
   AND c.relname = ANY(%(tables)s)
   AND a.attnum > 0
   AND NOT a.attisdropped
   AND (nullif(a.attstattarget, -1) IS NOT NULL OR a.attoptions IS NOT NULL);

-- name: privileges
-- Who may do what; where nothing was granted or revoked, what the owner may.
SELECT c.relname, CASE WHEN acl.grantee <> 0 THEN pg_get_userbyid(acl.grantee) END,
       acl.privilege_type, acl.column_name, acl.is_grantable
  FROM pg_class c
 CROSS JOIN LATERAL (
       SELECT NULL AS column_name, grantee, privilege_type, is_grantable
         FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)))
        UNION ALL
       SELECT a.attname, e.grantee, e.privilege_type, e.is_grantable
         FROM pg_attribute a, aclexplode(a.attacl) AS e
        WHERE a.attrelid = c.oid) AS acl
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace AND c.relname = ANY(%(tables)s);

-- name: not_carried_over
-- What a table can have, and its twin will not have.
SELECT c.relname, found.kind, found.name
  FROM pg_class c
 CROSS JOIN LATERAL (
       SELECT 'trigger' AS kind, tgname AS name FROM pg_trigger
        WHERE tgrelid = c.oid AND NOT tgisinternal
        UNION ALL
       SELECT 'policy', polname FROM pg_policy WHERE polrelid = c.oid
        UNION ALL
       SELECT 'foreign key', conname FROM pg_constraint
        WHERE contype = 'f' AND c.oid IN (conrelid, confrelid)
        UNION ALL
       SELECT 'statistics', stxname FROM pg_statistic_ext WHERE stxrelid = c.oid
        UNION ALL
       SELECT 'publication', p.pubname
         FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
        WHERE r.prrelid = c.oid
        UNION ALL
       SELECT 'rule or view', coalesce(nullif(r.rulename, '_RETURN'), v.relname)
         FROM pg_depend d
         JOIN pg_rewrite r ON r.oid = d.objid
         JOIN pg_class v ON v.oid = r.ev_class
        WHERE d.classid = 'pg_rewrite'::regclass
          AND d.refclassid = 'pg_class'::regclass
          AND d.refobjid = c.oid
        UNION ALL
       SELECT 'child', inhrelid::regclass::text FROM pg_inherits WHERE inhparent = c.oid
        UNION ALL
       SELECT 'other owner', pg_get_userbyid(c.relowner) WHERE c.relowner <> (
              SELECT oid FROM pg_roles WHERE rolname = current_user)
        UNION ALL
       SELECT 'replica identity', 'of its own' WHERE c.relreplident <> 'd') AS found
 WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
   AND c.relname = ANY(%(tables)s)
 ORDER BY 1, 2, 3;
