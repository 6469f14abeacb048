"""The end of a job on the disk: accepted files to their destinations, temporary files away, rows gone. Carries out
`PublishFiles` and `RemoveFiles`.

Order (reliability 2.3): the intent is recorded before the first rename or unlink, the rename before the job's end.
Never decides what a job becomes.
"""

from __future__ import annotations

import time

import msgspec

from agent.context import Context
from agent.core.jobs import Job, JobError
from agent.core.sources import FileId
from agent.errors import DestinationError
from agent.filework import FileWork
from agent.journal import FeedItem, NewsItem
from agent.keeper import Keeper
from agent.partfile import Overwrite, PartFileLost, Publication, mode_by_umask
from agent.records import destination_of
from agent.totals import Totals
from agent.views import event_document


class Finisher:
    """Brings jobs to their end."""

    def __init__(self, context: Context, keeper: Keeper, totals: Totals) -> None:
        self._context = context
        self._keeper = keeper
        self._totals = totals

    async def publish(self, files: tuple[FileId, ...]) -> dict[FileId, JobError]:
        """Bring accepted files to their destinations. Returns what could not be done, by file."""
        failures: dict[FileId, JobError] = {}
        for file_id in files:
            work = self._keeper.works[file_id]
            error = await self._publish_one(work)
            if error is not None:
                failures[file_id] = JobError(
                    code=error.code, message=str(error), context="local file", file=work.key.index
                )
        return failures

    async def _publish_one(self, work: FileWork) -> DestinationError | None:
        """The cache must have its copies before the user may touch the file."""
        await work.settled()
        if work.part is None:
            return DestinationError(
                f"the temporary file of {work.new.path} is lost: resume the job", code="IO_ERROR"
            )
        _, base = destination_of(work.new)
        publication = Publication(
            base=base,
            mode=mode_by_umask(),
            modified_at=work.facts.modified_at,
            overwrite=Overwrite(work.new.overwrite.value),
        )
        try:
            await self._context.parts.workers.run(work.part.publish, publication)
        except DestinationError as error:
            return error
        except (PartFileLost, OSError) as error:
            return DestinationError(str(error), code="IO_ERROR")
        return None

    async def remove(self, job: Job) -> list[FeedItem]:
        """The job has ended: temporary files that were not published go, and so do its rows. Returns its last
        news with their numbers."""
        frame = self._keeper.frames[job.job]
        now = time.time()
        news = [
            NewsItem(
                job_id=job.job,
                kind=item.kind.value,
                at=now,
                data=msgspec.json.encode(event_document(job, frame.new.name, item, now)),
            )
            for item in job.take_news()
        ]
        for file, work in self._keeper.drop(job):
            if not file.completed:
                await work.discard()
            await work.close()
        items = await self._context.parts.journal.delete_job(job.job, news, self._totals.count(job))
        self._keeper.frames.pop(job.job, None)
        return items
