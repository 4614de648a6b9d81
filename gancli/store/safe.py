"""What a file of torch.save claims to hold, found out before anything of it is allocated or run.

torch.load with `weights_only=True` runs no code, but believes the sizes that a file states. So the pickle is read here
first, with every name in it replaced by a harmless stand-in: its instructions are of the few kinds that torch.save
writes, its storages are as long as the bytes that are there, its tensors lie inside their storages, and its containers
are no larger than the file they come from.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import IO, Any, ClassVar, NamedTuple

from gancli.errors import plain

LARGEST_PICKLE = 1 << 23  # bytes; a checkpoint of three thousand tensors has half a million
LARGEST_ARRAYS = 1 << 28  # bytes of a pickle that holds NumPy's arrays: a covariance of 2,048 features has 50 million
MOST_NODES, DEEPEST = 2_000_000, 64  # of containers' contents, however often a file names the same one
OPCODES = frozenset(
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE"  # noqa: SIM905
    " EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS DICT LIST TUPLE"
    " GLOBAL REDUCE BUILD BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET FRAME".split()
)
ITEM = {
    "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}  # fmt: skip


_Python: Any = pickle._Unpickler


class UnsafeError(ValueError):
    """More than tensors and plain values, or sizes that the file does not have."""


class BrokenError(ValueError):
    """No such file, or one that was cut short."""


class _Kind(NamedTuple):
    name: str


class _Storage(NamedTuple):
    key: str
    numbers: int


class _Tensor(NamedTuple):
    shape: tuple[int, ...]


class _Bytes(NamedTuple):
    length: int


def examine(file: IO[bytes], legacy: bool = False, arrays: bool = False) -> None:
    """Raise BrokenError or UnsafeError unless a file of torch.save may be loaded; afterwards it stands at its start.

    legacy: whether files from before torch 1.6, which are no zip archives, may pass. arrays: whether NumPy's arrays of
    numbers may. A zip archive's check sums are left to `intact`.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        if zipfile.is_zipfile(file):
            _examine_zip(file, size, arrays)
        elif legacy:
            _examine_legacy(file, size, arrays)
        else:
            raise BrokenError("no zip archive")
    except (UnsafeError, BrokenError):
        raise
    except pickle.UnpicklingError as error:
        raise UnsafeError(str(error)) from None
    except Exception as error:  # pickle, pickletools and zipfile raise a dozen kinds for a damaged or hostile file
        raise BrokenError(f"damaged: {plain(error)}") from None
    finally:
        file.seek(0)


