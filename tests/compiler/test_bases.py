"""Finding bases."""

from __future__ import annotations

from pathlib import Path

import pytest

from skillc_compiler import bases
from skillc_compiler.bases import Base, find_base, list_bases
from skillc_compiler.errors import BaseModelError


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with one embedded base, and an empty home."""
    monkeypatch.setattr(bases, "files", lambda name: tmp_path / "package")
    monkeypatch.setenv("SKILLC_HOME", str(tmp_path / "home"))
    put(tmp_path / "package/assets/nano", "base.gguf", "compiler.safetensors", "compiler.json")
    return tmp_path


def test_embedded_base_is_the_default(package: Path) -> None:
    folder = package / "package/assets/nano"
    assert find_base() == Base("nano", folder / "base.gguf", folder)


def test_home_holds_more_bases(package: Path) -> None:
    put(package / "home/bases/qwen3-4b", "base.gguf", "compiler.json")
    put(package / "home/bases/empty")
    put(package / "home/bases/.hidden", "base.gguf")
    put(package / "home/bases/nano", "base.gguf")
    assert find_base("qwen3-4b").compiler_dir is None
    assert [base.name for base in list_bases()] == ["nano", "qwen3-4b"]
    assert list_bases()[0] == find_base("nano")
    assert find_base("nano").gguf.is_relative_to(package / "package")


def test_home_follows_xdg(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKILLC_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(package / "data"))
    gguf = put(package / "data/skillc/bases/other", "base.gguf") / "base.gguf"
    assert find_base("other").gguf == gguf
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(package))
    gguf = put(package / ".local/share/skillc/bases/third", "base.gguf") / "base.gguf"
    assert find_base("third").gguf == gguf


def test_a_missing_base_is_named(package: Path) -> None:
    with pytest.raises(BaseModelError, match=r"'qwen' \(found: nano\).*home/bases/qwen"):
        find_base("qwen")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "../nano", "a\0", "-x", "x" * 65])
def test_names_stay_inside(package: Path, name: str) -> None:
    with pytest.raises(BaseModelError, match="not the name of a base"):
        find_base(name)


def test_a_file_in_place_of_the_folder(package: Path) -> None:
    (package / "home").write_text("", encoding="utf-8")
    assert [base.name for base in list_bases()] == ["nano"]
