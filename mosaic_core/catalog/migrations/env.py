"""Run by Alembic: migrate on the connection that `mosaic_core.catalog.schema` hands over."""

from alembic import context

from mosaic_core.catalog.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