def intact(file: IO[bytes]) -> bool:
    """Whether every record of a zip archive has its check sum."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:  # as above
        return False
    finally:
        file.seek(0)


def _examine_zip(file: IO[bytes], size: int, arrays: bool) -> None:
    """Names, sizes and the pickle of an archive whose records are all stored as they are."""
    file.seek(max(0, size - 22))
    end = file.read(22)
    if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":  # where all readers agree on what the archive is
        raise BrokenError("bytes behind the archive's end")
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        tops = {name.split("/")[0] for name in names}
        if len(set(names)) != len(names) or len(tops) != 1:
            raise UnsafeError("records that share a name, or lie apart")
        for record in records:
            parts = record.filename.split("/")
            if ".." in parts or "" in parts or "\\" in record.filename or ":" in record.filename or len(parts) < 2:
                raise UnsafeError(f"a record with the path {record.filename[:80]!r}")
            if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                raise UnsafeError("compressed records, which torch.save does not write")
        if sum(record.file_size for record in records) > size:
            raise UnsafeError("records that are larger than the file")
        (top,) = tops
        sizes = {record.filename[len(top) + 1 :]: record.file_size for record in records}
        if "data.pkl" not in sizes:
            raise BrokenError("no data.pkl")
        largest = LARGEST_ARRAYS if arrays else LARGEST_PICKLE
        if sizes["data.pkl"] > largest:
            raise UnsafeError(f"a pickle of over {largest >> 20} MiB")
        held = {name[len("data/") :]: count for name, count in sizes.items() if name.startswith("data/")}
        _walk(_read(io.BytesIO(archive.read(f"{top}/data.pkl")), held, size, arrays))


def _examine_legacy(file: IO[bytes], size: int, arrays: bool) -> None:
    """The five pickles at the beginning of a file from before torch 1.6."""
    file.seek(0)
    for _ in range(5):
        _walk(_read(file, None, size, arrays))


def _read(file: IO[bytes], held: dict[str, int] | None, size: int, arrays: bool) -> Any:
    """One pickle with stand-ins. held: bytes of each storage; None: they follow, all in one file of `size` bytes."""
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name not in OPCODES:
            raise UnsafeError(f"an instruction {opcode.name}")
        # A pickle numbers what it remembers; C code makes room for the largest number.
        if opcode.name == "LONG_BINPUT" and (not isinstance(argument, int) or argument > count):
            raise UnsafeError("a memory that is larger than its contents")
        if count > LARGEST_PICKLE:
            raise UnsafeError("too many instructions")
    end = file.tell()
    file.seek(start)
    pickled = io.BytesIO(file.read(end - start))  # of its own, since C code reads ahead
    return _Reader(pickled, held, size, arrays).load()


class _Reader(_Python):  # type: ignore[misc]
    """Reads a pickle whose names are stand-ins.

    By the reader in Python, which lets keys be looked at before they are hashed: a tuple of tuples that share their
    parts takes for ever to hash.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_Python.dispatch)

    def __init__(self, file: IO[bytes], held: dict[str, int] | None, size: int, arrays: bool):
        super().__init__(file)
        self.held, self.size, self.arrays = held, size, arrays
        self.known: dict[str, int] = {}

    def load_setitem(self) -> None:
        """One pair for a dictionary."""
        _plain_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Pairs for a dictionary."""
        _plain_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """A dictionary of pairs."""
        _plain_keys(self.stack[::2])
        super().load_dict()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for each of the few names that tensors are written with."""
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _tensor if name == "_rebuild_tensor_v2" else _parameter
        if module == "torch" and name in ITEM:
            return _Kind(name)
        if self.arrays and (module, name) in ARRAYS:
            return ARRAYS[module, name]
        raise UnsafeError(f"{module}.{name}"[:100])

    def persistent_load(self, pid: Any) -> Any:
        """A storage, once its size is known to be true."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise UnsafeError("a reference to something that is no storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, _Kind) or not isinstance(key, str) or not _natural(count):
            raise UnsafeError("a storage without a kind, name or size")
        wanted = count * ITEM[kind.name]
        if self.held is not None and self.held.get(key) != wanted:
            raise UnsafeError(f"a storage of {wanted:,} bytes, where the file has {self.held.get(key, 0):,}")
        self.known[key] = wanted
        if self.held is None and sum(self.known.values()) > self.size:
            raise UnsafeError("storages that are larger than the file")
        return _Storage(key, count)


def _plain_keys(keys: list[Any]) -> None:
    if not all(isinstance(key, (str, int, float)) for key in keys):
        raise UnsafeError("a dictionary with a key that is neither a name nor a number")


def _ordered(*pairs: Any) -> OrderedDict[Any, Any]:
    """An empty dictionary; torch.save fills it pair by pair."""
    if pairs:
        raise UnsafeError("a dictionary made of something else than pairs one by one")
    return OrderedDict()


class _Dtype:
    """A kind of numbers, by NumPy's short word for it."""

    def __init__(self, word: Any, *options: Any):
        if word not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise UnsafeError(f"an array of {str(word)[:20]!r}")
        self.bytes = int(word[1:])

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[1:2] not in (("<",), ("|",), (">",), ("=",)) or state[2] is not None:
            raise UnsafeError("an array of more than plain numbers")


class _Array:
    """An array, once its content is as large as it says."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, _, content = state
        if not isinstance(shape, tuple) or not all(map(_natural, shape)) or not isinstance(kind, _Dtype):
            raise UnsafeError("an array without a shape or a kind")
        if not isinstance(content, _Bytes) or content.length != prod(shape) * kind.bytes:
            raise UnsafeError(f"an array {list(shape)} over other content than it says")


def _reconstruct(kind: Any, shape: Any, word: Any) -> _Array:
    return _Array()


def _encode(text: Any, coding: Any) -> _Bytes:
    if not isinstance(text, str) or coding != "latin1":
        raise UnsafeError("bytes in another coding than an array's")
    return _Bytes(len(text))


ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Kind("ndarray"),
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


def _natural(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> _Tensor:
    """A tensor that lies inside its storage and names no number of it twice."""
    sizes = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride)
    if not isinstance(storage, _Storage) or not sizes or not all(map(_natural, (offset, *shape, *stride))):
        raise UnsafeError("a tensor without a storage, shape or stride")
    count = prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count and (count > storage.numbers or last >= storage.numbers):
        raise UnsafeError(f"a tensor {list(shape)} over a storage of {storage.numbers:,} numbers")
    return _Tensor(shape)


def _parameter(data: Any, *rest: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise UnsafeError("a parameter without a tensor")
    return data


def _walk(value: Any) -> None:
    """Raise UnsafeError for containers that unfold to more than a memory holds, or without end."""
    queue, seen = [(value, 0)], 0
    while queue:
        node, depth = queue.pop()
        seen += 1
        if seen > MOST_NODES or depth > DEEPEST:
            raise UnsafeError("containers that repeat each other without end")
        if isinstance(node, dict):
            queue += [(part, depth + 1) for pair in node.items() for part in pair]
        elif isinstance(node, (list, tuple)) and not isinstance(node, (_Tensor, _Storage, _Kind)):
            queue += [(part, depth + 1) for part in node]
