"""The Python client: the ledger over HTTP, blocking (`Client`) or with asyncio (`AsyncClient`)."""

from __future__ import annotations

from .asynchronous import AsyncClient, AsyncFoundRecords
from .blocking import Client, FoundRecords
from .calls.records import RecordSpec
from .calls.seals import Receipt
from .connection import Connection, find_connection, home_folder, read_connection, write_connection
from .datasets import AsyncDataset, Dataset
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
from .results.records import Counts, ErrorGroup, ErrorGroups, Record, Records
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
