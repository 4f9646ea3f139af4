"""Caches of decoded images in memory and on disk, which processes share.

Colours are in three planes, 3×H×W, as in a batch: separating interleaved colours takes three times as long as copying
planes.
"""

from __future__ import annotations

import hashlib
import io
import logging
import mmap
import os
import shutil
import weakref
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from d2csr.data.image_index import ImageFile
from d2csr.data.images import read_rgb
from d2csr.errors import DataError
from d2csr.files import atomic_write, cores, each, file_lock, require_regular_file, user_path

log = logging.getLogger(__name__)

_FORMAT = 2  # part of each name: changes with the file format and with the pixels that read_rgb returns
_CHECKSUM_BYTES = 4
_CHANGED = "was changed during the run; restore it, or start again."
_ELSEWHERE = "name another folder by data.cache_dir=…, or keep no copies by data.cache=none"


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Return ``cache_dir``, ``$D2CSR_CACHE_DIR``, or ``d2csr`` in the user's cache folder."""
    named = cache_dir or os.environ.get("D2CSR_CACHE_DIR")
    return user_path(named).absolute() if named else user_cache_path("d2csr", appauthor=False)


_memory_caches: weakref.WeakSet[MemoryCache] = weakref.WeakSet()


def shared_descriptors() -> list[int]:
    """Return the descriptors that a process has to inherit before it can unpickle the caches of this one."""
    return [cache.descriptor for cache in _memory_caches]


class MemoryCache:
    """Decoded images in a file of :func:`~d2csr.data.shared_memory.memory_file`, whose descriptor a pickle holds."""

    def __init__(self, files: Sequence[ImageFile], descriptor: int) -> None:
        self._files, self.descriptor = files, descriptor
        ends = list(accumulate(3 * file.height * file.width for file in files))
        os.ftruncate(descriptor, ends[-1])
        parts = np.split(np.frombuffer(mmap.mmap(descriptor, 0), np.uint8), ends[:-1])
        self._images = {file.path: _image(part, file) for file, part in zip(files, parts, strict=True)}
        weakref.finalize(self, os.close, descriptor)
        _memory_caches.add(self)

    def fill(self, files: Sequence[ImageFile]) -> dict[str, str]:
        """Decode these of the images, and return problems by the path of the image."""
        return _store_all(self._store, files)

    def read(self, file: ImageFile) -> np.ndarray:
        """Return an image, H×W×3 uint8."""
        return self._images[file.path]

    def _store(self, file: ImageFile) -> None:
        self.read(file)[:] = decode(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryCache, (self._files, self.descriptor)


class DiskCache:
    """Decoded images in the folder ``images`` of the cache, memory-mapped by all processes of a machine.

    Each entry is named by the path, size, time of change and inode of its source: a changed image has another name.
    Nothing is deleted. An entry is NumPy's ``.npy`` with a CRC-32 of the pixels after the array.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / "images"

    def fill(self, files: Sequence[ImageFile]) -> dict[str, str]:
        """Decode the images whose entry is missing or damaged, and return problems by the path of the image.

        Of several processes one decodes and the others wait; without file locks all decode, which is slower but safe.

        Raises:
            DataError: the folder cannot be written to, or the disk is full.
        """
        missing = self._missing(files)
        if not missing:
            return {}
        with file_lock(self.folder / "images.lock", "decoding images"):
            missing = self._missing(missing)  # another process may have decoded them
            try:
                return self._decode(missing) if missing else {}
            except OSError as error:
                raise DataError(
                    f"{self.folder}: decoded images cannot be written there ({error.strerror}); {_ELSEWHERE}."
                ) from None

    def name(self, file: ImageFile) -> str:
        """Return the path of an image's entry, relative to :attr:`folder`."""
        source = f"{_FORMAT}\0{file.path}\0{file.stored}\0{file.modified}\0{file.inode}"
        digest = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:40]
        return f"{digest[:2]}/{digest[2:]}.npy"

    def read(self, file: ImageFile) -> np.ndarray:
        """Map an image, H×W×3 uint8; raise OSError if its entry is missing, ValueError if it has another size.

        Maps are not kept: a large set has more files than a process may map.
        """
        # A Path takes as long as all the rest. Without waiting, in case that a FIFO took the place of the entry.
        descriptor = os.open(f"{self.folder}/{self.name(file)}", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        if len(content) != _bytes(file):
            raise ValueError(f"{file.path}: its entry in the cache has another size")
        return _image(np.frombuffer(content, np.uint8)[len(_header(*file.size)) : -_CHECKSUM_BYTES], file)

    def _missing(self, files: Sequence[ImageFile]) -> list[ImageFile]:
        valid = each(self._holds, files, label="checking the cache", threads=cores())
        return [file for file, held in zip(files, valid, strict=True) if held is not True]

    def _holds(self, file: ImageFile) -> bool:
        path = f"{self.folder}/{self.name(file)}"
        try:
            if require_regular_file(path).st_size != _bytes(file):
                return False
            content = Path(path).read_bytes()
        except (OSError, DataError):
            return False
        header = _header(*file.size)
        checksum = _checksum(memoryview(content)[len(header) : -_CHECKSUM_BYTES])
        if content.startswith(header) and content.endswith(checksum):
            return True
        log.warning("%s: a damaged entry of the cache; decoding %s again.", path, file.path)
        return False

    def _decode(self, missing: Sequence[ImageFile]) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = sum(map(_bytes, missing)), shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"{self.folder}: no room for decoded images: {len(missing)} more need {size_text(needed)}, and "
                f"{size_text(free)} are free. Make room, {_ELSEWHERE}."
            )
        log.info("Decoding %d images into %s, once; they take %s.", len(missing), self.folder, size_text(needed))
        return _store_all(self._store, missing)

    def _store(self, file: ImageFile) -> None:
        planes = np.ascontiguousarray(decode(file).transpose(2, 0, 1))
        if not file.unchanged:
            raise DataError(f"{file.path}: {_CHANGED}")
        with atomic_write(self.folder / self.name(file)) as partial, partial.open("wb") as out:
            out.writelines((_header(*file.size), planes.data, _checksum(planes.data)))


Cache = MemoryCache | DiskCache


def decode(file: ImageFile) -> np.ndarray:
    """Decode an image, H×W×3 uint8; raise a DataError if it cannot be read, or has another size than in the check."""
    image = read_rgb(file.path)
    if image.shape[:2] != file.size:
        raise DataError(f"{file.path}: {_CHANGED}")
    return image


def _store_all(store: Callable[[ImageFile], None], files: Sequence[ImageFile]) -> dict[str, str]:
    results = zip(files, each(store, files, label="decoding images", threads=cores()), strict=True)
    return {file.path: str(result) for file, result in results if isinstance(result, DataError)}


def _image(planes: np.ndarray, file: ImageFile) -> np.ndarray:
    return planes.reshape(3, *file.size).transpose(1, 2, 0)


def _checksum(pixels: memoryview) -> bytes:
    return zlib.crc32(pixels).to_bytes(_CHECKSUM_BYTES, "little")


@lru_cache(maxsize=1024)
def _header(height: int, width: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (3, height, width)})
    return header.getvalue()


def _bytes(file: ImageFile) -> int:
    return len(_header(*file.size)) + 3 * file.height * file.width + _CHECKSUM_BYTES


def size_text(count: int) -> str:
    """Return a number of bytes as a text for messages."""
    return f"{count:,} bytes ({count / 1e9:.2f} GB)"
