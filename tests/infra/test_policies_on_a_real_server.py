"""The policies on a server that enforces them: enough for a whole cycle, and no more.

Ceph RGW takes the same documents as AWS. Two statements of the bucket are left out: one asks for
TLS, which loopback has not, the other for `If-None-Match`, of which RGW tells policies nothing. In
a resource, RGW's `*` ends at the character that follows it in the pattern; AWS' does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mosaic_core.publication import layout
from tests.infra.policies import NAMES, ROOT_PREFIX, Statement, render
from tests.infra.real_s3 import real_s3
from tests.pipeline.world import FIRST, VARIANT, World

pytestmark = pytest.mark.slow
__all__ = ["real_s3"]

READER = "arn:aws:iam:::user/reader"
BUCKET = "store"


@pytest.fixture
def client(real_s3: str) -> Callable[[str], Any]:
    """Makes clients of the users `test`, who owns everything, and `reader`."""
    import boto3

    def make(user: str) -> Any:
        return boto3.client(
            "s3", endpoint_url=real_s3, region_name="us-east-1",
            aws_access_key_id=user, aws_secret_access_key=f"{user}-secret",
        )  # fmt: skip

    return make


def test_a_cycle_with_the_publishers_rights_read_with_a_consumers(
    client: Callable[[str], Any], real_s3: str, tmp_path: Path
) -> None:
    owner, other = client("test"), client("reader")
    owner.create_bucket(Bucket=BUCKET)
    owner.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    outside = f"{ROOT_PREFIX}private/notes"
    owner.put_object(Bucket=BUCKET, Key=outside, Body=b"not published")
    put_policy(owner, *to_reader(render("publisher")), *for_everybody())

    store = f"s3://{BUCKET}/{ROOT_PREFIX.strip('/')}"
    world = World(tmp_path / "world", store=store)
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_S3": real_s3,
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "reader-secret",
        "AWS_REGION": "us-east-1",
        "OMP_NUM_THREADS": "1",
    }
    for variable in ("AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        environment.pop(variable, None)
    mosaic(environment, "run", FIRST.id, "--profile", world.profile)

    key = ROOT_PREFIX + layout.forecast_prefix(VARIANT, FIRST)
    manifest, latest = f"{key}/manifest.json", ROOT_PREFIX + layout.latest_key(VARIANT)
    chunk = next(
        entry["Key"]
        for entry in other.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]
        if "/ensemble.zarr/" in entry["Key"]
    )
    version = other.head_object(Bucket=BUCKET, Key=chunk)["VersionId"]
    assert refused(lambda: other.delete_object(Bucket=BUCKET, Key=manifest))
    assert refused(lambda: other.delete_object(Bucket=BUCKET, Key=latest))
    batch = other.delete_objects(
        Bucket=BUCKET, Delete={"Objects": [{"Key": manifest}, {"Key": latest}, {"Key": outside}]}
    )
    assert {e["Key"]: e["Code"] for e in batch["Errors"]} == dict.fromkeys(
        (manifest, latest, outside), "AccessDenied"
    )
    assert refused(lambda: other.put_object(Bucket=BUCKET, Key=outside, Body=b"changed"))
    for user in (owner, other):
        destroy = lambda u=user: u.delete_object(Bucket=BUCKET, Key=chunk, VersionId=version)  # noqa: E731
        assert refused(destroy)
    assert refused(lambda: owner.delete_object(Bucket=BUCKET, Key=latest))

    put_policy(owner, *with_reader(render("bucket-consumers", {**NAMES, "consumers": [READER]})))
    mosaic(environment, "products", "verify", "--store", store)
    analysis = ROOT_PREFIX + layout.ANALYSES
    assert refused(lambda: other.list_objects_v2(Bucket=BUCKET, Prefix=f"{analysis}/"))
    assert refused(lambda: other.get_object(Bucket=BUCKET, Key=outside))
    for action in (
        lambda: other.put_object(Bucket=BUCKET, Key=f"{key}/more", Body=b"more"),
        lambda: other.put_object(Bucket=BUCKET, Key=latest, Body=b"{}"),
        lambda: other.delete_object(Bucket=BUCKET, Key=chunk),
        lambda: other.delete_object(Bucket=BUCKET, Key=manifest),
    ):
        assert refused(action)
    with pytest.raises(other.exceptions.NoSuchKey):
        other.get_object(Bucket=BUCKET, Key=f"{key}.r2/manifest.json")


def to_reader(statements: Iterable[Statement]) -> list[Statement]:
    """Statements of a role, as a bucket grants them to the user `reader`.

    Before RGW looks at the objects of a batch that is to be deleted, it asks for the right to
    delete on the bucket itself, which means nothing to AWS.
    """
    on_bucket = [s for s in statements if not str(s["Action"][0]).startswith("sns:")]
    batch = {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": NAMES["bucket"]}
    return with_reader({**s, "Principal": {"AWS": [READER]}} for s in [*on_bucket, batch])


def with_reader(statements: Iterable[Statement]) -> list[Statement]:
    return [json.loads(json.dumps(s).replace(NAMES["bucket"], f"arn:aws:s3:::{BUCKET}"))
            for s in statements]  # fmt: skip


def for_everybody() -> list[Statement]:
    """The bucket's own statements, but the two that this server cannot judge."""
    left_out = ("OnlyOverTLS", "AManifestIsMadeOnce")
    return with_reader(s for s in render("bucket") if s["Sid"] not in left_out)


def put_policy(owner: Any, *statements: Statement) -> None:
    document = {"Version": "2012-10-17", "Statement": statements}
    owner.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(document))


def refused(action: Callable[[], Any]) -> bool:
    """Whether the server says 403; any other refusal is an error."""
    from botocore.exceptions import ClientError

    try:
        action()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return True
    return False


def mosaic(environment: dict[str, str], *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mosaic_core.cli", *words],
        env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"mosaic {' '.join(words)}: {done.stderr[-3000:]}"
