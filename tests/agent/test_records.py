"""What the journal keeps of a file comes back as it was."""

from __future__ import annotations

import pytest

from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.core.provenance import Provenance, Reason
from agent.core.sources import CACHE, ORIGIN
from agent.core.spec import Decision, NearUse, Snapshot
from agent.records import decode_file, encode_file
from agent.schema import NewFile
from peer.core.voucher import PeerId, Voucher
from validation.content import Bitfield, ChunkIndex, ContentId
from validation.ranges import ByteRange

NEW = NewFile(url="http://origin.example/file", path="/tmp/file")
FULL = Snapshot(
    facts=OriginFacts(
        length=1 << 40,
        etag='"v1"',
        last_modified="Mon, 01 Jan 2024 00:00:00 GMT",
        modified_at=1704067200.0,
        ranges=RangeSupport.PROMISED,
        sharing=Sharing.PRIVATE,
    ),
    from_origin=Bitfield(1 << 300 | 5),
    near=NearUse.NEVER,
    finished=True,
    decision=Decision.VALID,
    vouchers=(
        Voucher(
            content_id=ContentId("c" * 64),
            chunk=ChunkIndex(7),
            digest=bytes(range(32)),
            signer=PeerId("a" * 64),
            signature=bytes(64),
        ),
    ),
    from_origin_bytes=1,
    from_cache_bytes=2,
    by_peer=((PeerId("a" * 64), 3),),
    discarded_bytes=4,
    final_url="http://elsewhere.example/file?x=ü",
    response_headers=(("server", "x"), ("link", "a"), ("link", "b")),
    former_ids=(ContentId("d" * 64), ContentId("e" * 64)),
    wanted=(ByteRange(5, 10), ByteRange(20, 1 << 60)),
    position=0,
    provenance=Provenance(pairs=((ORIGIN, Reason.OURS), (CACHE, Reason.NEAREST)), runs=(3, 2, 1, 0, 250, 1)),
    seconds=12.5,
    fastest=1e6,
    rejections=2,
)


def kept(snapshot: Snapshot, validation: str | None = None) -> Snapshot:
    told = validation or ("undecided" if snapshot.decision is None else snapshot.decision.value)
    return decode_file(encode_file(NEW, snapshot, completed=False, validation=told)).snapshot


@pytest.mark.parametrize("snapshot", [Snapshot(), FULL], ids=["empty", "full"])
def test_every_field_comes_back(snapshot: Snapshot) -> None:
    assert kept(snapshot) == snapshot


def test_no_field_of_the_full_one_is_left_at_its_default() -> None:
    empty = Snapshot()
    same = [name for name in Snapshot.__slots__ if getattr(FULL, name) == getattr(empty, name)]
    assert same == []


@pytest.mark.parametrize("decision", [None, *Decision])
def test_the_decision_is_the_validation_state(decision: Decision | None) -> None:
    assert kept(Snapshot(decision=decision)).decision is decision


def test_a_document_of_an_older_version_has_fewer_fields() -> None:
    old = b'{"new":{"url":"http://origin.example/file","path":"/tmp/file"},"finished":true}'
    assert decode_file(old).snapshot == Snapshot(finished=True)


def test_a_reason_of_another_version_is_not_known_and_the_others_keep_theirs() -> None:
    old = (
        b'{"new":{"url":"http://origin.example/file","path":"/tmp/file"},'
        b'"provenance":[[["origin","moonshine"],["cache","nearest"]],[4,1,2,2]]}'
    )
    assert decode_file(old).snapshot.provenance == Provenance(pairs=((CACHE, Reason.NEAREST),), runs=(4, 0, 2, 1))
