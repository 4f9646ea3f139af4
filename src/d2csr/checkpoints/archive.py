"""Safe reading of files of ``torch.save``: zip archive and pickle are checked before tensors are made."""

from __future__ import annotations

import math
import struct
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from d2csr.checkpoints.pickle_reader import Name, PickleError, Record, make_records, read_pickle
from d2csr.errors import CheckpointError, one_line

MAX_DIRECTORY = 8 * 2**20  # bytes of the zip directory; about 80,000 tensors
MAX_PICKLE = 32 * 2**20  # bytes of data.pkl; a checkpoint of the paper's network has 0.3 MB
MAX_OPCODES = 1_000_000  # of data.pkl; 1,000 processes keep 640,000 numbers of random state

_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


class _Storage(Record):
    def __init__(self, key: str, dtype: torch.dtype, length: int) -> None:
        self.key, self.dtype, self.length = key, dtype, length


class _TensorRecord(Record):
    """Tensor within a storage: no two of its elements share memory, and all lie inside."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, *ignored: Any) -> None:
        if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
            raise PickleError("a malformed tensor")
        numbers = (offset, *shape, *strides)
        if len(shape) != len(strides) or len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**40 for n in numbers):
            raise PickleError("a tensor with an impossible shape")
        span = 1  # of the dimensions so far, from the innermost to the outermost
        for stride, size in sorted(zip(strides, shape, strict=True)):
            if size > 1:
                if stride < span:
                    raise PickleError("a tensor whose elements share memory")
                span = stride * (size - 1) + span
        if offset + (span if math.prod(shape) else 0) > storage.length:
            raise PickleError("a tensor that exceeds its storage")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
        self.nbytes = math.prod(shape) * storage.dtype.itemsize


def _as_parameter(tensor: Any, *ignored: Any) -> _TensorRecord:
    if not isinstance(tensor, _TensorRecord):
        raise PickleError("a parameter that is not a tensor")
    return tensor


def _same(value: Any = None, *ignored: Any) -> Any:
    return value


_NAMES = {
    **{("torch", f"{name}Storage"): None for name in _DTYPES},
    **{("torch", str(dtype).removeprefix("torch.")): None for dtype in _DTYPES.values()},
    ("torch._utils", "_rebuild_tensor_v2"): _TensorRecord,
    ("torch._utils", "_rebuild_parameter"): _as_parameter,
    ("torch", "Size"): _same,
    ("torch", "device"): _same,
    ("collections", "Counter"): _same,  # a scheduler's milestones
}


def read_archive(path: Path, wanted: tuple[str, ...]) -> Any:
    """Return the wanted entries of the dict that ``torch.save`` wrote; raise a CheckpointError if any is refused."""
    try:
        with path.open("rb") as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                return _Reader(file, archive).read(wanted)
    except Exception as error:  # OSError, zip errors, PickleError, RuntimeError: by how the file is broken
        reason = one_line(error, 300) or type(error).__name__
        raise CheckpointError(f"{path}: a broken or foreign checkpoint ({reason}).") from None


class _Reader:
    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = file.seek(0, 2)  # bytes that tensors may still have
        self._folder = archive.infolist()[0].filename.partition("/")[0]
        self._sizes = {member.filename: member.file_size for member in archive.infolist()}
        _check_members(file, archive, self._left)
        self._buffers: dict[str, bytearray] = {}

    def read(self, wanted: tuple[str, ...]) -> Any:
        if f"{self._folder}/byteorder" in self._sizes and self._member("byteorder", 16).decode() != sys.byteorder:
            raise PickleError("it was written on a machine of another byte order")
        data = self._member("data.pkl", MAX_PICKLE)
        content = read_pickle(data, _NAMES, max_opcodes=MAX_OPCODES, persistent=self._storage)
        # After the pickle, since it reads the whole file; also the storages that are not wanted, to find any damage.
        if damaged := self._archive.testzip():
            raise zipfile.BadZipFile(f"the check sum of {damaged} is wrong")
        if not isinstance(content, dict):
            return make_records(content, self._checked)
        made = {
            key: make_records(value, self._tensor if key in wanted else self._checked) for key, value in content.items()
        }
        return {key: made[key] for key in wanted if key in made}

    def _member(self, name: str, most: int) -> bytes:
        """Return the content of a member; raise a PickleError if it has more than ``most`` bytes."""
        if self._sizes.get(f"{self._folder}/{name}", 0) > most:
            raise PickleError(f"its {name} has more than {most:,} bytes")
        return self._archive.read(f"{self._folder}/{name}")

    def _storage(self, identity: Any) -> _Storage:
        """Return the record of a storage, whose size must be that of its member."""
        match identity:
            case ("storage", Name(module="torch", name=kind), str(key), str(), int(length)) if kind.endswith("Storage"):
                dtype = _DTYPES[kind.removesuffix("Storage")]
                if self._sizes.get(f"{self._folder}/data/{key}") == length * dtype.itemsize:
                    return _Storage(key, dtype, length)
        raise PickleError("a storage without a member of its size")

    def _checked(self, record: Record | Name) -> _TensorRecord | str:
        """Return a tensor's record, whose bytes the file has, or the text of a name."""
        if isinstance(record, Name):
            return str(record)
        if not isinstance(record, _TensorRecord):
            raise PickleError("a storage outside a tensor")
        self._left -= record.nbytes
        if self._left < 0:
            raise PickleError("tensors that amount to more bytes than the file has")
        return record

    def _tensor(self, record: Record | Name) -> Tensor | str:
        """Return a tensor from its record, or the text of a name."""
        checked = self._checked(record)
        if isinstance(checked, str):
            return checked
        storage = checked.storage
        if not checked.nbytes:
            return torch.empty(checked.shape, dtype=storage.dtype)
        if storage.key not in self._buffers:
            size = storage.length * storage.dtype.itemsize
            self._buffers[storage.key] = bytearray(self._member(f"data/{storage.key}", size))
        flat = torch.frombuffer(self._buffers[storage.key], dtype=storage.dtype)
        return flat.as_strided(checked.shape, checked.strides, checked.offset)


def _check_directory(file: IO[bytes]) -> None:
    """Bound the zip directory by its end record, before :mod:`zipfile` makes an object of each entry."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 98))
    tail = file.read()
    end = tail[-22:]
    if len(end) < 22 or not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise zipfile.BadZipFile("it is cut off or has something behind its end")
    length = struct.unpack("<L", end[12:16])[0]
    if tail[-42:-38] == b"PK\6\7":
        if len(tail) < 98 or tail[:4] != b"PK\6\6":
            raise zipfile.BadZipFile("its directory is malformed")
        length = max(0 if length == 0xFFFFFFFF else length, struct.unpack("<Q", tail[40:48])[0])
    if length > min(size, MAX_DIRECTORY):
        raise zipfile.BadZipFile(f"its directory has {length:,} bytes")


def _check_members(file: IO[bytes], archive: zipfile.ZipFile, size: int) -> None:
    """Check that the members are stored as they are, each once, one behind the other, inside the file."""
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    folder = members[0].filename.partition("/")[0]
    end = 0
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise zipfile.BadZipFile("it is compressed")
        if member.flag_bits & 1 or not member.filename.startswith(f"{folder}/"):
            raise zipfile.BadZipFile(f"it has the member {member.filename[:100]!r}")
        if member.header_offset < end or (end == 0 and member.header_offset > 0):
            raise zipfile.BadZipFile("its members overlap")
        file.seek(member.header_offset + 26)
        end = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + member.file_size
        if end > size:
            raise zipfile.BadZipFile("its members exceed the file")
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("it has two members of the same name")
