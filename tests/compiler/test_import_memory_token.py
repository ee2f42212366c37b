"""LatentSkill, SHINE and ParametricSkills checkpoints: read, checked, and computed as published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.compiler import published_cases as cases

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import compiler_identity, load_compiler
from skillc_compiler.families.m2p import M2P
from skillc_compiler.published.convert import import_compiler
from skillc_compiler.torch_base import load_torch_base

ROOT_SCALE = 0.001**0.5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_memory_token(tmp_path_factory.mktemp("published") / "checkpoint-epoch-10")


def bring_in(checkpoint: Path, folder: Path, **changes: Any) -> M2P:
    base = cases.base(folder)
    import_compiler("latentskill", checkpoint, base, heads=cases.HEADS, changes=changes)
    loaded = load_compiler(cases.opened(base))
    assert isinstance(loaded, M2P)
    return loaded


def expected_factors(checkpoint: Path, ids: list[int], base: Path) -> list[torch.Tensor]:
    """A [in, r] and B [r, out] of all modules in order, computed from the raw files another way:
    the meta-LoRA merged into the weights, transformers' own hidden states, plain slices."""
    model, _ = load_torch_base(base)
    meta = torch.load(checkpoint / "metalora.pth", weights_only=True)
    final: list[torch.Tensor] = []
    with torch.no_grad():
        for layer, groups in meta.items():
            for (group, name), _ in cases.MODULES.items():
                parent = "self_attn" if group == "attention" else "mlp"
                module = model.get_submodule(f"model.layers.{layer}.{parent}.{name}_proj")
                leaf = groups[group][name]
                module.weight += (leaf["A"][0] @ leaf["B"][0]).T
        model.model.norm.register_forward_pre_hook(lambda module, given: final.append(given[0]))
        memory = torch.load(checkpoint / "mem_tokens.pt", weights_only=True)
        embeds = torch.cat((model.model.embed_tokens(torch.tensor([ids])), memory[None]), dim=1)
        hidden = model.model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
        # The last entry of hidden_states is normed; the memory state is what the layer gave.
        outputs = [*hidden[1:-1], final[0]]
        states = torch.stack([state[0, -cases.MEMORY :] for state in outputs])
        raw = torch.load(checkpoint / "metanetwork.pth", weights_only=True)
        states = states + raw["layer_pe"][:, None] + raw["token_pe"][None]
        for number in range(4):
            block = torch.nn.TransformerEncoderLayer(
                64, cases.HEADS, cases.FEED_FORWARD, 0.0, "gelu", batch_first=True
            )
            start = f"transformer_layers.{number}."
            own = {k.removeprefix(start): v for k, v in raw.items() if k.startswith(start)}
            block.load_state_dict(own)
            if number % 2 == 0:
                states = block(states.transpose(0, 1)).transpose(0, 1)
            else:
                states = block(states)
    flat, place, found = states.flatten(), 0, []
    for _ in range(cases.LAYERS):
        for d_in, d_out in cases.MODULES.values():
            for rows, columns in ((d_in, cases.RANK), (cases.RANK, d_out)):
                part = flat[place : place + rows * columns].reshape(rows, columns)
                found.append(part * ROOT_SCALE)
                place += rows * columns
    assert place == len(flat)
    return found


def test_the_adapter_is_what_the_checkpoint_says(checkpoint: Path, tmp_path: Path) -> None:
    compiler = bring_in(checkpoint, tmp_path / "tiny")
    adapter = compiler.compile(cases.skill())
    ids = compiler.tokens(cases.skill().text)
    wanted = expected_factors(checkpoint, ids, compiler.base.gguf)
    paths = [site.path for site in compiler.sites]
    assert paths[:7] == [
        f"model.layers.0.{name}"
        for name in (
            *(f"self_attn.{letter}_proj" for letter in "qkvo"),
            *(f"mlp.{word}_proj" for word in ("gate", "up", "down")),
        )
    ]
    assert set(adapter.pairs) == set(paths)
    assert adapter.alpha == adapter.rank == cases.RANK
    for number, path in enumerate(paths):
        a, b = wanted[2 * number], wanted[2 * number + 1]
        assert torch.allclose(torch.from_numpy(adapter.pairs[path].a), a.T, atol=1e-5)
        assert torch.allclose(torch.from_numpy(adapter.pairs[path].b), b.T, atol=1e-5)


