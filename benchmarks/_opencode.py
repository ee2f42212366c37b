"""What the benchmarks with the real OpenCode share: a project, its server, a relay, the client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from _bench import say, skillc, use_base

from skillc.server_process import serving
from skillc_compiler.bases import find_base
from skillc_compiler.gguf_base import read_base_info, read_tokenizer
from skillc_runtime.template import environment

# The client and the relay are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.e2e.client import OpenCode
from tests.e2e.relay import Relay, relaying

SLIM = json.loads(
    (Path(__file__).resolve().parents[1] / "plugin" / "opencode" / "slim.json").read_text("utf-8")
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A built project, served, with OpenCode set up for it by `skillc init opencode`."""

    project: Path
    relay: Relay
    agent: OpenCode


@contextmanager
def staged(scratch: Path, skills: Mapping[str, str]) -> Iterator[Stage]:
    """Build and serve a project with `skills` (name -> SKILL.md) in `scratch`."""
    use_base(scratch)
    project, home = scratch / "project", scratch / "home"
    home.mkdir()
    for name, text in skills.items():
        path = project / ".skills" / name / "SKILL.md"
        path.parent.mkdir(parents=True)
        path.write_text(text, "utf-8")
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    say(f"building {len(skills)} skills")
    subprocess.run(skillc(project, "build"), stdout=2, check=True)
    with serving(project, scratch / "serve.log", ["--threads", "1"]) as url, relaying(url) as relay:
        agent = OpenCode(project, home, {"SKILLC_ACTIVE": "", "SKILLC_WAIT": "30000"})
        options = ("--offline", "--url", f"{relay.url}/v1")
        subprocess.run(
            skillc(project, "init", "opencode", *options),
            env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")},
            stdout=2,
            check=True,
        )
        yield Stage(project, relay, agent)


def configure(project: Path, **more: Any) -> None:
    """Add to the project's opencode.json: objects are merged one level deep."""
    path = project / "opencode.json"
    config = json.loads(path.read_text("utf-8"))
    for key, value in more.items():
        old = config.get(key)
        config[key] = {**old, **value} if isinstance(old, dict) else value
    path.write_text(json.dumps(config, indent=2), "utf-8")


class Counter:
    """Prompt tokens of a chat request, by the base's own template and tokenizer."""

    @cached_property
    def _base(self) -> Any:
        return read_base_info(find_base().gguf)

    @cached_property
    def _tokenizer(self) -> Any:
        return read_tokenizer(find_base().gguf)

    def tokens(self, body: Mapping[str, Any]) -> int:
        """How many tokens the model reads of `body`."""
        template = environment().from_string(self._base.chat_template)
        text = template.render(
            messages=[_plain(message) for message in body["messages"]],
            tools=body.get("tools"),
            add_generation_prompt=True,
        )
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    return {**message, "content": content}
