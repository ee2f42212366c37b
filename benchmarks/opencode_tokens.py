"""What do skills cost in the prompt, as text and as adapters, in the real OpenCode?

Both arms are OpenCode with one prompt, the same task, and 1, 3 and 10 skills in use.  In the arm
`native` its own `skill` tool loads the texts; in the arm `skillc` the plugin switches adapters on.
Counted is what the model would have to read at the last step, by nano's own template and tokenizer.

The plugin also shortens the descriptions of the tools, which has nothing to do with skills: the
`prefill_cut` figures count the native arm as if its tools were as short, the `step_cut` figures
count it as it was sent.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _bench import ORCHARD, say
from _opencode import SLIM, Counter, Stage, configure, staged

from skillc.figures import print_figures
from skillc_compiler.skill import read_skill

COUNTS = (1, 3, 10)
TARGETS = {"skill_text_left": ("==", 0.0), "prefill_cut_3": (">=", 0.64)}


def texts(count: int) -> dict[str, str]:
    """`count` skills: those of examples/orchard, again under other names when these run out."""
    found = sorted(ORCHARD.glob("*/SKILL.md"))
    result = {}
    for i in range(count):
        path = found[i % len(found)]
        name = path.parent.name + (f"-{i // len(found) + 1}" if i >= len(found) else "")
        result[name] = re.sub("^name: .*$", f"name: {name}", path.read_text("utf-8"), flags=re.M)
    return result


def last_request(stage: Stage, tool: str, names: Sequence[str], *args: str) -> list[dict[str, Any]]:
    """The requests of a session that takes up `names` and then runs a command."""
    calls = [f"CALL {tool} {json.dumps({'name': name})}" for name in names]
    done = stage.agent.run("\n".join([*calls, 'CALL bash {"command": "true"}']), *args)
    seen = [dict(one.body) for one in stage.relay.take()]
    if done.errors or len(seen) != len(names) + 2:
        raise SystemExit(f"{len(seen)} requests, errors: {done.errors} {done.err[-2000:]}")
    return seen


def with_short_tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose tools are described as shortly as the plugin does it."""
    tools = []
    for tool in body["tools"]:
        function = tool["function"]
        short = SLIM["tools"].get(function["name"])
        tools.append({**tool, "function": {"name": function["name"], **short}} if short else tool)
    return {**body, "tools": tools}


def text_left(bodies: Sequence[Mapping[str, Any]], project: Path, names: Sequence[str]) -> float:
    """The share of the skills' text, in characters, that is in the last of `bodies`."""
    sent = json.dumps(bodies[-1], ensure_ascii=False)
    lines = [line for n in names for line in _lines(project, n)]
    left = [line for line in lines if json.dumps(line, ensure_ascii=False)[1:-1] in sent]
    return sum(map(len, left)) / sum(map(len, lines))


def _lines(project: Path, name: str) -> list[str]:
    body = read_skill(project / ".skills" / name).body
    return [line for line in body.splitlines() if len(line) > 20]


def measure(scratch: Path, count: int, counter: Counter) -> dict[str, float]:
    """Both arms with `count` skills."""
    skills = texts(count)
    with staged(scratch, skills) as stage:
        allowed = dict.fromkeys(("bash", "edit", "read", "skill"), "allow")
        native = {"mode": "primary", "model": "skillc/nano", "prompt": SLIM["prompt"]}
        configure(
            stage.project,
            agent={
                "native": {**native, "permission": {"*": "deny", **allowed}},
                "title": {"disable": True},
            },
            skills={"paths": [str(stage.project / ".skills")]},
        )
        stage.agent.do_without_ripgrep(scratch)
        say(f"{count} skills, native")
        text = last_request(stage, "skill", list(skills), "--pure", "--agent", "native")
        say(f"{count} skills, skillc")
        ours = last_request(stage, "use_skill", list(skills), "--agent", "slim")
    kept = text_left(text, scratch / "project", list(skills))
    if kept < 0.95:
        raise SystemExit(f"the native arm holds only {kept:.0%} of the texts: nothing to compare")
    tokens = counter.tokens(ours[-1])
    as_sent, same_tools = counter.tokens(text[-1]), counter.tokens(with_short_tools(text[-1]))
    return {
        f"prefill_cut_{count}": 1 - tokens / same_tools,
        f"step_cut_{count}": 1 - tokens / as_sent,
        f"skillc_tokens_{count}": tokens,
        f"text_tokens_{count}": same_tools,
        f"native_tokens_{count}": as_sent,
        "skill_text_left": text_left(ours, scratch / "project", list(skills)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="with 1 skill only")
    args = parser.parse_args()
    figures: dict[str, float] = {}
    left, counter = 0.0, Counter()
    for count in COUNTS[: 1 if args.quick else None]:
        with tempfile.TemporaryDirectory(prefix="skillc-opencode-") as folder:
            figures |= measure(Path(folder), count, counter)
        left = max(left, figures["skill_text_left"])
    figures["skill_text_left"] = left
    print_figures("opencode_tokens", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
