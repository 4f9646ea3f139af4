"""The disk cache: decoded images, which all processes of a machine share and map into their memory.

An image lies in ``images/``, in a file of its own, whose name follows from the path, size and time of change of what
was decoded: another size or time is another image. Nothing is ever deleted here; the folder can be deleted whenever no
run uses it.

The files are NumPy's own ``.npy``: uncompressed, mappable, documented, with the size in the header, and read by
``numpy.load`` anywhere. Formats for one large file (LMDB, HDF5, Zarr) need a library, a writer at a time, and copies or
decompression on the way to a crop. The colours lie in three planes, 3×H×W, so that a crop's rows are the rows of the
batch: interleaved, to take them apart would cost thrice as much as to copy them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import mmap
import os
import shutil
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import numpy as np
from platformdirs import user_cache_path

from d2csr.data.images import ImageFile, read_rgb
from d2csr.errors import DataError
from d2csr.files import cores, each, file_lock

log = logging.getLogger(__name__)

VARIABLE = "D2CSR_CACHE_DIR"

_FORMAT = 1  # of the pixels: another one if read_rgb makes others of a file
_ABANDONED = 3600  # seconds after which an unfinished file is nobody's any more
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Return the folder of the cache: the one named, ``$D2CSR_CACHE_DIR``, or ``d2csr`` in the user's caches."""
    named = cache_dir or os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else user_cache_path("d2csr", appauthor=False)


class ImageCache:
    """Decoded images on disk.

    Args:
        cache_dir: the folder of the cache.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / "images"

    def fill(self, files: Sequence[ImageFile]) -> dict[str, str]:
        """Decode the images that are not there yet.

        Each appears whole or not at all, so a process that is killed loses what it was just decoding, and processes
        that do the same at once do each other no harm; as a rule one of them works, and the others wait for it.

        Returns:
            What is wrong with images, by their path.

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
        """Return where an image lies, below :attr:`folder`."""
        about = f"{_FORMAT}\0{file.path}\0{file.stored}\0{file.modified}"
        digest = hashlib.sha256(about.encode(errors="surrogateescape")).hexdigest()[:40]
        return f"{digest[:2]}/{digest[2:]}.npy"

    def read(self, name: str, height: int, width: int) -> np.ndarray:
        """Map an image: H×W×3, uint8, read only. Pixels come from the disk when they are used, and no others.

        Raises:
            OSError: it is no longer there.
        """
        descriptor = os.open(f"{self.folder}/{name}", os.O_RDONLY)  # a Path takes as long as the rest of it
        try:
            content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        pixels = np.frombuffer(content, np.uint8, offset=len(content) - 3 * height * width)
        return pixels.reshape(3, height, width).transpose(1, 2, 0)

    def _missing(self, files: Sequence[ImageFile]) -> list[ImageFile]:
        unique = {file.path: file for file in files}
        return [file for file in unique.values() if not self._holds(file)]

    def _holds(self, file: ImageFile) -> bool:
        try:
            return (self.folder / self.name(file)).stat().st_size == _bytes(file)
        except OSError:
            return False

    def _lock(self, files: Sequence[ImageFile]) -> Path:
        # Of all the images and not of the missing ones, which become fewer while the first process works.
        names = "".join(sorted(self.name(file) for file in files))
        return self.folder / f"{hashlib.sha256(names.encode()).hexdigest()[:32]}.lock"

    def _decode(self, missing: Sequence[ImageFile]) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        needed = sum(_bytes(file) for file in missing)
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
        unfinished = target.with_name(f".{target.stem}.{uuid4().hex}.partial")
        try:
            with unfinished.open("wb") as out:
                out.write(_header(*file.size))
                out.write(planes.data)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def _remove_abandoned(self) -> None:
        for unfinished in self.folder.glob("*/.*.partial"):
            try:
                if time.time() - unfinished.stat().st_mtime > _ABANDONED:
                    unfinished.unlink()
            except OSError:  # another process was faster
                continue

    def _unwritable(self, error: OSError, missing: Sequence[ImageFile]) -> DataError:
        elsewhere = "name another folder by data.cache_dir=…, or keep no copies by data.cache=none"
        if error.errno not in _FULL:
            return DataError(f"{self.folder}: decoded images cannot be written there ({error.strerror}); {elsewhere}.")
        needed = sum(_bytes(file) for file in missing)
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


def _bytes(file: ImageFile) -> int:
    return len(_header(*file.size)) + 3 * file.height * file.width


def _size(count: int) -> str:
    return f"{count:,} bytes ({count / 1e9:.2f} GB)"
