"""The systemd units, by systemd's own verdict and by what they must say. Nothing is started."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra.files import INFRA, Unit, units

FOLDER = INFRA / "systemd"
UNITS = {unit.name: unit for unit in units()}
SERVICES = [name for name in UNITS if name.endswith(".service")]
TIMERS = [name for name in UNITS if name.endswith(".timer")]
# What systemd-analyze gives a unit between 0 (nothing it may do) and 10.
EXPOSURE = 2.5


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a host on which the units and the programs they start are installed."""
    if shutil.which("systemd-analyze") is None or not Path("/usr/lib/systemd/system").is_dir():
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    root = tmp_path_factory.mktemp("host")
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    shutil.copytree(FOLDER, root / "etc/systemd/system")
    for program in ("mosaic", "prefect"):
        path = root / "opt/mosaic/bin" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return root


def instance(name: str) -> str:
    return name.replace("@.", "@0.")


def verify(host: Path, *names: str) -> str:
    """What systemd has to say about units, of this project's files only."""
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={host}", *names],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    lines = (done.stdout + done.stderr).splitlines()
    return "\n".join(line for line in lines if "mosaic" in line or done.returncode)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_say(host: Path, name: str) -> None:
    assert verify(host, instance(name)) == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [("ProtectSystem=", "ProtectSistem="), ("/opt/mosaic/bin/prefect", "/opt/mosaic/bin/perfect")],
)
def test_systemd_would_find_a_mistake(host: Path, before: str, after: str) -> None:
    """In a unit and in the drop-in of all of them."""
    folder = host / "etc/systemd/system"
    files = [folder / "mosaic-.service.d/10-hardening.conf", folder / "mosaic-server.service"]
    original = {file: file.read_text() for file in files}
    try:
        for file, text in original.items():
            file.write_text(text.replace(before, after))
        assert after.strip("=") in verify(host, "mosaic-server.service")
    finally:
        for file, text in original.items():
            file.write_text(text)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_to_little(host: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--root={host}", "--no-pager",
         instance(name)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_nobody_in_particular_and_writes_only_its_state(name: str) -> None:
    unit = UNITS[name]
    assert unit.last("User") == "mosaic"
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID"):
        assert unit.last(key) == "yes", key
    assert unit.last("ProtectSystem") == "strict"
    assert unit.last("StateDirectory") == "mosaic"
    assert unit.all("ReadWritePaths") == []
    assert unit.all("CapabilityBoundingSet") == [""]
    for line in unit.all("Environment"):
        for value in re.findall(r"=(\S*/\S*)", line):
            assert value.startswith("%S/mosaic"), f"{value} cannot be written"


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_a_file_of_root(name: str) -> None:
    unit = UNITS[name]
    files = unit.all("EnvironmentFile")
    assert not files[0].startswith("-"), "the first one is needed"
    for file in files:
        assert (FOLDER / f"{Path(file).name}.example").is_file()
    for line in (*unit.all("Environment"), *unit.all("ExecStart")):
        assert not re.search(r"PASSWORD|SECRET|://\S+:\S+@", line)


def test_only_the_gpu_worker_sees_devices() -> None:
    for name in SERVICES:
        gpu = name == "mosaic-worker-gpu@.service"
        assert UNITS[name].last("PrivateDevices") == ("no" if gpu else "yes")
    worker = UNITS["mosaic-worker-gpu@.service"]
    assert worker.last("DevicePolicy") == "closed"
    assert all(line.startswith("char-nvidia") for line in worker.all("DeviceAllow"))
    assert any("CUDA_VISIBLE_DEVICES=%i" in line for line in worker.all("Environment"))
    (command,) = worker.all("ExecStart")
    assert "--pool gpu" in command
    assert "--limit 1 " in command


@pytest.mark.parametrize("name", TIMERS)
def test_a_timer_starts_a_service_that_ends(name: str) -> None:
    service = UNITS[name.replace(".timer", ".service")]
    assert service.last("Type") == "oneshot"
    assert service.last("TimeoutStartSec")
    assert UNITS[name].last("OnCalendar")


def test_what_is_not_started_by_a_timer_belongs_to_the_target_and_comes_back() -> None:
    timed = {name.replace(".timer", ".service") for name in TIMERS}
    for name in {*SERVICES, *TIMERS} - timed:
        assert UNITS[name].last("WantedBy") == "mosaic.target", name
    for name in set(SERVICES) - timed:
        assert UNITS[name].last("Restart") in ("always", "on-failure"), name
    assert UNITS["mosaic.target"].last("WantedBy") == "multi-user.target"


def test_units_name_units_that_are_there() -> None:
    outside = {"network-online.target", "postgresql.service", "multi-user.target"}
    for unit in UNITS.values():
        for key in ("After", "Before", "Wants", "Requires", "WantedBy"):
            for name in " ".join(unit.all(key)).split():
                assert name in outside or name in UNITS, f"{unit.name}: {key}={name}"


def test_a_stopped_worker_is_asked_first_and_has_time() -> None:
    for name in ("mosaic-worker-cpu.service", "mosaic-worker-gpu@.service"):
        unit: Unit = UNITS[name]
        assert unit.last("KillMode") == "mixed"
        assert int(unit.last("TimeoutStopSec") or 0) >= 60


def test_the_user_of_the_units_is_made() -> None:
    line = next(
        text for text in (FOLDER / "sysusers.conf").read_text().splitlines() if text[:1] == "u"
    )
    assert line.split()[1] == UNITS["mosaic-server.service"].last("User")
    assert line.endswith("/var/lib/mosaic")
