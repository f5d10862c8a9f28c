"""Which server a client talks to, and with which token: by argument, environment or file.

`recordledger up` writes the file, so that a client on the same machine needs no argument. A token
that came from a file is read again when the server refuses it, so that it can be replaced while
programs run.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from .errors import InvalidArgument, NotConnected

URL_VARIABLE: Final = "RECORDLEDGER_URL"
TOKEN_VARIABLE: Final = "RECORDLEDGER_TOKEN"  # noqa: S105  # the name of a variable
TOKEN_FILE_VARIABLE: Final = "RECORDLEDGER_TOKEN_FILE"  # noqa: S105
HOME_VARIABLE: Final = "RECORDLEDGER_HOME"
FILE_NAME: Final = "connection.json"

_LOOPBACK: Final = ("localhost", "::1")


@dataclass(frozen=True, slots=True)
class Connection:
    """A server's address and the token for it; None where the request will go without.

    Attributes:
        url: the address.
        token: the token, as it was when it was looked for.
        read_token: returns it as it is now; None where it cannot change.
    """

    url: str
    token: str | None = field(repr=False)
    read_token: Callable[[], str | None] | None = field(default=None, repr=False, compare=False)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, so that no proxy is to be asked for it."""
        host = urlsplit(self.url).hostname or ""
        return host in _LOOPBACK or host.startswith("127.")


def home_folder() -> Path:
    """Return the folder with the data of the ledger on this machine; it may not exist yet."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home)
    import platformdirs

    return Path(platformdirs.user_data_dir("recordledger", appauthor=False))


def write_connection(home: Path, url: str, token: str) -> Path:
    """Write the file by which clients on this machine find the server; only its owner may read it.

    A reader sees the old file or the new one, never half of it.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / FILE_NAME
    draft = home / f".{FILE_NAME}.{secrets.token_hex(4)}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "token": token}, file)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def read_connection(home: Path | None = None) -> Connection | None:
    """Return what the file says; None if there is none.

    Raises:
        NotConnected: the file cannot be read, or is not what `recordledger up` writes.
    """
    path = (home or home_folder()) / FILE_NAME
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise NotConnected(f"cannot read {path}: {error}; pass Client(url, token)") from error
    found: Any = None
    with contextlib.suppress(ValueError):
        found = json.loads(text)
    if isinstance(found, dict):
        fields = cast("dict[str, Any]", found)
        match fields.get("url"), fields.get("token"):
            case str(url), str(token):
                return Connection(clean_url(url), token)
            case _:
                pass
    raise NotConnected(f"{path} is damaged; restart `recordledger up`, or pass Client(url, token)")


def find_connection(
    url: str | None = None, token: str | None = None, token_file: str | Path | None = None
) -> Connection:
    """Return the connection to use; what is not given comes from the environment, then the file.

    The file's token goes to the file's server only, whatever other address is named.

    Args:
        url: the server's address.
        token: the token.
        token_file: a file that holds nothing but the token, instead of it.

    Raises:
        NotConnected: nothing says where the server is, or a file cannot be read.
        InvalidArgument: the address or the token cannot be one, or there are two tokens.
    """
    if token and token_file:
        raise InvalidArgument("pass the token or the file that contains it, not both")
    url = url or os.environ.get(URL_VARIABLE) or None
    if not token and not token_file:
        token = os.environ.get(TOKEN_VARIABLE) or None
        token_file = None if token else os.environ.get(TOKEN_FILE_VARIABLE) or None
    read_token: Callable[[], str | None] | None = None
    if token_file:
        read_token = partial(_read_token, Path(token_file))
        token = read_token()
    if url is not None:
        url = clean_url(url)
    if url is None or not token:
        kept = read_connection()
        if kept is not None and url in (None, kept.url):
            url = kept.url
            if not token:
                token, read_token = kept.token, partial(_kept_token, url)
    if url is None:
        raise NotConnected(
            "no server is configured: start one on this machine with `recordledger up`, pass "
            f"Client(url, token), or set {URL_VARIABLE} and {TOKEN_VARIABLE} "
            f"(there is no {home_folder() / FILE_NAME})"
        )
    return Connection(url, None if token is None else clean_token(token), read_token)


def _read_token(path: Path) -> str:
    try:
        return clean_token(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise NotConnected(f"cannot read a token from {path}: {error}") from error


def _kept_token(url: str) -> str | None:
    kept = read_connection()
    return clean_token(kept.token or "") if kept is not None and kept.url == url else None


def clean_url(url: str) -> str:
    """Return the address without a slash at its end.

    >>> clean_url("http://127.0.0.1:8017/")
    'http://127.0.0.1:8017'

    Raises:
        InvalidArgument: it is not the address of a web server.
    """
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    else:
        good = good and url.isascii() and url.isprintable() and " " not in url
        good = good and not (parts.query or parts.fragment)
    if not good:
        raise InvalidArgument(
            f"{url[:200]!r} is not the address of a server; write it like http://127.0.0.1:8017 "
            "or https://ledger.example.org"
        )
    return url


def clean_token(token: str) -> str:
    """Return the token without space around it, as it comes from a file or a clipboard.

    Raises:
        InvalidArgument: it has characters that no token has.
    """
    token = token.strip()
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        raise InvalidArgument(
            "the token contains characters that are not allowed in tokens; copy it again"
        )
    return token
