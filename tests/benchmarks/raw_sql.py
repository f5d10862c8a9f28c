"""The limit: one hand-written table and plain SQL for the same work. No HTTP, no history."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import Connection

from .measuring import Measurement

SUBMIT_BATCH: Final = 1_000
CLAIM_BATCH: Final = 200

_TABLE: Final = """
CREATE TABLE public.raw_tasks (
    id bigint PRIMARY KEY, status smallint NOT NULL DEFAULT 0, spec bytea NOT NULL, result bytea
) WITH (fillfactor = 80);
CREATE INDEX raw_waiting ON public.raw_tasks (id) WHERE status = 0;
"""
_SUBMIT: Final = """
INSERT INTO public.raw_tasks (id, spec) SELECT * FROM unnest(%b::bigint[], %b::bytea[])
"""
_CLAIM: Final = """
UPDATE public.raw_tasks SET status = 1
 WHERE id IN (SELECT id FROM public.raw_tasks WHERE status = 0 ORDER BY id LIMIT %b
                 FOR UPDATE SKIP LOCKED)
RETURNING id, spec
"""
_RETURN: Final = """
UPDATE public.raw_tasks r SET status = 2, result = u.result
  FROM unnest(%b::bigint[], %b::bytea[]) AS u (id, result)
 WHERE r.id = u.id AND r.status = 1
"""


def limits(url: str, n_records: int) -> dict[str, Measurement]:
    """Return what the same PostgreSQL does at best for submit, claim, return and the cycle."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLE)
        try:
            return _measure(connection, n_records)
        finally:
            connection.execute("DROP TABLE public.raw_tasks")


def _measure(connection: Connection[Any], n_records: int) -> dict[str, Measurement]:
    submit, claim, hand_in = Measurement(), Measurement(), Measurement()
    spec, result = b"x" * 120, b"y" * 1024
    for first in range(0, n_records, SUBMIT_BATCH):
        ids = list(range(first, min(first + SUBMIT_BATCH, n_records)))
        with submit.call(len(ids)):
            connection.execute(_SUBMIT, (ids, [spec] * len(ids)), prepare=True)
    claimed: list[int] = []
    while len(claimed) < n_records:
        with claim.call(0):
            rows = connection.execute(_CLAIM, (CLAIM_BATCH,), prepare=True).fetchall()
        claim.n_items += len(rows)
        claimed += [id_ for id_, _ in rows]
    for first in range(0, n_records, CLAIM_BATCH):
        ids = claimed[first : first + CLAIM_BATCH]
        with hand_in.call(len(ids)):
            connection.execute(_RETURN, (ids, [result] * len(ids)), prepare=True)
    cycle = Measurement(n_records, claim.seconds + hand_in.seconds)
    pairs = zip(claim.latencies_s, hand_in.latencies_s, strict=False)
    cycle.latencies_s = [claiming + returning for claiming, returning in pairs]
    return {"submit": submit, "claim": claim, "return": hand_in, "cycle": cycle}
