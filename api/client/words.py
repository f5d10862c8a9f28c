"""Events in words: a sentence for every kind, and what it says besides in a few words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from string import Formatter
from typing import Any, Final, cast

from ..schemas.events import EventOut
from .tables import shown

# What a line has no room for: digests, and what stands elsewhere in the row.
_UNTOLD: Final = frozenset(
    {
        "kind",
        "spec",
        "state",
        "priority",
        "retries",
        "lease_expires_at",
        "keys",
        "awaits",
        "until",
        "any_child",
        "takes_errors",
        "code_version",
    }
)
# So many of a list are told; then how many more there are.
_LISTED: Final = 6


def summary(event: EventOut, without: Collection[str] = ()) -> str:
    """Return what an event says besides who and when, in a few words; some fields left out."""
    data = {
        key: value
        for key, value in event.data.items()
        if value not in (None, [], {}, ()) and key not in without
    }
    parts: list[str] = []
    for name, value in data.items():
        match name, value:
            case "outcome", dict():
                parts.append(_outcome(value))  # pyright: ignore[reportUnknownArgumentType]
            case "text", _:
                parts.append(_text(value))
            case "function", _:
                parts.append(str(value))
            case ("retries", 0) | ("priority", 1 | "normal"):
                continue
            case "progress", float():
                parts.append(f"{100 * value:.0f} %")
            case "children", list():
                ids = cast("list[int]", value)
                more = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
                parts.append(f"children {', '.join(map(str, ids[:_LISTED]))}{more}")
            case (("retries" | "priority"), _):
                parts.append(f"{name} {value}")
            case _ if name in _UNTOLD or (isinstance(value, dict) and "digest" in value):
                continue
            case _:
                parts.append(f"{name.removesuffix('_id').replace('_', ' ')} {shown(value)}")
    return ", ".join(part for part in parts if part)


def _text(text: object) -> str:
    """Return what a comment or an error says, or that it was destroyed with its record."""
    match text:
        case {"erased": True}:
            return "(erased)"
        case _:
            return str(text or "")


def _outcome(outcome: dict[str, Any]) -> str:
    parts: list[str] = []
    if error_type := outcome.get("error_type"):
        parts.append(f"{error_type}: {_text(outcome.get('error_message'))}".rstrip(": "))
    if (compute_s := outcome.get("compute_s")) is not None:
        parts.append(f"computed in {duration(compute_s)}")
    match outcome.get("result"):
        case {"size_bytes": int(size_bytes)}:
            parts.append(f"result {size_bytes:,} bytes")
        case _:
            pass
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time span as people write it.

    >>> [duration(s) for s in (0.0123, 4.5, 75, 7_300, 180_000)]
    ['12 ms', '4.5 s', '1 min 15 s', '2 h 1 min', '2 d 2 h']
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit_s, unit, smaller_s, smaller in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // smaller_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


# What each kind of event says, with its own fields and `who` did it.
SENTENCES: Final[Mapping[str, str]] = {
    "created": "{who} created it",
    "claimed": "{who} claimed it as attempt {attempt}",
    "service_started": "{who} started attempt {attempt}",
    "service_iterated": "iteration {iteration} is over",
    "completed": "attempt {attempt} was completed by {who}",
    "errored": "attempt {attempt} of {who} ended in an error",
    "late_result": "a result of attempt {attempt} came late from manager {manager_id}",
    "result_adopted": "{who} adopted the late result of attempt {attempt}",
    "lease_expired": "the lease of attempt {attempt} expired, and it waits again",
    "manager_lost": "manager {manager_id} was lost with attempt {attempt}, and it waits again",
    "relinquished": "manager {manager_id} gave attempt {attempt} back, and it waits again",
    "reset": "{who} reset it",
    "retry_due": "the pause before the retry is over",
    "failed": "{who} declared the error final",
    "revived": "{who} revived it",
    "held": "{who} held it",
    "released": "{who} released it",
    "cancelled": "{who} cancelled it",
    "uncancelled": "{who} took the cancellation back",
    "invalidated": "{who} declared the result invalid",
    "uninvalidated": "{who} declared the result valid again",
    "soft_deleted": "{who} deleted it",
    "undeleted": "{who} took the deletion back",
    "resubmitted": "{who} resubmitted it as record {new_record_id}",
    "commented": "{who} wrote",
    "rerouted": "{who} changed where it is queued",
    "reverted": "{who} undid an operation, and it is {status} again",
    "erased": "{who} erased it",
    "manager_registered": "{who} registered it",
    "manager_draining": "{who} drains it",
    "programs_changed": "it has other programs now",
    "program_suspended": "it gets no more tasks for {program} until {until}",
    "program_probed": "it tries {program} again with record {record_id}",
    "program_resumed": "it gets tasks for {program} again",
    "manager_deactivated": "{who} ended it",
    "manager_declared_lost": "{who} declared it lost",
    "job_submitted": "{who} submitted it, for {n_total} records",
    "job_advanced": "{n_done} records more are done",
    "job_finished": "it is finished",
    "job_cancel_requested": "{who} wants it stopped and undone",
    "job_cancelled": "it was stopped, and what it had done undone",
    "dataset_created": "{who} created it",
    "dataset_renamed": "{who} renamed it",
    "dataset_described": "{who} described it",
    "entries_added": "{who} added entries",
    "entries_renamed": "{who} renamed entries",
    "entries_removed": "{who} removed entries",
    "specification_added": "{who} added specification {specification}",
    "specification_removed": "{who} removed specification {specification}",
    "records_linked": "{who} linked records for specification {specification}",
    "records_unlinked": "{who} unlinked records of specification {specification}",
    "version_locked": "{who} locked version {number}",
    "dataset_deleted": "{who} deleted it",
    "imported": "{who} imported it from ledger {origin_ledger}, where it was {origin_id}",
    "divergence_found": "{who} found a row of {table} that is not what the log says",
    "divergence_repaired": "{who} put the row right",
    "divergence_gone": "the row is what the log says again",
}


def in_words(event: EventOut) -> str:
    """Return what happened as a sentence: who did what, what came of it, and why."""
    sentence = SENTENCES.get(event.kind, f"{event.kind.replace('_', ' ')}, by {{who}}")
    used = {name for _, name, _, _ in Formatter().parse(sentence) if name}
    values = {name: shown(event.data.get(name)) or "?" for name in used}
    words = sentence.format(**values | {"who": _who(event.actor)})
    if event.actor == f"manager:{event.data.get('manager_id')}":
        used.add("manager_id")
    more = summary(event, without=used)
    return words + (f": {more}" if more else "") + (f" ({event.reason})" if event.reason else "")


def _who(actor: str) -> str:
    """Return an actor as people say it.

    >>> [_who(actor) for actor in ("user:ann", "manager:3", "server:lease-reaper")]
    ['ann', 'manager 3', 'the server (lease-reaper)']
    """
    kind, _, name = actor.partition(":")
    match kind:
        case "user":
            return name
        case "manager" | "policy":
            return f"{kind} {name}"
        case "server":
            return f"the server ({name})"
        case _:
            return actor
