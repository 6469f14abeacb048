"""The peer cache's index: its tables, and how records are read from and written to them.

Functions on a connection, to be run by `Database.run`; and the record as it lives in memory.
Never knows: files, threads, which record deserves to stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from peer.core.voucher import PeerId, Voucher
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, ContentId, chunks_in
from validation.digest import ChunkDigest


@dataclass(slots=True, kw_only=True, eq=False)
class Record:
    """One cached content. Changed on the event loop only; other threads may read single fields."""

    key: int
    file: str
    """Name of the object file: random, so that nothing about the content is in it."""
    layout: ChunkLayout
    created_at: float
    last_access_at: float
    """Seconds since 1970, also the next line's."""
    content_ids: tuple[ContentId, ...] = ()
    have: Bitfield = NO_CHUNKS
    checked: Bitfield = NO_CHUNKS
    """Those of `have` that were written or verified in this process."""
    digests: dict[ChunkIndex, ChunkDigest] = field(default_factory=dict)
    vouchers: dict[ChunkIndex, tuple[Voucher, ...]] = field(default_factory=dict)
    signed: dict[tuple[ContentId, PeerId], Bitfield] = field(default_factory=dict)
    """The same the other way round: for which chunks a member vouches under an id."""
    bytes_held: int = 0
    coming: dict[ChunkIndex, int] = field(default_factory=dict)
    """Chunks being copied, each with its bytes. Whoever withdraws one takes it out; the copy is then not noted."""
    leaving: Bitfield = NO_CHUNKS
    """Chunks whose space is being given back: no new copy of them may be begun."""
    stored_access_at: float = 0.0
    """What the index has as the last access."""
    users: int = 0
    """Who reads or serves it just now."""
    doomed: bool = False
    """It goes as soon as nobody uses it any more; nobody finds it meanwhile."""
    gone: bool = False
    """Dropped: whoever still works on it must let go."""

    @property
    def busy(self) -> bool:
        """Somebody reads it, serves it, or adds to it just now."""
        return self.users > 0 or bool(self.coming)

    @property
    def bytes_coming(self) -> int:
        """Room taken for chunks that are being copied."""
        return sum(self.coming.values())

    def gain(self, chunk: ChunkIndex, digest: ChunkDigest) -> None:
        """The chunk's bytes are in the object file and known to be good."""
        if not self.have >> chunk & 1:
            self.bytes_held += self.layout.range_of(chunk).length
        self.have = Bitfield(self.have | 1 << chunk)
        self.checked = Bitfield(self.checked | 1 << chunk)
        self.digests[chunk] = digest

    def hear(self, chunk: ChunkIndex, vouchers: Iterable[Voucher]) -> None:
        """Remember who vouches for the chunk."""
        known = {(item.content_id, item.signer): item for item in (*self.vouchers.get(chunk, ()), *vouchers)}
        if known:
            self.vouchers[chunk] = tuple(known.values())
        for key in known:
            self.signed[key] = Bitfield(self.signed.get(key, NO_CHUNKS) | 1 << chunk)

    def forget_signer(self, signer: PeerId) -> Bitfield:
        """What it said counts no more. Returns the chunks that rested on its word alone, which keep it."""
        alone = NO_CHUNKS
        for chunk, vouchers in list(self.vouchers.items()):
            others = tuple(item for item in vouchers if item.signer != signer)
            if vouchers and not others:
                alone = Bitfield(alone | 1 << chunk)
            elif len(others) < len(vouchers):
                self.vouchers[chunk] = others
        for key in [key for key in self.signed if key[1] == signer]:
            self._unsign(key, Bitfield(~alone))
        return alone

    def resting_on(self, content_id: ContentId, signers: frozenset[PeerId]) -> Bitfield:
        """Chunks for which these vouch under this id, and nobody else."""
        theirs = others = NO_CHUNKS
        for (under, signer), chunks in self.signed.items():
            if under == content_id and signer in signers:
                theirs = Bitfield(theirs | chunks)
            elif under == content_id:
                others = Bitfield(others | chunks)
        return Bitfield(theirs & ~others)

    def lose(self, chunks: Bitfield) -> Bitfield:
        """Forget chunks with their digests and vouchers; returns those that were held."""
        lost = Bitfield(self.have & chunks)
        self.have, self.checked = Bitfield(self.have & ~lost), Bitfield(self.checked & ~lost)
        for chunk in chunks_in(lost):
            self.bytes_held -= self.layout.range_of(chunk).length
            self.digests.pop(chunk, None)
            self.vouchers.pop(chunk, None)
        for key in list(self.signed):
            self._unsign(key, lost)
        return lost

    def _unsign(self, key: tuple[ContentId, PeerId], chunks: Bitfield) -> None:
        self.signed[key] = Bitfield(self.signed[key] & ~chunks)
        if not self.signed[key]:
            del self.signed[key]


