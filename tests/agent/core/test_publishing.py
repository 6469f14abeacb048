"""Under which ids a chunk is offered, on whose word, and when; and what counts as progress."""

from __future__ import annotations

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.chunks import ChunkBook
from agent.core.integrity import Integrity
from agent.core.naming import Names
from agent.core.publishing import Publishing
from agent.core.spec import ServeUse, TransferSpec
from peer.core.failure import Failure, FailureKind
from tests.support.playbook import FILE, Stage, facts, spec
from validation.content import ChunkIndex, ChunkLayout, ContentId, content_id_by_digest, content_id_by_url
from validation.digest import Algorithm, Digest
from validation.ranges import ByteRange

DIGEST = Digest(Algorithm.SHA256, bytes(32))
URL = "http://origin/file"


def stage_with_digest() -> Stage:
    return Stage.new(TransferSpec(file=FILE, url=URL, digest=DIGEST))


def feed(stage: Stage, *events: ev.FileEvent) -> list[cmd.Command]:
    out: list[cmd.Command] = []
    for event in events:
        out += stage.transfer.handle(event, 1.0)
    return out


def only(kind: type, commands: list[cmd.Command]) -> list:
    return [command for command in commands if isinstance(command, kind)]


def fetched_from_origin(stage: Stage) -> list[cmd.Command]:
    given = facts(1)
    length = given.length or 0
    out = feed(stage, ev.Begun(file=FILE), ev.OriginProbed(file=FILE, facts=given), ev.NearAnswered(file=FILE))
    (fetch,) = only(cmd.FetchRange, out)
    item = ByteRange(0, length)
    out = feed(stage, ev.RangeArrived(file=FILE, request=fetch.request, item=item))
    out += feed(stage, ev.RangeReceived(file=FILE, request=fetch.request, item=item))
    (digest,) = only(cmd.DigestChunk, out)
    return feed(stage, ev.ChunkDigested(file=FILE, chunk=ChunkIndex(0), digest=b"d" * 32, token=digest.token))


def test_nothing_is_signed_under_the_digest_before_the_file_was_accepted() -> None:
    stage = stage_with_digest()
    by_url = content_id_by_url(URL, facts(1).etag or "", facts(1).length or 0)
    out = fetched_from_origin(stage)
    (publish,) = only(cmd.PublishChunk, out)
    assert publish.content_ids == publish.sign == (by_url,)

    (validate,) = only(cmd.ValidateContent, out)
    out = feed(stage, ev.ContentAccepted(file=FILE, attempt=validate.attempt))
    (publish,) = only(cmd.PublishChunk, out)
    assert publish.content_ids == (by_url, content_id_by_digest(DIGEST))
    assert publish.sign == (content_id_by_digest(DIGEST),)


def test_a_rejected_file_is_never_signed_under_its_digest() -> None:
    stage = stage_with_digest()
    (validate,) = only(cmd.ValidateContent, fetched_from_origin(stage))
    out = feed(stage, ev.ContentRejected(file=FILE, attempt=validate.attempt, reason="wrong"))
    assert not only(cmd.PublishChunk, out)
    assert only(cmd.Failed, out)


def test_bytes_that_come_again_are_no_progress() -> None:
    """An origin without a way to continue that always breaks off must not be tried for ever."""
    stage = Stage.new(TransferSpec(file=FILE, url=URL))
    given = facts(4, etag=None, last_modified=None)
    progress = []
    for stop in (1000, 1000, 900, 1001):
        out = feed(stage, ev.Begun(file=FILE), ev.OriginProbed(file=FILE, facts=given), ev.NearAnswered(file=FILE))
        (fetch,) = only(cmd.FetchRange, out)
        cut = Failure(kind=FailureKind.CONNECTION_CLOSED, message="cut")
        out = feed(
            stage,
            ev.RangeArrived(file=FILE, request=fetch.request, item=ByteRange(0, stop)),
            ev.RangeFailed(file=FILE, request=fetch.request, failure=cut),
        )
        assert only(cmd.Troubled, out)
        assert only(cmd.ForgetProgress, out), "its space is given back"
        progress.append(bool(only(cmd.Progressed, out)))
    assert progress == [True, False, False, True]


# --- the decisions alone ---------------------------------------------------------------------------------------

ONE, TWO, THREE = (ContentId(letter * 64) for letter in "123")
FIRST, SECOND = Names(content_ids=(ONE, TWO), url_ids=(ONE,)), Names(content_ids=(THREE, TWO), url_ids=(THREE,))


def book() -> ChunkBook:
    """One chunk, of the origin, proven."""
    chunks = ChunkBook(ChunkLayout.for_length(10))
    chunks.arrived_from_origin(ByteRange(0, 10))
    chunks.prove(ChunkIndex(0))
    return chunks


def publishing(names: Names = FIRST, **changes: object) -> Publishing:
    made = Publishing(spec(**changes))
    made.name(names)
    return made


def offer(of: Publishing, chunks: ChunkBook | None = None) -> list[cmd.Command]:
    return of.proven(chunks or book(), ChunkIndex(0), b"d" * 32, ())


def withdrawn(out: list[cmd.Command]) -> list[tuple[ContentId, ...]]:
    return [each.content_ids for each in out if isinstance(each, cmd.WithdrawContent)]


def test_what_was_offered_under_former_ids_is_withdrawn_too() -> None:
    of = publishing()
    assert offer(of)
    of.name(SECOND)
    of.name(SECOND)
    assert withdrawn(of.withdraw()) == [(THREE, TWO, ONE)]
    assert withdrawn(of.withdraw()) == [(THREE, TWO)], "the others are gone"


def test_former_ids_mean_nothing_when_nothing_was_offered() -> None:
    of = publishing()
    of.name(SECOND)
    assert withdrawn(of.withdraw()) == [(THREE, TWO)]


def test_what_has_no_id_is_not_withdrawn() -> None:
    assert publishing(Names()).withdraw() == []


def test_forbidden_before_the_verdict() -> None:
    of = publishing()
    assert of.use(ServeUse.NEVER, accepted=False) == [], "there is nothing to withdraw"
    assert offer(of) == []
    of = publishing()
    offer(of)
    assert withdrawn(of.use(ServeUse.NEVER, accepted=False)) == [(ONE, TWO)]
    assert of.use(ServeUse.NEVER, accepted=False) == []
    assert of.use(ServeUse.ALLOWED, accepted=False) == []
    assert offer(of) == [], "now all waits for the verdict"
    (said,) = of.accepted(book(), ChunkIndex(0), b"d" * 32, ())
    assert isinstance(said, cmd.PublishChunk)
    assert (said.content_ids, said.sign) == ((ONE, TWO), (ONE, TWO))


def test_forbidden_after_the_verdict() -> None:
    of = publishing()
    offer(of)
    assert of.use(ServeUse.NEVER, accepted=True) == []
    assert of.published
    assert of.accepted(book(), ChunkIndex(0), b"d" * 32, ()) == []


def test_what_somebody_left_is_not_offered_on_nobodys_word() -> None:
    chunks = book()
    chunks.inherit()
    of = publishing(Names(content_ids=(ONE,), url_ids=(ONE,)), integrity=Integrity.WHOLE)
    assert of.accepted(chunks, ChunkIndex(0), b"d" * 32, ()) == []
    assert of.accepted(book(), ChunkIndex(0), b"d" * 32, ())
