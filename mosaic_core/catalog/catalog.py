"""The catalog: what is known of every analysis, run, product, score and alert, and who did it.

The catalog and the store are the truth about what is done. Every change of a state goes along
`states`, by compare-and-set, and leaves an `event` in the same transaction.
"""

from __future__ import annotations

from mosaic_core.catalog.alerts import Alerts
from mosaic_core.catalog.claims import Claims
from mosaic_core.catalog.measures import Measures
from mosaic_core.catalog.queries import Queries
from mosaic_core.catalog.runs import Runs
from mosaic_core.catalog.scores import Scores
from mosaic_core.catalog.upkeep import Upkeep


class Catalog(Runs, Claims, Alerts, Measures, Scores, Upkeep, Queries):
    """One catalog. Safe to use from several threads; each process opens its own.

    Args:
        url: `sqlite:///path/catalog.db` or `postgresql://user:password@host/database`.
        actor: who acts, in events; host and process when not given.
        clock: the time, UTC; when not given, that of PostgreSQL's server or of this machine, so
            that all who share a catalog share a clock.
        check: refuse a schema that is not this program's. A SQLite file is brought up to date
            instead, because nobody else looks after it.

    Raises:
        ConfigurationError: the URL is of another kind.
        CatalogError: it cannot be reached, does not accept the password, or has another schema.
    """
