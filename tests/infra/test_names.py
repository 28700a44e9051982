"""Commands, ports and variables in `infra/` are those of the project and of what it runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer

from mosaic_core.cli import app
from tests.infra.files import (
    INFRA,
    ROOT,
    compose,
    dockerfile,
    documents,
    text_of,
    units,
    variables_in_env_file,
)
from tests.infra.kustomize import KUBERNETES, WORKLOADS, containers_of, objects_of

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = {n: s for n, s in SERVICES.items() if s["image"].startswith("mosaic-")}
OBJECTS = objects_of("overlays/gpu")
# Read by programs of others: the C library, CUDA, NVIDIA's container toolkit, Triton, matplotlib,
# Python, PyTorch and NumPy, and the tools that respect DO_NOT_TRACK.
OF_OTHERS = {
    "HOME", "PATH", "XDG_CACHE_HOME", "MPLCONFIGDIR", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED",
    "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES", "TRITON_CACHE_DIR", "OMP_NUM_THREADS", "DO_NOT_TRACK",
    "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_CACHE_DIR", "PIP_ROOT_USER_ACTION",
}  # fmt: skip


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where, words) of every command that is run."""
    for i in dockerfile():
        if i.word == "CMD":
            yield f"image {i.stage}", json.loads(i.rest)
    for name, service in OURS.items():
        if "command" in service:
            yield (
                f"compose {name}",
                [re.sub(r"\$\{\w+:-(.*)\}", r"\1", w) for w in service["command"]],
            )
    for content in OBJECTS:
        if content["kind"] in WORKLOADS:
            for container in containers_of(content):
                if "args" in container:
                    yield f"kubernetes {container['name']}", container["args"]
    for unit in units():
        for line in unit.all("ExecStart"):
            yield unit.name, shlex.split(line.removeprefix("/opt/mosaic/bin/"))


def variables() -> Iterator[tuple[str, str]]:
    """(where, name) of every variable that is set for our programs."""
    for i in dockerfile():
        if i.word == "ENV":
            for name in re.findall(r"(\w+)=", i.rest):
                yield "Dockerfile", name
    for service_name, service in OURS.items():
        for name in service.get("environment", {}):
            yield f"compose {service_name}", _without_file(name)
    for content in [*OBJECTS, *documents(KUBERNETES / "secret.example.yaml")]:
        for name in {**content.get("data", {}), **content.get("stringData", {})}:
            yield f"kubernetes {content['metadata']['name']}", name
        if content["kind"] in WORKLOADS:
            for container in containers_of(content):
                for entry in container.get("env", []):
                    yield f"kubernetes {container['name']}", entry["name"]
    for unit in units():
        for line in unit.all("Environment"):
            for name in re.findall(r"(\w+)=", line):
                yield unit.name, name
    for path in (
        "systemd/mosaic.env.example",
        "systemd/server.env.example",
        "compose/alerts.env.example",
    ):
        for name in variables_in_env_file(path):
            yield path, name
    for name in _secrets():
        yield "with-secrets", name


COMMANDS = list(commands())

_ASK_PREFECT = """
import json, sys
from prefect.cli._app import _app
from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields

problems = []
asked = json.loads(sys.argv[1])
for words in [*asked, ["worker", "start", "--poool", "cpu"]]:
    try:
        _app.parse_args(words, exit_on_error=False, print_error=False)
    except Exception as error:
        problems.append(f"{' '.join(words)}: {error}")
assert "--poool" in problems.pop(), "a wrong option passed"
fields = _get_settings_fields(Settings)
port = fields["PREFECT_WORKER_WEBSERVER_PORT"].value()
print(json.dumps(dict(problems=problems, parsed=len(asked), names=list(fields), port=port)))
"""


@pytest.fixture(scope="module")
def prefect() -> dict[str, Any]:
    """What Prefect says of our commands, and its settings; asked once, in a process of its own."""
    asked = [words[1:] for _, words in COMMANDS if words[0] == "prefect"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ASK_PREFECT, json.dumps(asked)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("where", "words"), [c for c in COMMANDS if c[1][0] == "mosaic"],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)  # fmt: skip
def test_a_command_of_ours_is_one(where: str, words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    context = click.Context(command, info_name=words[0])
    rest = words[1:]
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, rest)
        context = click.Context(command, info_name=name, parent=context)
    parsed = command.make_context(context.info_name, list(rest), parent=context.parent)
    assert parsed.params["profile"] == "production", f"{where} runs another profile"


def test_commands_of_prefect_are_some(prefect: dict[str, Any]) -> None:
    """Prefect's own parser reads them; nothing is started."""
    assert prefect["parsed"] > 5
    assert prefect["problems"] == []


