"""Lanes: vectors of half, single and double precision numbers by address, for the direct search.

The registers of the machine decide how many rows and query patches a tile of products holds; they never
decide a result (see `vectors_kernels`). Halves are widened by the processor where it can, else with whole
numbers and one subtraction of normal numbers; both are exact whatever it is told about subnormal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Numbers of a vector: one 512-bit register of singles, or what takes its place."""

_FEATURES = llvmlite.binding.get_host_cpu_features()

HAS_WIDE_REGISTERS = bool(_FEATURES.get("avx512f", False))
"""Whether there are 32 registers of 512 bits."""

WIDENS_HALVES = bool(_FEATURES.get("f16c", False))
"""Whether an instruction turns halves into singles."""

TILE_ROWS = 8 if HAS_WIDE_REGISTERS else 6
"""Rows of a tile; with its vectors per row, as many sums as registers hold beside what is read."""

TILE_VECTORS = 2 if HAS_WIDE_REGISTERS else 1
"""Vectors of query patches of a tile."""

ROW_GAP = LANES
"""Unused singles behind each row of a tile: one cache line, so that rows of a power of two do not all
compete for the same lines of the nearest cache."""

_DOUBLE_LANES = LANES
"""Sums of an exact product: element i goes to sum i mod 16, and they are added by halves. Part of the
definition of a cosine: another number would change last bits."""

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()


def _operation(definition: Callable[..., Any]) -> Any:
    """Return the numba intrinsic of a definition, untyped: only kernels call it."""
    return intrinsic(definition)


def _splat(builder: Any, value: Any, n: int) -> Any:
    kind = ir.VectorType(value.type, n)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    lanes = ir.Constant(ir.VectorType(_I32, n), [0] * n)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)


