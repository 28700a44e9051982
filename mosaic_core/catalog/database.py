"""Connections to SQLite and PostgreSQL that behave alike, with errors in plain words."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from mosaic_core.errors import CatalogError, CatalogUnreachable, ConfigurationError

BUSY_SECONDS: Final = 30.0


def parse_url(text: str) -> URL:
    """Read `sqlite:///path`, a path that ends in `.db` or `.sqlite`, or `postgresql://...`.

    Raises:
        ConfigurationError: of another kind; the text is not repeated: it may hold a password.
    """
    if "://" not in text and text.endswith((".db", ".sqlite")):
        text = f"sqlite:///{text}"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError(
            "the catalog's URL is not understood"
            + (f" ({url.drivername}://...)" if url is not None else ""),
            "sqlite:///path/catalog.db or postgresql://user:password@host/database",
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "a catalog in memory is lost with the process", "sqlite:///path/catalog.db"
        )
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url


def connect(url: URL) -> Engine:
    """An engine for `url`; nothing is connected or made yet.

    Raises:
        CatalogError: the driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10, "application_name": "mosaic"},
        )
    except (ImportError, NoSuchModuleError) as error:
        raise CatalogError(
            f"the driver of PostgreSQL is not installed ({error})",
            "psycopg 3",
            "pip install 'mosaic-forecast[postgres]'",
        ) from error


@contextlib.contextmanager
def plain_errors(url: URL) -> Iterator[None]:
    """Turn errors of the database into CatalogError; the password is never in the message."""
    try:
        yield
    except IntegrityError as error:
        raise CatalogError(
            f"the catalog refuses the row: {_first_line(error)}", "a row that is not there yet"
        ) from error
    except (DBAPIError, sqlite3.Error) as error:
        raise _explained(url, error) from error


def shown(url: URL) -> str:
    """The URL without its password."""
    return url.render_as_string(hide_password=True)


def _explained(url: URL, error: Exception) -> CatalogError:
    message = _first_line(error)
    if url.password:
        message = message.replace(str(url.password), "***")
    low = message.lower()
    where = f"catalog {shown(url)}"
    if "password authentication failed" in low or ("role" in low and "does not exist" in low):
        return CatalogError(
            f"{where} does not accept the user or password",
            "credentials of a role that may write",
            "correct MOSAIC_CATALOG or the profile's catalog URL",
        )
    if "database" in low and "does not exist" in low:
        return CatalogError(f"{where}: the database does not exist", "one", "createdb it")
    if "unable to open database file" in low or "readonly database" in low:
        return CatalogError(
            f"{where} cannot be written", "a file in a writable folder", "check its permissions"
        )
    if "is full" in low or "no space left" in low:
        return CatalogError(f"{where}: the disk is full", "free space", "free some and run again")
    if "not a database" in low or "malformed" in low:
        return CatalogError(
            f"{where} is damaged or no SQLite file", "a catalog", "restore it from a backup"
        )
    if "locked" in low:
        return CatalogError(
            f"{where} was locked for {BUSY_SECONDS:g} s", "short transactions", "run again"
        )
    if any(sign in low for sign in ("connect", "could not translate", "timeout", "terminat")):
        return CatalogUnreachable(
            f"{where} cannot be reached ({message})",
            "a running database",
            "check host, port and whether the server is up",
        )
    return CatalogError(f"{where}: {message}", "a catalog that works")


def _first_line(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).strip().split("\n", 1)[0]


def _sqlite(url: URL) -> Engine:
    path = Path(str(url.database)).expanduser().absolute()
    engine = create_engine(url.set(database=str(path)), connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "do_connect")
    def _make_folder(*_: object) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogError(
                f"the folder {path.parent} cannot be made ({error.strerror})", "a writable folder"
            ) from error

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and then writes would otherwise fail under contention.
        reads = connection.get_execution_options().get("mosaic_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
