"""The numbers of the scheduler, each with its reason. One frozen value, so that a simulation can vary them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Defaults are meant for a LAN with an origin somewhere else."""

    gather_s: float = 0.9
    """Longest wait for the first answers of peers before the origin is used. BITS waits up to 60 s
    (bits-reference 8); an agent on the same network answers within 0.1 s (measured with 64 of them)."""
    requests_per_source: int = 4
    """Requests in flight at one near source: enough to hide a round trip and its digest."""
    near_requests: int = 12
    """Requests in flight at all near sources together: bounds memory (3 MiB of buffers each)."""
    near_request_bytes: int = 4 * MIB
    """Aimed size of one request to a near source; at least one chunk."""
    near_request_chunks: int = 16
    """What the peer protocol allows in one request."""
    origin_share_s: float = 2.0
    """While peers may want the same content, one origin request carries about this many seconds of it, so that
    whatever a peer can supply meanwhile need not come from the origin."""
    origin_share_bytes: int = 8 * MIB
    """The same before a rate is known, and the least."""
    strikes: int = 3
    """Failures in a row after which a near source is left alone for this transfer (reliability 3.2, row 59)."""
    cool_off_s: float = 0.5
    longest_cool_off_s: float = 5.0
    claim_patience_s: float = 12.0
    """Longest wait for a peer that has claimed chunks, after the last chunk it got: more than the 10 s in which a
    stalled origin is found out"""
    claim_rate_bytes_per_s: int = 64 * 1024
    """… and the time one chunk takes at this rate: a slow origin shared by many is no reason to ask it twice."""
    least_claim_s: float = 1.5
    """Once it is known how long a chunk takes, a claim is believed for at least this: news take 0.15 s each way"""
    claim_paces: float = 3.0
    """… or for so many times what a chunk took on average"""
    claim_grace_s: float = 1.0
    """… and this, for the hand-over."""
    hunger_s: float = 3.0
    """So long chunks that nobody claims are left to their owners while nothing is known of the pace."""
    sparse_hunger_s: float = 0.8
    """In a large group, of which one knows a part, they are left to others for this, the time of two news"""
    sparse_hunger_paces: float = 1.5
    """… or so many times what a chunk takes: so long whoever brings one would need until it is heard of."""
    spreading_requests: int = 1
    """Requests in flight at one peer, of one chunk each, while others want the content too: what everybody asks of
    one peer at once comes late to all"""
    spreading_near_requests: int = 5
    """… and at all peers together, or at half of those that want it when they are more,"""
    spreading_near_most: int = 8
    """but not at more than this. In simulation, 256 chunks, all links alike: 8 cold agents took 1.11 of the bound
    with 5 and 1.12 with 8, 16 took 1.21 with 5, 1.14 with 8 and 1.17 with 9: more of them slow the origin's one
    request down on a link that is full. So who has none under way asks all it knows, up to that: with 5, links were
    idle for a tenth of the time (one of 8 has it, in the laboratory: 1.13 of the bound, 1.09 with 7)."""
    quiet_first_s: float = 0.85
    """A peer that has sent nothing so long after a first request is not counted on, until it does. (Seven began
    together at one uplink of 40 Mbit/s, in the laboratory: 0.75 s were too short for one of them)"""
    quiet_s: float = 1.5
    """… and after it has delivered before, or when others deliver"""
    quiet_paces: float = 3.0
    """… or after so many times what a chunk of it takes: one connection of seven is silent for a second or two"""
    quiet_most_s: float = 5.0
    """… but not after more than this."""
    audible_bytes: int = 16 * 1024
    """Less than this in that time is nothing (a peer that sends a few bytes a second: reliability, slow loris)."""
    busy_s: float = 5.0
    """A peer that does nothing but say it is busy is counted on for this long."""
    tail_s: float = 0.5
    """At the end, a request to a peer may take at least this"""
    tail_paces: float = 2.0
    """… and this many times the mean, before another source is asked instead."""
    foreign_chunks: int = 4
    """An origin request with at least so many chunks of those who came later ends early: a new one costs a round
    trip and what was on its way, about a chunk."""
    rate_s: float = 2.0
    """The rate of near sources is taken over about this time."""
    note_bytes: int = 4 * MIB
    """Progress is noted in the journal after this many new bytes: with the buffers in flight, a `kill -9` costs
    less than 8 MiB."""
    note_s: float = 1.0
    """… or after this many seconds, when any byte is new."""
    checkpoint_s: float = 5.0
    """Progress is made safe against power loss (fdatasync, then the journal) this often."""
    retry_small_s: float = 0.25
    """Ceiling of the first delay after a fruitless try; doubles, with full jitter, up to the job's minimum retry
    delay."""
    filled_s: float = 0.5
    """Listeners of an on-demand file learn of new bytes after this time at the latest (BITS' minimum notification
    interval, bits-reference 1.11)"""
    filled_again_s: float = 0.1
    """… and of whole chunks not more often than this: each time is a row in the journal."""
    fruitful_bytes: int = 64 * 1024
    """An origin request that brought at least this much before it broke is continued at once."""
    not_found_tries: int = 3
    """How often a 404 is forgiven once bytes have come (reliability 3.1, row 39)."""
    restarts: int = 5
    """How often content may change under a transfer before that counts as a failure."""
