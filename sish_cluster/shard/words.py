"""Machine words: counting bits, finding the first and last bit, reading memory by address.

Kernels see trees and segments as addresses (int64), so that one compiled kernel serves any number of
segments of any size. Whoever calls a kernel keeps the arrays behind the addresses alive. Words are
int64 throughout: only their bits matter, and numba turns mixed signs into floats. numba declares that
its own sums and products never overflow: masks are made by shifts, and `mixed_bits` multiplies itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

CACHE_LINE_BYTES = 64
"""Arrays that kernels stream start at a multiple of this, so that a row touches the fewest lines."""

_MIX_FIRST = 0x9E3779B97F4A7C15
_MIX_SECOND = 0xC4CEB9FE1A85EC53
"""Odd multipliers of `mixed_bits`: 2**64 over the golden ratio, and one of MurmurHash3's finaliser."""

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_I16 = ir.IntType(16)


def _operation(definition: Callable[..., Any]) -> Any:
    """Return the numba intrinsic of a definition, untyped: only kernels call it."""
    return intrinsic(definition)


@_operation
def popcount(_context: Any, word: Any) -> Any:
    """Return the number of set bits of an int64."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), build


@_operation
def first_bit(_context: Any, word: Any) -> Any:
    """Return the position of the lowest set bit of an int64 that is not 0."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


@_operation
def last_bit(_context: Any, word: Any) -> Any:
    """Return the position of the highest set bit of an int64 that is not 0."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        leading = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(_I64, 63), leading)

    return types.int64(types.int64), build


def _pointer(builder: Any, args: Any, kind: Any) -> Any:
    base = builder.inttoptr(args[0], kind.as_pointer())
    return builder.gep(base, [args[1]])


@_operation
def word_at(_context: Any, address: Any, index: Any) -> Any:
    """Return the int64 at ``address + 8 * index``."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args, _I64))

    return types.int64(types.int64, types.int64), build


@_operation
def half_at(_context: Any, address: Any, index: Any) -> Any:
    """Return the uint32 at ``address + 4 * index``, as int64."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args, _I32)), _I64)

    return types.int64(types.int64, types.int64), build


@_operation
def short_at(_context: Any, address: Any, index: Any) -> Any:
    """Return the uint16 at ``address + 2 * index``, as int64."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args, _I16)), _I64)

    return types.int64(types.int64, types.int64), build


@_operation
def byte_at(_context: Any, address: Any, index: Any) -> Any:
    """Return the byte at ``address + index``, as int64."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args, ir.IntType(8))), _I64)

    return types.int64(types.int64, types.int64), build


@_operation
def put_word(_context: Any, address: Any, index: Any, word: Any) -> Any:
    """Store an int64 at ``address + 8 * index``."""

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args, _I64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@_operation
def put_half(_context: Any, address: Any, index: Any, word: Any) -> Any:
    """Store the lower 32 bits of an int64 at ``address + 4 * index``."""

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[2], _I32), _pointer(builder, args, _I32))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@_operation
def put_short(_context: Any, address: Any, index: Any, word: Any) -> Any:
    """Store the lower 16 bits of an int64 at ``address + 2 * index``."""

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[2], _I16), _pointer(builder, args, _I16))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@_operation
def mixed_bits(_context: Any, word: Any) -> Any:
    """Return 32 well-mixed bits of an int64; numba's own product may not overflow, this one may."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        half = ir.Constant(_I64, 32)
        first = builder.mul(args[0], ir.Constant(_I64, _MIX_FIRST))
        folded = builder.xor(first, builder.lshr(first, half))
        return builder.lshr(builder.mul(folded, ir.Constant(_I64, _MIX_SECOND)), half)

    return types.int64(types.int64), build


def _full_add(builder: Any, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """Return the sum and carry bits of three words, bit by bit."""
    half = builder.xor(a, b)
    carry = builder.or_(builder.and_(a, b), builder.and_(half, c))
    return builder.xor(half, c), carry


@_operation
def four_heads_near(_context: Any, heads: Any, query: Any, bound: Any) -> Any:
    """Return four bits: which of four heads are within ``bound`` of a query's head.

    ``heads`` is the address of four interleaved heads (word 0 of all four, word 1 of all four, ...),
    ``query`` a tuple of the query's seven words. Full adders turn seven words into their ones, twos and
    fours, so that only three words per head are counted; a vector holds one word of all four heads.
    """
    seven: Any = types.UniTuple(types.int64, 7)  # type: ignore[no-untyped-call]
    signature = types.int64(types.int64, seven, types.int64)

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        four = ir.VectorType(_I64, 4)

        def splat(word: Any) -> Any:
            one = builder.insert_element(
                ir.Constant(four, ir.Undefined), word, ir.Constant(_I32, 0)
            )
            lanes = ir.Constant(ir.VectorType(_I32, 4), [0, 0, 0, 0])
            return builder.shuffle_vector(one, ir.Constant(four, ir.Undefined), lanes)

        base = builder.inttoptr(args[0], four.as_pointer())
        differing = []
        for w in range(7):
            code = builder.load(builder.gep(base, [ir.Constant(_I64, w)]), align=8)
            differing.append(builder.xor(code, splat(builder.extract_value(args[1], w))))
        ones_a, twos_a = _full_add(builder, *differing[0:3])
        ones_b, twos_b = _full_add(builder, *differing[3:6])
        ones, twos_c = _full_add(builder, ones_a, ones_b, differing[6])
        twos, fours = _full_add(builder, twos_a, twos_b, twos_c)
        kind = ir.FunctionType(four, [four])
        declare: Any = cgutils.get_or_insert_function
        counted = declare(builder.module, kind, "llvm.ctpop.v4i64")
        n_ones, n_twos, n_fours = (builder.call(counted, [word]) for word in (ones, twos, fours))
        upper = builder.add(builder.add(n_fours, n_fours), n_twos)
        distances = builder.add(builder.add(upper, upper), n_ones)
        is_near = builder.icmp_signed("<=", distances, splat(args[2]))
        return builder.zext(builder.bitcast(is_near, ir.IntType(4)), _I64)

    return signature, build


@_operation
def prefetch(_context: Any, address: Any) -> Any:
    """Ask the processor to bring the cache line at ``address``; never faults."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        flags = [ir.Constant(_I32, value) for value in (0, 3, 1)]
        builder.call(function, [builder.inttoptr(args[0], byte), *flags])
        return _c.get_dummy_value()

    return types.void(types.int64), build


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an uninitialised array whose first element starts a cache line."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(n_bytes + CACHE_LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE_BYTES
    return raw[start : start + n_bytes].view(dtype).reshape(shape)
