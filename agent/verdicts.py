"""Runs a file's validators over its temporary file and says what came of it. In threads; never decides further."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from agent.context import Context
from agent.core import events as ev
from agent.core.transfer import FileTransfer
from agent.errors import UsageError
from agent.schema import NewFile
from validation import registry
from validation.errors import ValidationError
from validation.validator import BytesFrom, Candidate, Decision, Patience, Validator, Verdict, judge

LIMIT_S = 3600.0
"""Longest time for one validator over one file."""

Answer = ev.ContentAccepted | ev.ContentRejected | ev.ContentUndecided | ev.ValidatorFailed


def check_validators(new: NewFile) -> None:
    """Raise UsageError when a validator is unknown or its argument is wrong; before anything is downloaded."""
    try:
        for spec in _specs(new):
            registry.find(spec)
    except ValidationError as error:
        raise UsageError(str(error), code="UNKNOWN_VALIDATOR") from error


def _specs(new: NewFile) -> Iterable[str]:
    digest = [new.digest] if new.digest is not None else []
    return (*digest, *new.validators)


class Judge:
    """The validators of one file."""

    def __init__(self, context: Context, new: NewFile) -> None:
        self._context = context
        self._new = new
        self._patience: Patience | None = None

    def withdraw(self) -> None:
        """Nobody waits for the verdict any more."""
        if self._patience is not None:
            self._patience.withdraw()

    async def answer(self, transfer: FileTransfer, path: Path, attempt: int) -> Answer:
        """The event that answers `ValidateContent`."""
        self.withdraw()
        patience = self._patience = Patience(time.monotonic, LIMIT_S)
        candidate = Candidate(
            path=path,
            url=transfer.spec.url,
            length=transfer.length or 0,
            name=Path(self._new.path).name,
            bytes_from=_bytes_from(transfer),
        )
        verdicts = []
        try:
            for spec in _specs(self._new):
                validator = registry.find(spec)
                verdict = await self._context.parts.validators.run(_run, validator, candidate, patience)
                verdicts.append(verdict)
                if verdict.decision in (Decision.REJECTED, Decision.FAILED):
                    break
        except ValidationError as error:
            verdicts.append(Verdict.failed(str(error)))
        return _sum_up(transfer, attempt, verdicts)


def _run(validator: Validator, candidate: Candidate, patience: Patience) -> Verdict:
    return judge(validator, candidate, patience)


def _bytes_from(transfer: FileTransfer) -> BytesFrom:
    chunks = transfer.chunks
    if chunks is None or not chunks.suspects:
        return BytesFrom.ORIGIN
    return BytesFrom.MIXED if chunks.from_origin else BytesFrom.PEERS


def _sum_up(transfer: FileTransfer, attempt: int, verdicts: list[Verdict]) -> Answer:
    file = transfer.spec.file
    for verdict in verdicts:
        if verdict.decision is Decision.REJECTED:
            return ev.ContentRejected(file=file, attempt=attempt, reason=verdict.reason)
        if verdict.decision is Decision.FAILED:
            return ev.ValidatorFailed(file=file, attempt=attempt, reason=verdict.reason)
    if any(verdict.decision is Decision.PENDING for verdict in verdicts):
        return ev.ContentUndecided(file=file, attempt=attempt)
    return ev.ContentAccepted(file=file, attempt=attempt)
