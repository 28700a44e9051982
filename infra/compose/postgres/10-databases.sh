#!/usr/bin/env bash
# Run once by the PostgreSQL image on an empty volume: a database and its owner for the catalog,
# another for the Prefect server. Neither owner can connect to the other's.
set -euo pipefail
administer() {
    psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" "$@"
}
for name in mosaic prefect; do
    PASSWORD_FILE=${SECRETS:-/run/secrets}/${name}_database_password \
        administer --dbname postgres -v name="$name" <<'SQL'
\set password `cat "$PASSWORD_FILE"`
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
administer --dbname prefect --command 'CREATE EXTENSION IF NOT EXISTS pg_trgm'
