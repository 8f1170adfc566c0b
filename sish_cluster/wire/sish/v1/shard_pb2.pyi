from sish_cluster.wire.sish.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchRequest(_message.Message):
    __slots__ = ("collection", "query", "wants_examined", "epoch")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    WANTS_EXAMINED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: _common_pb2.Query
    wants_examined: bool
    epoch: int
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[_Union[_common_pb2.Query, _Mapping]] = ..., wants_examined: bool = ..., epoch: _Optional[int] = ...) -> None: ...

class SearchSummary(_message.Message):
    __slots__ = ("mode", "eligible", "candidate_counts", "examined_counts", "label_counts", "has_examined")
    class LabelCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODE_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    EXAMINED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_COUNTS_FIELD_NUMBER: _ClassVar[int]
    HAS_EXAMINED_FIELD_NUMBER: _ClassVar[int]
    mode: _common_pb2.Mode
    eligible: int
    candidate_counts: bytes
    examined_counts: bytes
    label_counts: _containers.ScalarMap[str, int]
    has_examined: bool
    def __init__(self, mode: _Optional[_Union[_common_pb2.Mode, str]] = ..., eligible: _Optional[int] = ..., candidate_counts: _Optional[bytes] = ..., examined_counts: _Optional[bytes] = ..., label_counts: _Optional[_Mapping[str, int]] = ..., has_examined: bool = ...) -> None: ...