def _at(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _put(builder: Any, value: Any, address: Any, align: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _plus(builder: Any, address: Any, n_bytes: int) -> Any:
    return builder.add(address, ir.Constant(_I64, n_bytes))


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, in one step where the machine can."""
    suffix = f"v{a.type.count}f{32 if a.type.element == _F32 else 64}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.{suffix}")  # type: ignore[no-untyped-call]
    return builder.call(function, [a, b, c])


def _widened(builder: Any, address: Any, n: int) -> Any:
    """Return n halves at an address as singles; all are finite."""
    if not WIDENS_HALVES:
        return _widened_by_parts(builder, address, n)
    halves = _at(builder, address, ir.VectorType(ir.HalfType(), n), 2)
    return builder.fpext(halves, ir.VectorType(_F32, n))


def _widened_by_parts(builder: Any, address: Any, n: int) -> Any:
    """Return the same on a machine without the instruction."""
    words = ir.VectorType(_I32, n)
    singles = ir.VectorType(_F32, n)

    def constant(value: int) -> Any:
        return ir.Constant(words, [value] * n)

    halves = builder.zext(_at(builder, address, ir.VectorType(_I16, n), 2), words)
    size = builder.shl(builder.and_(halves, constant(0x7FFF)), constant(13))
    sign = builder.shl(builder.and_(halves, constant(0x8000)), constant(16))
    normal = builder.add(size, constant(112 << 23))
    shifted = builder.bitcast(builder.add(size, constant(113 << 23)), singles)
    unit = ir.Constant(singles, [2.0**-14] * n)
    small = builder.bitcast(builder.fsub(shifted, unit), words)
    is_small = builder.icmp_unsigned("<", size, constant(1 << 23))
    return builder.bitcast(builder.or_(builder.select(is_small, small, normal), sign), singles)


@_operation
def widen(_context: Any, halves: Any, singles: Any) -> Any:
    """Write the 16 halves at one address as singles to another."""

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        _put(builder, _widened(builder, args[0], LANES), args[1], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


@_operation
def widen_by_parts(_context: Any, halves: Any, singles: Any) -> Any:
    """Do what `widen` does on a machine without the instruction."""

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        _put(builder, _widened_by_parts(builder, args[0], LANES), args[1], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


def _summed(builder: Any, n: Any, kinds: list[Any], step: Callable[[Any, list[Any]], Any]) -> Any:
    """Return the sums that start as zero and are changed by ``step`` for i in 0..n-1, n >= 1."""
    before = builder.block
    loop = builder.append_basic_block("sum")
    after = builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(_I64)
    i.add_incoming(ir.Constant(_I64, 0), before)
    sums = [builder.phi(kind) for kind in kinds]
    for total, kind in zip(sums, kinds, strict=True):
        total.add_incoming(ir.Constant(kind, [0.0] * kind.count), before)
    changed = step(i, sums)
    following = builder.add(i, ir.Constant(_I64, 1))
    i.add_incoming(following, loop)
    for total, value in zip(sums, changed, strict=True):
        total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
    builder.position_at_end(after)
    return changed


def _added(builder: Any, vector: Any) -> Any:
    """Return the sum of a vector's lanes in one order: lane i with lane i + 8, and so on by halves."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        lower, upper = (
            builder.shuffle_vector(
                vector,
                ir.Constant(vector.type, ir.Undefined),
                ir.Constant(ir.VectorType(_I32, half), list(range(start, start + half))),
            )
            for start in (0, half)
        )
        vector = builder.fadd(lower, upper)
    return builder.extract_element(vector, ir.Constant(_I32, 0))


def _row_starts(builder: Any, rows: Any, n: Any) -> list[Any]:
    """Return the addresses of a tile's rows of n singles, each with ROW_GAP behind it."""
    row_bytes = builder.mul(builder.add(n, ir.Constant(_I64, ROW_GAP)), ir.Constant(_I64, 4))
    return [
        builder.add(rows, builder.mul(row_bytes, ir.Constant(_I64, r))) for r in range(TILE_ROWS)
    ]


def _tile(n_vectors: int) -> Any:
    """Return the operation that multiplies a tile's rows with ``n_vectors`` vectors of patches."""
    vector = ir.VectorType(_F32, LANES)
    vector_bytes = 4 * LANES

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        rows, panel, n, out = args
        starts = _row_starts(builder, rows, n)

        def step(k: Any, sums: list[Any]) -> list[Any]:
            place = builder.mul(k, ir.Constant(_I64, n_vectors * vector_bytes))
            base = builder.add(panel, place)
            patches = [
                _at(builder, _plus(builder, base, v * vector_bytes), vector, 64)
                for v in range(n_vectors)
            ]
            offset = builder.mul(k, ir.Constant(_I64, 4))
            changed = []
            for r, start in enumerate(starts):
                value = _splat(builder, _at(builder, builder.add(start, offset), _F32, 4), LANES)
                for v, patch in enumerate(patches):
                    changed.append(_fused(builder, value, patch, sums[r * n_vectors + v]))
            return changed

        sums = _summed(builder, n, [vector] * (TILE_ROWS * n_vectors), step)
        for i, total in enumerate(sums):
            _put(builder, total, _plus(builder, out, i * vector_bytes), 64)
        return context.get_dummy_value()

    def definition(_context: Any, rows: Any, panel: Any, n: Any, out: Any) -> Any:
        """Write the products of TILE_ROWS rows of singles with a panel (n, n_vectors * 16) to ``out``."""
        return types.void(*[types.int64] * 4), build

    return _operation(definition)


narrow_tile = _tile(1)
"""``(rows, panel, n, out)``: products of a tile's rows of n singles with one vector of patches."""

wide_tile = _tile(TILE_VECTORS)
"""The same with TILE_VECTORS vectors of patches."""


@_operation
def lone_tile(_context: Any, rows: Any, patch: Any, n: Any, out: Any) -> Any:
    """Write the products of TILE_ROWS rows with one patch's row, all singles, 64 bytes apart to ``out``.

    For few patches, where most lanes of a panel would be empty: here lanes are numbers of the row.
    """
    vector = ir.VectorType(_F32, LANES)

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        rows, patch, n, out = args
        starts = _row_starts(builder, rows, n)

        def step(i: Any, sums: list[Any]) -> list[Any]:
            offset = builder.mul(i, ir.Constant(_I64, 4 * LANES))
            ours = _at(builder, builder.add(patch, offset), vector, 64)
            theirs = [_at(builder, builder.add(start, offset), vector, 64) for start in starts]
            return [_fused(builder, ours, row, s) for row, s in zip(theirs, sums, strict=True)]

        vectors = builder.sdiv(n, ir.Constant(_I64, LANES))
        for r, total in enumerate(_summed(builder, vectors, [vector] * TILE_ROWS, step)):
            _put(builder, _added(builder, total), _plus(builder, out, 4 * LANES * r), 4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build


@_operation
def reaching(_context: Any, products: Any, factor: Any, bounds: Any) -> Any:
    """Return 16 bits: which products at an address, times the single at another, reach their bounds."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        vector = ir.VectorType(_F32, LANES)
        factor = _splat(builder, _at(builder, args[1], _F32, 4), LANES)
        scaled = builder.fmul(_at(builder, args[0], vector, 64), factor)
        is_reached = builder.fcmp_ordered(">=", scaled, _at(builder, args[2], vector, 64))
        return builder.zext(builder.bitcast(is_reached, _I16), _I64)

    return types.int64(types.int64, types.int64, types.int64), build


@_operation
def exact_product(_context: Any, row: Any, query: Any, n: Any) -> Any:
    """Return the sum of the products of 16 n halves with 16 n doubles, in the one order."""
    doubles = ir.VectorType(_F64, _DOUBLE_LANES)

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        row, query, n = args

        def step(i: Any, sums: list[Any]) -> list[Any]:
            place = builder.add(row, builder.mul(i, ir.Constant(_I64, 2 * _DOUBLE_LANES)))
            ours = builder.fpext(_widened(builder, place, _DOUBLE_LANES), doubles)
            place = builder.add(query, builder.mul(i, ir.Constant(_I64, 8 * _DOUBLE_LANES)))
            return [_fused(builder, ours, _at(builder, place, doubles, 8), sums[0])]

        return _added(builder, _summed(builder, n, [doubles], step)[0])

    return types.float64(types.int64, types.int64, types.int64), build


@_operation
def exact_square(_context: Any, row: Any, n: Any) -> Any:
    """Return the sum of the squares of 16 n halves, in the one order."""
    doubles = ir.VectorType(_F64, _DOUBLE_LANES)

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        row, n = args

        def step(i: Any, sums: list[Any]) -> list[Any]:
            place = builder.add(row, builder.mul(i, ir.Constant(_I64, 2 * _DOUBLE_LANES)))
            ours = builder.fpext(_widened(builder, place, _DOUBLE_LANES), doubles)
            return [_fused(builder, ours, ours, sums[0])]

        return _added(builder, _summed(builder, n, [doubles], step)[0])

    return types.float64(types.int64, types.int64), build


@_operation
def double_at(_context: Any, address: Any, index: Any) -> Any:
    """Return the double at ``address + 8 * index``."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        place = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, 8)))
        return _at(builder, place, _F64, 8)

    return types.float64(types.int64, types.int64), build


@_operation
def put_single(_context: Any, address: Any, index: Any, value: Any) -> Any:
    """Store a double, rounded to a single, at ``address + 4 * index``."""

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        place = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, 4)))
        _put(builder, builder.fptrunc(args[2], _F32), place, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), build


@_operation
def put_double(_context: Any, address: Any, index: Any, value: Any) -> Any:
    """Store a double at ``address + 8 * index``."""

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        place = builder.add(args[0], builder.mul(args[1], ir.Constant(_I64, 8)))
        _put(builder, args[2], place, 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), build
