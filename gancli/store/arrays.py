"""Headers of NumPy arrays in files from others: the size that they state is compared with the real one."""

from __future__ import annotations

import math
from typing import IO, Any

import numpy as np


def header(file: IO[bytes], name: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: its shape, whether columns come first, and its dtype.

    name: for the message. size: bytes of the entry, whose start the file is at. Raises ValueError if the header states
    another number of bytes than follow it; arrays of objects, which callers refuse, are not measured.

    >>> import io
    >>> entry = io.BytesIO()
    >>> np.save(entry, np.arange(3.0))
    >>> entry.seek(0), header(entry, "a", entry.getbuffer().nbytes)
    (0, ((3,), False, dtype('float64')))
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, kind = read(file)
    held = size - file.tell()
    if not kind.hasobject and math.prod(shape) * kind.itemsize != held:
        raise ValueError(f"{name} has the header {list(shape)} of {kind}, but {held:,} bytes of data")
    return shape, by_columns, kind
