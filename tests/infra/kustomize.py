"""What the overlays of `infra/kubernetes` amount to, without kustomize.

They use `resources`, `namespace` and `images` only, which is all that is resolved here; a test
compares with kustomize itself where `kubectl` is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.infra.files import INFRA, documents

KUBERNETES = INFRA / "kubernetes"
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")
PLAIN = {"apiVersion", "kind", "namespace", "resources", "images"}

Object = dict[str, Any]


def files_of(overlay: str) -> Iterator[Path]:
    """Every file that an overlay brings in, through other kustomizations too."""
    folder = (KUBERNETES / overlay).resolve()
    (kustomization,) = documents(folder / "kustomization.yaml")
    assert set(kustomization) <= PLAIN, "resolve the new field here too"
    for resource in kustomization["resources"]:
        path = (folder / resource).resolve()
        if path.is_dir():
            yield from files_of(str(path.relative_to(KUBERNETES)))
        else:
            yield path


def objects_of(overlay: str) -> list[Object]:
    return [content for file in files_of(overlay) for content in documents(file)]


def pod_of(workload: Object) -> Object:
    """The specification of the pods of a workload."""
    spec = _template(workload)["spec"]
    assert isinstance(spec, dict)
    return spec


def labels_of(workload: Object) -> dict[str, str]:
    labels = _template(workload)["metadata"]["labels"]
    assert isinstance(labels, dict)
    return labels


def _template(workload: Object) -> Object:
    owner = workload["spec"]["jobTemplate"] if workload["kind"] == "CronJob" else workload
    template = owner["spec"]["template"]
    assert isinstance(template, dict)
    return template


def containers_of(workload: Object) -> list[Object]:
    pod = pod_of(workload)
    return [*pod.get("initContainers", []), *pod["containers"]]


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def may_connect(
    policies: list[Object], source: dict[str, str], target: dict[str, str], port: int
) -> bool:
    """Whether pods with the labels of `source` reach those of `target`, in the same namespace."""
    out = _permitted(policies, "Egress", source, target, port)
    return out and _permitted(policies, "Ingress", target, source, port)


def may_leave(policies: list[Object], source: dict[str, str], port: int) -> bool:
    """Whether pods reach any address outside the cluster at a port."""
    applying = _of(policies, source, "Egress")
    return not applying or any(
        any("ipBlock" in peer for peer in rule.get("to", [])) and _port(rule, port)
        for policy in applying
        for rule in policy["spec"].get("egress", [])
    )


def may_enter(policies: list[Object], namespace: str, target: dict[str, str], port: int) -> bool:
    """Whether any pod of another namespace reaches pods at a port."""
    name = {"kubernetes.io/metadata.name": namespace}
    applying = _of(policies, target, "Ingress")
    return not applying or any(
        any(
            "namespaceSelector" in peer
            and "podSelector" not in peer
            and selects(peer["namespaceSelector"], name)
            for peer in rule.get("from", [])
        )
        and _port(rule, port)
        for policy in applying
        for rule in policy["spec"].get("ingress", [])
    )


def _permitted(
    policies: list[Object], way: str, here: dict[str, str], there: dict[str, str], port: int
) -> bool:
    applying = _of(policies, here, way)
    if not applying:
        return True  # Kubernetes' own default, which the policies are to take away
    rules, peers = ("egress", "to") if way == "Egress" else ("ingress", "from")
    return any(
        any(
            "namespaceSelector" not in peer
            and "podSelector" in peer
            and selects(peer["podSelector"], there)
            for peer in rule.get(peers, [])
        )
        and _port(rule, port)
        for policy in applying
        for rule in policy["spec"].get(rules, [])
    )


def _of(policies: list[Object], labels: dict[str, str], way: str) -> list[Object]:
    return [
        p
        for p in policies
        if way in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], labels)
    ]


def _port(rule: Object, port: int) -> bool:
    return any(p["port"] == port for p in rule["ports"])
