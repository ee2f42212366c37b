"""The writer as a compiler: one interface, the same memories in training and in use."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.compiler import tiny

from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import Base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import compiler_identity, load_compiler
from skillc_compiler.families.writer import Writer
from skillc_compiler.families.writer_net import WriterConfig, WriterNet
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.skill import Skill, parse_skill
from skillc_compiler.train.nano import Nano, NanoConfig
from skillc_compiler.train.rows import Rows
from skillc_compiler.train.step import read_skill

NET = WriterConfig(
    hidden=64, inner=96, layers=2, vocab=520, sites=(0, 1), width=32, blocks=1, heads=2
)
TEXT = "---\nname: graft\ndescription: Grafting.\n---\n\nRun `./graft --fast` to test. {}\n"


def skill(extra: str = "") -> Skill:
    return parse_skill(TEXT.format(extra).encode(), folder="graft")


def install(folder: Path, **settings: object) -> Base:
    """A base of the tests' tiny shape with a random writer beside it."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    tiny.write_base(folder / "base.gguf")
    torch.manual_seed(3)
    net = WriterNet(NET)
    save_file(dict(net.state_dict()), folder / "compiler.safetensors")
    config = {"family": "writer", "id": "writer-tiny", "writer": NET.to_dict(), **settings}
    (folder / "compiler.json").write_text(json.dumps(config))
    return Base(folder.name, folder / "base.gguf", folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return install(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def writer(base: Base) -> Writer:
    loaded = load_compiler(base)
    assert isinstance(loaded, Writer)
    return loaded


def test_compile_gives_a_whole_adapter(base: Base, writer: Writer) -> None:
    adapter = writer.compile(skill(), rank=8)
    assert set(adapter.pairs) == {f"model.layers.{i}.mlp.down_proj" for i in (0, 1)}
    assert adapter.rank == 8 and adapter.alpha == 8.0
    manifest = adapter.manifest
    assert manifest.skill_hash == skill().hash
    assert manifest.base_hash == read_base_info(base.gguf).hash
    assert (manifest.compiler_id, manifest.compiler_hash) == compiler_identity(base)
    assert set(manifest.probe) == {"recall", "recall_none"}


def test_compile_is_deterministic(base: Base, writer: Writer) -> None:
    again = load_compiler(base)
    for name, pair in writer.compile(skill()).pairs.items():
        other = again.compile(skill()).pairs[name]
        assert np.array_equal(pair.a, other.a) and np.array_equal(pair.b, other.b)


def test_many_at_once_have_the_bytes_of_one_at_a_time(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skillc_compiler.families.parallel.cores", lambda: 4)
    skills = [skill(f"Port {80 * number}." * number) for number in range(12)]
    threads = set()
    told: list[str] = []
    compile_one = writer.compile

    def watched(one: Skill, *, rank: int) -> Adapter:
        threads.add(threading.current_thread().name)
        if one is skills[5]:
            raise RuntimeError("odd\ntext")
        return compile_one(one, rank=rank)

    monkeypatch.setattr(writer, "compile", watched)
    made = writer.compile_many(skills, rank=8, on_done=lambda one, _: told.append(one.hash))
    assert len(threads) > 1
    assert sorted(told) == sorted(one.hash for one in skills)
    failed = made.pop(5)
    assert isinstance(failed, CompilerError) and "unexpected RuntimeError" in str(failed)
    for one, adapter in zip([*skills[:5], *skills[6:]], made, strict=True):
        assert isinstance(adapter, Adapter)
        alone = compile_one(one, rank=8)
        assert adapter.manifest == alone.manifest
        for name, pair in alone.pairs.items():
            assert pair.a.tobytes() == adapter.pairs[name].a.tobytes()
            assert pair.b.tobytes() == adapter.pairs[name].b.tobytes()


def test_an_error_while_many_compile_ends_them(writer: Writer) -> None:
    def stop(one: Skill, made: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.compile_many([skill(str(number)) for number in range(4)], rank=8, on_done=stop)
    assert writer.compile(skill(), rank=8).rank == 8


def test_the_number_of_threads_changes_nothing(writer: Writer) -> None:
    before = torch.get_num_threads()
    alone = writer.compile(skill())
    torch.set_num_threads(3)
    try:
        again = writer.compile(skill())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for name, pair in alone.pairs.items():
        assert pair.a.tobytes() == again.pairs[name].a.tobytes()


def test_different_texts_give_different_adapters(writer: Writer) -> None:
    one, other = writer.compile(skill()), writer.compile(skill("Port 8080."))
    name = next(iter(one.pairs))
    assert not np.allclose(one.delta(name), other.delta(name))


def test_long_texts_are_read_in_chunks(writer: Writer) -> None:
    long = skill(" ".join(f"Use `tool{i} --flag {i}` for thing {i}." for i in range(150)))
    keys, values = writer.memories(long.text)[0]
    tokens = writer.tokenizer.encode(long.text).ids
    assert len(tokens) > 1600
    assert len(keys) == len(values) > len(tokens)
    assert writer.compile(long).rank == 64


def test_reading_is_the_same_in_training_and_in_use(base: Base, writer: Writer) -> None:
    ids = writer.tokenizer.encode(skill().text).ids
    nano = Nano(
        NanoConfig(
            vocab_size=520, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        )
    )  # fmt: skip
    nano.load_state_dict(
        {k: v for k, v in writer.host.model.state_dict().items() if k != "lm_head.weight"}
    )
    tokens = torch.tensor([ids])
    zeros = torch.zeros_like(tokens)
    positions = torch.arange(len(ids))[None]
    rows = Rows(tokens, positions, zeros, zeros, zeros.float(), zeros.bool(), len(ids))
    with torch.inference_mode():
        trace = nano(tokens, positions, rows.mask(), sites=NET.sites)
        trained = read_skill(nano, trace, rows, [len(ids)])
        used = writer.read(ids)
        for (k1, v1), (k2, v2) in zip(writer.net(trained), writer.net(used), strict=True):
            assert torch.allclose(k1, k2, atol=1e-4)
            assert torch.allclose(v1, v2, atol=1e-4)


def test_a_base_without_compiler_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=r"has no compiler: put compiler\.safetensors"):
        load_compiler(Base("bare", tmp_path / "base.gguf", None))


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    base = install(tmp_path / "odd", family="oracle")
    with pytest.raises(CompilerError, match="family 'oracle' is not known"):
        load_compiler(base)


def test_a_compiler_for_another_base_is_refused(tmp_path: Path) -> None:
    base = install(tmp_path / "other", base_hash="0" * 64)
    with pytest.raises(CompilerError, match="made for another base"):
        load_compiler(base)


def test_broken_weights_are_one_line(tmp_path: Path) -> None:
    base = install(tmp_path / "broken")
    (tmp_path / "broken" / "compiler.safetensors").write_bytes(b"\x10" * 64)
    with pytest.raises(CompilerError, match="not this compiler's weights") as caught:
        load_compiler(base)
    assert "\n" not in str(caught.value)


def test_rank_zero_is_refused(writer: Writer) -> None:
    with pytest.raises(CompilerError, match="rank 0 is not possible"):
        writer.compile(skill(), rank=0)
