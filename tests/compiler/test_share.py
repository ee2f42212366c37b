"""Shared stores: an entry goes in whole, comes out whole, and a broken one is never taken."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import pytest
from tests.compiler.test_store import GGUF, KEY, OTHER, adapter

from skillc_compiler.errors import StoreError
from skillc_compiler.share import Share, UrlShare, open_share, read_entry
from skillc_compiler.store import Store


@pytest.fixture(params=["folder", "file", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "shared folder"
    addresses = {"file": f"file://{folder}", "memory": f"memory://{uuid4().hex}"}
    return addresses.get(request.param, str(folder))


@pytest.fixture
def share(where: str, tmp_path: Path) -> Share:
    if "://" in where:
        pytest.importorskip("fsspec")
    return open_share(where, tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    store = Store(tmp_path / "mine")
    store.publish(KEY, adapter(), GGUF)
    found = read_entry(store, KEY)
    assert found is not None
    return found


def test_what_one_puts_in_another_takes_out(
    share: Share, where: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    assert share.read(KEY) is None
    share.write(KEY, files)
    share.write(KEY, files)
    taken = open_share(where, tmp_path).read(KEY)
    assert taken == files
    assert taken is not None
    theirs = Store(tmp_path / "theirs")
    assert theirs.adopt(KEY, taken).manifest == adapter().manifest
    assert share.read(OTHER) is None


def test_an_entry_without_its_manifest_is_none(
    share: Share, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is written last: a copy that broke off is no entry."""
    broken = {name: data for name, data in files.items() if name != "manifest.json"}
    with pytest.raises((StoreError, KeyError)):
        share.write(KEY, broken)
    assert share.read(KEY) is None
    share.write(KEY, files)
    assert share.read(KEY) == files


def test_a_relative_folder_is_the_projects(tmp_path: Path, files: dict[str, bytes]) -> None:
    open_share("team", tmp_path).write(KEY, files)
    assert Store(tmp_path / "team").open(KEY).sha256


@pytest.mark.parametrize("url", ["nosuchprotocol://x", "github://"])
def test_an_address_that_does_not_work_is_one_line(url: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(StoreError, match="cannot be opened: ") as caught:
        UrlShare(url)
    assert "\n" not in str(caught.value)


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(StoreError, match=r"needs fsspec: pip install 'skillc\[share\]'"):
        open_share("s3://bucket", tmp_path)