def test_every_other_command_is_expected() -> None:
    others = {words[0] for _, words in COMMANDS} - {"mosaic", "prefect"}
    assert others == {"python"}


def test_pools_are_those_of_the_deployments() -> None:
    (plan,) = documents(INFRA / "prefect.yaml")
    pools = {pool["name"] for pool in plan["work_pools"]}
    used = {w[w.index("--pool") + 1] for _, w in COMMANDS if "--pool" in w}
    assert used == pools
    types = {w[w.index("--type") + 1] for _, w in COMMANDS if "--type" in w}
    assert types == {pool["type"] for pool in plan["work_pools"]}


def test_every_variable_is_read_by_somebody(prefect: dict[str, Any]) -> None:
    known = _of_configuration() | _of_code() | set(prefect["names"]) | OF_OTHERS
    unknown = {(where, name) for where, name in variables() if name not in known}
    assert not unknown


def test_every_variable_of_the_profile_and_of_alerts_is_given_a_place() -> None:
    """In systemd's example and in the secrets and configuration of Kubernetes and compose."""
    profile = set(_in_yaml("config/profiles/production.yaml"))
    given = list(variables())
    for kind, start in (("compose", "compose cpu-worker"), ("kubernetes", "kubernetes mosaic-")):
        names = {name for where, name in given if where.startswith(start)}
        assert profile <= names, f"{kind}: {profile - names}"
    assert profile <= set(variables_in_env_file("systemd/mosaic.env.example"))
    channels = {n for n in _in_yaml("config/alerts.yaml") if n.startswith("MOSAIC_ALERT_")}
    optional = {"MOSAIC_ALERT_PAGERDUTY_URL", "MOSAIC_ALERT_PREFECT_BLOCK"}
    assert channels - optional == set(variables_in_env_file("compose/alerts.env.example"))


def test_the_page_names_files_and_commands_that_are_there() -> None:
    page = (ROOT / "docs/infrastructure.md").read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:infra|tests|docs)/[\w./@-]*\w(?![*\w])", page):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\((\w[\w./-]*\.md)", page):
        assert (ROOT / "docs" / path).exists(), path
    group: Any = typer.main.get_command(app)
    named = set(re.findall(r"`(?:\w+ )*mosaic (?!-)(\w+)", page)) - {"doctor"}
    assert {"deploy", "watch", "metrics", "retention", "catalog"} <= named <= set(group.commands)


def test_ports_are_the_same_everywhere(prefect: dict[str, Any]) -> None:
    files = [p for s in (".yaml", ".service", ".example", "") for p in INFRA.rglob(f"*{s}")]
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in files
        if path.is_file() and path.suffix in (".yaml", ".service", ".example", "")
    )
    addresses = set(re.findall(r"(?:server|127\.0\.0\.1|localhost)[\w.]*:(\d+)/api\b", text))
    assert addresses - {"3000"} == {"4200"}
    assert set(re.findall(r"0\.0\.0\.0:(\d+)", text)) == {"9464"}
    assert {i.rest for i in dockerfile() if i.word == "EXPOSE"} == {"4200", str(prefect["port"])}


def test_a_variable_that_is_read_from_a_file_is_one_that_with_secrets_knows() -> None:
    files = {n for s in OURS.values() for n in s.get("environment", {}) if n.endswith("_FILE")}
    assert {name.removesuffix("_FILE") for name in files} <= _secrets()


def _without_file(name: str) -> str:
    short = name.removesuffix("_FILE")
    return short if short in _secrets() else name


def _secrets() -> set[str]:
    listed = re.search(r'names="\n(.*?)"', text_of("images/with-secrets"), re.DOTALL)
    assert listed
    return set(listed[1].split())


def _in_yaml(path: str) -> list[str]:
    return re.findall(r"\$\{([A-Z][A-Z0-9_]*)", (ROOT / path).read_text(encoding="utf-8"))


def _of_configuration() -> set[str]:
    files = (ROOT / "config").rglob("*.yaml")
    return {name for path in files for name in _in_yaml(str(path.relative_to(ROOT)))}


def _of_code() -> set[str]:
    """Names that the code looks up in its environment, and those that AWS' library does."""
    pattern = re.compile(
        r"""(?:env(?:iron)?(?:\.get\(|\[)|getenv\(|envvar=)["']([A-Z][A-Z0-9_]*)"""
    )
    found = {
        name
        for folder in ("mosaic_core", "flows")
        for path in (ROOT / folder).rglob("*.py")
        for name in pattern.findall(path.read_text(encoding="utf-8"))
    }
    return found | {"AWS_SECRET_ACCESS_KEY"}
