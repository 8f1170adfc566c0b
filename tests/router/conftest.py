"""A slow model of search, and shards in memory that can fail: what the router's tests share."""

from __future__ import annotations

import dataclasses
import types
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest

from sish_cluster.core.candidate import Candidates, Examined, ShardAnswer
from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection, CollectionState
from sish_cluster.core.errors import (
    CollectionExists,
    ShardUnavailable,
    UnknownCollection,
    UnknownSlide,
)
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import AUTO_EXACT_POSTINGS, Mode, Query, SearchSettings
from sish_cluster.core.seams import (
    ForgetOutcome,
    IngestOutcome,
    PendingSlide,
    ShardStatus,
    SlideState,
    StoredSlide,
)
from sish_cluster.core.slide import Slide
from sish_cluster.core.topology import ShardSpec, Topology

COARSE_UNIT = 10**11


@dataclasses.dataclass(frozen=True)
class Posting:
    """One patch of one slide; the code is an integer of 64 bits."""

    key: int
    code: int
    slide: Slide
    number: int


def seeds(q: int, settings: SearchSettings) -> list[int]:
    stride = settings.seed_spacing * COARSE_UNIT
    steps = range(settings.seeds_per_side)
    return [q - m * stride for m in steps] + [q + m * stride for m in steps]


def neighbourhood(keys: list[int], q: int, settings: SearchSettings) -> set[int]:
    """The key neighbourhood U over sorted distinct keys."""
    found = {q} & set(keys)
    for seed in seeds(q, settings):
        below = [key for key in keys if key < seed]
        above = [key for key in keys if key > seed]
        found |= set(below[max(0, len(below) - settings.max_steps) :])
        found |= set(above[: settings.max_steps])
    return found


Found = tuple[int, Posting]


def by_distance(found: Found) -> tuple[int, str, int]:
    return found[0], found[1].slide.slide_id, found[1].number


def near(postings: Sequence[Posting], code: int, settings: SearchSettings) -> list[Found]:
    """Every posting within the bound, nearest first."""
    found = [((code ^ posting.code).bit_count(), posting) for posting in postings]
    return sorted((f for f in found if f[0] <= settings.max_distance), key=by_distance)


def walked(
    postings: Sequence[Posting], q: int, code: int, settings: SearchSettings
) -> tuple[list[Found], set[int]]:
    """The published walk: (results in order, keys stepped on)."""
    keys = sorted({posting.key for posting in postings})
    accepted: dict[int, Found] = {}
    stepped: set[int] = set()
    for seed in seeds(q, settings):
        for side in ([k for k in reversed(keys) if k < seed], [k for k in keys if k > seed]):
            for key in side[: settings.max_steps]:
                if key in accepted:
                    break
                stepped.add(key)
                here = near([p for p in postings if p.key == key], code, settings)
                if here:
                    accepted[key] = here[0]
    return sorted(accepted.values(), key=lambda f: f[0]), stepped


def one_index(
    postings: Sequence[Posting], q: int, code: int, mode: Mode, settings: SearchSettings
) -> tuple[list[Found], int]:
    """What one index answers to one query patch: (results in order, postings examined)."""
    if mode is Mode.EXACT:
        return near(postings, code, settings), len(postings)
    if mode is Mode.SISH:
        found, keys = walked(postings, q, code, settings)
    else:
        keys = neighbourhood(sorted({p.key for p in postings}), q, settings)
        found = near([p for p in postings if p.key in keys], code, settings)
    return found, sum(posting.key in keys for posting in postings)


def superset(
    postings: Sequence[Posting], q: int, code: int, mode: Mode, settings: SearchSettings
) -> tuple[list[Found], set[int]]:
    """What a shard that shares a search sends for one query patch: (candidates, keys examined)."""
    keys = neighbourhood(sorted({p.key for p in postings}), q, settings)
    found = near([p for p in postings if mode is Mode.EXACT or p.key in keys], code, settings)
    if mode is Mode.SISH:
        firsts = {f[1].key: f for f in reversed(found)}
        found = [f for f in found if firsts[f[1].key] is f]
    return found, keys


def answer_of(postings: Sequence[Posting], query: Query, *, wants_examined: bool) -> ShardAnswer:
    """The answer of a shard that holds exactly these eligible postings."""
    settings = query.settings
    mode = settings.mode
    if mode is Mode.AUTO:
        mode = Mode.EXACT if len(postings) <= AUTO_EXACT_POSTINGS else Mode.GUIDED
    codes = [int.from_bytes(code.tobytes(), "big") for code in query.patches.codes]
    patches = list(zip(query.patches.keys.tolist(), codes, strict=True))
    if wants_examined:
        parts = [superset(postings, q, code, mode, settings) for q, code in patches]
        examined = _examined(postings, set().union(*(keys for _, keys in parts)))
        counts = [0 for _ in parts]
    else:
        final = [one_index(postings, q, code, mode, settings) for q, code in patches]
        parts, examined, counts = [(f, set()) for f, _ in final], None, [n for _, n in final]
    found = [candidates for candidates, _ in parts]
    slides = {p.slide.slide_id: p.slide for part in found for _, p in part}
    return ShardAnswer(
        _candidates(found, list(slides)),
        list(slides.values()),
        examined,
        np.array(counts, np.int64),
        len(postings),
        _label_counts(postings, query),
        mode,
    )


