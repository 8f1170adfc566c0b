from sish_cluster.wire.sish.v1 import common_pb2 as _common_pb2
from sish_cluster.wire.sish.v1 import shard_pb2 as _shard_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RouterServiceSearchRequest(_message.Message):
    __slots__ = ("collection", "query", "ranking", "k", "allow_partial", "max_matches")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    MAX_MATCHES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: _common_pb2.Query
    ranking: _common_pb2.Ranking
    k: int
    allow_partial: bool
    max_matches: int
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[_Union[_common_pb2.Query, _Mapping]] = ..., ranking: _Optional[_Union[_common_pb2.Ranking, str]] = ..., k: _Optional[int] = ..., allow_partial: bool = ..., max_matches: _Optional[int] = ...) -> None: ...

class PatchMatch(_message.Message):
    __slots__ = ("query_number", "query_x", "query_y", "number", "x", "y", "distance", "uncertainty")
    QUERY_NUMBER_FIELD_NUMBER: _ClassVar[int]
    QUERY_X_FIELD_NUMBER: _ClassVar[int]
    QUERY_Y_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    query_number: int
    query_x: int
    query_y: int
    number: int
    x: int
    y: int
    distance: int
    uncertainty: float
    def __init__(self, query_number: _Optional[int] = ..., query_x: _Optional[int] = ..., query_y: _Optional[int] = ..., number: _Optional[int] = ..., x: _Optional[int] = ..., y: _Optional[int] = ..., distance: _Optional[int] = ..., uncertainty: _Optional[float] = ...) -> None: ...

class SlideResult(_message.Message):
    __slots__ = ("rank", "slide", "distance", "uncertainty", "certainty", "score", "matches")
    RANK_FIELD_NUMBER: _ClassVar[int]
    SLIDE_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    CERTAINTY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    slide: _common_pb2.Slide
    distance: int
    uncertainty: float
    certainty: float
    score: float
    matches: _containers.RepeatedCompositeFieldContainer[PatchMatch]
    def __init__(self, rank: _Optional[int] = ..., slide: _Optional[_Union[_common_pb2.Slide, _Mapping]] = ..., distance: _Optional[int] = ..., uncertainty: _Optional[float] = ..., certainty: _Optional[float] = ..., score: _Optional[float] = ..., matches: _Optional[_Iterable[_Union[PatchMatch, _Mapping]]] = ...) -> None: ...

class RouterServiceSearchResponse(_message.Message):
    __slots__ = ("results", "mode", "ranking", "predicted_label", "votes", "examined", "eligible", "n_query_patches", "missing_shards", "reason", "elapsed_ms", "mode_reason", "distance_bound")
    class VotesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_LABEL_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    EXAMINED_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    N_QUERY_PATCHES_FIELD_NUMBER: _ClassVar[int]
    MISSING_SHARDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    MODE_REASON_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_BOUND_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SlideResult]
    mode: _common_pb2.Mode
    ranking: _common_pb2.Ranking
    predicted_label: str
    votes: _containers.ScalarMap[str, float]
    examined: int
    eligible: int
    n_query_patches: int
    missing_shards: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    elapsed_ms: float
    mode_reason: str
    distance_bound: float
    def __init__(self, results: _Optional[_Iterable[_Union[SlideResult, _Mapping]]] = ..., mode: _Optional[_Union[_common_pb2.Mode, str]] = ..., ranking: _Optional[_Union[_common_pb2.Ranking, str]] = ..., predicted_label: _Optional[str] = ..., votes: _Optional[_Mapping[str, float]] = ..., examined: _Optional[int] = ..., eligible: _Optional[int] = ..., n_query_patches: _Optional[int] = ..., missing_shards: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., elapsed_ms: _Optional[float] = ..., mode_reason: _Optional[str] = ..., distance_bound: _Optional[float] = ...) -> None: ...

class RouterServiceSearchPatchesRequest(_message.Message):
    __slots__ = ("collection", "query", "allow_partial")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: _common_pb2.Query
    allow_partial: bool
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[_Union[_common_pb2.Query, _Mapping]] = ..., allow_partial: bool = ...) -> None: ...

class PatchesFacts(_message.Message):
    __slots__ = ("mode_reason", "missing_shards", "elapsed_ms")
    MODE_REASON_FIELD_NUMBER: _ClassVar[int]
    MISSING_SHARDS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    mode_reason: str
    missing_shards: _containers.RepeatedScalarFieldContainer[str]
    elapsed_ms: float
    def __init__(self, mode_reason: _Optional[str] = ..., missing_shards: _Optional[_Iterable[str]] = ..., elapsed_ms: _Optional[float] = ...) -> None: ...

