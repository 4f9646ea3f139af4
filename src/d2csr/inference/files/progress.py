"""Bars on a terminal: one over the images, one over the strips of the present one."""

from __future__ import annotations

from tqdm import tqdm


class Bars:
    """Two bars, gone once they are done; nothing at all where standard error is no terminal.

    Args:
        images: how many there are.
        enabled: show them.
    """

    def __init__(self, images: int, *, enabled: bool) -> None:
        hidden = None if enabled else True  # None: where there is no terminal
        self._images = tqdm(total=images, desc="images", unit="image", disable=hidden, leave=False)
        self._strips = tqdm(
            total=100, disable=hidden, leave=False, position=1, bar_format="{l_bar}{bar}| {elapsed}<{remaining}"
        )

    def start_image(self, name: str) -> None:
        """Begin the lower bar anew, under the name of an image."""
        self._strips.reset()
        self._strips.set_description(name)

    def advance(self, fraction: float) -> None:
        """Set the lower bar to a fraction of the image, up to 1."""
        self._strips.update(round(100 * fraction) - self._strips.n)

    def next_image(self) -> None:
        """Count an image as done."""
        self._images.update()

    def close(self) -> None:
        """Take the bars away."""
        self._strips.close()
        self._images.close()
