"""Texture codes as published files spell them: texts of '0' and '1', bit 0 first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sish_cluster.core.code import Codes, packed, unpacked
from sish_cluster.core.errors import BadFile


def codes_of_texts(texts: Sequence[object], *, code_bits: int, source: str) -> Codes:
    """Return packed codes (n, code_bytes) of n texts.

    Parameters
    ----------
    texts
        Each of ``code_bits`` characters '0' and '1'.
    source
        File and place, for messages.

    Raises
    ------
    BadFile
        Naming the first row that is anything else.

    Examples
    --------
    >>> bin(codes_of_texts(["0011"], code_bits=4, source="a.pkl")[0, 0])
    '0b110000'
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str) or len(text) != code_bits or set(text) - {"0", "1"}:
            raise BadFile(
                f"{source}, row {row}: found {_told(text)}, expected a code of {code_bits} characters"
                " '0' and '1' (--code-bits says how many)"
            )
    joined = "".join(map(str, texts)).encode("ascii")
    bits = np.frombuffer(joined, np.uint8).reshape(len(texts), code_bits) - ord("0")
    return packed(bits)


def _told(text: object) -> str:
    if not isinstance(text, str):
        return f"a {type(text).__name__}"
    others = sorted(set(text) - {"0", "1"})
    return f"{len(text)} characters" + (f" with {others[0]!r}" if others else "")


def texts_of_codes(codes: Codes, *, code_bits: int) -> list[str]:
    """Return packed codes as texts, `codes_of_texts`' inverse."""
    digits = unpacked(codes, code_bits=code_bits) + np.uint8(ord("0"))
    return [row.tobytes().decode("ascii") for row in digits]
