from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_AUTO: _ClassVar[Mode]
    MODE_SISH: _ClassVar[Mode]
    MODE_GUIDED: _ClassVar[Mode]
    MODE_EXACT: _ClassVar[Mode]
    MODE_DIRECT: _ClassVar[Mode]

class Ranking(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANKING_UNSPECIFIED: _ClassVar[Ranking]
    RANKING_UNCERTAINTY: _ClassVar[Ranking]
    RANKING_SISH: _ClassVar[Ranking]
    RANKING_RRF: _ClassVar[Ranking]
    RANKING_RETCCL: _ClassVar[Ranking]

class SlideState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SLIDE_STATE_UNSPECIFIED: _ClassVar[SlideState]
    SLIDE_STATE_PENDING: _ClassVar[SlideState]
    SLIDE_STATE_COMMITTED: _ClassVar[SlideState]
MODE_UNSPECIFIED: Mode
MODE_AUTO: Mode
MODE_SISH: Mode
MODE_GUIDED: Mode
MODE_EXACT: Mode
MODE_DIRECT: Mode
RANKING_UNSPECIFIED: Ranking
RANKING_UNCERTAINTY: Ranking
RANKING_SISH: Ranking
RANKING_RRF: Ranking
RANKING_RETCCL: Ranking
SLIDE_STATE_UNSPECIFIED: SlideState
SLIDE_STATE_PENDING: SlideState
SLIDE_STATE_COMMITTED: SlideState

class Slide(_message.Message):
    __slots__ = ("slide_id", "patient", "site", "diagnosis", "institution", "labels", "mpp", "width_px", "height_px", "patch_side_px", "digest")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SLIDE_ID_FIELD_NUMBER: _ClassVar[int]
    PATIENT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MPP_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    PATCH_SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    slide_id: str
    patient: str
    site: str
    diagnosis: str
    institution: str
    labels: _containers.ScalarMap[str, str]
    mpp: float
    width_px: int
    height_px: int
    patch_side_px: int
    digest: str
    def __init__(self, slide_id: _Optional[str] = ..., patient: _Optional[str] = ..., site: _Optional[str] = ..., diagnosis: _Optional[str] = ..., institution: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., mpp: _Optional[float] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., patch_side_px: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class PackedPatches(_message.Message):
    __slots__ = ("layout_version", "count", "code_bytes", "keys", "codes", "corners", "numbers", "crc32c", "dimensions", "embeddings")
    LAYOUT_VERSION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CODE_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    CORNERS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    layout_version: int
    count: int
    code_bytes: int
    keys: bytes
    codes: bytes
    corners: bytes
    numbers: bytes
    crc32c: int
    dimensions: int
    embeddings: bytes
    def __init__(self, layout_version: _Optional[int] = ..., count: _Optional[int] = ..., code_bytes: _Optional[int] = ..., keys: _Optional[bytes] = ..., codes: _Optional[bytes] = ..., corners: _Optional[bytes] = ..., numbers: _Optional[bytes] = ..., crc32c: _Optional[int] = ..., dimensions: _Optional[int] = ..., embeddings: _Optional[bytes] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("name", "fingerprint", "code_bits", "max_distance", "encoder", "dimensions", "lacks_keys")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CODE_BITS_FIELD_NUMBER: _ClassVar[int]
    MAX_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    LACKS_KEYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    code_bits: int
    max_distance: int
    encoder: str
    dimensions: int
    lacks_keys: bool
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., code_bits: _Optional[int] = ..., max_distance: _Optional[int] = ..., encoder: _Optional[str] = ..., dimensions: _Optional[int] = ..., lacks_keys: bool = ...) -> None: ...

class LabelCounts(_message.Message):
    __slots__ = ("counts",)
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.ScalarMap[str, int]
    def __init__(self, counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class CollectionState(_message.Message):
    __slots__ = ("collection", "slides", "postings", "pending", "label_counts")
    class LabelCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: LabelCounts
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[LabelCounts, _Mapping]] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SLIDES_FIELD_NUMBER: _ClassVar[int]
    POSTINGS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    LABEL_COUNTS_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    slides: int
    postings: int
    pending: int
    label_counts: _containers.MessageMap[str, LabelCounts]
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ..., slides: _Optional[int] = ..., postings: _Optional[int] = ..., pending: _Optional[int] = ..., label_counts: _Optional[_Mapping[str, LabelCounts]] = ...) -> None: ...

class LabelValues(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("keep", "leave_out")
    class KeepEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: LabelValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[LabelValues, _Mapping]] = ...) -> None: ...
    class LeaveOutEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: LabelValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[LabelValues, _Mapping]] = ...) -> None: ...
    KEEP_FIELD_NUMBER: _ClassVar[int]
    LEAVE_OUT_FIELD_NUMBER: _ClassVar[int]
    keep: _containers.MessageMap[str, LabelValues]
    leave_out: _containers.MessageMap[str, LabelValues]
    def __init__(self, keep: _Optional[_Mapping[str, LabelValues]] = ..., leave_out: _Optional[_Mapping[str, LabelValues]] = ...) -> None: ...

class SearchSettings(_message.Message):
    __slots__ = ("mode", "max_distance", "seeds_per_side", "seed_spacing", "max_steps", "max_candidates", "min_cosine")
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SEEDS_PER_SIDE_FIELD_NUMBER: _ClassVar[int]
    SEED_SPACING_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MIN_COSINE_FIELD_NUMBER: _ClassVar[int]
    mode: Mode
    max_distance: int
    seeds_per_side: int
    seed_spacing: int
    max_steps: int
    max_candidates: int
    min_cosine: float
    def __init__(self, mode: _Optional[_Union[Mode, str]] = ..., max_distance: _Optional[int] = ..., seeds_per_side: _Optional[int] = ..., seed_spacing: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_candidates: _Optional[int] = ..., min_cosine: _Optional[float] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("patches", "fingerprint", "settings", "where", "label_field", "patient")
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_FIELD_NUMBER: _ClassVar[int]
    PATIENT_FIELD_NUMBER: _ClassVar[int]
    patches: PackedPatches
    fingerprint: str
    settings: SearchSettings
    where: Filter
    label_field: str
    patient: str
    def __init__(self, patches: _Optional[_Union[PackedPatches, _Mapping]] = ..., fingerprint: _Optional[str] = ..., settings: _Optional[_Union[SearchSettings, _Mapping]] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., label_field: _Optional[str] = ..., patient: _Optional[str] = ...) -> None: ...

class EncodedSlidePart(_message.Message):
    __slots__ = ("slide", "patches", "fingerprint", "version", "is_last")
    SLIDE_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    slide: Slide
    patches: PackedPatches
    fingerprint: str
    version: str
    is_last: bool
    def __init__(self, slide: _Optional[_Union[Slide, _Mapping]] = ..., patches: _Optional[_Union[PackedPatches, _Mapping]] = ..., fingerprint: _Optional[str] = ..., version: _Optional[str] = ..., is_last: bool = ...) -> None: ...