def _label_counts(postings: Sequence[Posting], query: Query) -> Counter[str]:
    slides = {p.slide.slide_id: p.slide for p in postings}.values()
    return Counter(
        s.label(query.label_field)
        for s in slides
        if not query.patient or s.patient != query.patient
    )


def _examined(postings: Sequence[Posting], keys: set[int]) -> Examined:
    counts = Counter(p.key for p in postings)
    ordered = sorted(keys)
    return Examined(
        np.array(ordered, np.uint64), np.array([counts[key] for key in ordered], np.uint32)
    )


def _candidates(found: list[list[Found]], slide_ids: list[str]) -> Candidates:
    rows = [row for part in found for row in part]
    return Candidates(
        np.cumsum([0, *map(len, found)], dtype=np.int64),
        np.array([p.key for _, p in rows], np.uint64),
        np.array([d for d, _ in rows], np.uint16),
        np.array([slide_ids.index(p.slide.slide_id) for _, p in rows], np.uint32),
        np.array([p.number for _, p in rows], np.uint32),
        np.array([(p.number, p.number) for _, p in rows], np.int32).reshape(-1, 2),
    )


def columns_of(patches: Sequence[tuple[int, int]]) -> PatchColumns:
    """Patch columns of (key, code) pairs."""
    codes = [list(code.to_bytes(8, "big")) for _, code in patches]
    corners = [(number, number) for number in range(len(patches))]
    return PatchColumns.of(
        np.array([key for key, _ in patches], np.uint64), np.array(codes, np.uint8), corners
    )


def query_of(patches: Sequence[tuple[int, int]], **settings: object) -> Query:
    """A query of (key, code) pairs."""
    return Query(columns_of(patches), "f", SearchSettings(**settings))  # type: ignore[arg-type]


def slide_of(slide_id: str, patches: Sequence[tuple[int, int]], **labels: str) -> EncodedSlide:
    """An encoded slide of (key, code) pairs."""
    return EncodedSlide.whole(Slide(slide_id, **labels), columns_of(patches), "f")  # type: ignore[arg-type]


def postings_of(slide: EncodedSlide) -> list[Posting]:
    patches = slide.patches
    return [
        Posting(key, int.from_bytes(code.tobytes(), "big"), slide.slide, number)
        for key, code, number in zip(
            patches.keys.tolist(), patches.codes, patches.numbers.tolist(), strict=True
        )
    ]


@dataclasses.dataclass
class Held:
    """One version of a slide on one shard."""

    slide: EncodedSlide
    is_home: bool
    home: str
    age_s: float = 0.0


