"""`skillc build --engine ray`: skills compiled by Ray workers, on this machine or on a cluster.

The build stays what it is: it plans, publishes under the same keys and writes the lock. Only the
compiling itself goes to workers, each of which holds a base and a compiler of its own. A worker
that dies is started again and its skills are compiled once more.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from skillc_compiler.bases import Base, find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import DEFAULT_RANK, compiler_identity, load_compiler
from skillc_compiler.file_hash import file_sha256

if TYPE_CHECKING:
    from skillc_compiler.adapter import Adapter
    from skillc_compiler.skill import Skill

AHEAD = 2
"""Skills that a worker has been given: it need not wait for the next one."""
STARTS = 3
"""How often Ray is started on this machine: its own patience is half a minute."""
RETRIES = 3
"""How often a skill is given out again after its worker died: it may be what kills them."""
# A busy machine takes longer to start than Ray waits by itself.
_DEFAULTS = {
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_gcs_server_port_wait_time_s": "180",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Worker:
    """One process of Ray with a base and its compiler."""

    def __init__(self, base: str, base_hash: str, compiler_hash: str) -> None:
        found = find_base(base)
        mine = (file_sha256(found.gguf), compiler_identity(found)[1])
        if mine != (base_hash, compiler_hash):
            raise CompilerError(
                f"base {base!r} or its compiler is another one on {os.uname().nodename}"
            )
        self._compiler = load_compiler(found)

    def pid(self) -> int:
        """The worker's process."""
        return os.getpid()

    def compile(self, skill: Skill, rank: int) -> Adapter | CompilerError:
        """The adapter of one skill, or why there is none."""
        (made,) = self._compiler.compile_many([skill], rank=rank)
        return made


class RayCompiler:
    """A `Compiler` whose work is done by Ray workers."""

    def __init__(self, base: Base, workers: Sequence[Any]) -> None:
        self.id, self.hash = compiler_identity(base)
        self.base = base
        self.workers = list(workers)

    def pids(self) -> list[int]:
        """The workers' processes, once all of them are ready. Raises CompilerError."""
        import ray

        try:
            found: list[int] = ray.get([worker.pid.remote() for worker in self.workers])
        except ray.exceptions.RayError as error:
            raise CompilerError(f"a Ray worker does not start: {_reason(error)}") from error
        return found

    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill; see `Compiler`."""
        (made,) = self.compile_many([skill], rank=rank)
        if isinstance(made, CompilerError):
            raise made
        return made

    def compile_many(
        self,
        skills: Sequence[Skill],
        *,
        rank: int = DEFAULT_RANK,
        on_done: Callable[[Skill, Adapter | CompilerError], None] | None = None,
    ) -> list[Adapter | CompilerError]:
        """Adapters in the order of `skills`; see `Compiler`.

        With `on_done` the list is empty: an adapter is not kept once it has been handed over.
        """
        import ray

        found: dict[int, Adapter | CompilerError] = {}
        left = deque(enumerate(skills))
        going: dict[Any, tuple[int, Any]] = {}
        for worker in self.workers * AHEAD:
            if left:
                number, skill = left.popleft()
                going[worker.compile.remote(skill, rank)] = number, worker
        while going:
            (ready, *_), _ = ray.wait(list(going), num_returns=1)
            number, worker = going.pop(ready)
            made = _result(ready)
            del ready
            if left:
                following, skill = left.popleft()
                going[worker.compile.remote(skill, rank)] = following, worker
            if on_done is None:
                found[number] = made
            else:
                on_done(skills[number], made)
        return [found[number] for number in sorted(found)]


@contextmanager
def ray_workers(base: Base, count: int | None) -> Iterator[RayCompiler]:
    """`count` workers (one a core without) on the cluster of $RAY_ADDRESS, else on this machine.

    Raises CompilerError when Ray is not installed, or has no room for them.
    """
    try:
        import ray
    except ImportError as error:
        raise CompilerError("ray is not installed: pip install 'skillc[ray]'") from error
    _start(ray, count)
    try:
        cores = int(ray.cluster_resources().get("CPU", 0))
        count = count or max(1, cores)
        if count > cores:
            raise CompilerError(f"{count} workers, but Ray has {cores} cores: take fewer")
        identity = file_sha256(base.gguf), compiler_identity(base)[1]
        kind = ray.remote(Worker).options(
            num_cpus=1, max_restarts=-1, max_task_retries=RETRIES, max_concurrency=1
        )
        workers = [kind.remote(base.name, *identity) for _ in range(count)]
        compiler = RayCompiler(base, workers)
        compiler.pids()
        yield compiler
    finally:
        ray.shutdown()


def _start(ray: Any, count: int | None) -> None:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Workers of this machine find the same modules as this process does.
    own = [path for path in sys.path if path]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(own)
    options: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        options = {"include_dashboard": False, "num_cpus": max(count or 0, _cores())}
    try:
        for left in reversed(range(STARTS)):
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", **options)
                return
            except Exception as error:  # Ray raises many kinds for a cluster that is not there
                ray.shutdown()
                if not left or not options:
                    raise CompilerError(f"Ray does not start: {_reason(error)}") from error
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _result(reference: Any) -> Adapter | CompilerError:
    import ray

    try:
        made: Adapter | CompilerError = ray.get(reference)
    except ray.exceptions.RayError as error:
        return CompilerError(f"its Ray worker failed: {_reason(error)}")
    return made


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return " ".join(lines[-1].split())[:200]
