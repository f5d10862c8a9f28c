-- name: bounds
-- The first position, if there is one, the newest, or 0, and the ledger's time.
SELECT min(notification_id), coalesce(max(notification_id), 0), clock_timestamp() FROM ledger_events;

-- name: times
-- The events in order, for what they say of when they happened.
SELECT notification_id, topic, state
  FROM ledger_events
 WHERE notification_id <= %(upto)s
 ORDER BY notification_id;
