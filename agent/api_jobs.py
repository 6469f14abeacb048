"""The routes about jobs, their files, and their listeners.

Never knows: HTTP beyond methods and paths, how a request is carried out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec import UNSET

from agent.api_stream import Told
from agent.api_table import MAX_FILES_BODY_BYTES, Ask, Gives, Header, Reply, Route, Stream, Takes
from agent.schema import (
    CredentialChange,
    CredentialPath,
    DeliveryAnswer,
    DeliveryDocument,
    DeliveryPath,
    DeliveryQuery,
    Done,
    EventDocument,
    EventQuery,
    Explanation,
    FileChange,
    FilePath,
    FilledRanges,
    JobChange,
    JobDocument,
    JobList,
    JobPath,
    JobQuery,
    NewFiles,
    NewJob,
    Nothing,
    PollQuery,
    Position,
    PrefixChange,
    PrefixReplaced,
    RangesWanted,
    ValidationChange,
)

if TYPE_CHECKING:
    from agent.announcer import Mark
    from agent.control import Control

MAX_POLL_S = 60.0

KEY = Header(
    name="Idempotency-Key",
    pattern="[!-~]{1,255}",
    meaning="Repeating a request with the same key makes no second job; it is remembered for seven days.",
)
LAST_EVENT_ID = Header(
    name="Last-Event-ID",
    pattern="[0-9]{1,18}",
    meaning="Sequence number of the last event that was seen; wins over `after`.",
)

JOB = ("JOB_NOT_FOUND",)
LIVE = (*JOB, "INVALID_STATE", "DISK_FULL")
"""A change is refused when it cannot be recorded."""
PROPERTIES = ("STRING_TOO_LONG", "NOTIFY_COMMANDS_OFF")
FILES = (
    "UNKNOWN_VALIDATOR",
    "UNSUPPORTED_SCHEME",
    "STRING_TOO_LONG",
    "INVALID_RANGE",
    "OVERLAPPING_RANGES",
    "TOO_MANY_FILES",
    "TOO_MANY_RANGES",
    "DESTINATION_MISSING",
    "DESTINATION_INVALID",
    "PERMISSION_DENIED",
    "IO_ERROR",
)
DESTINATION = ("DESTINATION_MISSING", "DESTINATION_INVALID", "DESTINATION_EXISTS", "PERMISSION_DENIED", "IO_ERROR")
URLS = ("UNSUPPORTED_SCHEME", "STRING_TOO_LONG")
CREATED = (HTTPStatus.CREATED, "a new job")
KNOWN = (HTTPStatus.OK, "the job that this key made before")


async def _create(control: Control, ask: Ask[Nothing, Nothing, NewJob]) -> Reply:
    document, new = await control.create_job(ask.body, ask.headers.get(KEY.name))
    return Reply(document, HTTPStatus.CREATED if new else HTTPStatus.OK)


async def _job(control: Control, ask: Ask[JobPath, PollQuery, Nothing]) -> JobDocument:
    after = ask.query.after
    if after is UNSET:
        return control.job(ask.path.job)
    return await control.wait_change(ask.path.job, after, min(ask.query.timeout_s, MAX_POLL_S))


def _events(control: Control, ask: Ask[Nothing, EventQuery, Nothing]) -> AsyncIterator[Told]:
    after = None if ask.query.after is UNSET else ask.query.after
    if LAST_EVENT_ID.name in ask.headers:
        after = int(ask.headers[LAST_EVENT_ID.name])
    return _told_events(control.events(after, None if ask.query.job is UNSET else ask.query.job))


async def _told_events(events: AsyncIterator[EventDocument | Mark]) -> AsyncIterator[Told]:
    async for event in events:
        if isinstance(event, EventDocument):
            yield Told(event=event.kind, data=event, number=event.sequence)
        else:
            yield Told(event=None, data=None, number=event.number)


def _deliveries(control: Control, ask: Ask[Nothing, DeliveryQuery, Nothing]) -> AsyncIterator[Told]:
    return _told_deliveries(control.deliveries(None if ask.query.job is UNSET else ask.query.job))


async def _told_deliveries(deliveries: AsyncIterator[DeliveryDocument]) -> AsyncIterator[Told]:
    async for delivery in deliveries:
        yield Told(event="delivery", data=delivery)


ALL_JOBS = (
    Route(
        "GET",
        "/jobs",
        "listJobs",
        "Jobs that have not ended, oldest first, page by page",
        Takes(Nothing, JobQuery, Nothing),
        Gives(JobList, JOB),
        lambda control, ask: control.jobs(ask.query),
    ),
    Route(
        "POST",
        "/jobs",
        "createJob",
        "A new job; it is SUSPENDED until it is resumed",
        Takes(Nothing, Nothing, NewJob, headers=(KEY,), most=MAX_FILES_BODY_BYTES),
        Gives(
            JobDocument,
            (
                *FILES,
                *PROPERTIES,
                "UPLOAD_UNSUPPORTED",
                "TOO_MANY_JOBS",
                "TOO_MANY_JOBS_PER_USER",
                "IDEMPOTENCY_CONFLICT",
                "JOB_NOT_FOUND",
                "DISK_FULL",
            ),
            (CREATED, KNOWN),
        ),
        _create,
    ),
)

ONE_JOB = (
    Route(
        "GET",
        "/jobs/{job}",
        "getJob",
        "One job, at once or as soon as it has changed (long poll)",
        Takes(JobPath, PollQuery, Nothing),
        Gives(JobDocument, JOB),
        _job,
        waits=True,
    ),
    Route(
        "GET",
        "/jobs/{job}/explain",
        "explainJob",
        "Where the bytes of each file came from, and why not from nearer",
        Takes(JobPath, Nothing, Nothing),
        Gives(Explanation, JOB),
        lambda control, ask: control.explain(ask.path.job),
    ),
    Route(
        "PATCH",
        "/jobs/{job}",
        "changeJob",
        "Other values for some properties",
        Takes(JobPath, Nothing, JobChange),
        Gives(JobDocument, (*LIVE, *PROPERTIES)),
        lambda control, ask: control.change_job(ask.path.job, ask.body),
    ),
    Route(
        "POST",
        "/jobs/{job}/resume",
        "resumeJob",
        "Let the job run, also out of ERROR or before its next try is due",
        Takes(JobPath, Nothing, Nothing),
        Gives(JobDocument, LIVE),
        lambda control, ask: control.resume(ask.path.job),
    ),
    Route(
        "POST",
        "/jobs/{job}/suspend",
        "suspendJob",
        "Stop the job; what is there stays",
        Takes(JobPath, Nothing, Nothing),
        Gives(JobDocument, LIVE),
        lambda control, ask: control.suspend(ask.path.job),
    ),
    Route(
        "POST",
        "/jobs/{job}/cancel",
        "cancelJob",
        "End the job and remove its temporary files",
        Takes(JobPath, Nothing, Nothing),
        Gives(JobDocument, LIVE),
        lambda control, ask: control.cancel(ask.path.job),
    ),
    Route(
        "POST",
        "/jobs/{job}/complete",
        "completeJob",
        "Put the files that are there at their destinations and end the job",
        Takes(JobPath, Nothing, Nothing),
        Gives(JobDocument, (*LIVE, *DESTINATION)),
        lambda control, ask: control.complete(ask.path.job),
    ),
    Route(
        "POST",
        "/jobs/{job}/prefix",
        "replacePrefix",
        "Another beginning for the URLs of files that are not done (ReplaceRemotePrefix)",
        Takes(JobPath, Nothing, PrefixChange),
        Gives(PrefixReplaced, (*LIVE, *URLS)),
        lambda control, ask: control.replace_prefix(ask.path.job, ask.body),
    ),
    Route(
        "PUT",
        "/jobs/{job}/credentials",
        "setCredentials",
        "Credentials for one target and scheme; they are never shown",
        Takes(JobPath, Nothing, CredentialChange),
        Gives(JobDocument, (*LIVE, "STRING_TOO_LONG")),
        lambda control, ask: control.set_credentials(ask.path.job, ask.body),
    ),
    Route(
        "DELETE",
        "/jobs/{job}/credentials/{target}/{scheme}",
        "removeCredentials",
        "Forget credentials",
        Takes(CredentialPath, Nothing, Nothing),
        Gives(JobDocument, LIVE),
        lambda control, ask: control.remove_credentials(ask.path.job, ask.path.target, ask.path.scheme),
    ),
)

ITS_FILES = (
    Route(
        "POST",
        "/jobs/{job}/files",
        "addFiles",
        "Add files, all or none",
        Takes(JobPath, Nothing, NewFiles, most=MAX_FILES_BODY_BYTES),
        Gives(JobDocument, (*LIVE, *FILES)),
        lambda control, ask: control.add_files(ask.path.job, ask.body.files),
    ),
    Route(
        "PATCH",
        "/jobs/{job}/files/{index}",
        "changeFile",
        "Another URL for one file (SetRemoteName)",
        Takes(FilePath, Nothing, FileChange),
        Gives(JobDocument, (*LIVE, *URLS)),
        lambda control, ask: control.change_file(ask.path.job, ask.path.index, ask.body),
    ),
    Route(
        "PUT",
        "/jobs/{job}/files/{index}/validation",
        "setValidation",
        "Say whether the content is right (SetValidationState)",
        Takes(FilePath, Nothing, ValidationChange),
        Gives(JobDocument, LIVE),
        lambda control, ask: control.set_validation(ask.path.job, ask.path.index, ask.body.valid),
    ),
    Route(
        "POST",
        "/jobs/{job}/files/{index}/ranges",
        "wantRanges",
        "Ask for ranges of a file of an on-demand job (RequestFileRanges)",
        Takes(FilePath, Nothing, RangesWanted),
        Gives(JobDocument, (*LIVE, "INVALID_RANGE", "TOO_MANY_RANGES")),
        lambda control, ask: control.want_ranges(ask.path.job, ask.path.index, ask.body),
    ),
    Route(
        "GET",
        "/jobs/{job}/files/{index}/filled",
        "getFilledRanges",
        "What can be read from the temporary file now (GetFilledFileRanges)",
        Takes(FilePath, Nothing, Nothing),
        Gives(FilledRanges, JOB),
        lambda control, ask: control.filled_ranges(ask.path.job, ask.path.index),
    ),
    Route(
        "PUT",
        "/jobs/{job}/files/{index}/position",
        "setPosition",
        "Go on with the download at another place (UpdateDownloadPosition)",
        Takes(FilePath, Nothing, Position),
        Gives(JobDocument, (*LIVE, "INVALID_RANGE")),
        lambda control, ask: control.set_position(ask.path.job, ask.path.index, ask.body),
    ),
)

LISTENING = (
    Stream(
        "/events",
        "listenToEvents",
        "Every event from a sequence number on, and then each as it happens",
        Takes(Nothing, EventQuery, Nothing, headers=(LAST_EVENT_ID,)),
        Gives(EventDocument),
        _events,
    ),
    Stream(
        "/deliveries",
        "listenToDeliveries",
        "Be the callback of a job, or of every job: each delivery wants an answer",
        Takes(Nothing, DeliveryQuery, Nothing),
        Gives(DeliveryDocument, JOB),
        _deliveries,
    ),
    Route(
        "POST",
        "/deliveries/{delivery}",
        "answerDelivery",
        "Say how the callback ended; anything but `ok` makes it come again",
        Takes(DeliveryPath, Nothing, DeliveryAnswer),
        Gives(Done, ("DELIVERY_NOT_FOUND",)),
        lambda control, ask: control.answer_delivery(ask.path.delivery, ask.body.ok),
    ),
)
