"""Object stores: one interface to a local folder, an S3 bucket and a read-only web server.

Whole objects go through `get`, `put` and `create`; arrays through `zarr`. Two promises carry
publication, and hold on every kind of store:

- an object is seen whole or not at all (S3 by nature; a folder by writing beside and renaming,
  with the bytes and the name on disk before the call returns);
- of several `create` calls for one key exactly one succeeds (`If-None-Match: *`; a hard link).

`put` and `create` are durable when they return. What is written through `zarr` into a folder is
durable after `flush`.
"""

from mosaic_core.storage.archive import archive, open_archive
from mosaic_core.storage.objects import ObjectInfo, ObjectStore, open_store
from mosaic_core.storage.refusals import ObjectExists, ObjectMissing

__all__ = [
    "ObjectExists",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectStore",
    "archive",
    "open_archive",
    "open_store",
]
