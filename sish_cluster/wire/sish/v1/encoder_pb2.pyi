from sish_cluster.wire.sish.v1 import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncodeSlideRequest(_message.Message):
    __slots__ = ("path", "slide", "region", "wants_embeddings")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SLIDE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    WANTS_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    path: str
    slide: _common_pb2.Slide
    region: str
    wants_embeddings: bool
    def __init__(self, path: _Optional[str] = ..., slide: _Optional[_Union[_common_pb2.Slide, _Mapping]] = ..., region: _Optional[str] = ..., wants_embeddings: bool = ...) -> None: ...

class EncodeProgress(_message.Message):
    __slots__ = ("stage", "done", "total")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    stage: str
    done: int
    total: int
    def __init__(self, stage: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class EncodeSlideResponse(_message.Message):
    __slots__ = ("progress", "slide")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SLIDE_FIELD_NUMBER: _ClassVar[int]
    progress: EncodeProgress
    slide: _common_pb2.EncodedSlidePart
    def __init__(self, progress: _Optional[_Union[EncodeProgress, _Mapping]] = ..., slide: _Optional[_Union[_common_pb2.EncodedSlidePart, _Mapping]] = ...) -> None: ...

class EncodePatchesRequest(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    def __init__(self, image: _Optional[bytes] = ...) -> None: ...

class EncodePatchesResponse(_message.Message):
    __slots__ = ("key", "code", "embedding")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    key: int
    code: bytes
    embedding: bytes
    def __init__(self, key: _Optional[int] = ..., code: _Optional[bytes] = ..., embedding: _Optional[bytes] = ...) -> None: ...

class DescribeEncoderRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeEncoderResponse(_message.Message):
    __slots__ = ("profile", "fingerprint", "code_bits", "key_weights", "texture_weights", "actors", "queued", "uptime_s", "version", "dimensions", "lacks_keys", "mosaic")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CODE_BITS_FIELD_NUMBER: _ClassVar[int]
    KEY_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    TEXTURE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    LACKS_KEYS_FIELD_NUMBER: _ClassVar[int]
    MOSAIC_FIELD_NUMBER: _ClassVar[int]
    profile: str
    fingerprint: str
    code_bits: int
    key_weights: str
    texture_weights: str
    actors: int
    queued: int
    uptime_s: float
    version: str
    dimensions: int
    lacks_keys: bool
    mosaic: str
    def __init__(self, profile: _Optional[str] = ..., fingerprint: _Optional[str] = ..., code_bits: _Optional[int] = ..., key_weights: _Optional[str] = ..., texture_weights: _Optional[str] = ..., actors: _Optional[int] = ..., queued: _Optional[int] = ..., uptime_s: _Optional[float] = ..., version: _Optional[str] = ..., dimensions: _Optional[int] = ..., lacks_keys: bool = ..., mosaic: _Optional[str] = ...) -> None: ...
