"""A shard's own values as messages: pages of postings, its status, a slide's state."""

from __future__ import annotations

import numpy as np

from sish_cluster.core.errors import BadMessage
from sish_cluster.core.seams import ShardStatus, SlideState
from sish_cluster.shard.reads import Page
from sish_cluster.wire.columns import bytes_of, checksum_of
from sish_cluster.wire.sish.v1 import common_pb2, shard_pb2
from sish_cluster.wire.values import (
    LAYOUT_VERSION,
    PART_BYTES,
    pack_collection_state,
    pack_slide,
)

_STATES: dict[int, SlideState] = {
    common_pb2.SLIDE_STATE_PENDING: SlideState.PENDING,
    common_pb2.SLIDE_STATE_COMMITTED: SlideState.COMMITTED,
}


def page_parts(page: Page) -> list[shard_pb2.RangeLookupResponse]:
    """Return a page as messages of about 1 MiB; the token is on the last."""
    row_bytes = 24 + page.codes.shape[1]
    rows = max(1, PART_BYTES // row_bytes)
    starts = range(0, max(1, len(page.keys)), rows)
    parts = [_page_part(page, slice(start, start + rows)) for start in starts]
    parts[-1].next_page_token = page.next_page_token
    return parts


def _page_part(page: Page, part: slice) -> shard_pb2.RangeLookupResponse:
    keys, codes = bytes_of(page.keys[part], "<u8"), bytes_of(page.codes[part], "u1")
    corners, numbers = bytes_of(page.corners[part], "<i4"), bytes_of(page.numbers[part], "<u4")
    chosen, rows = np.unique(page.slide_rows[part], return_inverse=True)
    return shard_pb2.RangeLookupResponse(
        patches=common_pb2.PackedPatches(
            layout_version=LAYOUT_VERSION,
            count=len(page.keys[part]),
            code_bytes=page.codes.shape[1],
            keys=keys,
            codes=codes,
            corners=corners,
            numbers=numbers,
            crc32c=checksum_of((keys, codes, corners, numbers)),
        ),
        slide_rows=bytes_of(rows, "<u4"),
        slides=[pack_slide(page.slides[row]) for row in chosen.tolist()],
    )


def unpack_state(number: int) -> SlideState:
    """Return the state of a number, or raise `BadMessage`."""
    if number not in _STATES:
        raise BadMessage(
            f"state must be SLIDE_STATE_PENDING or SLIDE_STATE_COMMITTED; found {number}",
            field="state",
        )
    return _STATES[number]


def pack_status(status: ShardStatus) -> shard_pb2.StatusResponse:
    """Return a shard's status as a message."""
    return shard_pb2.StatusResponse(
        version=status.version,
        uptime_s=status.uptime_s,
        selector=dict(status.selector.labels),
        range_start=status.range.start,
        range_end=status.range.end,
        collections=map(pack_collection_state, status.collections),
        store_used_bytes=status.store_used_bytes,
        store_map_bytes=status.store_map_bytes,
        resident_bytes=status.resident_bytes,
    )
