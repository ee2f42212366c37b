"""Skill texts in the messages: what leaves the prompt, what is attached, what stays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from tests.runtime.conftest import Client, fill, settings_for
from tests.runtime.support import ProjectFolder, chat, names

from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime.elision import MIN_BODY, KnownSkill, elide, find_mentions
from skillc_runtime.server import running

BODY = "# Deploy\n\n" + "\n".join(f"- Step {i}: kubectl apply -f step-{i}.yaml" for i in range(12))
DEPLOY = KnownSkill("deploy", "How to deploy.", BODY)
STYLE = KnownSkill("style", "How to write & quote.", "Be brief.")
KNOWN = {"deploy": DEPLOY, "style": STYLE}
FILES = "<skill_files>\n<file>/skills/deploy/run.sh</file>\n</skill_files>"


def block(name: str, body: str) -> str:
    """What OpenCode's skill tool returns."""
    tail = f"Base directory for this skill: /skills/{name}\nNote: file list is sampled.\n\n{FILES}"
    return f'<skill_content name="{name}">\n# Skill: {name}\n\n{body}\n\n{tail}\n</skill_content>'


def listing(*skills: tuple[str, str]) -> str:
    entries = "".join(
        f"  <skill>\n    <name>{name}</name>\n    <description>{text}</description>\n"
        f"    <location>/skills/{name}/SKILL.md</location>\n  </skill>\n"
        for name, text in skills
    )
    intro = "Skills provide specialized instructions and workflows.\n"
    return f"{intro}<available_skills>\n{entries}</available_skills>"


