"""The compose file: valid, whole, and what its small programs do on real servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mosaic_core import __version__
from tests.infra.files import (
    BIN,
    INFRA,
    compose,
    dockerfile,
    documents,
    text_of,
    variables_in_env_file,
)
from tests.servers import postgres_server, s3_server

__all__ = ["postgres_server", "s3_server"]

FOLDER = INFRA / "compose"
COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"bucket", "catalog", "deploy"}
OURS = {n for n, s in SERVICES.items() if s["image"].startswith("mosaic-")}
# Their images write to places of their own, or start as root to become another user.
FOREIGN = set(SERVICES) - OURS


def test_the_file_is_a_compose_file() -> None:
    done = _check(FOLDER / "compose.yaml")
    assert done.returncode == 0, done.stdout


def test_the_schema_refuses_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(text_of("compose/compose.yaml").replace("healthcheck:", "healthchek:"))
    assert _check(broken).returncode != 0


def test_docker_compose_reads_it(tmp_path: Path) -> None:
    program = shutil.which("docker")
    found = program and subprocess.run([program, "compose", "version"], capture_output=True)
    if not found or found.returncode != 0:
        pytest.skip("docker compose is not installed")
    shutil.copytree(FOLDER, tmp_path / "compose")
    shutil.copy(FOLDER / ".env.example", tmp_path / "compose/.env")
    subprocess.run([str(tmp_path / "compose/make-secrets")], check=True)
    subprocess.run(
        [str(program), "compose", "--profile", "*", "config", "--quiet"],
        cwd=tmp_path / "compose", check=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_refers_to_is_there(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
    assert _secrets(service) <= set(COMPOSE["secrets"])
    for needed, how in service.get("depends_on", {}).items():
        condition = how["condition"]
        if needed in ONE_SHOT:
            assert condition == "service_completed_successfully"
        else:
            assert condition == "service_healthy"
            assert "healthcheck" in SERVICES[needed] or _image_has_health(SERVICES[needed])
        optional = SERVICES[needed].get("profiles", []) != service.get("profiles", [])
        if SERVICES[needed].get("profiles") and optional:
            assert how["required"] is False
    for volume in service.get("volumes", []):
        source, _, rest = (
            volume.rpartition(":")[0].partition(":")
            if volume.endswith(":ro")
            else (volume.partition(":"))
        )
        if source.startswith("."):
            assert volume.endswith(":ro")
            assert (FOLDER / source).exists(), f"{name} mounts {source}"
        elif "$" not in source:
            assert source in COMPOSE["volumes"]
        assert rest.startswith("/") or "$" in volume


def test_every_volume_and_secret_is_used() -> None:
    text = json.dumps(SERVICES)
    for volume in COMPOSE["volumes"]:
        assert f'"{volume}:/' in text, volume
    for secret in COMPOSE["secrets"]:
        assert any(secret in _secrets(s) for s in SERVICES.values()), secret


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_have_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service, "the image has a user of its own"
    home = [v for v in service.get("volumes", []) if ":/var/lib/mosaic" in v]
    home += [t for t in service["tmpfs"] if t.startswith("/var/lib/mosaic")]
    assert len(home) == 1, "one place to write to"
    for mount in service["tmpfs"]:
        assert not mount.startswith("/var/lib/mosaic") or _user() in mount


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_other_images_are_pinned_and_can_gain_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+(\.\d+)+", service["image"]), "a whole version"
    assert "no-new-privileges:true" in service["security_opt"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_images_are_built_here(name: str) -> None:
    service = SERVICES[name]
    target = re.fullmatch(r"mosaic-([\w-]+):\$\{MOSAIC_TAG:-(.+)\}", service["image"])
    assert target
    assert target[2] == __version__
    build = service["build"]
    assert build["target"] == target[1]
    assert (FOLDER / build["context"] / build["dockerfile"]).samefile(INFRA / "images/Dockerfile")
    assert target[1] in {i.stage for i in dockerfile() if i.word == "CMD"}


def test_monitoring_finds_what_it_scrapes_and_whom_it_tells() -> None:
    (prometheus,) = documents(INFRA / "monitoring/prometheus.yml")
    static = [s for job in prometheus["scrape_configs"] for s in job["static_configs"]]
    static += [s for m in prometheus["alerting"]["alertmanagers"] for s in m["static_configs"]]
    for target in (t for s in static for t in s["targets"]):
        host, _, port = target.partition(":")
        if host != "localhost":
            assert port in json.dumps(SERVICES[host]["healthcheck"]), target
    for pattern in prometheus["rule_files"]:
        assert (INFRA / "monitoring" / pattern).is_file()
    text = text_of("monitoring/alertmanager.yml")
    targets = {s["target"] for s in SERVICES["alertmanager"]["secrets"]}
    assert set(re.findall(r"_file: (\S+)", text)) == targets


def test_the_dashboards_ask_the_prometheus_that_is_there() -> None:
    (sources,) = documents(FOLDER / "grafana/datasources/prometheus.yaml")
    (source,) = sources["datasources"]
    assert source["url"] == "http://prometheus:9090"
    dashboards = list((INFRA / "monitoring/grafana").glob("*.json"))
    assert dashboards
    for path in dashboards:
        content = json.loads(path.read_text(encoding="utf-8"))
        own = {v["name"] for v in content.get("templating", {}).get("list", [])}
        for uid in re.findall(r'"uid": "([^"]+)"', json.dumps(content.get("panels", []))):
            assert uid == source["uid"] or uid.strip("${}") in own, f"{path.name}: {uid}"


def test_services_stay_up_and_one_shots_end() -> None:
    for name, service in SERVICES.items():
        if name in ONE_SHOT:
            assert service["restart"] == "on-failure:5"
        else:
            assert service["restart"] == "unless-stopped"


def test_nothing_listens_beyond_this_host() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
            assert "out" in service["networks"], "an internal network publishes no port"
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert SERVICES["postgres"]["networks"] == ["back"]


def test_no_secret_stands_in_the_file() -> None:
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|AUTH|ACCESS_KEY|CATALOG|CONNECTION_URL", variable):
                assert re.search(r"_FILE$", variable), f"{name}: {variable}"
                secret = str(value).removeprefix("/run/secrets/")
                assert secret in _secrets(service), f"{name} has no secret {secret}"


def test_every_variable_is_explained_and_every_explained_one_is_used() -> None:
    used = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", text_of("compose/compose.yaml")))
    explained = variables_in_env_file("compose/.env.example")
    assert used == set(explained) - {"COMPOSE_PROFILES"}
    for name, default in re.findall(
        r"\$\{([A-Z][A-Z0-9_]*):?-([^}]*)\}", text_of("compose/compose.yaml")
    ):
        assert explained[name] == default, f"{name}: another default in .env.example"


def test_the_gpu_worker_has_one_gpu_and_only_by_its_profile() -> None:
    gpu = SERVICES["gpu-worker"]
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert len(device["device_ids"]) == 1


def test_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    _make_secrets(tmp_path)
    folder = tmp_path / "secrets"
    first = {p.name: p.read_text() for p in folder.iterdir()}
    files = {Path(entry["file"]).name for entry in COMPOSE["secrets"].values()}
    assert files | {"s3_reader_key", "s3_reader_secret"} == set(first)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    word = first["mosaic_database_password"].strip()
    assert len(word) == 32
    catalog = urlsplit(first["mosaic_catalog"].strip())
    assert (catalog.username, catalog.password, catalog.hostname) == ("mosaic", word, "postgres")
    prefect = urlsplit(first["prefect_database"].strip())
    assert prefect.scheme == "postgresql+asyncpg"
    assert prefect.password == first["prefect_database_password"].strip() != word
    who = {i["name"]: i for i in json.loads(first["s3_identities.json"])["identities"]}
    for name in ("admin", "publisher", "reader"):
        assert who[name]["credentials"] == [
            {
                "accessKey": first[f"s3_{name}_key"].strip(),
                "secretKey": first[f"s3_{name}_secret"].strip(),
            }
        ]
    assert set(who["reader"]["actions"]) == {"Read", "List"}

    (folder / "webhook_secret").unlink()
    _make_secrets(tmp_path)
    second = {p.name: p.read_text() for p in folder.iterdir()}
    assert {n for n in second if first[n] != second[n]} == {"webhook_secret"}


def test_the_databases_keep_to_themselves(tmp_path: Path, postgres_server: str) -> None:
    """The script of the PostgreSQL image, on a PostgreSQL."""
    import psycopg

    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql is not installed")
    names = {"mosaic": f"m{uuid.uuid4().hex}", "prefect": f"p{uuid.uuid4().hex}"}
    script = text_of("compose/postgres/10-databases.sh")
    script = script.replace("in mosaic prefect;", f"in {names['mosaic']} {names['prefect']};")
    script = script.replace("--dbname prefect ", f"--dbname {names['prefect']} ")
    for name in names.values():
        (tmp_path / f"{name}_database_password").write_text(f"pass'$\"{name}\n")
    parts = urlsplit(postgres_server)
    environment = {
        **os.environ,
        "PGHOST": str(parts.hostname),
        "PGPORT": str(parts.port),
        "PGPASSWORD": str(parts.password),
        "POSTGRES_USER": str(parts.username),
        "SECRETS": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    try:
        assert done.returncode == 0, done.stderr
        for name in names.values():
            other = next(n for n in names.values() if n != name)
            who: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "user": name}
            who["password"] = f"pass'$\"{name}"
            with psycopg.connect(**who, dbname=name) as connection:
                connection.execute("CREATE TABLE trial (number int)")
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(**who, dbname=other)
    finally:
        with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
            for name in names.values():
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type,unused-ignore]
                connection.execute(f"DROP ROLE IF EXISTS {name}")  # type: ignore[arg-type,unused-ignore]


def test_the_bucket_is_made_once(s3_server: dict[str, str]) -> None:
    name = f"b{uuid.uuid4().hex}"
    environment = {**os.environ, **s3_server, "AWS_ENDPOINT_URL_S3": s3_server["AWS_ENDPOINT_URL"]}
    for _ in range(2):
        done = _make_bucket({**environment, "MOSAIC_STORE": f"s3://{name}/operational"})
        assert (done.returncode, done.stdout) == (0, f"bucket {name} is there\n")
    wrong = _make_bucket({**environment, "MOSAIC_STORE": "/var/store"})
    assert wrong.returncode != 0
    assert "MOSAIC_STORE=/var/store is not s3://" in wrong.stderr


def _secrets(service: dict[str, Any]) -> set[str]:
    return {s if isinstance(s, str) else s["source"] for s in service.get("secrets", [])}


def _make_bucket(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "make_bucket.py")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _make_secrets(folder: Path) -> None:
    subprocess.run(
        [str(FOLDER / "make-secrets"), str(folder)], check=True, stdout=subprocess.DEVNULL
    )


def _check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def _image_has_health(service: dict[str, Any]) -> bool:
    target = service["build"]["target"]
    return any((i.stage, i.word) == (target, "HEALTHCHECK") for i in dockerfile())


def _user() -> str:
    (user,) = [i.rest for i in dockerfile() if (i.stage, i.word) == ("runtime", "USER")]
    number, _, group = user.partition(":")
    return f"uid={number},gid={group}"
