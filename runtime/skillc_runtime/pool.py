"""Several engines behind one queue: skill sets that cannot share a decode run beside each other.

Adapters belong to a whole decode, so requests for different sets take turns in one engine however
many cores there are. Each engine here has its own process, base, adapters and cache; a set stays
where its cache is until another engine has clearly less to do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from skillc_compiler.errors import SkillcError
from skillc_runtime.adapters import SetKey, set_key
from skillc_runtime.counts import Counts
from skillc_runtime.engine import Engine
from skillc_runtime.remote import ProcessWorker
from skillc_runtime.worker import Job, QueueFullError, Worker

_SLACK = 1  # jobs by which another engine must have less to do for a set to move there
_HOMES = 4096  # sets whose engine is remembered


class WorkerPool(Worker):
    """Takes jobs as `Worker` does and hands each to one of its members."""

    def __init__(self, members: Sequence[ProcessWorker], *, waiting: int = 32) -> None:
        super().__init__(lambda: members[0].engine, waiting=waiting)
        self._members = tuple(members)
        self._homes: OrderedDict[SetKey, ProcessWorker] = OrderedDict()

    @property
    def engine(self) -> Engine:
        """The first member's; all have the same base."""
        return self._members[0].engine

    @property
    def failure(self) -> SkillcError | None:
        """See `Worker.failure`: one that still answers is enough."""
        failures = [member.failure for member in self._members]
        return failures[0] if all(failures) else None

    @property
    def counts(self) -> Counts:
        """Sums over the members."""
        found = [member.counts for member in self._members]
        return Counts(
            sum(one.decodes for one in found),
            sum(one.tokens for one in found),
            sum(one.switches for one in found),
            sum(one.copied for one in found),
        )

    @property
    def adapters(self) -> tuple[int, int]:
        """Sums over the members."""
        loaded, loads = zip(*(member.adapters for member in self._members), strict=True)
        return sum(loaded), sum(loads)

    @property
    def away(self) -> bool:
        """Whether no member has a process that answers."""
        return all(member.away for member in self._members)

    @property
    def waiting(self) -> int:
        """Jobs not yet begun."""
        return sum(member.waiting for member in self._members)

    def start(self) -> None:
        """Begin to load the base in every member."""
        for member in self._members:
            member.start()
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; QueueFullError when too many wait.  Call it from one thread only."""
        if self.waiting >= self._most:
            raise QueueFullError(f"{self.waiting} requests wait already")
        self._home(set_key(job.adapters)).submit(job)

    def abort(self) -> None:
        """Cancel the jobs that run and those that wait; no new ones are taken."""
        for member in self._members:
            member.abort()

    def close(self) -> None:
        """Abort, and end every process."""
        self.abort()
        for member in self._members:
            member.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        for member in self._members:
            member.loaded.wait()
        self.loaded.set()

    def _home(self, key: SetKey) -> ProcessWorker:
        """Where the set's requests go: where they went, or where there is clearly less to do."""
        able = [member for member in self._members if member.failure is None]
        idlest = min(able or self._members, key=lambda member: member.busy)
        home = self._homes.pop(key, idlest)
        if home not in able or home.busy > idlest.busy + _SLACK:
            home = idlest
        self._homes[key] = home
        if len(self._homes) > _HOMES:
            self._homes.popitem(last=False)
        return home
