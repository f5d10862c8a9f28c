"""The Python client: the ledger over HTTP, blocking (`Client`) or with asyncio (`AsyncClient`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .asynchronous import AsyncClient, AsyncDataset, AsyncFoundRecords
    from .blocking import Client, Dataset, FoundRecords
    from .calls.records import RecordSpec
    from .calls.seals import Receipt
    from .connection import (
        Connection,
        find_connection,
        home_folder,
        read_connection,
        write_connection,
    )
    from .errors import (
        ClientError,
        Forbidden,
        InvalidArgument,
        NotConnected,
        NotFound,
        RecordsNotFound,
        Refused,
        ServerFault,
        Unauthorized,
        WaitTimeout,
    )
    from .results.attempts import Attempts
    from .results.bulk import InsertMetadata, ReturnMetadata
    from .results.comments import Comment, Comments
    from .results.counts import Counts
    from .results.datasets import (
        DatasetDetails,
        DatasetRow,
        Datasets,
        DatasetStatus,
        DatasetSummary,
        DatasetTable,
        Entries,
        EntriesMetadata,
        Results,
        SubmitMetadata,
    )
    from .results.diff import Diff, RecordChange
    from .results.events import History, LogEvent, LogEvents, ManagerHistory
    from .results.jobs import Job, Jobs
    from .results.management import UpdateMetadata
    from .results.managers import Manager, Managers
    from .results.operations import OperationDetails, Operations, PastOperation, UndoMetadata
    from .results.origins import Origin, Origins
    from .results.records import ErrorGroup, ErrorGroups, Record, Records
    from .results.routing import Explanation, Queue, QueueLane
    from .results.self_audit import Divergence, RepairedRow, SelfAudit
    from .results.server import Policies, Server
    from .results.services import ServiceView, Tree
    from .results.timelines import Timeline, Timelines
    from .results.tokens import NewToken, Token, Tokens
    from .results.webhooks import (
        NewWebhook,
        Webhook,
        WebhookAttempt,
        WebhookAttempts,
        WebhookDetails,
        Webhooks,
    )
    from .wire import json_bytes

__all__ = [
    "AsyncClient",
    "AsyncDataset",
    "AsyncFoundRecords",
    "Attempts",
    "Client",
    "ClientError",
    "Comment",
    "Comments",
    "Connection",
    "Counts",
    "Dataset",
    "DatasetDetails",
    "DatasetRow",
    "DatasetStatus",
    "DatasetSummary",
    "DatasetTable",
    "Datasets",
    "Diff",
    "Divergence",
    "Entries",
    "EntriesMetadata",
    "ErrorGroup",
    "ErrorGroups",
    "Explanation",
    "Forbidden",
    "FoundRecords",
    "History",
    "InsertMetadata",
    "InvalidArgument",
    "Job",
    "Jobs",
    "LogEvent",
    "LogEvents",
    "Manager",
    "ManagerHistory",
    "Managers",
    "NewToken",
    "NewWebhook",
    "NotConnected",
    "NotFound",
    "OperationDetails",
    "Operations",
    "Origin",
    "Origins",
    "PastOperation",
    "Policies",
    "Queue",
    "QueueLane",
    "Receipt",
    "Record",
    "RecordChange",
    "RecordSpec",
    "Records",
    "RecordsNotFound",
    "Refused",
    "RepairedRow",
    "Results",
    "ReturnMetadata",
    "SelfAudit",
    "Server",
    "ServerFault",
    "ServiceView",
    "SubmitMetadata",
    "Timeline",
    "Timelines",
    "Token",
    "Tokens",
    "Tree",
    "Unauthorized",
    "UndoMetadata",
    "UpdateMetadata",
    "WaitTimeout",
    "Webhook",
    "WebhookAttempt",
    "WebhookAttempts",
    "WebhookDetails",
    "Webhooks",
    "find_connection",
    "home_folder",
    "json_bytes",
    "read_connection",
    "write_connection",
]

# Which module has which of the names. It is imported when one of them is asked for.
MODULES: Final = {
    "asynchronous": ("AsyncClient", "AsyncDataset", "AsyncFoundRecords"),
    "blocking": ("Client", "Dataset", "FoundRecords"),
    "calls.records": ("RecordSpec",),
    "calls.seals": ("Receipt",),
    "connection": (
        "Connection",
        "find_connection",
        "home_folder",
        "read_connection",
        "write_connection",
    ),
    "errors": (
        "ClientError",
        "Forbidden",
        "InvalidArgument",
        "NotConnected",
        "NotFound",
        "RecordsNotFound",
        "Refused",
        "ServerFault",
        "Unauthorized",
        "WaitTimeout",
    ),
    "results.attempts": ("Attempts",),
    "results.bulk": ("InsertMetadata", "ReturnMetadata"),
    "results.comments": ("Comment", "Comments"),
    "results.counts": ("Counts",),
    "results.datasets": (
        "DatasetDetails",
        "DatasetRow",
        "Datasets",
        "DatasetStatus",
        "DatasetSummary",
        "DatasetTable",
        "Entries",
        "EntriesMetadata",
        "Results",
        "SubmitMetadata",
    ),
    "results.diff": ("Diff", "RecordChange"),
    "results.events": ("History", "LogEvent", "LogEvents", "ManagerHistory"),
    "results.jobs": ("Job", "Jobs"),
    "results.management": ("UpdateMetadata",),
    "results.managers": ("Manager", "Managers"),
    "results.operations": ("OperationDetails", "Operations", "PastOperation", "UndoMetadata"),
    "results.origins": ("Origin", "Origins"),
    "results.records": ("ErrorGroup", "ErrorGroups", "Record", "Records"),
    "results.routing": ("Explanation", "Queue", "QueueLane"),
    "results.self_audit": ("Divergence", "RepairedRow", "SelfAudit"),
    "results.server": ("Policies", "Server"),
    "results.services": ("ServiceView", "Tree"),
    "results.timelines": ("Timeline", "Timelines"),
    "results.tokens": ("NewToken", "Token", "Tokens"),
    "results.webhooks": (
        "NewWebhook",
        "Webhook",
        "WebhookAttempt",
        "WebhookAttempts",
        "WebhookDetails",
        "Webhooks",
    ),
    "wire": ("json_bytes",),
}
_MODULE_OF: Final = {name: module for module, names in MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import what is asked for: most programs need a few of the names, and not all modules."""
    if (module := _MODULE_OF.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return all public names, whether or not they are imported."""
    return sorted({*globals(), *__all__})
