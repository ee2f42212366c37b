"""`skillc export`: what other programs get is what skillc serves."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compiler import stand_in
from tests.compiler.llama import Llama, loaded
from tests.plugin.project import FakeCompiler, Run, write_skill

from skillc.export import FORMATS, one_rank
from skillc.verbs.export_verb import TO
from skillc_compiler.adapter import Adapter, save_peft
from skillc_compiler.bases import find_base
from skillc_compiler.gguf_base import read_base_info

pytestmark = pytest.mark.slow
TOKENS = [1, 300, 41, 77, 200, 505, 90, 12, 310, 2] * 4


@pytest.fixture
def served(root: Path, run: Run, tmp_path: Path) -> Adapter:
    """A project on a Llama that was added with its folder; skill `testing` has this adapter."""
    stand_in.write_folder(tmp_path / "model", "llama")
    done = run("base", "add", "llama", "--hf", tmp_path / "model", "--write-as", "f32",
               "--no-logits")  # fmt: skip
    assert done.code == 0, done.err
    (root / "skillc.toml").write_text('base = "llama"\n', "utf-8")
    base = read_base_info(find_base("llama").gguf)
    wide = stand_in.adapter(base, ["self_attn.q_proj", "mlp.up_proj"], rank=6)
    narrow = stand_in.adapter(base, ["mlp.down_proj"], rank=3, seed=1)
    adapter = Adapter({**wide.pairs, **narrow.pairs}, wide.alpha, wide.manifest)
    save_peft(adapter, tmp_path / "trained")
    write_skill(root, "testing")
    assert run("add", "--adapter", tmp_path / "trained", "--skill", "testing").code == 0
    return adapter


def exported(run: Run, to: str) -> dict[str, Any]:
    done = run("export", "testing", "--to", to, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert isinstance(record, dict)
    return record


def torch_logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_everything_gives_the_same_logits(
    served: Adapter, run: Run, root: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = find_base("llama")
    plain = exported(run, "gguf")
    lora = Path(plain["folder"]) / "adapter.gguf"
    with Llama(base.gguf) as llama, loaded(llama, lora) as handle:
        bare, ours = llama.logits(TOKENS), llama.logits(TOKENS, [(handle, 1.0)])
    assert np.abs(ours - bare).max() > 1
    assert shlex.split(plain["commands"][0]) == [
        "llama-server", "-m", str(base.gguf), "--lora", str(lora)]  # fmt: skip
    for to in ("peft", "vllm", "lorax"):
        record = exported(run, to)
        assert set(record["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        adapted = PeftModel.from_pretrained(model, record["folder"])
        assert np.abs(torch_logits(adapted) - ours).max() < 2e-2, to
        config = json.loads((Path(record["folder"]) / "adapter_config.json").read_text("utf-8"))
        assert config["base_model_name_or_path"] == str(tmp_path / "model")
        assert bool(config["rank_pattern"]) is (to == "peft")
    merged = exported(run, "merged")
    with Llama(Path(merged["folder"]) / "model.gguf") as llama:
        assert np.abs(llama.logits(TOKENS) - ours).max() < 2e-2
    assert merged["notes"] == ["6 weights were changed"]


def test_the_commands_are_whole(served: Adapter, run: Run, root: Path, tmp_path: Path) -> None:
    model, out = str(tmp_path / "model"), root / "testing-vllm"
    record = exported(run, "vllm")
    serve = shlex.split(record["commands"][0])
    assert serve == ["vllm", "serve", model, "--enable-lora", "--max-lora-rank", "8",
                     "--lora-modules", f"testing={out}"]  # fmt: skip
    body = json.loads(shlex.split(record["commands"][2])[-1])
    assert body == {"lora_name": "testing", "lora_path": str(out)}
    lorax = shlex.split(exported(run, "lorax")["commands"][0])
    assert f"{model}:/model" in lorax
    assert f"{root / 'testing-lorax'}:/adapters/testing" in lorax
    ollama = exported(run, "ollama")
    modelfile = (root / "testing-ollama" / "Modelfile").read_text("utf-8")
    assert modelfile == f"FROM {find_base('llama').gguf}\nADAPTER ./adapter.gguf\n"
    assert (root / "testing-ollama" / "adapter.gguf").is_file()
    assert ollama["commands"][1] == "ollama run llama-testing"
    python = shlex.split(exported(run, "peft")["commands"][0])
    assert python[:2] == ["python", "-c"]
    compile(python[2], "command", "exec")
    done = run("export", "testing", "--to", "gguf", "--out", "named")
    assert done.out.splitlines() == [
        f"llama-{kind} -m {find_base('llama').gguf} --lora {root / 'named' / 'adapter.gguf'}"
        for kind in ("server", "cli")
    ]


def test_padding_to_one_rank_changes_nothing(served: Adapter) -> None:
    padded = one_rank(served)
    assert {pair.rank for pair in padded.pairs.values()} == {6}
    for module in served.pairs:
        np.testing.assert_allclose(padded.delta(module), served.delta(module), atol=1e-5)


def test_what_cannot_be_exported(root: Path, run: Run, compiler: FakeCompiler) -> None:
    assert sorted(FORMATS) == sorted(TO)
    write_skill(root, "testing")
    assert "not built yet" in run("export", "testing", "--to", "gguf").err
    run("build")
    assert "no skill 'nothing'" in run("export", "nothing", "--to", "gguf").err
    assert run("export", "testing", "--to", "gguf").code == 0
    assert "is there already" in run("export", "testing", "--to", "gguf").err
    assert run("export", "testing", "--to", "gguf", "--force").code == 0
    for to in ("vllm", "lorax"):
        assert "needs the original model" in run("export", "testing", "--to", to).err
    done = run("export", "testing", "--to", "peft")
    assert (done.code, "no Hugging Face folder" in done.err) == (0, True)
    assert run("export", "testing", "--to", "tgi").code == 2
