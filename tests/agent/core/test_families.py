"""Files of one agent with the same content: who is told of whom, and what the others cost."""

from __future__ import annotations

from agent.core import events as ev
from agent.core.families import Families
from agent.core.sources import FileId, sibling_source
from agent.core.transfer import FileTransfer, Phase
from tests.support.drawing import draw
from tests.support.effort import lines_run
from tests.support.playbook import URL, accepted, paused, spec


def file(name: str, ours: str = "---", url: str = URL) -> FileTransfer:
    """A file that is being fetched; when nothing is missing it is done."""
    stage = draw(ours=ours, spec=spec(file=FileId(name), url=url))
    if "-" not in ours:
        for event in accepted()(stage):
            stage.feed(event)
        assert stage.transfer.phase is Phase.DONE
    return stage.transfer


def told(families: Families) -> list[tuple[str, str, int, int]]:
    """Who hears of whom, and what: chunks it has, chunks it has claimed."""
    found = []
    for each in families.news():
        have, claimed = (each.have, each.claimed) if isinstance(each, ev.SourceOffered) else (-1, -1)
        found.append((each.file, each.source, have, claimed))
    return found


def test_who_is_alone_hears_nothing() -> None:
    families = Families()
    families.look(file("a"), living=True)
    families.look(file("b", url="http://origin.example/other"), living=True)
    assert told(families) == []


def test_the_second_hears_of_the_first() -> None:
    families = Families()
    families.look(file("a", "**-"), living=True)
    families.look(file("b"), living=True)
    assert told(families) == [("b", sibling_source(FileId("a")), 0b011, 0b100)]
    assert told(families) == [], "nothing is new"
    families.look(file("c"), living=True)
    assert told(families) == [("c", sibling_source(FileId("a")), 0b011, 0b100)]


def test_who_comes_later_hears_of_what_is_done() -> None:
    families = Families()
    families.look(file("a", "***"), living=True)
    families.look(file("b", "***"), living=True)
    assert told(families) == [], "neither wants anything"
    families.look(file("c", "*--"), living=True)
    assert told(families) == [("c", sibling_source(FileId("a")), 0b111, 0)]


def test_the_next_in_line_leads_when_the_first_is_gone() -> None:
    first, second, third = file("a", "**-"), file("b", "*--"), file("c")
    families = Families()
    for each in (first, second, third):
        families.look(each, living=True)
    assert [each[:2] for each in told(families)] == [("b", "sibling:a"), ("c", "sibling:a")]
    families.leave(first.spec.file)
    assert told(families) == [
        ("b", "sibling:a", -1, -1),
        ("c", "sibling:a", -1, -1),
        ("c", "sibling:b", 0b001, 0b110),
    ]


def test_what_ends_is_no_source() -> None:
    first, second = file("a", "***"), file("b")
    families = Families()
    families.look(first, living=True)
    families.look(second, living=True)
    assert len(told(families)) == 1
    families.look(first, living=False)
    assert told(families) == [("b", "sibling:a", -1, -1)]


def test_who_stops_is_told_nothing_more() -> None:
    stage = draw(ours="---", spec=spec(file=FileId("b")))
    families = Families()
    families.look(file("a", "*--"), living=True)
    families.look(stage.transfer, living=True)
    assert len(told(families)) == 1
    for event in paused()(stage):
        stage.feed(event)
    families.look(stage.transfer, living=True)
    assert told(families) == [("b", "sibling:a", -1, -1)]


def test_finished_files_with_the_same_content_cost_nothing() -> None:
    efforts = []
    for count in (5, 150):
        families = Families()
        for number in range(count):
            families.look(file(f"done{number}", "**"), living=True)
        newcomer = file("new", "--")

        def comes(families: Families = families, newcomer: FileTransfer = newcomer) -> None:
            families.look(newcomer, living=True)
            assert len(families.news()) == 1

        efforts.append(lines_run(comes))
    assert efforts[1] < 1.2 * efforts[0]