class MemoryShard:
    """`ShardCalls` over dictionaries; ``before`` and ``after`` are told each call and may raise."""

    def __init__(self, spec: ShardSpec) -> None:
        self.spec = spec
        self.collections: dict[str, Collection] = {}
        self.committed: dict[str, Held] = {}
        self.pending: dict[tuple[str, str], Held] = {}
        self.before: Callable[[str, str], None] = lambda name, call: None
        self.after: Callable[[str, str], None] = lambda name, call: None
        self.modes: list[Mode] = []
        self.is_down = False

    def _enter(self, call: str, collection: str | None = None) -> None:
        self.before(self.spec.name, call)
        if self.is_down:
            raise ShardUnavailable(f"{self.spec.name} is down")
        if collection is not None and collection not in self.collections:
            raise UnknownCollection(f"no collection {collection!r}")

    def _leave(self, call: str) -> None:
        self.after(self.spec.name, call)

    async def search(
        self, collection: str, query: Query, *, wants_examined: bool, deadline: Deadline
    ) -> ShardAnswer:
        self._enter("search", collection)
        self.modes.append(query.settings.mode)
        held = [h.slide for h in self.committed.values() if query.where.passes(h.slide.slide)]
        postings = [posting for slide in held for posting in postings_of(slide)]
        answer = answer_of(postings, query, wants_examined=wants_examined)
        at_home = [h.slide.slide for h in self.committed.values() if h.is_home]
        labels = Counter(s.label(query.label_field) for s in at_home if query.where.passes(s))
        return dataclasses.replace(answer, label_counts=labels)

    async def encoded_slide(
        self, collection: str, slide_id: str, *, deadline: Deadline
    ) -> EncodedSlide | None:
        self._enter("encoded_slide", collection)
        held = self.committed.get(slide_id)
        return held.slide if held else None

    async def ingest(
        self,
        collection: str,
        slide: EncodedSlide,
        *,
        state: SlideState,
        is_home: bool,
        home: str,
        deadline: Deadline,
    ) -> IngestOutcome:
        self._enter("ingest", collection)
        slide_id, version = slide.slide.slide_id, slide.version
        committed = self.committed.get(slide_id)
        is_committed = committed is not None and committed.slide.version == version
        was_stored = is_committed or (slide_id, version) in self.pending
        held = Held(slide, is_home, home)
        if state is SlideState.COMMITTED:
            self.pending.pop((slide_id, version), None)
            self.committed[slide_id] = held
        elif not is_committed:
            self.pending.setdefault((slide_id, version), held)
        self._leave("ingest")
        return IngestOutcome(slide_id, version, was_stored)

    async def commit_slide(
        self, collection: str, slide_id: str, version: str, *, deadline: Deadline
    ) -> None:
        self._enter("commit", collection)
        committed = self.committed.get(slide_id)
        if committed is None or committed.slide.version != version:
            if (slide_id, version) not in self.pending:
                raise UnknownSlide(f"{slide_id} has no pending version {version}")
            self.committed[slide_id] = self.pending.pop((slide_id, version))
        self._leave("commit")

    async def forget(
        self, collection: str, slide_id: str, *, pending_version: str = "", deadline: Deadline
    ) -> ForgetOutcome:
        self._enter("forget", collection)
        removed = [v for s, v in self.pending if s == slide_id and pending_version in ("", v)]
        gone = [self.pending.pop((slide_id, version)) for version in removed]
        if not pending_version and slide_id in self.committed:
            gone.append(self.committed.pop(slide_id))
        self._leave("forget")
        return ForgetOutcome(sum(len(h.slide.patches) for h in gone), bool(gone))

    async def list_pending(self, collection: str, *, deadline: Deadline) -> list[PendingSlide]:
        self._enter("list_pending", collection)
        return [PendingSlide(s, v, h.home, h.age_s) for (s, v), h in sorted(self.pending.items())]

    async def list_slides(
        self, collection: str, *, slide_id: str = "", deadline: Deadline
    ) -> AsyncIterator[StoredSlide]:
        self._enter("list_slides", collection)
        for name, held in sorted(self.committed.items()):
            if held.is_home and slide_id in ("", name):
                version, patches = held.slide.version, held.slide.patches
                yield StoredSlide(held.slide.slide, version, len(patches))

    async def create_collection(self, collection: Collection, *, deadline: Deadline) -> bool:
        self._enter("create_collection")
        is_new = collection.name not in self.collections
        if self.collections.setdefault(collection.name, collection) != collection:
            raise CollectionExists(f"{collection.name} exists with other properties")
        return is_new

    async def list_collections(self, *, deadline: Deadline) -> list[Collection]:
        self._enter("list_collections")
        return [self.collections[name] for name in sorted(self.collections)]

    async def describe_collection(self, name: str, *, deadline: Deadline) -> CollectionState:
        self._enter("describe_collection", name)
        return self._state(name)

    def _state(self, name: str) -> CollectionState:
        at_home = [h.slide.slide for h in self.committed.values() if h.is_home]
        postings = sum(len(h.slide.patches) for h in self.committed.values())
        sites = dict(Counter(slide.site for slide in at_home))
        return CollectionState(
            self.collections[name], len(at_home), postings, len(self.pending), {"site": sites}
        )

    async def status(self, *, deadline: Deadline) -> ShardStatus:
        self._enter("status")
        states = [self._state(name) for name in self.collections]
        return ShardStatus("1", 1.0, self.spec.selector, self.spec.range, states, 10, 100, 1000)

    async def close(self) -> None:
        self._enter("close")


def memory_cluster(*specs: ShardSpec) -> tuple[Topology, dict[str, MemoryShard]]:
    """A topology and its shards in memory, each holding the empty collection ``demo``."""
    topology = Topology(specs)
    shards = {spec.name: MemoryShard(spec) for spec in specs}
    for shard in shards.values():
        shard.collections["demo"] = Collection("demo", "f", 64)
    return topology, shards


@pytest.fixture(scope="session")
def model() -> types.SimpleNamespace:
    """The slow model: what one index answers, and what shards send."""
    return types.SimpleNamespace(
        Posting=Posting,
        one_index=one_index,
        answer_of=answer_of,
        query_of=query_of,
        slide_of=slide_of,
        postings_of=postings_of,
        memory_cluster=memory_cluster,
    )