def message(content: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def left(content: str, role: str = "user") -> str:
    """What stays of a message once all known skills are active."""
    text: str = elide([message(content, role)], KNOWN).messages[0]["content"]
    return text


def test_a_block_keeps_its_folder_and_files() -> None:
    text = left(f"before {block('deploy', BODY)} after", "tool")
    assert "kubectl" not in text
    assert "# Skill" not in text
    assert text.startswith('before <skill_content name="deploy">\n[skill deploy is active]\n')
    assert FILES in text
    assert "/skills/deploy\n" in text
    assert text.endswith("</skill_content> after")


def test_a_short_body_counts_in_a_block_only() -> None:
    assert "Be brief." not in left(block("style", STYLE.body))
    assert left("Be brief.") == "Be brief."
    assert find_mentions([message(block("style", STYLE.body))], KNOWN).used == ("style",)


@pytest.mark.parametrize(("size", "goes"), [(200, False), (201, True)])
def test_a_pasted_body_has_to_be_long(size: int, goes: bool) -> None:
    body = "x" * size
    known = {"long": KnownSkill("long", "", body)}
    assert find_mentions([message(body)], known).used == (("long",) if goes else ())
    text = elide([message(body)], known).messages[0]["content"]
    assert text == ("[skill long is active]" if goes else body)


@pytest.mark.parametrize(
    "text",
    [
        block("unknown", "- Say nothing."),
        block("deploy", BODY.replace("Step 7", "Step 70")),
        BODY[:-1],
        listing(("deploy", "How to deploy.")),
        "<skill_content" * 3000,
        '<skill_content name="deploy">' * 3000,
    ],
)
def test_what_is_not_the_compiled_text_stays(text: str) -> None:
    found = elide([message(text)], KNOWN)
    assert found.messages == [message(text)]
    assert not found.gone
    assert find_mentions([message(text)], KNOWN).used == ()


@pytest.mark.parametrize(
    "raw",
    [
        BODY,
        BODY.replace("\n", "\r\n"),
        BODY.replace("yaml\n", "yaml  \n"),
        f"---\nname: deploy\ndescription: How to deploy.\nlicense: MIT\n---\n\n{BODY}",
    ],
)
def test_a_pasted_body_goes(raw: str) -> None:
    assert left(f"{raw}\n\nto staging") == "[skill deploy is active]\n\nto staging"


def test_the_frontmatter_of_another_skill_stays() -> None:
    text = left(f"---\nname: other\n---\n{BODY}")
    assert text == "---\nname: other\n---\n[skill deploy is active]"


@pytest.mark.parametrize("seed", range(8))
def test_every_body_is_found_wherever_it_stands(seed: int) -> None:
    """As a search for each skill in each text would."""
    rng = random.Random(seed)
    lines = ["", "  - `make all`", "x" * 90, "x" * 90 + "  ", "Run it.", "# Title", "y" * 210]
    known = {}
    for number in range(60):
        body = "\n".join(rng.choices(lines, k=rng.randint(1, 6)))
        known[f"s{number}"] = KnownSkill(f"s{number}", "", body)
    found = 0
    for _ in range(60):
        parts = [rng.choice([*lines, *(skill.body for skill in known.values())]) for _ in range(3)]
        text = rng.choice(("\n", " ", "\n\n")).join(parts)
        text = text.replace("\n", rng.choice(("\n", "\r\n", " \t\n")))
        wanted = {
            name
            for name, skill in known.items()
            if min(len(text), len(skill.body)) > MIN_BODY and skill.find(text)
        }
        assert set(find_mentions([message(text)], known).used) == wanted
        found += len(wanted)
    assert found > 60


def test_listings() -> None:
    ours = ("deploy", "How to deploy."), ("style", "How to write &amp; quote.")
    assert left(f"You help.\n{listing(*ours)}\nBe kind.", "system") == "You help.\n\nBe kind."
    mixed = left(listing(ours[0], ("other", "How to deploy.")), "system")
    assert "<name>other</name>" in mixed
    assert "deploy</name>" not in mixed
    namesake = listing(("deploy", "Something else."))
    assert left(namesake, "system") == namesake
    assert find_mentions([message(listing(*ours), "system")], KNOWN).listed == ("deploy", "style")
    assert find_mentions([message(listing(*ours))], KNOWN).listed == ()


@pytest.fixture(scope="module")
def served(base: BaseInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server whose skills have long bodies."""
    project = ProjectFolder(tmp_path_factory.mktemp("elision"), base)
    for name in ("deploy", "style"):
        project.add(name, len(name), words="do it well " * 30)
    project.add("notes", 3, "text", words="take notes " * 30)
    project.add("idea", 4, "off", words="think about it " * 30)
    with running(settings_for(project)) as server:
        yield Client(server)


def body_of(client: Client, name: str) -> str:
    registry = client.server.registry
    root = registry._root
    assert root is not None
    return (root / registry.skills()[name].source).read_text("utf-8").split("---\n", 2)[2].strip()


def ask(client: Client, text: str, model: str = "tiny", **more: Any) -> dict[str, Any]:
    headers = more.pop("headers", None)
    reply = client.chat({**chat(model, text, max_tokens=2), **more}, headers)
    assert reply.status == 200, reply.text
    report: dict[str, Any] = reply.json["skillc"]
    return report


def test_an_elided_text_is_attached_and_counted(served: Client) -> None:
    text = f"{body_of(served, 'deploy')}\n\nnow"
    with_text = ask(served, text, headers={"X-Skillc-Elide": "off"})
    assert (with_text["attached"], with_text["tokens_elided"]) == ([], 0)
    elided = ask(served, text)
    assert names(elided["attached"]) == ["deploy"]
    went = with_text["prompt_tokens"] - elided["prompt_tokens"]
    assert went > 50
    assert abs(elided["tokens_elided"] - went) <= 3  # tokens that join across the seam
    (line,) = (
        line
        for line in served.send("/metrics").text.splitlines()
        if line.startswith("skillc_elided_tokens_total")
    )
    assert float(line.split()[1]) >= elided["tokens_elided"]


def test_the_answer_is_that_of_the_adapter(served: Client) -> None:
    text = f"{body_of(served, 'deploy')}\n\nnow"
    pasted = served.text(chat("tiny", text))
    assert pasted == served.text(chat("tiny:deploy", "[skill deploy is active]\n\nnow"))
    assert pasted != served.text(chat("tiny", "[skill deploy is active]\n\nnow"))


def test_text_skills_and_refused_ones_stay_text(served: Client) -> None:
    for name in ("notes", "idea"):
        report = ask(served, body_of(served, name))
        assert (report["attached"], report["tokens_elided"]) == ([], 0)
    deploy = body_of(served, "deploy")
    for model in ("tiny:deploy@0", "tiny:deploy@-1"):
        assert ask(served, deploy, model)["tokens_elided"] == 0
    half = ask(served, deploy, "tiny:deploy@0.5")
    assert half["attached"][0]["scale"] == 0.5
    assert half["tokens_elided"] > 0


def test_named_skills_keep_a_listing_from_choosing(served: Client) -> None:
    system = listing(("deploy", "How to deploy."), ("style", "How to style."))
    messages = [message(system, "system"), message("hi")]
    assert names(ask(served, "", messages=messages)["attached"]) == ["deploy", "style"]
    named = ask(served, "", "tiny:style", messages=messages)
    assert names(named["attached"]) == ["style"]
    assert named["tokens_elided"] > 0
    none = ask(served, "", messages=messages, skills=[])
    assert (none["attached"], none["tokens_elided"]) == ([], 0)


def test_a_header_that_says_neither_is_refused(served: Client) -> None:
    reply = served.chat(chat("tiny"), {"X-Skillc-Elide": "maybe"})
    assert (reply.status, reply.error["param"]) == (400, "X-Skillc-Elide")


def test_an_edited_skill_stays_text(base: BaseInfo, project: ProjectFolder) -> None:
    project.add("deploy", 1, words="first " * 60)
    with running(settings_for(fill(project))) as server:
        client = Client(server)
        project.add("deploy", 1, words="first " * 60)
        path = project.root / project.locked["deploy"].source
        old = body_of(client, "deploy")
        assert ask(client, old)["tokens_elided"] > 0
        text = path.read_text("utf-8").replace("first", "second")
        path.write_text(text, "utf-8")
        new = ask(client, text.split("---\n", 2)[2])
        assert (new["attached"], new["tokens_elided"]) == ([], 0)


def test_an_adapter_that_cannot_be_served_leaves_its_text(project: ProjectFolder) -> None:
    project.add("deploy", 1, words="do it " * 60)
    with running(settings_for(project)) as server:
        client = Client(server)
        project.gguf("deploy").write_bytes(b"broken")
        report = ask(client, body_of(client, "deploy"))
        assert (report["attached"], report["tokens_elided"]) == ([], 0)
