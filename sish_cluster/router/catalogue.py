"""Definitions of collections, remembered: every search and ingest checks its fingerprint against one.

A collection never changes once created, so its definition is asked of a shard once. It is asked again
after a shard says that it does not know the collection.
"""

from __future__ import annotations

from collections.abc import Mapping

from sish_cluster.core.clock import Deadline
from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import BadMessage, Internal, Refused, SishError
from sish_cluster.core.posting import PatchColumns
from sish_cluster.core.query import Mode, Query
from sish_cluster.core.seams import ShardCalls


class Catalogue:
    """Looks collections up, on the first shard that answers."""

    def __init__(self, shards: Mapping[str, ShardCalls]) -> None:
        self._shards = shards
        self._known: dict[str, Collection] = {}

    async def collection(self, name: str, *, deadline: Deadline) -> Collection:
        """Return a collection's definition.

        Raises
        ------
        UnknownCollection
            If a shard says there is none.
        SishError
            What the last shard said, when none answered.
        """
        if name not in self._known:
            self._known[name] = await self._asked(name, deadline)
        return self._known[name]

    def drop(self, name: str) -> None:
        """Forget what is remembered of a collection."""
        self._known.pop(name, None)

    async def _asked(self, name: str, deadline: Deadline) -> Collection:
        problem: SishError = Internal("a router needs at least one shard")
        for shard in self._shards.values():
            try:
                return (await shard.describe_collection(name, deadline=deadline)).collection
            except Refused:
                raise
            except SishError as error:
                problem = error
        raise problem


def check_patches(collection: Collection, patches: PatchColumns, fingerprint: str) -> None:
    """Raise unless patches may be stored: they have what the collection keeps, no less and no more.

    Raises
    ------
    FingerprintMismatch
        If another encoder made them.
    BadMessage
        If their codes or embeddings have another length all the same.
    """
    collection.check_fingerprint(fingerprint)
    if len(patches):
        _check_codes(collection, patches)
        _check_embeddings(collection, patches)


def check_query(collection: Collection, query: Query) -> None:
    """Raise unless a query can be compared with the collection in its mode.

    A query needs only what its mode compares: codes, or embeddings for DIRECT and for AUTO in a
    collection without codes.

    Raises
    ------
    BadRequest
        If the collection lacks what the mode compares.
    FingerprintMismatch, BadMessage
        If the query's patches do.
    """
    mode = query.settings.mode
    collection.check_mode(mode)
    collection.check_fingerprint(query.fingerprint)
    is_direct = mode is Mode.DIRECT or (mode is Mode.AUTO and not collection.code_bits)
    (_check_embeddings if is_direct else _check_codes)(collection, query.patches)


def _check_codes(collection: Collection, patches: PatchColumns) -> None:
    if patches.code_bytes != collection.code_bytes:
        raise BadMessage(
            f"collection {collection.name!r} holds codes of {collection.code_bytes} bytes; found"
            f" codes of {patches.code_bytes}: encode again with the collection's encoder",
            field="patches.code_bytes",
        )


def _check_embeddings(collection: Collection, patches: PatchColumns) -> None:
    if patches.dimensions != collection.dimensions:
        raise BadMessage(
            f"collection {collection.name!r} holds embeddings of {collection.dimensions} numbers;"
            f" found {patches.dimensions}: encode again with the collection's encoder, or import the"
            " same features",
            field="patches.dimensions",
        )
