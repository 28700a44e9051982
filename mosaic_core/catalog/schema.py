"""Versions of the catalog's schema, moved by Alembic; the migrations are in the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from mosaic_core.errors import CatalogError

_LOCK = 0x6D6F7361  # "mosa": PostgreSQL's advisory lock for migrations


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, to work on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this program works with."""
    return str(ScriptDirectory.from_config(configuration()).get_current_head())


def current(connection: Connection) -> str | None:
    """The revision of the database; None when it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to `revision`; processes that do so at once take turns."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    found = current(connection)
    if found is not None:
        _refuse_unknown(found)
    command.upgrade(configuration(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Take the schema back to `revision` (`base` removes every table and its rows)."""
    command.downgrade(configuration(connection), revision)


def require_current(connection: Connection) -> None:
    """CatalogError unless the database has the schema of this program."""
    found = current(connection)
    if found == head():
        return
    if found is None:
        raise CatalogError(
            "the catalog has no tables", f"schema {head()}", "run `mosaic catalog upgrade`"
        )
    _refuse_unknown(found)
    raise CatalogError(
        f"the catalog has the older schema {found}", head(), "run `mosaic catalog upgrade`"
    )


def _refuse_unknown(found: str) -> None:
    scripts = ScriptDirectory.from_config(configuration())
    known = {script.revision for script in scripts.walk_revisions()}
    if found not in known:
        raise CatalogError(
            f"the catalog has schema {found}, which this program does not know",
            f"{head()} or older",
            "install the newer release of mosaic-forecast that wrote it",
        )
