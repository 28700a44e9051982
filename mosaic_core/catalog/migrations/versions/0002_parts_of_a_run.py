"""Claims on parts of a run, and what its steps tell each other"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("claim") as batch_op:
        batch_op.add_column(sa.Column("part", sa.Integer(), nullable=False, server_default="0"))
        batch_op.drop_constraint("pk_claim", type_="primary")
        batch_op.create_primary_key("pk_claim", ["cycle", "variant", "part"])
    with op.batch_alter_table("forecast_run") as batch_op:
        batch_op.add_column(sa.Column("facts", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    with op.batch_alter_table("forecast_run") as batch_op:
        batch_op.drop_column("facts")
    op.execute("DELETE FROM claim WHERE part <> 0")
    with op.batch_alter_table("claim") as batch_op:
        batch_op.drop_constraint("pk_claim", type_="primary")
        batch_op.drop_column("part")
        batch_op.create_primary_key("pk_claim", ["cycle", "variant"])