class PackedCandidates(_message.Message):
    __slots__ = ("count", "keys", "distances", "slides", "numbers", "corners", "crc32c")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    SLIDES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    CORNERS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    count: int
    keys: bytes
    distances: bytes
    slides: bytes
    numbers: bytes
    corners: bytes
    crc32c: int
    def __init__(self, count: _Optional[int] = ..., keys: _Optional[bytes] = ..., distances: _Optional[bytes] = ..., slides: _Optional[bytes] = ..., numbers: _Optional[bytes] = ..., corners: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...

class PackedExamined(_message.Message):
    __slots__ = ("count", "lengths", "deltas", "counts", "crc32c")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    count: int
    lengths: bytes
    deltas: bytes
    counts: bytes
    crc32c: int
    def __init__(self, count: _Optional[int] = ..., lengths: _Optional[bytes] = ..., deltas: _Optional[bytes] = ..., counts: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...

class SlideTable(_message.Message):
    __slots__ = ("slides",)
    SLIDES_FIELD_NUMBER: _ClassVar[int]
    slides: _containers.RepeatedCompositeFieldContainer[_common_pb2.Slide]
    def __init__(self, slides: _Optional[_Iterable[_Union[_common_pb2.Slide, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("summary", "candidates", "examined", "slides")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    EXAMINED_FIELD_NUMBER: _ClassVar[int]
    SLIDES_FIELD_NUMBER: _ClassVar[int]
    summary: SearchSummary
    candidates: PackedCandidates
    examined: PackedExamined
    slides: SlideTable
    def __init__(self, summary: _Optional[_Union[SearchSummary, _Mapping]] = ..., candidates: _Optional[_Union[PackedCandidates, _Mapping]] = ..., examined: _Optional[_Union[PackedExamined, _Mapping]] = ..., slides: _Optional[_Union[SlideTable, _Mapping]] = ...) -> None: ...

class EncodedSlideRequest(_message.Message):
    __slots__ = ("collection", "slide_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    slide_id: str
    def __init__(self, collection: _Optional[str] = ..., slide_id: _Optional[str] = ...) -> None: ...

class EncodedSlideResponse(_message.Message):
    __slots__ = ("part",)
    PART_FIELD_NUMBER: _ClassVar[int]
    part: _common_pb2.EncodedSlidePart
    def __init__(self, part: _Optional[_Union[_common_pb2.EncodedSlidePart, _Mapping]] = ...) -> None: ...

class RangeLookupRequest(_message.Message):
    __slots__ = ("collection", "start", "end", "page_size", "page_token", "where")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    start: int
    end: int
    page_size: int
    page_token: str
    where: _common_pb2.Filter
    def __init__(self, collection: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., where: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ...) -> None: ...

class RangeLookupResponse(_message.Message):
    __slots__ = ("patches", "slide_rows", "slides", "next_page_token")
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ROWS_FIELD_NUMBER: _ClassVar[int]
    SLIDES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    patches: _common_pb2.PackedPatches
    slide_rows: bytes
    slides: _containers.RepeatedCompositeFieldContainer[_common_pb2.Slide]
    next_page_token: str
    def __init__(self, patches: _Optional[_Union[_common_pb2.PackedPatches, _Mapping]] = ..., slide_rows: _Optional[bytes] = ..., slides: _Optional[_Iterable[_Union[_common_pb2.Slide, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class NeighboursRequest(_message.Message):
    __slots__ = ("collection", "key", "predecessors", "successors", "where")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PREDECESSORS_FIELD_NUMBER: _ClassVar[int]
    SUCCESSORS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    key: int
    predecessors: int
    successors: int
    where: _common_pb2.Filter
    def __init__(self, collection: _Optional[str] = ..., key: _Optional[int] = ..., predecessors: _Optional[int] = ..., successors: _Optional[int] = ..., where: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ...) -> None: ...

class NeighboursResponse(_message.Message):
    __slots__ = ("predecessors", "successors", "is_occupied")
    PREDECESSORS_FIELD_NUMBER: _ClassVar[int]
    SUCCESSORS_FIELD_NUMBER: _ClassVar[int]
    IS_OCCUPIED_FIELD_NUMBER: _ClassVar[int]
    predecessors: bytes
    successors: bytes
    is_occupied: bool
    def __init__(self, predecessors: _Optional[bytes] = ..., successors: _Optional[bytes] = ..., is_occupied: bool = ...) -> None: ...

class IngestRequest(_message.Message):
    __slots__ = ("collection", "part", "state", "is_home", "home", "epoch")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IS_HOME_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    collection: str
    part: _common_pb2.EncodedSlidePart
    state: _common_pb2.SlideState
    is_home: bool
    home: str
    epoch: int
    def __init__(self, collection: _Optional[str] = ..., part: _Optional[_Union[_common_pb2.EncodedSlidePart, _Mapping]] = ..., state: _Optional[_Union[_common_pb2.SlideState, str]] = ..., is_home: bool = ..., home: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("slide_id", "version", "was_stored", "error")
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WAS_STORED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    slide_id: str
    version: str
    was_stored: bool
    error: bytes
    def __init__(self, slide_id: _Optional[str] = ..., version: _Optional[str] = ..., was_stored: bool = ..., error: _Optional[bytes] = ...) -> None: ...

class CommitSlideRequest(_message.Message):
    __slots__ = ("collection", "slide_id", "version")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    slide_id: str
    version: str
    def __init__(self, collection: _Optional[str] = ..., slide_id: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class CommitSlideResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("collection", "slide_id", "pending_version")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    PENDING_VERSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    slide_id: str
    pending_version: str
    def __init__(self, collection: _Optional[str] = ..., slide_id: _Optional[str] = ..., pending_version: _Optional[str] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ("postings", "was_stored")
    POSTINGS_FIELD_NUMBER: _ClassVar[int]
    WAS_STORED_FIELD_NUMBER: _ClassVar[int]
    postings: int
    was_stored: bool
    def __init__(self, postings: _Optional[int] = ..., was_stored: bool = ...) -> None: ...

class ListPendingRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class PendingSlide(_message.Message):
    __slots__ = ("slide_id", "version", "home", "age_s")
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    slide_id: str
    version: str
    home: str
    age_s: float
    def __init__(self, slide_id: _Optional[str] = ..., version: _Optional[str] = ..., home: _Optional[str] = ..., age_s: _Optional[float] = ...) -> None: ...

class ListPendingResponse(_message.Message):
    __slots__ = ("pending",)
    PENDING_FIELD_NUMBER: _ClassVar[int]
    pending: _containers.RepeatedCompositeFieldContainer[PendingSlide]
    def __init__(self, pending: _Optional[_Iterable[_Union[PendingSlide, _Mapping]]] = ...) -> None: ...

class ListSlidesRequest(_message.Message):
    __slots__ = ("collection", "slide_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    slide_id: str
    def __init__(self, collection: _Optional[str] = ..., slide_id: _Optional[str] = ...) -> None: ...

class ListSlidesResponse(_message.Message):
    __slots__ = ("slides", "versions", "postings")
    SLIDES_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    POSTINGS_FIELD_NUMBER: _ClassVar[int]
    slides: _containers.RepeatedCompositeFieldContainer[_common_pb2.Slide]
    versions: _containers.RepeatedScalarFieldContainer[str]
    postings: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slides: _Optional[_Iterable[_Union[_common_pb2.Slide, _Mapping]]] = ..., versions: _Optional[_Iterable[str]] = ..., postings: _Optional[_Iterable[int]] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: _common_pb2.Collection
    def __init__(self, collection: _Optional[_Union[_common_pb2.Collection, _Mapping]] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("was_created",)
    WAS_CREATED_FIELD_NUMBER: _ClassVar[int]
    was_created: bool
    def __init__(self, was_created: bool = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[_common_pb2.Collection]
    def __init__(self, collections: _Optional[_Iterable[_Union[_common_pb2.Collection, _Mapping]]] = ...) -> None: ...

class DescribeCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class DescribeCollectionResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: _common_pb2.CollectionState
    def __init__(self, state: _Optional[_Union[_common_pb2.CollectionState, _Mapping]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("version", "uptime_s", "selector", "range_start", "range_end", "collections", "store_used_bytes", "store_map_bytes", "resident_bytes")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    RANGE_START_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    STORE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_MAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    uptime_s: float
    selector: _containers.ScalarMap[str, str]
    range_start: int
    range_end: int
    collections: _containers.RepeatedCompositeFieldContainer[_common_pb2.CollectionState]
    store_used_bytes: int
    store_map_bytes: int
    resident_bytes: int
    def __init__(self, version: _Optional[str] = ..., uptime_s: _Optional[float] = ..., selector: _Optional[_Mapping[str, str]] = ..., range_start: _Optional[int] = ..., range_end: _Optional[int] = ..., collections: _Optional[_Iterable[_Union[_common_pb2.CollectionState, _Mapping]]] = ..., store_used_bytes: _Optional[int] = ..., store_map_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...
