"""A swarm drawn in strings, one character a chunk -> a transfer in exactly that situation.

    draw(ours="a*-B", peer_a="**--", peer_b="---c")

Our row: `-` missing, `*` proven and from the origin, `a` supplied by peer a and being digested, `B` supplied by
peer b and proven. Other rows (`peer_a`, `cache`): `*` it has the chunk, `c` it has claimed it, `-` neither.
The transfer is driven there by events alone: what the origin sent was left by an earlier process, what peers sent
they send now; then everybody makes the offer that is drawn.
"""

from __future__ import annotations

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts
from agent.core.sources import CACHE, SourceId, peer_of, peer_source
from agent.core.spec import Restored, Snapshot, TransferSpec
from agent.core.tuning import Tuning
from peer.core.voucher import PeerId
from tests.support.playbook import (
    CHUNK,
    OWN,
    PEER_A,
    PEER_B,
    PEER_C,
    Stage,
    begun,
    digested,
    facts,
    near_answered,
    offered,
    probed,
    received,
)
from validation.content import bitfield
from validation.ranges import ByteRange

_LETTERS: dict[str, PeerId] = {"a": PEER_A, "b": PEER_B, "c": PEER_C}
_ROWS: dict[str, SourceId] = {"cache": CACHE} | {
    f"peer_{letter}": peer_source(peer) for letter, peer in _LETTERS.items()
}


def draw(
    *,
    ours: str,
    spec: TransferSpec | None = None,
    origin: OriginFacts | None = None,
    tuning: Tuning | None = None,
    wanting: tuple[PeerId, ...] = (),
    own: PeerId | None = None,
    **rows: str,
) -> Stage:
    """The stage with everybody in place. Our row may be longer than the others'. `wanting`: who of the peers that
    have a row fetches the content as well; then we are in a group, too."""
    given = origin or facts(len(ours))
    stage = Stage.new(spec, _left_by_an_earlier_process(ours, given), tuning, own or (OWN if wanting else None))
    _run(stage, begun(), probed(given))
    _run(stage, digested(*_where(ours, "*")))
    _supplied_by_peers(stage, ours)
    for name, row in rows.items():
        wants = peer_of(_ROWS[name]) in wanting
        _run(stage, offered(_ROWS[name], _where(row, "*"), _where(row, "c"), wants=wants))
    if stage.transfer.phase.value == "gathering":
        _run(stage, near_answered())
    _nobody_else(stage, ours, rows)
    return stage


def _left_by_an_earlier_process(ours: str, given: OriginFacts) -> Restored | None:
    proven = _where(ours, "*")
    if not proven:
        return None
    length = given.length or 0
    held = tuple(ByteRange(chunk * CHUNK, min((chunk + 1) * CHUNK, length)) for chunk in proven)
    return Restored(snapshot=Snapshot(facts=given, from_origin=bitfield(proven)), held=held)


def _supplied_by_peers(stage: Stage, ours: str) -> None:
    """Each peer offers the chunk it is drawn to have supplied and claims the rest: nobody else is asked."""
    chunks = [(number, letter) for number, letter in enumerate(ours) if letter.lower() in _LETTERS]
    everything = range(len(ours))
    for number, letter in chunks:
        who = _LETTERS[letter.lower()]
        _run(stage, offered(who, [number], everything))
        if stage.transfer.phase.value == "gathering":
            _run(stage, near_answered())
        _run(stage, received(who, chunk=number))
        if letter.isupper():
            _run(stage, digested(number))


def _nobody_else(stage: Stage, ours: str, rows: dict[str, str]) -> None:
    """Who supplied something and has no row of its own is gone."""
    for letter, peer in _LETTERS.items():
        if letter in ours.lower() and f"peer_{letter}" not in rows:
            stage.feed(ev.SourceLost(file=stage.transfer.spec.file, source=peer_source(peer)))


def _run(stage: Stage, *inputs: object) -> list[cmd.Command]:
    out: list[cmd.Command] = []
    for make in inputs:
        assert callable(make)
        for event in make(stage):
            out += stage.feed(event)
    return out


def _where(row: str, letter: str) -> list[int]:
    return [number for number, each in enumerate(row) if each == letter]
