"""Make the bucket that MOSAIC_STORE names, unless it is there."""

import os
import sys
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError


def make_bucket(store: str) -> str:
    """Return the name of the bucket, which exists when this returns."""
    bucket = urlsplit(store).netloc
    try:
        boto3.client("s3").create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    return bucket


if __name__ == "__main__":
    root = os.environ["MOSAIC_STORE"]
    if urlsplit(root).scheme != "s3":
        sys.exit(f"MOSAIC_STORE={root} is not s3://bucket/prefix")
    sys.stdout.write(f"bucket {make_bucket(root)} is there\n")
