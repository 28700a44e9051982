"""The policies of `infra/terraform`, rendered and judged.

Judging follows AWS: an explicit Deny wins, then any Allow, else nothing is allowed. What the
policies do not use is refused, so that a new operator cannot pass unjudged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.infra.files import INFRA

FOLDER = INFRA / "terraform/policies"
BUCKET = "arn:aws:s3:::store"
ROOT_PREFIX = "operational/"
CONSUMER = "arn:aws:iam::444455556666:root"
PUBLISHER = "arn:aws:iam::111122223333:role/mosaic-publisher"
RETENTION = "arn:aws:iam::111122223333:role/mosaic-retention"
TOPIC = "arn:aws:sns:us-east-1:111122223333:mosaic-publications"
NAMES: dict[str, Any] = {
    "bucket": BUCKET,
    "root": ROOT_PREFIX,
    "topic": TOPIC,
    "consumers": [CONSUMER],
    "publisher": PUBLISHER,
}

Statement = dict[str, Any]


def render(name: str, names: Mapping[str, Any] = NAMES) -> list[Statement]:
    """Statements of a template, as Terraform's `templatefile` renders it."""

    def value(match: re.Match[str]) -> str:
        encoded = re.fullmatch(r"jsonencode\((\w+)\)", match[1])
        return json.dumps(names[encoded[1]]) if encoded else str(names[match[1]])

    text = re.sub(r"\$\{([^}]+)\}", value, (FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    document = json.loads(text)
    assert document["Version"] == "2012-10-17"
    statements = document["Statement"]
    assert isinstance(statements, list)
    return statements


def allowed(
    statements: Iterable[Statement],
    who: str,
    action: str,
    resource: str,
    context: Mapping[str, str] | None = None,
) -> bool:
    """Whether a request over TLS is allowed; identity statements apply to whoever has them."""
    known = {"aws:SecureTransport": "true", **(context or {})}
    effects = {
        statement["Effect"]
        for statement in statements
        if _principal(statement, who)
        and any(_like(pattern, action) for pattern in _list(statement["Action"]))
        and any(_like(pattern, resource) for pattern in _list(statement["Resource"]))
        and all(
            _holds(operator, key, _list(values), known.get(key))
            for operator, tests in statement.get("Condition", {}).items()
            for key, values in tests.items()
        )
    }
    return "Deny" not in effects and "Allow" in effects


def _principal(statement: Statement, who: str) -> bool:
    principal = statement.get("Principal", "*")
    return principal == "*" or who in _list(principal["AWS"])


def _holds(operator: str, key: str, values: list[str], found: str | None) -> bool:
    if operator == "Null":
        return (found is None) == (values == ["true"])
    if operator.endswith("IfExists"):
        if found is None:
            return True
        operator = operator.removesuffix("IfExists")
    if found is None:
        return False
    if operator == "StringLike":
        return any(_like(value, found) for value in values)
    if operator in ("StringEquals", "Bool"):
        return found in values
    raise NotImplementedError(f"the operator {operator} of {key}: judge it here first")


def _like(pattern: str, text: str) -> bool:
    parts = re.split(r"([*?])", pattern)
    regex = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(regex, text, re.DOTALL) is not None


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
