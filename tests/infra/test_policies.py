"""Who may do what in the store: granted is what stands in these tables, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mosaic_core.cycle import Cycle
from mosaic_core.publication import layout, stac
from tests.infra.files import terraform
from tests.infra.policies import (
    BUCKET,
    CONSUMER,
    FOLDER,
    NAMES,
    PUBLISHER,
    RETENTION,
    ROOT_PREFIX,
    TOPIC,
    Statement,
    allowed,
    render,
)

CYCLE = Cycle.parse("2026-11-20T00Z")
FORECAST = layout.forecast_prefix("hres", CYCLE)
ANALYSIS = layout.analysis_key("ecmwf-open-data", CYCLE) + "/zarr.json"
SCORES = layout.verification_prefix("hres") + "/2026.parquet"
CHUNK = f"{FORECAST}/ensemble.zarr/temperature/c/0/0/0"
SECOND = layout.manifest_key("hres", CYCLE, 2)
MANIFEST, LATEST = layout.manifest_key("hres", CYCLE), layout.latest_key("hres")
ITEM, COLLECTION = stac.item_key("hres", CYCLE), stac.collection_key("hres")
PROGRESS, REMOVED = layout.in_progress_key("hres"), f"{FORECAST}/{layout.REMOVED}"
DOCTOR, FLIGHT = "doctor-0123abc", f"flight-check/{FORECAST}/manifest.json"
ELSEWHERE = "backup/of-somebody-else"
PUBLIC = {CHUNK, MANIFEST, SECOND, LATEST, PROGRESS, REMOVED, SCORES, ITEM, COLLECTION, stac.ROOT}

BUCKET_POLICY = [*render("bucket"), *render("bucket-consumers")]
POLICIES: dict[str, tuple[str, list[Statement]]] = {
    "publisher": (PUBLISHER, render("publisher")),
    "retention": (RETENTION, render("retention")),
    "consumer": (CONSUMER, render("consumer")),
    "consumer of another account": (CONSUMER, []),
    "anybody": ("arn:aws:iam::999999999999:root", []),
    "administrator": (
        "arn:aws:iam::111122223333:role/admin",
        [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    ),
}
KEYS = (
    ANALYSIS,
    CHUNK,
    MANIFEST,
    SECOND,
    LATEST,
    PROGRESS,
    REMOVED,
    SCORES,
    ITEM,
    COLLECTION,
    stac.ROOT,
    DOCTOR,
    FLIGHT,
    ELSEWHERE,
)
CREATE = {"s3:if-none-match": "*"}


def may(who: str, action: str, key: str, context: dict[str, str] | None = None) -> bool:
    principal, own = POLICIES[who]
    resource = f"{BUCKET}/{ROOT_PREFIX}{key}" if key != ELSEWHERE else f"{BUCKET}/{key}"
    return allowed([*own, *BUCKET_POLICY], principal, action, resource, context)


def may_list(who: str, prefix: str | None) -> bool:
    principal, own = POLICIES[who]
    context = None if prefix is None else {"s3:prefix": prefix}
    return allowed([*own, *BUCKET_POLICY], principal, "s3:ListBucket", BUCKET, context)


@pytest.mark.parametrize(
    ("who", "keys"),
    [
        ("publisher", set(KEYS) - {ELSEWHERE}),
        ("retention", set(KEYS) - {ELSEWHERE}),
        ("consumer", PUBLIC),
        ("consumer of another account", PUBLIC),
        ("anybody", set()),
    ],
)
def test_who_reads(who: str, keys: set[str]) -> None:
    assert {key for key in KEYS if may(who, "s3:GetObject", key)} == keys


@pytest.mark.parametrize("who", POLICIES)
def test_only_the_publisher_writes_but_for_what_says_that_something_is_gone(who: str) -> None:
    written = {key for key in KEYS if may(who, "s3:PutObject", key, CREATE)}
    expected = {
        "publisher": set(KEYS) - {ELSEWHERE},
        "retention": {REMOVED, ITEM, COLLECTION, stac.ROOT},
        "administrator": set(KEYS),
    }
    assert written == expected.get(who, set())


def test_a_manifest_is_never_written_over() -> None:
    for who in POLICIES:
        assert not may(who, "s3:PutObject", MANIFEST)
        assert not may(who, "s3:PutObject", SECOND)
    assert may("publisher", "s3:PutObject", LATEST)
    assert may("publisher", "s3:PutObject", CHUNK)


@pytest.mark.parametrize(
    ("who", "keys"),
    [
        ("publisher", {ANALYSIS, CHUNK, PROGRESS, REMOVED, SCORES, DOCTOR, FLIGHT}),
        ("retention", {ANALYSIS, CHUNK, MANIFEST, SECOND, PROGRESS, REMOVED, SCORES, ITEM}),
        ("consumer", set()),
        ("consumer of another account", set()),
        ("anybody", set()),
        ("administrator", set(KEYS) - {LATEST}),
    ],
)
def test_who_hides_an_object(who: str, keys: set[str]) -> None:
    """Without its manifest and `latest.json` a forecast is not published: those stay."""
    assert {key for key in KEYS if may(who, "s3:DeleteObject", key)} == keys


@pytest.mark.parametrize("who", POLICIES)
def test_nobody_destroys_a_version(who: str) -> None:
    assert not [key for key in KEYS if may(who, "s3:DeleteObjectVersion", key)]


@pytest.mark.parametrize("who", ["publisher", "retention", "consumer"])
def test_a_reader_is_told_that_an_object_is_not_there_yet(who: str) -> None:
    """S3 asks for ListBucket, with no prefix in the request, before it answers 404."""
    assert may_list(who, None)


def test_listing_stays_below_what_may_be_read() -> None:
    prefixes = (layout.variant_prefix("hres"), "analyses/v1/", SCORES, ITEM)
    for who, expected in (
        ("publisher", set(prefixes)),
        ("retention", set(prefixes)),
        ("consumer", {prefixes[0], *prefixes[2:]}),
        ("consumer of another account", {prefixes[0], *prefixes[2:]}),
        ("anybody", set()),
    ):
        found = {prefix for prefix in prefixes if may_list(who, ROOT_PREFIX + prefix)}
        assert found == expected, who
        assert not may_list(who, "backup/")


def test_nothing_goes_in_clear() -> None:
    clear = {"aws:SecureTransport": "false", **CREATE}
    for who in POLICIES:
        assert not [k for k in KEYS if may(who, "s3:GetObject", k, clear)]
        assert not [k for k in KEYS if may(who, "s3:PutObject", k, clear)]


def test_the_topic_takes_notices_from_the_publisher_and_subscribers_from_consumers() -> None:
    topic = [*render("topic"), *render("topic-consumers")]
    https = {"sns:Protocol": "https"}
    assert allowed(topic, PUBLISHER, "sns:Publish", TOPIC)
    assert not allowed(topic, PUBLISHER, "sns:Publish", TOPIC, {"aws:SecureTransport": "false"})
    assert allowed(topic, CONSUMER, "sns:Subscribe", TOPIC, https)
    assert not allowed(topic, CONSUMER, "sns:Subscribe", TOPIC, {"sns:Protocol": "http"})
    assert not allowed(topic, CONSUMER, "sns:Publish", TOPIC)
    assert not allowed(topic, RETENTION, "sns:Publish", TOPIC)


def test_every_grant_is_one_of_these() -> None:
    """A new grant is a decision: it is written here too."""
    folders = [f"{BUCKET}/{ROOT_PREFIX}{folder}/*" for folder in _folders()]
    pages = [f"{BUCKET}/{ROOT_PREFIX}{key}" for key in (f"{stac.FOLDER}/*", stac.ROOT)]
    trials = [f"{BUCKET}/{ROOT_PREFIX}flight-check/*", f"{BUCKET}/{ROOT_PREFIX}doctor-*"]
    everything = [f"{BUCKET}/{ROOT_PREFIX}*"]
    table = {
        "publisher": {
            "s3:ListBucket": [BUCKET],
            "s3:ListBucketMultipartUploads": [BUCKET],
            "s3:GetObject": everything,
            "s3:PutObject": [*folders, *pages, *trials],
            "s3:AbortMultipartUpload": [*folders, *pages, *trials],
            "s3:ListMultipartUploadParts": [*folders, *pages, *trials],
            "s3:DeleteObject": [*folders, *trials],
            "sns:Publish": [TOPIC],
        },
        "retention": {
            "s3:ListBucket": [BUCKET],
            "s3:GetObject": everything,
            "s3:DeleteObject": [*folders, f"{BUCKET}/{ROOT_PREFIX}{stac.FOLDER}/*/items/*"],
            "s3:PutObject": [f"{BUCKET}/{ROOT_PREFIX}forecasts/v1/*/*/*/*/*/removed.json", *pages],
        },
        "consumer": {"s3:ListBucket": [BUCKET], "s3:GetObject": [*folders[1:], *pages]},
        "bucket-consumers": {"s3:ListBucket": [BUCKET], "s3:GetObject": [*folders[1:], *pages]},
        "bucket": {},
        "topic": {"sns:Publish": [TOPIC]},
        "topic-consumers": {"sns:Subscribe": [TOPIC]},
    }
    assert {path.stem for path in FOLDER.glob("*.json")} == set(table)
    for name, expected in table.items():
        granted: dict[str, list[str]] = {}
        for statement in render(name):
            if statement["Effect"] == "Allow":
                assert "NotAction" not in statement
                assert "NotResource" not in statement
                for action in _list(statement["Action"]):
                    granted.setdefault(action, []).extend(_list(statement["Resource"]))
        assert granted == expected, name


def test_terraform_renders_the_same(tmp_path: Path) -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    values = f"jsondecode({json.dumps(json.dumps(NAMES))})"
    asked = [f'jsondecode(templatefile("{FOLDER}/{name}.json", {values}))' for name in names]
    answer = terraform("console", asked=f"jsonencode([{', '.join(asked)}])", folder=tmp_path)
    rendered = json.loads(json.loads(answer))
    assert [document["Statement"] for document in rendered] == [render(name) for name in names]


def _folders() -> list[str]:
    return [layout.ANALYSES, layout.FORECASTS, layout.VERIFICATION]


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
