"""Does a kill at any moment leave anything torn or stale behind?

Builders and watchers, processes of their own, work on a project whose skills change all the time,
and are killed (SIGKILL) at random moments. After each kill the store and the lock are looked at as
a server would; then one build has to put everything right. Compiling is replaced by a stand-in: the
question is what is on the disk.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from _bench import StandIn, say, use_base, write

from skillc.build import build
from skillc.figures import print_figures
from skillc.plan import make_plan
from skillc.progress import Progress
from skillc.project import Project
from skillc.target import find_target
from skillc.watch import Listener, Watch
from skillc_compiler.errors import StoreError
from skillc_compiler.skill import read_skill
from skillc_compiler.store import Store

KILLS = 200
SKILLS = 12
LONGEST = 0.4
TEXT = "---\nname: {name}\ndescription: How to {name}.\n---\n\n- Rule {number}: `{name} --run`.\n"
TARGETS = {"torn": ("==", 0.0), "stale": ("==", 0.0), "unrepaired": ("==", 0.0)}


def work(folder: Path, verb: str) -> None:
    """Build or watch until killed; says so on standard output when it is under way."""
    project = Project.at(folder)
    target = find_target(project.settings.base)
    if verb == "watch":
        print("ready", flush=True)
        Watch(folder, Listener(), lambda base: StandIn(target), scan_seconds=0.05).run()
    one_build(project)
    print("ready", flush=True)
    while True:
        one_build(project)
        time.sleep(0.002)


def one_build(project: Project) -> None:
    target = find_target(project.settings.base)
    memory = project.memory()
    build(lambda: make_plan(project, target, memory=memory), lambda: StandIn(target), Progress())


def kill_one(project: Project, verb: str, chance: random.Random) -> None:
    """Start a worker, change skills under it, and kill it at a random moment."""
    command = [sys.executable, __file__, "--work", str(project.root), verb]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    end = time.monotonic() + chance.uniform(0.0, LONGEST)
    while (left := end - time.monotonic()) > 0:
        change(project, chance)
        time.sleep(min(left, chance.uniform(0.0, 0.03)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def change(project: Project, chance: random.Random) -> None:
    """Write, or now and then delete, one of the skills."""
    name = f"skill-{chance.randrange(SKILLS)}"
    path = write(project.root, name, TEXT.format(name=name, number=chance.randrange(1 << 30)))
    if name != "skill-0" and chance.random() < 0.1:
        path.unlink()


def look(project: Project, found: Counter[str]) -> None:
    """Count what a server would be misled by at this moment."""
    try:
        lock = project.lock()
    except StoreError:
        found["torn"] += 1
        return
    store = Store(project.store_path)
    for key in store.keys() if project.store_path.is_dir() else ():
        try:
            store.open(key)
        except StoreError:
            found["torn"] += 1
    for entry in lock.skills.values() if lock is not None else ():
        if store.has(entry.key):
            stored = store.open(entry.key)
            found["stale"] += stored.manifest.skill_hash != entry.hash


def repair(project: Project, found: Counter[str]) -> None:
    """One build, after which everything must be as the files say, and no lock be left behind."""
    one_build(project)
    lock, store = project.lock(), Store(project.store_path)
    assert lock is not None
    wanted = {path.parent.name: path for path in project.root.glob(".skills/*/SKILL.md")}
    found["unrepaired"] += len(set(wanted) ^ set(lock.skills))
    for name, path in wanted.items():
        text, entry = read_skill(path).hash, lock.skills.get(name)
        if entry is not None:
            made_of = store.open(entry.key).manifest.skill_hash
            found["unrepaired"] += not text == entry.hash == made_of


def measure(project: Project, kills: int, seed: int) -> Counter[str]:
    """Kill `kills` workers, builders and watchers in turns; returns the counts."""
    chance, found = random.Random(seed), Counter[str]()
    for number in range(kills):
        kill_one(project, ("build", "watch")[number % 2], chance)
        look(project, found)
        orphans = len(list(project.store_path.glob(".tmp-*")))
        found["orphans"] += orphans
        if number % 5 == 4 or number == kills - 1:
            # Not after each: several kills in a row must not add up to damage either.
            change(project, chance)
            repair(project, found)
            Store(project.store_path).sweep(older_than=0)
        found["kills"] += 1
        if number % 20 == 19:
            say(f"{number + 1} kills: {dict(found)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--base", metavar="NAME", help="a base that is here already")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", nargs=2, metavar=("DIR", "VERB"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(Path(args.work[0]), args.work[1])
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "project")
        root.mkdir()
        if args.base is None:
            use_base(Path(scratch))
        else:
            (root / "skillc.toml").write_text(f'base = "{args.base}"\n', "utf-8")
        write(root, "skill-0", TEXT.format(name="skill-0", number=0))
        found = measure(Project.at(root), args.kills, args.seed)
    figures = {key: float(found[key]) for key in ("kills", "torn", "stale", "unrepaired")}
    figures["orphans_swept"] = float(found["orphans"])
    print_figures("crash", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