@pytest.mark.parametrize("source", ["latentskill", "shine", "parametricskills"])
@pytest.mark.parametrize("file", ["hypernetwork.pth", "skill_hypernet.pth", "metanetwork.pth"])
def test_every_name_of_the_network_is_found(source: str, file: str, tmp_path: Path) -> None:
    below = tmp_path / "archive" / "pretrain" / "checkpoint-epoch-10"
    cases.write_memory_token(below, file, prefix="_orig_mod.")
    base = cases.base(tmp_path / "tiny")
    made = import_compiler(source, tmp_path / "archive", base, heads=4)
    settings = made.settings
    assert made.family == "m2p"
    assert (settings["rank"], settings["memory"], settings["meta_rank"]) == (4, 70, 6)
    assert (settings["scale"], settings["feed_forward"], settings["blocks"]) == (0.001, 80, 4)
    assert compiler_identity(cases.opened(base))[0] == f"{source}-tiny"


def test_a_second_meta_lora_is_added(checkpoint: Path, tmp_path: Path) -> None:
    folder = cases.write_memory_token(tmp_path / "two")
    torch.save(cases.meta_lora(rank=3, seed=90), folder / "ift_additional_metalora.pth")
    both = bring_in(folder, tmp_path / "tiny")
    assert both.config.meta_rank == cases.META_RANK + 3
    first = torch.load(folder / "metalora.pth", weights_only=True)
    second = torch.load(folder / "ift_additional_metalora.pth", weights_only=True)
    for site in (both.sites[0], both.sites[-1]):
        a, b = both.meta_lora()[site.path]
        group = "attention" if "attn" in site.name else "mlp"
        name = site.name.rpartition(".")[2].removesuffix("_proj")
        one, two = (t[site.layer][group][name] for t in (first, second))
        dense = one["A"][0] @ one["B"][0] + two["A"][0] @ two["B"][0]
        assert torch.allclose(b @ a, dense.T, atol=1e-6)


def test_the_sums_of_a_checkpoint_are_checked(tmp_path: Path) -> None:
    folder = cases.write_memory_token(tmp_path / "summed")
    good = hashlib.sha256((folder / "metalora.pth").read_bytes()).hexdigest()
    sums = {"files": {"metalora.pth": {"sha256": good}}}
    (folder / "checkpoint_config.json").write_text(json.dumps(sums))
    base = cases.base(tmp_path / "tiny")
    import_compiler("parametricskills", folder, base, heads=4)
    sums["files"]["metalora.pth"]["sha256"] = "0" * 64
    (folder / "checkpoint_config.json").write_text(json.dumps(sums))
    with pytest.raises(CompilerError, match=r"metalora.pth: not the file that"):
        import_compiler("parametricskills", folder, base, heads=4)


State = dict[str, Any]
Meta = dict[int, Any]
Spoil = Callable[[State, Meta], None]


def put(name: str, value: Any) -> Spoil:
    """Set a tensor of the network, or take it away."""

    def change(network: State, meta: Meta) -> None:
        network.pop(name, None)
        if value is not None:
            network[name] = value

    return change


def put_meta(layer: int, group: str, name: str, half: str, value: Any) -> Spoil:
    """Set one part of the meta-LoRA, or take the module away."""

    def change(network: State, meta: Meta) -> None:
        if value is None:
            del meta[layer][group][name]
        else:
            meta[layer][group][name][half] = value

    return change


