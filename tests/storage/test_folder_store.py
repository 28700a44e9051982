"""Sharded arrays in folders, as zarrs reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec
from zarr.codecs.numcodecs import LZMA

from mosaic_core.errors import StoreError
from mosaic_core.storage import ObjectStore, open_store
from mosaic_core.storage.folder_store import FolderPipeline

SHAPE, CHUNKS, SHARDS = (5, 6, 7, 9), (2, 2, 1, 4), (4, 4, 1, 12)
VALUES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
SHARD = "a/x/c/1/0/0/0"


def made(folder: Path, **codecs: Any) -> ObjectStore:
    store = open_store(folder)
    codecs = {"shards": SHARDS, "compressors": BloscCodec(cname="zstd")} | codecs
    array = zarr.create_group(store.zarr("a")).create_array(
        "x", shape=SHAPE, dtype="float32", chunks=CHUNKS, fill_value=np.nan, **codecs
    )
    array[:] = VALUES
    return store


def opened(store: ObjectStore, *, read_only: bool = True) -> Any:
    return zarr.open_group(store.zarr("a", read_only=read_only), mode="r")["x"]


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return opened(made(tmp_path_factory.mktemp("folder")))


def pipeline(array: Any) -> Any:
    return array._async_array.codec_pipeline


def part(size: int) -> st.SearchStrategy[Any]:
    """One index, a slice, or indices in order."""
    whole = st.integers(0, size - 1)
    return (
        whole
        | st.slices(size).filter(lambda s: s.step is None or s.step > 0)
        | st.lists(whole, min_size=1, max_size=3, unique=True).map(sorted)
    )


@settings(deadline=None, max_examples=150)
@given(chosen=st.tuples(*map(part, SHAPE)))
def test_whatever_part_is_asked_for_is_what_numpy_takes(
    array: Any, chosen: tuple[Any, ...]
) -> None:
    expected = VALUES
    for axis in reversed(range(len(SHAPE))):
        expected = expected[(slice(None),) * axis + (chosen[axis],)]
    np.testing.assert_array_equal(array.oindex[chosen], expected)
    if not any(isinstance(one, list) for one in chosen):
        np.testing.assert_array_equal(array[chosen], expected)


def test_integers_over_several_shards_do_not_fall_back(
    array: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise AssertionError("zarr itself")

    monkeypatch.setattr(type(pipeline(array).python_impl), "read", refuse)
    np.testing.assert_array_equal(array[:, 3, 2], VALUES[:, 3, 2])
    np.testing.assert_array_equal(
        array[
            :,
            :,
            2,
            5,
        ],
        VALUES[:, :, 2, 5],
    )
    assert array[4, 5, 6, 8] == VALUES[4, 5, 6, 8]


def test_only_sharded_arrays_of_a_folder_to_read_are_read_so(tmp_path: Path) -> None:
    sharded = made(tmp_path / "sharded")
    plain = made(tmp_path / "plain", shards=None)
    assert isinstance(pipeline(opened(sharded)), FolderPipeline)
    others = (
        opened(plain),
        opened(sharded, read_only=False),
        zarr.open_group(tmp_path / "sharded/a", mode="r")["x"],
    )
    for array in others:
        assert not isinstance(pipeline(array), FolderPipeline)
        np.testing.assert_array_equal(array[:], VALUES)


@pytest.mark.filterwarnings("ignore:Array is unsupported by ZarrsCodecPipeline")
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_codecs_that_zarrs_does_not_know_are_read(tmp_path: Path) -> None:
    store = made(tmp_path, compressors=[LZMA()])
    np.testing.assert_array_equal(opened(store)[:, 2], VALUES[:, 2])


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: whole[:50], id="cut short"),
        pytest.param(lambda whole: whole[:-20] + bytes(20), id="index"),
        pytest.param(lambda whole: bytes(200) + whole[200:], id="chunk"),
    ],
)
def test_damage_is_told_with_the_name_of_the_object(tmp_path: Path, spoilt: Any) -> None:
    store = made(tmp_path)
    shard = tmp_path / SHARD
    shard.write_bytes(spoilt(shard.read_bytes()))
    with pytest.raises((RuntimeError, ValueError), match=f"{SHARD} is damaged"):
        opened(store)[4, :4, 0]


def test_what_the_folder_refuses_is_a_store_error(tmp_path: Path) -> None:
    store = made(tmp_path)
    (tmp_path / SHARD).unlink()
    (tmp_path / SHARD).symlink_to(tmp_path / SHARD)
    with pytest.raises(StoreError, match=f"cannot read .*{SHARD}: .*symbolic links"):
        opened(store)[4, :4, 0]


FORKED = """
import os, signal, sys
from tests.storage.test_folder_store import VALUES, opened, open_store
array = opened(open_store(sys.argv[1]))
assert (array[:] == VALUES).all()
if (child := os.fork()) == 0:
    signal.alarm(60)
    os._exit(0 if (array[:, 1] == VALUES[:, 1]).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_reads_on(tmp_path: Path) -> None:
    made(tmp_path)
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path)], check=True)
