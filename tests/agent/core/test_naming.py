"""The ids of a content."""

from __future__ import annotations

import pytest

from agent.core.facts import OriginFacts, Sharing
from agent.core.naming import Names, Naming
from agent.core.ranges_map import RangeMap
from agent.core.spec import TransferSpec
from tests.support.playbook import URL, facts, spec
from validation.content import content_id_by_digest, content_id_by_url
from validation.digest import Algorithm, Digest
from validation.ranges import ByteRange

DIGEST = Digest(Algorithm.SHA256, bytes(32))
FACTS = facts(length=100)
BY_URL = content_id_by_url(URL, '"v1"', 100)


def names(
    given: TransferSpec | None = None, origin: OriginFacts | None = FACTS, where: RangeMap | None = None
) -> Names:
    return Naming().names(given or spec(), origin, where, None)


def part(*spans: tuple[int, int]) -> RangeMap:
    return RangeMap(tuple(ByteRange(start, stop) for start, stop in spans))


def test_by_url_and_by_digest() -> None:
    assert names() == Names(content_ids=(BY_URL,), url_ids=(BY_URL,))
    both = names(spec(digest=DIGEST))
    assert both == Names(content_ids=(BY_URL, content_id_by_digest(DIGEST)), url_ids=(BY_URL,))


def test_by_digest_alone_where_the_origin_has_no_strong_validator() -> None:
    found = names(spec(digest=DIGEST), facts(length=100, etag=None))
    assert found == Names(content_ids=(content_id_by_digest(DIGEST),))


@pytest.mark.parametrize(
    "origin",
    [
        None,
        facts(length=None),
        facts(length=0),
        facts(length=100, sharing=Sharing.PRIVATE),
        facts(length=100, sharing=Sharing.CREDENTIALS),
    ],
)
def test_what_has_no_name(origin: OriginFacts | None) -> None:
    assert names(spec(digest=DIGEST), origin) == Names()


def test_a_part_has_another_name_than_the_whole() -> None:
    found = {names(where=where).url_ids for where in (None, part((0, 50)), part((50, 100), (0, 50)))}
    assert len(found) == 3
    assert names(where=part((0, 100))) == names()


def test_no_validator_looks_like_a_part() -> None:
    """A NUL cannot be in a header, so the origin cannot choose an ETag that makes one content another's id."""
    forged = facts(length=100, etag='"v1" ranges 0-50')
    assert names(origin=forged) != names(where=part((0, 50)))


def test_where_redirects_led() -> None:
    naming, elsewhere = Naming(), "http://elsewhere.example/x"
    first = naming.names(spec(), FACTS, None, None)
    assert naming.names(spec(), FACTS, None, elsewhere).url_ids == (content_id_by_url(elsewhere, '"v1"', 100),)
    assert naming.names(spec(), FACTS, None, None) == first


def test_names_follow_what_the_origin_says() -> None:
    naming, given = Naming(), spec()
    assert naming.names(given, FACTS, None, None) != naming.names(given, facts(length=100, etag='"v2"'), None, None)
