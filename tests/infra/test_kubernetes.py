"""The manifests against Kubernetes' own schemas, and against each other. No cluster is needed."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mosaic_core import __version__
from tests.infra.files import dockerfile, documents
from tests.infra.kustomize import (
    KUBERNETES,
    WORKLOADS,
    Object,
    containers_of,
    files_of,
    labels_of,
    may_connect,
    may_enter,
    may_leave,
    objects_of,
    pod_of,
    selects,
)

OVERLAYS = ("overlays/cpu", "overlays/gpu")
OBJECTS = objects_of("overlays/gpu")
POLICIES = [o for o in OBJECTS if o["kind"] == "NetworkPolicy"]
WORK = {o["metadata"]["name"]: o for o in OBJECTS if o["kind"] in WORKLOADS}
SECRETS = {o["metadata"]["name"]: o for o in documents(KUBERNETES / "secret.example.yaml")}


def names(kind: str) -> set[str]:
    return {o["metadata"]["name"] for o in OBJECTS if o["kind"] == kind}


def test_the_gpu_overlay_is_the_cpu_overlay_and_the_gpu_workers() -> None:
    cpu = {(o["kind"], o["metadata"]["name"]) for o in objects_of("overlays/cpu")}
    gpu = {(o["kind"], o["metadata"]["name"]) for o in OBJECTS}
    assert cpu < gpu
    assert {name for _, name in gpu - cpu} == {"gpu-worker"}
    assert len(gpu) == len(OBJECTS), "an object is there twice"


def test_every_file_belongs_to_an_overlay() -> None:
    listed = set(files_of("overlays/gpu"))
    found = set(KUBERNETES.rglob("*.yaml"))
    rest = {str(p.relative_to(KUBERNETES)) for p in found - listed}
    assert rest == {
        "secret.example.yaml",
        "base/kustomization.yaml",
        "overlays/cpu/kustomization.yaml",
        "overlays/gpu/kustomization.yaml",
    }


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_every_object_is_valid(version: str) -> None:
    for content in [*OBJECTS, *SECRETS.values()]:
        kubernetes_validate.validate(content, version, strict=True)


def test_the_validator_refuses_what_is_wrong() -> None:
    broken = json.loads(json.dumps(WORK["server"]))
    broken["spec"]["replica"] = broken["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def test_everything_is_in_the_namespace() -> None:
    (namespace,) = names("Namespace")
    for content in OBJECTS:
        if content["kind"] != "Namespace":
            assert content["metadata"]["namespace"] == namespace


def test_images_are_ours_and_have_a_tag_in_one_place() -> None:
    targets = {f"mosaic-{i.stage}" for i in dockerfile() if i.word == "CMD"}
    tags: dict[str, str] = {}
    for folder in ("base", *OVERLAYS):
        (kustomization,) = documents(KUBERNETES / folder / "kustomization.yaml")
        for image in kustomization["images"]:
            assert image["newTag"] == tags.setdefault(image["name"], image["newTag"])
            assert image["newTag"] == __version__
    used = {c["image"] for w in WORK.values() for c in containers_of(w)}
    assert used == set(tags) == targets


@pytest.mark.parametrize("name", WORK)
def test_a_workload_selects_its_own_pods(name: str) -> None:
    work = WORK[name]
    assert labels_of(work) == {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/part-of": "mosaic",
    }
    if "Job" not in work["kind"]:
        chosen = [n for n, o in WORK.items() if selects(work["spec"]["selector"], labels_of(o))]
        assert chosen == [name]
    if work["kind"] == "StatefulSet":
        assert work["spec"]["serviceName"] in names("Service")


@pytest.mark.parametrize("name", WORK)
def test_what_a_workload_refers_to_is_there(name: str) -> None:
    work, pod = WORK[name], pod_of(WORK[name])
    assert pod["serviceAccountName"] in names("ServiceAccount")
    templates = work["spec"].get("volumeClaimTemplates", [])
    volumes = {v["name"] for v in pod["volumes"]} | {t["metadata"]["name"] for t in templates}
    mounted = set()
    for volume in pod["volumes"]:
        claim = volume.get("persistentVolumeClaim")
        assert claim is None or claim["claimName"] in names("PersistentVolumeClaim")
    for container in containers_of(work):
        mounted |= {m["name"] for m in container["volumeMounts"]}
        ports = {p["name"] for p in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in ("httpGet", "tcpSocket"):
                assert container.get(probe, {}).get(action, {"port": None})["port"] in {
                    None,
                    *ports,
                }
        for source in container["envFrom"]:
            if "configMapRef" in source:
                assert source["configMapRef"]["name"] in names("ConfigMap")
            else:
                assert source["secretRef"]["name"] in SECRETS
    assert mounted == volumes


@pytest.mark.parametrize("name", WORK)
def test_a_pod_has_no_privileges_and_writes_only_to_volumes(name: str) -> None:
    pod = pod_of(WORK[name])
    assert pod["automountServiceAccountToken"] is False
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == _user()
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers_of(WORK[name]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        written = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert {"/var/lib/mosaic", "/tmp"} <= written <= {"/var/lib/mosaic", "/tmp", "/dev/shm"}


@pytest.mark.parametrize("name", WORK)
def test_a_container_has_its_share(name: str) -> None:
    for container in containers_of(WORK[name]):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", ["cpu-worker", "gpu-worker"])
def test_a_worker_is_not_ended_because_the_server_is_away(name: str) -> None:
    """A worker's /health turns bad when it cannot poll; the forecast in it needs no server."""
    (worker,) = containers_of(WORK[name])
    for probe in ("livenessProbe", "startupProbe"):
        assert "httpGet" not in worker[probe]


