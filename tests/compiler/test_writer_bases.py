"""The writer on bases of every architecture: loaded alike, and a step of the gradient untrained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.compiler import stand_in
from torch.nn import functional as F

from skillc_compiler.bases import Base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.calibrate import untrained
from skillc_compiler.families.gradient import pushes
from skillc_compiler.families.host import Host
from skillc_compiler.families.interface import compiler_identity, load_compiler
from skillc_compiler.families.output import predict
from skillc_compiler.families.taps import SITE
from skillc_compiler.families.writer import Writer
from skillc_compiler.families.writer_net import WriterConfig
from skillc_compiler.gguf_base import read_tokenizer
from skillc_compiler.published.convert import write_compiler
from skillc_compiler.skill import parse_skill
from skillc_compiler.torch_base import load_frozen, load_torch_base

KINDS = ("qwen3", "qwen2", "llama", "gemma3", "mistral")
TEXT = "---\nname: graft\ndescription: Grafting.\n---\n\nRun `./graft --fast` to test the tree.\n"
SKILL = parse_skill(TEXT.encode(), folder="graft")


def install(base: Base, site: int, gain: float = 1.0) -> None:
    """Put an untrained writer of one site beside a base."""
    model, _ = load_frozen(base)
    host = Host(model)
    (first, *_) = host.sites([SITE])
    config = WriterConfig(
        hidden=host.hidden, inner=first.d_in, layers=len(host.layers), vocab=len(host.table),
        sites=(site,), width=8, blocks=0, heads=1,
    )  # fmt: skip
    net = untrained(config, pushes(host, (site,)))
    net.scale.data.mul_(gain)
    table = {"family": "writer", "id": "writer-untrained", "writer": config.to_dict()}
    write_compiler(base.gguf.parent, base, table, dict(net.state_dict()))


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base of one architecture as both a folder and a GGUF, with an untrained writer."""
    root = tmp_path_factory.mktemp(request.param)
    folder = stand_in.write_folder(root / "hf", request.param)
    stand_in.write_gguf(folder, root / "base.gguf")
    found = Base(request.param, root / "base.gguf", root, folder)
    install(found, site=len(Host(load_frozen(found)[0]).layers) - 1)
    return found


def open_writer(base: Base) -> Writer:
    found = load_compiler(base)
    assert isinstance(found, Writer)
    return found


def test_both_sides_of_a_base_give_the_same_adapter(base: Base) -> None:
    folder = open_writer(base).compile(SKILL, rank=8)
    alone = open_writer(Base(base.name, base.gguf, base.compiler_dir)).compile(SKILL, rank=8)
    (module,) = folder.pairs
    wanted = folder.delta(module)
    assert abs(wanted).max() > 1e-4
    assert abs(alone.delta(module) - wanted).max() <= 1e-3 * abs(wanted).max()
    assert (folder.manifest.compiler_id, folder.manifest.compiler_hash) == compiler_identity(base)
    assert folder.manifest.probe.keys() == {"recall", "recall_none"}


def test_a_small_step_lowers_the_loss_on_the_text(base: Base) -> None:
    writer = open_writer(base)
    ids = writer.tokenizer.encode(SKILL.text, add_special_tokens=False).ids
    tokens = writer.host.ids(ids)

    def loss(scale: float) -> float:
        with torch.inference_mode():
            made = {
                f"{writer.host.path}.{layer}.{SITE}": (keys, scale * values.T)
                for layer, (keys, values) in writer.memories(SKILL.text).items()
            }
            with writer.host.attached(made):
                logits = writer.host.model(tokens).logits[0, :-1]
            return float(F.cross_entropy(logits, tokens[0, 1:]))

    plain = loss(0.0)
    assert loss(0.3) < plain - 0.05 < plain < loss(-0.3)


def test_the_text_is_read_where_the_template_puts_a_system_message(base: Base) -> None:
    writer = open_writer(base)
    prefix, own = writer._prompt.reading("Use it.")
    frame = writer.tokenizer.decode(prefix, skip_special_tokens=False)
    names = stand_in.SPECIALS[stand_in.KINDS[base.name][2]]
    assert frame.replace(" ", "") == f"{names[1]}system\n"
    assert writer.tokenizer.decode([*prefix, *own]).endswith("system\nUse it.")


def test_a_writer_for_another_shape_is_refused(base: Base, tmp_path: Path) -> None:
    other = stand_in.write_folder(tmp_path / "hf", "qwen3", intermediate_size=128)
    info = stand_in.write_gguf(other, tmp_path / "base.gguf")
    (tmp_path / "compiler.safetensors").write_bytes(
        (base.gguf.parent / "compiler.safetensors").read_bytes()
    )
    text = (base.gguf.parent / "compiler.json").read_text()
    known = read_hash(text)
    (tmp_path / "compiler.json").write_text(text.replace(known, info.hash))
    with pytest.raises(CompilerError, match="the base has 2 of 64 and 128"):
        load_compiler(Base("other", tmp_path / "base.gguf", tmp_path))


def read_hash(text: str) -> str:
    import json

    return str(json.loads(text)["base_hash"])


def test_blocks_of_the_vocabulary_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, table = torch.randn(5, 16), torch.randn(50, 16)
    ids = torch.tensor([3, 49, 0, 7, 7])
    logits = hidden @ table.T
    for block in (50, 7, 1):
        monkeypatch.setattr("skillc_compiler.families.output.BLOCK", block)
        expected, nll = predict(hidden, table, ids)
        assert torch.allclose(expected, logits.softmax(-1) @ table, atol=1e-5)
        assert torch.allclose(nll, F.cross_entropy(logits, ids, reduction="none"), atol=1e-5)


def test_half_precision_is_read_too(tmp_path: Path) -> None:
    folder = stand_in.write_folder(tmp_path / "hf", "llama")
    stand_in.write_gguf(folder, tmp_path / "base.gguf")
    base = Base("half", tmp_path / "base.gguf", tmp_path, folder)
    install(base, site=1)
    whole = open_writer(base).compile(SKILL, rank=4)
    half = open_writer(Base(base.name, base.gguf, tmp_path, folder, {"dtype": "bfloat16"}))
    assert half.host.table.dtype == torch.bfloat16
    made = half.compile(SKILL, rank=4)
    (module,) = whole.pairs
    assert made.pairs[module].a.dtype.name == "float32"
    # The sum of all memories before its cut to a rank, which turns on small differences.
    wide, rough = open_writer(base).compile(SKILL, rank=64), half.compile(SKILL, rank=64)
    difference = abs(wide.delta(module) - rough.delta(module)).max()
    assert difference < 0.1 * abs(wide.delta(module)).max()


def test_the_gguf_alone_has_its_tokenizer(base: Base) -> None:
    assert load_torch_base(base.gguf)[1].to_str() == read_tokenizer(base.gguf).to_str()