SPOILT: list[tuple[Spoil, str]] = [
    (put("transformer_layers.2.linear1.bias", None), "2.linear1.bias is missing"),
    (
        put("transformer_layers.1.self_attn.in_proj_weight", cases.noise(64, 64)),
        r"in_proj_weight is \(64, 64\), \(192, 64\) expected",
    ),
    (put("surprise", cases.noise(3)), r"1 tensors are not known \(surprise\)"),
    (put("token_pe", torch.full((70, 64), torch.nan)), "token_pe is not finite"),
    (put("layer_pe", torch.zeros(2, 64, dtype=torch.int64)), "layer_pe is torch.int64"),
    (put("layer_pe", cases.noise(3, 64)), "for 3 layers of 64, base .tiny. has 2 of 64"),
    (put("layer_pe", cases.noise(64)), r"layer_pe is \(64,\), 2 dimensions expected"),
    (put("couple_layers.0.norm1.weight", cases.noise(64)), "coupled layers are not supported"),
    (put("token_pe", cases.noise(69, 64)), r"\(70, 64\), a tensor \(69, 64\) expected"),
    (put_meta(1, "mlp", "down", "", None), "1.mlp.down is missing"),
    (
        put_meta(0, "attention", "k", "B", cases.noise(1, 6, 63)),
        "do not fit a module of 64 in and 64 out",
    ),
    (put_meta(0, "attention", "q", "C", cases.noise(1, 128)), "0.attention.q has a bias C"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT, ids=[str(n) for n in range(len(SPOILT))])
def test_what_does_not_fit_is_one_line_and_writes_nothing(
    spoil: Spoil, message: str, tmp_path: Path
) -> None:
    folder = cases.write_memory_token(tmp_path / "bad")
    network = torch.load(folder / "metanetwork.pth", weights_only=True)
    meta = torch.load(folder / "metalora.pth", weights_only=True)
    spoil(network, meta)
    torch.save(network, folder / "metanetwork.pth")
    torch.save(meta, folder / "metalora.pth")
    refused(folder, tmp_path / "tiny", message)


def test_files_that_are_none_are_one_line(tmp_path: Path) -> None:
    folder = cases.write_memory_token(tmp_path / "bad")
    more = {**cases.network(), "token_pe": cases.noise(71, 64)}
    torch.save(more, folder / "metanetwork.pth")
    torch.save(cases.noise(71, 64), folder / "mem_tokens.pt")
    refused(folder, tmp_path / "tiny", r"71 memory tokens .* made for another base")
    (folder / "metanetwork.pth").write_bytes(b"PK\x03\x04 not really")
    refused(folder, tmp_path / "tiny", "not a file of torch.save")
    (folder / "metanetwork.pth").unlink()
    refused(folder, tmp_path / "tiny", "none of hypernetwork.pth, skill_hypernet.pth, metanetwork")
    refused(tmp_path / "nowhere", tmp_path / "tiny", r"no mem_tokens.pt in it or below")


def refused(checkpoint: Path, folder: Path, message: str) -> None:
    """The import fails with one line and leaves the base as it was."""
    base = cases.base(folder)
    with pytest.raises(CompilerError, match=message) as caught:
        import_compiler("shine", checkpoint, base, heads=4)
    assert "\n" not in str(caught.value)
    assert [path.name for path in base.gguf.parent.iterdir()] == ["base.gguf"]


def test_several_checkpoints_have_to_be_named(tmp_path: Path) -> None:
    for number in (9, 10):
        cases.write_memory_token(tmp_path / "all" / f"checkpoint-epoch-{number}")
    with pytest.raises(CompilerError, match=r"2 checkpoints below it .*: name one"):
        import_compiler("shine", tmp_path / "all", cases.base(tmp_path / "tiny"), heads=4)


def test_heads_that_cannot_be_guessed_are_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match="0 heads do not divide width 64: give --heads"):
        import_compiler("shine", checkpoint, cases.base(tmp_path / "tiny"))


def test_a_compiler_is_only_replaced_on_demand(checkpoint: Path, tmp_path: Path) -> None:
    base = cases.base(tmp_path / "tiny")
    import_compiler("shine", checkpoint, base, heads=4)
    there = cases.opened(base)
    with pytest.raises(CompilerError, match="has a compiler: replace it with --force"):
        import_compiler("shine", checkpoint, there, heads=4)
    before = compiler_identity(there)[1]
    assert (base.gguf.parent / "compiler.safetensors").stat().st_mode & 0o777 == 0o644
    import_compiler("shine", checkpoint, there, heads=4, changes={"gain": 0.5}, force=True)
    assert compiler_identity(there)[1] != before