class RouterServiceSearchPatchesResponse(_message.Message):
    __slots__ = ("facts", "answer")
    FACTS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    facts: PatchesFacts
    answer: _shard_pb2.SearchResponse
    def __init__(self, facts: _Optional[_Union[PatchesFacts, _Mapping]] = ..., answer: _Optional[_Union[_shard_pb2.SearchResponse, _Mapping]] = ...) -> None: ...

class RouterServiceEncodedSlideRequest(_message.Message):
    __slots__ = ("collection", "slide_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    slide_id: str
    def __init__(self, collection: _Optional[str] = ..., slide_id: _Optional[str] = ...) -> None: ...

class RouterServiceEncodedSlideResponse(_message.Message):
    __slots__ = ("part",)
    PART_FIELD_NUMBER: _ClassVar[int]
    part: _common_pb2.EncodedSlidePart
    def __init__(self, part: _Optional[_Union[_common_pb2.EncodedSlidePart, _Mapping]] = ...) -> None: ...

class RouterServiceIngestRequest(_message.Message):
    __slots__ = ("collection", "part")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    collection: str
    part: _common_pb2.EncodedSlidePart
    def __init__(self, collection: _Optional[str] = ..., part: _Optional[_Union[_common_pb2.EncodedSlidePart, _Mapping]] = ...) -> None: ...

class RouterServiceIngestResponse(_message.Message):
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

class RouterServiceForgetRequest(_message.Message):
    __slots__ = ("collection", "slide_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    slide_id: str
    def __init__(self, collection: _Optional[str] = ..., slide_id: _Optional[str] = ...) -> None: ...

class RouterServiceForgetResponse(_message.Message):
    __slots__ = ("postings",)
    POSTINGS_FIELD_NUMBER: _ClassVar[int]
    postings: int
    def __init__(self, postings: _Optional[int] = ...) -> None: ...

class RouterServiceListSlidesRequest(_message.Message):
    __slots__ = ("collection", "slide_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    slide_id: str
    def __init__(self, collection: _Optional[str] = ..., slide_id: _Optional[str] = ...) -> None: ...

class RouterServiceListSlidesResponse(_message.Message):
    __slots__ = ("slides", "versions")
    SLIDES_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    slides: _containers.RepeatedCompositeFieldContainer[_common_pb2.Slide]
    versions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, slides: _Optional[_Iterable[_Union[_common_pb2.Slide, _Mapping]]] = ..., versions: _Optional[_Iterable[str]] = ...) -> None: ...

class RouterServiceCreateCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: _common_pb2.Collection
    def __init__(self, collection: _Optional[_Union[_common_pb2.Collection, _Mapping]] = ...) -> None: ...

class RouterServiceCreateCollectionResponse(_message.Message):
    __slots__ = ("was_created",)
    WAS_CREATED_FIELD_NUMBER: _ClassVar[int]
    was_created: bool
    def __init__(self, was_created: bool = ...) -> None: ...

class RouterServiceListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RouterServiceListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[_common_pb2.Collection]
    def __init__(self, collections: _Optional[_Iterable[_Union[_common_pb2.Collection, _Mapping]]] = ...) -> None: ...

class RouterServiceDescribeCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class RouterServiceDescribeCollectionResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: _common_pb2.CollectionState
    def __init__(self, state: _Optional[_Union[_common_pb2.CollectionState, _Mapping]] = ...) -> None: ...

class RouterServiceStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShardHealth(_message.Message):
    __slots__ = ("name", "address", "selector", "range_start", "range_end", "is_serving", "problem", "collections", "store_used_bytes", "resident_bytes")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    RANGE_START_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    IS_SERVING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    STORE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    selector: _containers.ScalarMap[str, str]
    range_start: int
    range_end: int
    is_serving: bool
    problem: str
    collections: _containers.RepeatedCompositeFieldContainer[_common_pb2.CollectionState]
    store_used_bytes: int
    resident_bytes: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., selector: _Optional[_Mapping[str, str]] = ..., range_start: _Optional[int] = ..., range_end: _Optional[int] = ..., is_serving: bool = ..., problem: _Optional[str] = ..., collections: _Optional[_Iterable[_Union[_common_pb2.CollectionState, _Mapping]]] = ..., store_used_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...

class RouterServiceStatusResponse(_message.Message):
    __slots__ = ("version", "epoch", "uptime_s", "shards")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    version: str
    epoch: int
    uptime_s: float
    shards: _containers.RepeatedCompositeFieldContainer[ShardHealth]
    def __init__(self, version: _Optional[str] = ..., epoch: _Optional[int] = ..., uptime_s: _Optional[float] = ..., shards: _Optional[_Iterable[_Union[ShardHealth, _Mapping]]] = ...) -> None: ...
