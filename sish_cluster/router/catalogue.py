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
    """Raise unless patches were encoded for the collection.

    Raises
    ------
    FingerprintMismatch
        If another encoder made them.
    BadMessage
        If their codes have another length all the same.
    """
    collection.check_fingerprint(fingerprint)
    if len(patches) and patches.code_bytes != collection.code_bytes:
        raise BadMessage(
            f"collection {collection.name!r} holds codes of {collection.code_bytes} bytes; found"
            f" codes of {patches.code_bytes}: encode again with the collection's encoder",
            field="patches.code_bytes",
        )
