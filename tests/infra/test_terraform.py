"""The Terraform files: they parse, hang together, and say what the store's contract says."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import hcl2

from mosaic_core.publication import layout
from tests.infra.files import INFRA, terraform

FOLDER = INFRA / "terraform"
BLOCKS = ("variable", "output", "locals", "resource", "data", "terraform")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k.strip('"'): _plain(v) for k, v in value.items() if not k.startswith("__")}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.strip('"') if isinstance(value, str) and value[:1] == '"' else value


def _merge(into: dict[str, Any], block: dict[str, Any]) -> None:
    """Two labels deep: another resource of a kind is added, the same one twice is an error."""
    for key, value in block.items():
        if key not in into:
            into[key] = value
            continue
        twice = set(into[key]) & set(value)
        assert not twice, f"{key} {twice} is declared twice"
        into[key] |= value


def parsed() -> dict[str, Any]:
    """Top-level blocks of all files by kind, quotes of labels taken off."""
    found: dict[str, Any] = {kind: {} for kind in BLOCKS}
    for path in sorted(FOLDER.glob("*.tf")):
        content = hcl2.loads(path.read_text(encoding="utf-8"))
        content.pop("__comments__", None)
        for kind in BLOCKS:
            for block in content.pop(kind, []):
                _merge(found[kind], _plain(block))
        assert not content, f"{path.name} has blocks that this test does not know: {set(content)}"
    return found


TREE = parsed()
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.tf")))
CODE = re.sub(r"^\s*#.*$", "", TEXT, flags=re.MULTILINE)


def test_everything_that_is_referred_to_is_there() -> None:
    for name in re.findall(r"\bvar\.(\w+)", CODE):
        assert name in TREE["variable"], f"var.{name}"
    for name in re.findall(r"\blocal\.(\w+)", CODE):
        assert name in TREE["locals"], f"local.{name}"
    for kind, name in re.findall(r"\bdata\.(aws_\w+)\.(\w+)", CODE):
        assert name in TREE["data"].get(kind, {}), f"data.{kind}.{name}"
    for kind, name in re.findall(r"(?<![\w.\"])(aws_\w+)\.(\w+)", CODE):
        assert name in TREE["resource"].get(kind, {}), f"{kind}.{name}"


def test_everything_that_is_declared_is_used() -> None:
    for name in TREE["variable"]:
        assert re.search(rf"\bvar\.{name}\b", _without_block(f'variable "{name}"')), name
    for kind, names in TREE["data"].items():
        for name in names:
            assert f"data.{kind}.{name}" in CODE


def test_variables_and_outputs_are_described() -> None:
    for name, variable in TREE["variable"].items():
        assert {"description", "type"} <= set(variable), name
    for name, output in TREE["output"].items():
        assert {"description", "value"} <= set(output), name


def test_the_example_gives_values_to_variables_that_are_there() -> None:
    example = _plain(hcl2.loads((FOLDER / "terraform.tfvars.example").read_text(encoding="utf-8")))
    assert set(example) <= set(TREE["variable"])
    required = {n for n, v in TREE["variable"].items() if "default" not in v}
    assert required <= set(example)


def test_every_policy_is_a_file_and_every_file_a_policy() -> None:
    named = re.findall(r'templatefile\("\$\{path\.module\}/policies/([\w-]+)\.json"', CODE)
    assert Counter(named) == Counter(path.stem for path in (FOLDER / "policies").glob("*.json"))
    given = set(TREE["locals"]["names"])
    for path in (FOLDER / "policies").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        used = set(re.findall(r"\$\{(?:jsonencode\()?(\w+)\)?\}", text))
        assert used <= given, path.name


def test_the_bucket_keeps_versions_is_encrypted_and_never_public() -> None:
    resources = TREE["resource"]
    versioning = resources["aws_s3_bucket_versioning"]["store"]
    assert versioning["versioning_configuration"][0]["status"] == "Enabled"
    (rule,) = resources["aws_s3_bucket_server_side_encryption_configuration"]["store"]["rule"]
    assert rule["apply_server_side_encryption_by_default"][0]["sse_algorithm"] == "AES256"
    public = resources["aws_s3_bucket_public_access_block"]["store"]
    flags = ("block_public_acls", "block_public_policy", "ignore_public_acls")
    assert all(public[flag] is True for flag in (*flags, "restrict_public_buckets"))
    ownership = resources["aws_s3_bucket_ownership_controls"]["store"]["rule"][0]
    assert ownership["object_ownership"] == "BucketOwnerEnforced"
    assert resources["aws_s3_bucket"]["store"]["lifecycle"][0]["prevent_destroy"] is True
    assert "force_destroy" not in CODE


def test_the_lifecycle_removes_no_current_object_of_the_layout() -> None:
    lifecycle = TREE["resource"]["aws_s3_bucket_lifecycle_configuration"]["store"]
    rules = {rule["id"]: rule for rule in lifecycle["rule"]}
    assert set(rules) == {"hidden-versions", "broken-uploads"}
    assert not [name for name, rule in rules.items() if "days" in _first(rule, "expiration")]
    hidden = rules["hidden-versions"]
    assert _first(hidden, "noncurrent_version_expiration")["noncurrent_days"] == (
        "${var.hidden_days}"
    )
    assert _first(hidden, "expiration")["expired_object_delete_marker"] is True

    cold, remains = (json.dumps(block) for block in lifecycle["dynamic"])
    assert "expiration" not in cold
    assert set(re.findall(r"(\w+/v1)/", cold)) == {layout.ANALYSES, layout.FORECASTS}
    assert "expiration" in remains
    assert set(re.findall(r'"([\w-]+[-/])\\?"', remains)) == {"doctor-", "flight-check/"}


def test_every_resource_that_can_be_tagged_is() -> None:
    for kind in ("aws_s3_bucket", "aws_iam_role", "aws_iam_policy", "aws_sns_topic"):
        for name, resource in TREE["resource"][kind].items():
            assert resource["tags"] == "${var.tags}", f"{kind}.{name}"


def test_the_topic_is_encrypted() -> None:
    assert TREE["resource"]["aws_sns_topic"]["publications"]["kms_master_key_id"] == "alias/aws/sns"


def test_no_account_no_key_and_no_host_is_written_down() -> None:
    assert not re.search(r"\b\d{12}\b|AKIA|https?://", TEXT)


def test_terraform_finds_the_format_right() -> None:
    terraform("fmt", "-check", "-diff", folder=FOLDER)


def _first(rule: dict[str, Any], key: str) -> dict[str, Any]:
    block = (rule.get(key) or [{}])[0]
    assert isinstance(block, dict)
    return block


def _without_block(head: str) -> str:
    start = CODE.index(head)
    return CODE[:start] + CODE[CODE.index("\n}\n", start) :]
