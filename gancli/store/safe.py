"""Validation of torch.save files before they are loaded: sizes are checked before allocation, and no code is run.

torch.load with `weights_only=True` runs no code, but trusts the sizes that a file states. So the pickle is first read
here with every name in it replaced by a harmless stand-in. Accepted are only the few instructions that torch.save
writes, storages as long as the bytes in the file, tensors inside their storages, and containers no larger than the
file.
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
LARGEST_ARRAYS = 1 << 28  # bytes of a pickle with NumPy arrays: a covariance of 2,048 features has 50 million
MOST_NODES, DEEPEST = 2_000_000, 64  # of containers' contents, counted at each reference; levels of nesting
OPCODES = frozenset(
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE"  # noqa: SIM905
    " EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS DICT LIST TUPLE"
    " GLOBAL REDUCE BUILD BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET FRAME".split()
)
NEW = "NEWOBJ"  # makes an object without its constructor: of a namespace, if these are accepted
ITEM = {
    "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}  # fmt: skip


_Python: Any = pickle._Unpickler


class UnsafeError(ValueError):
    """The file holds more than tensors and plain values, or states wrong sizes."""


class BrokenError(ValueError):
    """The file is not one of torch.save, or is truncated."""


class _Kind(NamedTuple):
    name: str


class _Storage(NamedTuple):
    key: str
    numbers: int


class _Tensor(NamedTuple):
    shape: tuple[int, ...]


class _Bytes(NamedTuple):
    length: int


class _Kinds(NamedTuple):
    """What is accepted beside tensors and plain values."""

    arrays: bool
    namespaces: bool


class _Namespace:
    """A namespace, whose names must be plain: the real one has no methods that they could replace."""

    state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or any(not isinstance(k, str) or k.startswith("_") for k in state):
            raise UnsafeError("a namespace without plain names")
        self.state = state


def examine(file: IO[bytes], legacy: bool = False, arrays: bool = False, namespaces: bool = False) -> Any:
    """Raise BrokenError or UnsafeError unless a file of torch.save is safe to load; afterwards seek to its start.

    Returns its content with stand-ins for tensors. legacy: whether to accept files from before torch 1.6, which are not
    zip archives. arrays: whether to accept NumPy arrays of numbers. namespaces: whether to accept argparse's, of plain
    values. A zip archive's checksums are left to `intact`.
    """
    kinds = _Kinds(arrays, namespaces)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        start = file.read(4)
        file.seek(0)
        if start == b"PK\x03\x04" and zipfile.is_zipfile(file):
            return _examine_zip(file, size, kinds)
        if zipfile.is_zipfile(file):  # torch.load decides by the first bytes, and would read another file than zipfile
            raise UnsafeError("an archive behind other content")
        file.seek(0)
        if legacy:
            return _examine_legacy(file, size, kinds)
        raise BrokenError("not a zip archive")
    except (UnsafeError, BrokenError):
        raise
    except pickle.UnpicklingError as error:
        raise UnsafeError(str(error)) from None
    except Exception as error:  # pickle, pickletools and zipfile raise a dozen kinds for a damaged or hostile file
        raise BrokenError(f"damaged: {plain(error)}") from None
    finally:
        file.seek(0)


def intact(file: IO[bytes]) -> bool:
    """Whether every record of a zip archive matches its checksum."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:  # as above
        return False
    finally:
        file.seek(0)


def _examine_zip(file: IO[bytes], size: int, kinds: _Kinds) -> Any:
    """Validate the names, sizes and pickle of an archive whose records are all uncompressed."""
    file.seek(max(0, size - 22))
    end = file.read(22)
    if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":  # else readers disagree on what the archive is
        raise BrokenError("bytes after the archive's end")
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        tops = {name.split("/")[0] for name in names}
        if len(set(names)) != len(names) or len(tops) != 1:
            raise UnsafeError("records that share a name or have no common folder")
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
        largest = LARGEST_ARRAYS if kinds.arrays else LARGEST_PICKLE
        if sizes["data.pkl"] > largest:
            raise UnsafeError(f"a pickle of over {largest >> 20} MiB")
        held = {name[len("data/") :]: count for name, count in sizes.items() if name.startswith("data/")}
        return _walked(_read(io.BytesIO(archive.read(f"{top}/data.pkl")), held, size, kinds))


def _examine_legacy(file: IO[bytes], size: int, kinds: _Kinds) -> Any:
    """Validate the five pickles at the start of a file from before torch 1.6; the fourth is the content."""
    file.seek(0)
    return [_walked(_read(file, None, size, kinds)) for _ in range(5)][3]


