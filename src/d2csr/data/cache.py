"""The disk cache: decoded images, shared by all processes of a machine and mapped into their memory.

Each image has a file in ``images/``. Its name is a hash of path, size, time of change and inode of the source, so a
changed source has another file. Only damaged files are deleted; the folder can be deleted whenever no run uses it.

The files are NumPy's ``.npy`` (3×H×W, uint8), followed by the CRC-32 of what precedes it: uncompressed, mappable, and
read by ``numpy.load`` anywhere. One large file (LMDB, HDF5, Zarr) would need a library, one writer at a time, and
copies or decompression for a crop. The planes of the colours lie one after the other, as in a batch: to separate
interleaved colours takes three times as long as to copy planes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from d2csr.data.image_index import ImageFile
from d2csr.data.images import read_rgb
from d2csr.errors import DataError
from d2csr.files import atomic_write, cores, each, file_lock, require_regular_file, user_path

log = logging.getLogger(__name__)

VARIABLE = "D2CSR_CACHE_DIR"

_FORMAT = 2  # of the files, and of the pixels that read_rgb returns
_CHECKSUM_BYTES = 4
_STALE = 3600  # seconds after which a temporary file is considered stale
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Return the folder of the cache: the one named, ``$D2CSR_CACHE_DIR``, or ``d2csr`` in the user's caches."""
    named = cache_dir or os.environ.get(VARIABLE)
    return user_path(named).absolute() if named else user_cache_path("d2csr", appauthor=False)


class ImageCache:
    """Decoded images on disk.

    Args:
        cache_dir: the folder of the cache.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / "images"

    def fill(self, files: Sequence[ImageFile]) -> dict[str, str]:
        """Decode the images that are not there yet.

        Files are written atomically, so a killed process loses only the image in progress. Of several processes one
        decodes, and the others wait.

        Returns:
            Errors of images, by their path.

        Raises:
            DataError: the folder cannot be written to, or the disk is full.
        """
        if not self._missing(files):
            return {}
        with file_lock(self._lock(files), "decoding the same images"):
            missing = self._missing(files)
            try:
                return self._decode(missing) if missing else {}
            except OSError as error:
                raise self._unwritable(error, self._missing(missing)) from None

    def name(self, file: ImageFile) -> str:
        """Return the name of an image's file, below :attr:`folder`."""
        about = f"{_FORMAT}\0{file.path}\0{file.stored}\0{file.modified}\0{file.inode}"
        digest = hashlib.sha256(about.encode(errors="surrogateescape")).hexdigest()[:40]
        return f"{digest[:2]}/{digest[2:]}.npy"

    def read(self, name: str, height: int, width: int, *, verify: bool = True) -> np.ndarray:
        """Map an image: H×W×3, uint8, read only. Pages are read from the disk when they are used.

        Args:
            name: of its file.
            height: in pixels.
            width: in pixels.
            verify: compare size, header and checksum, which reads the whole file; a damaged one is deleted.

        Raises:
            OSError: it is missing or damaged.
        """
        path = f"{self.folder}/{name}"  # a Path takes as long as the rest of it
        header, pixels = _header(height, width), 3 * height * width
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a FIFO would block
        try:
            size = os.fstat(descriptor).st_size
            content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if size == self._bytes(height, width) else b""
        finally:
            os.close(descriptor)
        if not content or (verify and not _is_valid(content, header)):
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
            raise OSError(errno.EIO, "damaged entry of the cache", path)
        array = np.frombuffer(content, np.uint8, offset=len(header), count=pixels)
        return array.reshape(3, height, width).transpose(1, 2, 0)

    @staticmethod
    def _bytes(height: int, width: int) -> int:
        return len(_header(height, width)) + 3 * height * width + _CHECKSUM_BYTES

    def _missing(self, files: Sequence[ImageFile]) -> list[ImageFile]:
        unique = {file.path: file for file in files}
        return [file for file in unique.values() if not self._holds(file)]

    def _holds(self, file: ImageFile) -> bool:
        path = self.folder / self.name(file)
        try:
            require_regular_file(path)
            return path.stat().st_size == self._bytes(*file.size)
        except (OSError, DataError):
            return False

    def _lock(self, files: Sequence[ImageFile]) -> Path:
        # Of all the images and not of the missing ones, which become fewer while the first process works.
        names = "".join(sorted(self.name(file) for file in files))
        return self.folder / f"{hashlib.sha256(names.encode()).hexdigest()[:32]}.lock"

    def _decode(self, missing: Sequence[ImageFile]) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        needed = sum(self._bytes(*file.size) for file in missing)
        if needed > shutil.disk_usage(self.folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        log.info("Decoding %d images into %s, once; they take %s.", len(missing), self.folder, _size(needed))
        results = each(self._store, missing, label="decoding images", threads=cores())
        return {
            file.path: str(result)
            for file, result in zip(missing, results, strict=True)
            if isinstance(result, DataError)
        }

    def _store(self, file: ImageFile) -> None:
        planes = np.ascontiguousarray(read_rgb(file.path).transpose(2, 0, 1))
        if planes.shape[1:] != file.size or not file.unchanged:
            raise DataError(f"{file.path}: was changed while it was read; start again")
        target = self.folder / self.name(file)
        target.parent.mkdir(exist_ok=True)
        header = _header(*file.size)
        checksum = zlib.crc32(planes.data, zlib.crc32(header))
        with atomic_write(target) as partial, partial.open("wb") as out:
            out.write(header)
            out.write(planes.data)
            out.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))

    def _remove_stale(self) -> None:
        for unfinished in self.folder.glob("*/.*.partial"):
            try:
                if time.time() - unfinished.stat().st_mtime > _STALE:
                    unfinished.unlink()
            except OSError:  # another process was faster
                continue

    def _unwritable(self, error: OSError, missing: Sequence[ImageFile]) -> DataError:
        elsewhere = "name another folder by data.cache_dir=…, or keep no copies by data.cache=none"
        if error.errno not in _FULL:
            return DataError(f"{self.folder}: decoded images cannot be written there ({error.strerror}); {elsewhere}.")
        needed = sum(self._bytes(*file.size) for file in missing)
        free = shutil.disk_usage(self.folder).free
        return DataError(
            f"{self.folder}: no room for decoded images ({error.strerror}): {len(missing)} more need {_size(needed)}, "
            f"and {_size(free)} are free. Make room, {elsewhere}."
        )


@lru_cache(maxsize=1024)
def _header(height: int, width: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (3, height, width)})
    return header.getvalue()


def _is_valid(content: mmap.mmap | bytes, header: bytes) -> bool:
    with memoryview(content) as view:
        checksum = zlib.crc32(view[:-_CHECKSUM_BYTES]).to_bytes(_CHECKSUM_BYTES, "little")
        return view[: len(header)] == header and view[-_CHECKSUM_BYTES:] == checksum


def _size(count: int) -> str:
    return f"{count:,} bytes ({count / 1e9:.2f} GB)"
