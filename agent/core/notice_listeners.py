"""Who listens to what: the listener that a job's notices go to.

The last one who came for the job, else the last one who came for all jobs (bits-reference 2.2: last setter wins).
When it goes, the one before it is asked again. Never knows: notices, deliveries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.core.notice_values import NEVER, ListenerId
from agent.core.queue import JobId


@dataclass(slots=True)
class _Crowd:
    """Listeners to the same thing, in the order they came."""

    members: dict[ListenerId, None] = field(default_factory=dict)
    since: float = NEVER
    """When the last one came, also if it has gone since."""


class Listeners:
    """All listeners of one agent. Every call costs the same, however many jobs there are."""

    def __init__(self) -> None:
        self._all = _Crowd()
        self._own: dict[JobId, _Crowd] = {}
        self._scopes: dict[ListenerId, JobId | None] = {}

    def came(self, listener: ListenerId, job: JobId | None, now: float) -> None:
        """It listens to this job (None: to all), and no more to what it listened to before. It is the last one who
        came."""
        self.gone(listener)
        crowd = self._all if job is None else self._own.setdefault(job, _Crowd())
        crowd.members[listener] = None
        crowd.since = now
        self._scopes[listener] = job

    def gone(self, listener: ListenerId) -> JobId | None:
        """It listens no more. The job it had come for; None: for all jobs, or it was not there."""
        job = self._scopes.pop(listener, None)
        if job is None:
            self._all.members.pop(listener, None)
            return None
        crowd = self._own[job]
        del crowd.members[listener]
        if not crowd.members:
            del self._own[job]
        return job

    def of(self, job: JobId) -> ListenerId | None:
        """Whom to call for this job."""
        crowd = self._own.get(job, self._all)
        return next(reversed(crowd.members), None)

    def own(self, job: JobId) -> bool:
        """Somebody came for this very job."""
        return job in self._own

    def to_all(self) -> bool:
        """Somebody listens to all jobs."""
        return bool(self._all.members)

    def since(self, job: JobId) -> float:
        """When the last one came who would hear of this job."""
        own = self._own.get(job)
        return self._all.since if own is None else max(own.since, self._all.since)
