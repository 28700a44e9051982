"""One behaviour of a folder and of S3."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import xarray as xr

from mosaic_core.errors import ConfigurationError, StoreError
from mosaic_core.storage import ObjectExists, ObjectMissing, open_store
from tests.servers import free_port


@pytest.fixture
def store(object_store_url):
    return open_store(object_store_url)


def small_dataset() -> xr.Dataset:
    return xr.Dataset({"t": (("x", "y"), np.arange(12, dtype="float32").reshape(3, 4))})


def write_zarr(store, prefix: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        small_dataset().to_zarr(store.zarr(prefix), mode="w", zarr_format=3, consolidated=True)


def test_object_is_read_as_written_and_replaced_by_put(store):
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    assert store.get("a/b.json") == b"two"
    assert store.size("a/b.json") == 3
    assert store.exists("a/b.json")
    assert store.sha256("a/b.json") == (3, hashlib.sha256(b"two").hexdigest())


def test_create_changes_nothing_that_exists(store):
    store.create("a", b"one")
    with pytest.raises(ObjectExists, match="exists already"):
        store.create("a", b"two")
    assert store.get("a") == b"one"


def test_of_concurrent_creates_exactly_one_succeeds(store):
    def create(i: int) -> int:
        try:
            store.create("marker", str(i).encode())
        except ObjectExists:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(16))) == 1
    assert [info.key for info in store.list()] == ["marker"]


def test_missing_object_is_named(store):
    store.put("other", b"")
    assert not store.exists("nothing")
    for call in (store.get, store.size, store.sha256):
        with pytest.raises(ObjectMissing, match="nothing"):
            call("nothing")
    store.delete("nothing")


def test_listing_is_recursive_and_by_whole_folders(store):
    for key in ("a/1", "a/b/2", "ab/3"):
        store.put(key, b"x" * 7)
    assert sorted(info.key for info in store.list("a")) == ["a/1", "a/b/2"]
    assert store.folders() == ("a", "ab")
    assert store.folders("a") == ("b",)
    info = next(iter(store.list("ab")))
    assert info.size == 7
    assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=5)
    assert list(store.list("nothing")) == []


def test_deleting_a_prefix_leaves_its_neighbours(store):
    for key in ("a/1", "a/b/2", "ab/3"):
        store.put(key, b"")
    assert store.delete_all("a") == 2
    assert [info.key for info in store.list()] == ["ab/3"]
    assert store.folders() == ("ab",)
    with pytest.raises(StoreError, match="refusing to empty"):
        store.delete_all("")


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/"])
def test_keys_cannot_leave_the_root(store, key):
    for call in (store.get, store.exists, store.delete, store.delete_all, store.folders):
        with pytest.raises(StoreError, match="is not a key"):
            call(key)
    with pytest.raises(StoreError, match="is not a key"):
        store.put(key, b"")


def test_files_go_up_and_come_back(store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(12_000_000))
    store.upload(source, "big/file")
    store.download("big/file", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == source.read_bytes()
    with pytest.raises(ObjectMissing):
        store.download("nothing", tmp_path / "nothing")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["source"]


def test_zarr_written_is_read(store):
    write_zarr(store, "x/e.zarr")
    store.flush("x/e.zarr")
    read = xr.open_zarr(store.zarr("x/e.zarr", read_only=True), consolidated=True)
    xr.testing.assert_identical(read.load(), small_dataset())


def test_store_survives_pickling(store):
    store.put("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"
    write_zarr(store, "e.zarr")
    copy = pickle.loads(pickle.dumps(store.zarr("e.zarr")))
    assert float(xr.open_zarr(copy, consolidated=True)["t"].sum()) == 66.0


def test_store_below_is_the_same_store(store):
    store.below("a").put("b/c", b"1")
    assert store.get("a/b/c") == b"1"


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "gs://bucket", "http://"])
def test_other_urls_are_refused(url):
    with pytest.raises(ConfigurationError, match="is not a store"):
        open_store(url)


def test_folder_of_a_reader_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="there is no folder"):
        open_store(tmp_path / "typo", create=False)
    assert list(tmp_path.iterdir()) == []


def test_reading_a_zarr_that_is_not_there_makes_no_folder(tmp_path):
    with pytest.raises(StoreError, match="there is no folder"):
        open_store(tmp_path).zarr("typo.zarr", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_file_url_with_escapes_is_a_folder(tmp_path):
    store = open_store(f"file://{tmp_path}/with%20space")
    store.put("a", b"")
    assert (tmp_path / "with space" / "a").is_file()


def test_unreachable_endpoint_is_said_soon(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    start = datetime.now(UTC)
    with pytest.raises(StoreError, match="cannot be reached"):
        open_store("s3://bucket/x").get("a")
    assert datetime.now(UTC) - start < timedelta(seconds=20)


def test_missing_bucket_is_said(s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://no-such-bucket/x")
    for call in (lambda: store.get("a"), lambda: store.put("a", b""), lambda: list(store.list())):
        with pytest.raises(StoreError, match="the bucket does not exist"):
            call()


def test_missing_credentials_are_said(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="no credentials"):
        open_store("s3://bucket/x")


def ran(code, folder, *options):
    """The Python text, run with the folder as its argument."""
    return subprocess.run(
        [sys.executable, *options, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


FULL = """
import resource, sys
from mosaic_core.errors import StoreError
from mosaic_core.storage import open_store
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = open_store(sys.argv[1])
store.put("latest.json", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.put("latest.json", b"n" * 5000)
except StoreError as error:
    print(error)
print(store.get("latest.json").decode(), [i.key for i in store.list()])
"""


def test_write_cut_short_leaves_the_old_object(tmp_path):
    done = ran(FULL, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "cannot write" in first
    assert second == "old ['latest.json']"
    assert [p.name for p in tmp_path.iterdir()] == ["latest.json"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_said_in_plain_words(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.put("a", b"old")
    real = os.fsync

    def full(descriptor: int) -> None:
        with open("/dev/full", "wb", buffering=0) as sink:
            sink.write(b"x")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"no space is left.*free space"):
        store.put("a", b"new")
    assert store.get("a") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


ZARR_FULL = """
import resource, signal, sys
from mosaic_core.errors import StoreError
from mosaic_core.storage import open_store
import xarray, numpy
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = open_store(sys.argv[1])
noise = numpy.random.default_rng(1).random(20000)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    xarray.Dataset({"t": ("x", noise)}).to_zarr(store.zarr("e.zarr"), zarr_format=3)
except StoreError as error:
    print(error)
"""


def test_zarr_on_a_store_that_refuses_raises_a_store_error(tmp_path):
    done = ran(ZARR_FULL, tmp_path, "-W", "ignore")
    assert done.returncode == 0, done.stderr
    assert f"cannot write {tmp_path}/e.zarr/t/c/0" in done.stdout


ONE_CHUNK_REFUSED = """
import asyncio, sys
import numpy, zarr
from zarr.storage import ObjectStore
from mosaic_core.errors import StoreError
from mosaic_core.storage import open_store
array = zarr.create_array(open_store(sys.argv[1]).zarr("a"), shape=(4,), chunks=(1,), dtype="f8")
whole = ObjectStore.set
begun = []
async def set(self, key, value):
    if key == "c/0":
        while len(begun) < 3:
            await asyncio.sleep(0.01)
        raise PermissionError(13, "Permission denied")
    begun.append(key)
    await asyncio.sleep(1)
    await whole(self, key, value)
ObjectStore.set = set
try:
    array[:] = numpy.ones(4)
except StoreError as error:
    sys.exit(error.exit_code)
"""


def test_python_ends_after_the_chunks_that_zarr_left_under_way(tmp_path):
    done = ran(ONE_CHUNK_REFUSED, tmp_path, "-W", "ignore")
    assert (done.returncode, done.stderr) == (6, "")
    assert sorted(path.name for path in (tmp_path / "a" / "c").iterdir()) == ["1", "2", "3"]


RESULT_UNDER_WAY = """
import asyncio, sys, threading, time
import numpy, zarr
from mosaic_core.storage import open_store
wake = asyncio.selector_events.BaseSelectorEventLoop._write_to_self
own = lambda: threading.get_ident() in [thread.ident for thread in threading.enumerate()]
def wake_and_linger(loop):
    wake(loop)
    for _ in range(0 if own() else 500):
        time.sleep(0.001)
asyncio.selector_events.BaseSelectorEventLoop._write_to_self = wake_and_linger
zarr.create_array(open_store(sys.argv[1]).zarr("a"), shape=(4,), chunks=(4,), dtype="f8")
"""


def test_python_ends_after_the_thread_that_brought_the_last_result(tmp_path):
    done = ran(RESULT_UNDER_WAY, tmp_path, "-W", "ignore")
    assert (done.returncode, done.stderr) == (0, "")


def test_folder_is_no_object(store):
    store.put("a/b", b"")
    assert not store.exists("a")
    with pytest.raises(ObjectMissing):
        store.get("a")
    store.delete("a")
    assert store.exists("a/b")
    assert not store.exists("a/b/c")


@pytest.mark.skipif(
    "MOSAIC_TEST_S3_ENDPOINT" not in os.environ,
    reason="moto accepts every signature: needs MOSAIC_TEST_S3_ENDPOINT of a real S3 server",
)
def test_wrong_secret_is_said(s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_store("s3://forecasts/x")
    for call in (lambda: store.get("a"), lambda: store.put("a", b""), lambda: list(store.list())):
        with pytest.raises(StoreError, match="does not accept the credentials"):
            call()


def test_flush_passes_over_what_another_process_has_just_removed(tmp_path, monkeypatch):
    store = open_store(tmp_path / "store")
    store.put("a/kept", b"1")
    monkeypatch.setattr(
        os, "walk", lambda base: [(str(base), [], ["manifest.json#12", "kept"]), ("gone", [], [])]
    )
    store.flush("a")
    assert store.get("a/kept") == b"1"


def test_root_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot make the folder .*file/store"):
        open_store(tmp_path / "file" / "store")
