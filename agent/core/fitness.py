"""Whether what the origin serves is what the job asks for, and what a failure of the origin means to such a job.

Decides only. Never knows: requests, near sources, chunks. Sources: bits-reference 1.6 (SetRemoteName), 1.7, 1.10,
1.11, 6.2.
"""

from __future__ import annotations

from dataclasses import replace

from agent.core.demand import Demand
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.ranges_map import RangeMap
from agent.core.spec import TransferSpec
from peer.core.failure import Failure, FailureKind


def joinable(spec: TransferSpec, facts: OriginFacts) -> bool:
    """Parts fetched at different times can be joined: one strong validator on each, or a digest at the end."""
    return facts.strong_validator is not None or spec.digest is not None or bool(spec.anchors)


def may_join(spec: TransferSpec, facts: OriginFacts) -> bool:
    """… and parts can be fetched at all."""
    return facts.ranges is not RangeSupport.NONE and joinable(spec, facts)


def same_elsewhere(spec: TransferSpec, before: OriginFacts, after: OriginFacts) -> bool:
    """What came from one URL can be continued from another: equal sizes, and equal validators or a digest."""
    if before.length is None or before.length != after.length or after.ranges is RangeSupport.NONE:
        return False
    if spec.digest is not None or spec.anchors:
        return True
    return before.strong_validator is not None and before.strong_validator == after.strong_validator


def fit(spec: TransferSpec, facts: OriginFacts, demand: Demand) -> RangeMap | Failure | None:
    """The map of the job's ranges, None when it wants the whole file, or why it cannot have what it wants."""
    where: RangeMap | None = None
    if spec.ranges:
        found = RangeMap.resolve(spec.ranges, facts)
        if isinstance(found, Failure):
            return found
        where = found
    length = facts.length if where is None else where.length
    if length is not None and spec.maximum_bytes is not None and length > spec.maximum_bytes:
        return too_large(spec.maximum_bytes, length)
    if demand.active:
        if length is None or not may_join(spec, facts):
            why = "tells no length" if length is None else "serves no ranges that could be joined safely"
            return Failure(
                kind=FailureKind.RANDOM_ACCESS_UNSUPPORTED,
                message=f"parts of the file are wanted, the origin {why}: resume the job to fetch the whole",
            )
        return demand.misfit(length) or where
    return where


def too_large(maximum_bytes: int, length: int | None = None) -> Failure:
    """The content has more bytes than the job allows."""
    has = "more" if length is None else f"{length}"
    return Failure(
        kind=FailureKind.MAX_SIZE_REACHED, message=f"the job allows {maximum_bytes} bytes, the content has {has}"
    )


def meaning(failure: Failure, spec: TransferSpec, demand: Demand) -> Failure:
    """What a failed request to the origin means to this job: what another job gets round may be the end of it."""
    kind = failure.kind
    if kind is FailureKind.TOO_LARGE and spec.maximum_bytes is not None:
        return too_large(spec.maximum_bytes)
    if spec.ranges and kind is FailureKind.BAD_RESPONSE:
        return replace(failure, kind=FailureKind.INVALID_SERVER_RESPONSE)
    if spec.ranges and kind is FailureKind.NO_RANGES:
        return replace(failure, kind=FailureKind.RANGES_REQUIRED)
    if demand.active and kind is FailureKind.NO_RANGES:
        return replace(failure, kind=FailureKind.RANDOM_ACCESS_UNSUPPORTED)
    return failure