def create_tables(connection: sqlite3.Connection) -> None:
    """Schema 1."""
    connection.execute(
        "CREATE TABLE contents(key INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, length INTEGER NOT NULL,"
        " chunk_bytes INTEGER NOT NULL, created_at REAL NOT NULL, last_access_at REAL NOT NULL) STRICT"
    )
    connection.execute(
        "CREATE TABLE names(content_id TEXT PRIMARY KEY,"
        " content INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE) STRICT"
    )
    connection.execute("CREATE INDEX names_by_content ON names(content)")
    connection.execute(
        "CREATE TABLE chunks(content INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,"
        " chunk INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY(content, chunk)) STRICT, WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE vouchers(content INTEGER NOT NULL, chunk INTEGER NOT NULL, content_id TEXT NOT NULL,"
        " signer TEXT NOT NULL, digest BLOB NOT NULL, signature BLOB NOT NULL,"
        " PRIMARY KEY(content, chunk, content_id, signer),"
        " FOREIGN KEY(content, chunk) REFERENCES chunks ON DELETE CASCADE) STRICT, WITHOUT ROWID"
    )


MIGRATIONS = (create_tables,)


def load(connection: sqlite3.Connection) -> list[Record]:
    """Every record, nothing of it checked. Rows that contradict their layout are left out."""
    records: dict[int, Record] = {}
    for key, file, length, chunk_bytes, created_at, last_access_at in connection.execute(
        "SELECT key, file, length, chunk_bytes, created_at, last_access_at FROM contents ORDER BY key"
    ):
        records[key] = Record(
            key=key,
            file=file,
            layout=ChunkLayout(length=length, chunk_bytes=chunk_bytes),
            created_at=created_at,
            last_access_at=last_access_at,
            stored_access_at=last_access_at,
        )
    for content_id, key in connection.execute("SELECT content_id, content FROM names ORDER BY rowid"):
        records[key].content_ids += (ContentId(content_id),)
    held: dict[int, bytearray] = {}
    for key, chunk, digest in connection.execute("SELECT content, chunk, digest FROM chunks"):
        record = records[key]
        if 0 <= chunk < record.layout.count:
            bits = held.setdefault(key, bytearray(-(-record.layout.count // 8)))
            bits[chunk // 8] |= 1 << chunk % 8
            record.digests[chunk] = digest
            record.bytes_held += record.layout.range_of(chunk).length
    for key, bits in held.items():
        records[key].have = Bitfield(int.from_bytes(bits, "little"))
    _load_vouchers(connection, records)
    return list(records.values())


def _load_vouchers(connection: sqlite3.Connection, records: dict[int, Record]) -> None:
    rows = connection.execute("SELECT content, chunk, content_id, signer, digest, signature FROM vouchers")
    for key, chunk, content_id, signer, digest, signature in rows:
        voucher = Voucher(
            content_id=ContentId(content_id),
            chunk=ChunkIndex(chunk),
            digest=digest,
            signer=PeerId(signer),
            signature=signature,
        )
        records[key].hear(voucher.chunk, (voucher,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRow:
    """One chunk with all it takes to store it, also the record it may be the first of."""

    key: int
    file: str
    layout: ChunkLayout
    created_at: float
    last_access_at: float
    content_ids: tuple[ContentId, ...]
    chunk: ChunkIndex
    digest: ChunkDigest
    vouchers: tuple[Voucher, ...]


def store_chunk(connection: sqlite3.Connection, row: ChunkRow) -> None:
    """The chunk is in the object file; makes the record when this is its first one."""
    connection.execute(
        "INSERT INTO contents VALUES(?, ?, ?, ?, ?, ?)"
        " ON CONFLICT(key) DO UPDATE SET last_access_at = excluded.last_access_at",
        (row.key, row.file, row.layout.length, row.layout.chunk_bytes, row.created_at, row.last_access_at),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO names VALUES(?, ?)", [(content_id, row.key) for content_id in row.content_ids]
    )
    connection.execute(
        "INSERT INTO chunks VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest",
        (row.key, row.chunk, row.digest),
    )
    connection.executemany(
        "INSERT OR REPLACE INTO vouchers VALUES(?, ?, ?, ?, ?, ?)",
        [(row.key, item.chunk, item.content_id, item.signer, item.digest, item.signature) for item in row.vouchers],
    )


def delete_records(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Everything about these records."""
    connection.executemany("DELETE FROM contents WHERE key = ?", [(key,) for key in keys])


def delete_chunks(connection: sqlite3.Connection, chunks: Iterable[tuple[int, ChunkIndex]]) -> None:
    """These chunks and their vouchers; each as (record's key, chunk)."""
    connection.executemany("DELETE FROM chunks WHERE content = ? AND chunk = ?", list(chunks))


def delete_vouchers_of(connection: sqlite3.Connection, signer: PeerId) -> None:
    """Everything this member signed."""
    connection.execute("DELETE FROM vouchers WHERE signer = ?", (signer,))


def store_accesses(connection: sqlite3.Connection, accesses: Iterable[tuple[float, int]]) -> None:
    """Last accesses, each as (time, record's key)."""
    connection.executemany("UPDATE contents SET last_access_at = ? WHERE key = ?", list(accesses))
