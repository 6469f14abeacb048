"""What a failure means for the whole file: wait, for how long, or give up. Decides only; never knows: sources."""

from __future__ import annotations

import random

from agent.core import commands as cmd
from agent.core.backoff import Backoff
from agent.core.spec import TransferSpec
from agent.core.tuning import Tuning
from peer.core.failure import LOCAL, Failure, FailureKind, Persistence


class Troubles:
    """How patient one transfer still is."""

    def __init__(self, spec: TransferSpec, tuning: Tuning, rng: random.Random) -> None:
        self._spec = spec
        self._tuning = tuning
        self._backoff = Backoff(first_s=tuning.retry_small_s, longest_s=spec.longest_retry_s, rng=rng)
        self._not_found = 0
        self._restarts = 0

    def respecify(self, spec: TransferSpec) -> None:
        """The job has another minimum retry delay, or another URL, which nothing is held against."""
        self._backoff.longest_s = spec.longest_retry_s
        if spec.url != self._spec.url:
            self._not_found = self._restarts = 0
            self._backoff.reset()
        self._spec = spec

    def progressed(self) -> None:
        """There was something new: delays are small again."""
        self._backoff.reset()

    def restarts_too_often(self) -> bool:
        """The content has changed once more: is that too often?"""
        self._restarts += 1
        return self._restarts > self._tuning.restarts

    def is_fatal(self, failure: Failure, held_bytes: int) -> bool:
        """Nothing helps but that somebody changes something.

        A file that was there a moment ago and is not found now may be in the middle of being replaced.
        """
        if failure.persistence is Persistence.TRANSIENT:
            return False
        if failure.kind is FailureKind.NOT_FOUND and held_bytes:
            self._not_found += 1
            return self._not_found > self._tuning.not_found_tries
        return True

    def end(self, failure: Failure) -> cmd.Failed:
        """The outcome of a fatal failure."""
        return cmd.Failed(
            file=self._spec.file,
            code=failure.kind.value,
            message=failure.message,
            context="local file" if failure.kind in LOCAL else "origin",
            http_status=failure.http_status,
        )

    def wait(self, failure: Failure, now: float) -> cmd.Troubled:
        """The outcome of one that may pass."""
        retry_at = now + self._backoff.next_delay(failure.retry_after_s)
        return cmd.Troubled(file=self._spec.file, failure=failure, retry_at=retry_at)