def _read(file: IO[bytes], held: dict[str, int] | None, size: int, kinds: _Kinds) -> Any:
    """Read one pickle with stand-ins. held: bytes of each storage; None: they follow in the file of `size` bytes."""
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name not in OPCODES and not (kinds.namespaces and opcode.name == NEW):
            raise UnsafeError(f"an instruction {opcode.name}")
        # A pickle numbers its memo; C code allocates up to the largest number.
        if opcode.name == "LONG_BINPUT" and (not isinstance(argument, int) or argument > count):
            raise UnsafeError("a memo that is larger than its contents")
        if count > LARGEST_PICKLE:
            raise UnsafeError("too many instructions")
    end = file.tell()
    file.seek(start)
    pickled = io.BytesIO(file.read(end - start))  # separate, since C code reads ahead
    return _Reader(pickled, held, size, kinds).load()


class _Reader(_Python):  # type: ignore[misc]
    """An unpickler whose names are stand-ins.

    It extends the Python implementation, in which keys can be checked before they are hashed: a tuple of tuples that
    share their parts takes forever to hash.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_Python.dispatch)

    def __init__(self, file: IO[bytes], held: dict[str, int] | None, size: int, kinds: _Kinds):
        super().__init__(file)
        self.held, self.size, self.kinds = held, size, kinds
        self.known: dict[str, int] = {}

    def load_setitem(self) -> None:
        """Add one pair to a dictionary."""
        _plain_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Add pairs to a dictionary."""
        _plain_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """Build a dictionary of pairs."""
        _plain_keys(self.stack[::2])
        super().load_dict()

    def load_newobj(self) -> None:
        """Make an empty namespace."""
        if self.stack[-2:] != [_Namespace, ()]:
            raise UnsafeError("an object other than a namespace")
        super().load_newobj()

    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for each of the few names that torch.save writes for tensors."""
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _tensor if name == "_rebuild_tensor_v2" else _parameter
        if module == "torch" and name in ITEM:
            return _Kind(name)
        if self.kinds.namespaces and (module, name) == ("argparse", "Namespace"):
            return _Namespace
        if self.kinds.arrays and (module, name) in ARRAYS:
            return ARRAYS[module, name]
        raise UnsafeError(f"{module}.{name}"[:100])

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage, once its size is verified."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise UnsafeError("a reference to something other than a storage")
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
    """Return an empty dictionary; torch.save fills it pair by pair."""
    if pairs:
        raise UnsafeError("a dictionary that is not filled pair by pair")
    return OrderedDict()


class _Dtype:
    """The dtype of an array, by NumPy's short code."""

    def __init__(self, word: Any, *options: Any):
        if word not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise UnsafeError(f"an array of {str(word)[:20]!r}")
        self.bytes = int(word[1:])

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[1:2] not in (("<",), ("|",), (">",), ("=",)) or state[2] is not None:
            raise UnsafeError("an array of more than plain numbers")


class _Array:
    """An array, once its content is verified to have the size of its shape."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, _, content = state
        if not isinstance(shape, tuple) or not all(map(_natural, shape)) or not isinstance(kind, _Dtype):
            raise UnsafeError("an array without a shape or a kind")
        if not isinstance(content, _Bytes) or content.length != prod(shape) * kind.bytes:
            raise UnsafeError(f"an array {list(shape)} with content of another size")


def _reconstruct(kind: Any, shape: Any, word: Any) -> _Array:
    return _Array()


def _encode(text: Any, coding: Any) -> _Bytes:
    if not isinstance(text, str) or coding != "latin1":
        raise UnsafeError("bytes in another encoding than an array's")
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
    """Return a tensor, verified to be inside its storage and to have no more numbers than that."""
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


def _walked(value: Any) -> Any:
    """Return the value. Raises UnsafeError for containers that expand to more than memory holds, or without end."""
    queue, seen = [(value, 0)], 0
    while queue:
        node, depth = queue.pop()
        seen += 1
        if seen > MOST_NODES or depth > DEEPEST:
            raise UnsafeError("containers that expand without end")
        node = vars(node) if isinstance(node, _Namespace) else node
        if isinstance(node, dict):
            queue += [(part, depth + 1) for pair in node.items() for part in pair]
        elif isinstance(node, (list, tuple)) and not isinstance(node, (_Tensor, _Storage, _Kind)):
            queue += [(part, depth + 1) for part in node]
    return value
