"""The Python client: the ledger over HTTP, blocking (`Client`) or with asyncio (`AsyncClient`)."""

from __future__ import annotations

from .asynchronous import AsyncClient, AsyncFoundRecords
from .blocking import Client, FoundRecords
from .calls import RecordSpec
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
from .results import (
    Counts,
    History,
    InsertMetadata,
    Manager,
    Managers,
    NewToken,
    Record,
    Records,
    ReturnMetadata,
    Server,
    Token,
    Tokens,
)
from .wire import json_bytes

__all__ = [
    "AsyncClient",
    "AsyncFoundRecords",
    "Client",
    "ClientError",
    "Connection",
    "Counts",
    "Forbidden",
    "FoundRecords",
    "History",
    "InsertMetadata",
    "InvalidArgument",
    "Manager",
    "Managers",
    "NewToken",
    "NotConnected",
    "NotFound",
    "Record",
    "RecordSpec",
    "Records",
    "RecordsNotFound",
    "Refused",
    "ReturnMetadata",
    "Server",
    "ServerFault",
    "Token",
    "Tokens",
    "Unauthorized",
    "WaitTimeout",
    "find_connection",
    "home_folder",
    "json_bytes",
    "read_connection",
    "write_connection",
]