def test_the_gpu_worker_runs_on_a_gpu_node_one_ensemble_at_a_time() -> None:
    pod, (worker,) = pod_of(WORK["gpu-worker"]), containers_of(WORK["gpu-worker"])
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    arguments = worker["args"]
    assert arguments[arguments.index("--pool") + 1] == "gpu"
    assert arguments[arguments.index("--limit") + 1] == "1"
    assert "nvidia" not in json.dumps(WORK["cpu-worker"])


def test_services_lead_to_a_port_that_is_open() -> None:
    for service in (o for o in OBJECTS if o["kind"] == "Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        chosen = [
            w for w in WORK.values() if selects({"matchLabels": spec["selector"]}, labels_of(w))
        ]
        (work,) = chosen
        assert work["metadata"]["name"] == name
        open_ports = {p["name"]: p["containerPort"] for p in containers_of(work)[0]["ports"]}
        for port in spec["ports"]:
            assert open_ports[port["targetPort"]] == port["port"]


def test_a_drain_meets_one_budget_for_each_server_and_worker() -> None:
    budgets = [o for o in OBJECTS if o["kind"] == "PodDisruptionBudget"]
    for name in ("server", "cpu-worker", "gpu-worker"):
        (budget,) = [b for b in budgets if selects(b["spec"]["selector"], labels_of(WORK[name]))]
        replicas = WORK[name]["spec"]["replicas"]
        assert budget["spec"].get("minAvailable", 0) < replicas, "a node could never be drained"


def test_nothing_connects_that_is_not_allowed_by_name() -> None:
    ports = {4200, 8080, 9464, 5432, 443}
    allowed = {
        (source, target, port)
        for source in WORK
        for target in WORK
        for port in ports
        if may_connect(POLICIES, labels_of(WORK[source]), labels_of(WORK[target]), port)
    }
    assert allowed == {
        (source, "server", 4200) for source in ("cpu-worker", "gpu-worker", "deploy", "watch")
    }


def test_what_leaves_and_what_enters_the_namespace() -> None:
    ports = (80, 443, 465, 587, 5432, 4200, 9464)
    leaving = {
        n: {p for p in ports if may_leave(POLICIES, labels_of(w), p)} for n, w in WORK.items()
    }
    work = {443, 465, 587, 5432}
    assert leaving == {
        "server": {5432},
        "deploy": work,
        "watch": work,
        "cpu-worker": work,
        "gpu-worker": work,
        "exporter": {443, 5432},
        "retention": {443, 5432},
    }
    entering = {
        (space, n, p)
        for space in ("ingress-nginx", "monitoring", "default")
        for n, w in WORK.items()
        for p in (4200, 8080, 9464)
        if may_enter(POLICIES, space, labels_of(w), p)
    }
    assert entering == {("ingress-nginx", "server", 4200), ("monitoring", "exporter", 9464)}


def test_nobody_reaches_the_credentials_of_a_node() -> None:
    for policy in POLICIES:
        for rule in policy["spec"].get("egress", []):
            for peer in rule["to"]:
                assert "ipBlock" not in peer or "169.254.0.0/16" in peer["ipBlock"]["except"]


def test_the_example_of_the_secrets_holds_no_secret() -> None:
    for secret in SECRETS.values():
        for key, value in secret["stringData"].items():
            assert (
                value in ("", "KEY", "SECRET", "RANDOM")
                or "PASSWORD" in value
                or (key == "MOSAIC_ALERT_WEBHOOK" and "example.org" in value)
            )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_says_the_same(overlay: str) -> None:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl, which brings kustomize, is not installed")
    done = subprocess.run(
        [program, "kustomize", str(KUBERNETES / overlay)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert _without_tags(built) == _without_tags(objects_of(overlay))
    assert all(c["image"].endswith(f":{__version__}") for o in built if o["kind"] in WORKLOADS
               for c in containers_of(o))  # fmt: skip


def _without_tags(objects: list[Object]) -> dict[tuple[str, str], Any]:
    copies = json.loads(json.dumps(objects))
    for content in copies:
        if content["kind"] in WORKLOADS:
            for container in containers_of(content):
                container["image"] = container["image"].partition(":")[0]
    return {(o["kind"], o["metadata"]["name"]): o for o in copies}


def _user() -> int:
    (user,) = [i.rest for i in dockerfile() if (i.stage, i.word) == ("runtime", "USER")]
    return int(user.partition(":")[0])
