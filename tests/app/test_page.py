"""The page in a real browser: upload, comparison, download, queue, cancel, mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import d2csr
from app_site import MEMORY, PATIENCE, Site, png, wait_until
from d2csr.upscaling.image_reader import read_image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

OpenPage = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open the page of a site as a visitor; an error in its scripts or a request to another host fails the test."""
    contexts = []
    errors: list[str] = []
    foreign: list[str] = []

    def open_one(site: Site, **settings) -> Page:
        contexts.append(browser.new_context(accept_downloads=True, **settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        own = (f"{site.url}/", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or foreign.append(request.url))
        page.goto(site.url)
        page.wait_for_selector("#checkpoint option", state="attached")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert errors == []
    assert foreign == []


def choose(page: Page, name: str, content: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def send(page: Page, content: bytes, name: str = "photo.png") -> None:
    choose(page, name, content)
    page.click("#start")


def message(page: Page) -> str:
    return page.inner_text("#message")


def wait_for(page: Page, text: str) -> None:
    page.wait_for_function("text => document.getElementById('message').textContent.includes(text)", arg=text)


def test_an_upload_is_compared_and_downloaded_in_16_bits(serve, open_page: OpenPage, tmp_path: Path) -> None:
    site = serve()
    page = open_page(site)
    page.select_option("#checkpoint", label="four (×4)")
    send(page, png(40, 30))
    wait_for(page, "Done: 160×120 pixels.")
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    widths = page.evaluate("['left-image', 'right-image'].map(id => document.getElementById(id).naturalWidth)")
    assert widths == [160, 160]
    page.select_option("#left", "lr")
    page.wait_for_function("() => document.getElementById('left-image').naturalWidth === 40")
    page.click("[data-name=weight12]")
    assert page.input_value("#right") == "weight12"
    assert page.locator("#gallery img").count() == 9
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "photo_x4.png"
    waiting.value.save_as(tmp_path / "sr.png")
    sr = read_image(tmp_path / "sr.png").colour
    (tmp_path / "lr.png").write_bytes(png(40, 30))
    lr = read_image(tmp_path / "lr.png").colour / np.float32(255)
    expected = d2csr.upscale(site.models[1].model, lr, memory=MEMORY)
    assert sr.dtype == np.uint16
    np.testing.assert_array_equal(sr, np.rint(expected * 65535).astype(np.uint16))
    page.close()
    wait_until(lambda: list(site.folder.iterdir()) == [])  # the server forgets the image of a closed page


def test_the_divider_shows_the_left_image_on_its_left(serve, open_page: OpenPage) -> None:
    page = open_page(serve())
    page.uncheck("#leaves")
    send(page, png(40, 30))
    wait_for(page, "Done")
    assert page.locator("#gallery img").count() == 0
    page.focus("#split")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    box = page.locator("#stage").bounding_box()
    assert box is not None

    def pixel(x: float) -> str:
        """Return which image is at a fraction of the width: an element that is clipped away there is not hit."""
        return page.evaluate(
            "([x, y]) => document.elementFromPoint(x, y).id", [box["x"] + x * box["width"], box["y"] + 5]
        )

    assert page.input_value("#split") == "30"
    assert [pixel(0.1), pixel(0.28), pixel(0.32), pixel(0.9)] == [*["left-image"] * 2, *["right-image"] * 2]
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 5)
    page.mouse.up()
    assert page.input_value("#split") == "80"
    page.select_option("#zoom", "2")
    assert page.locator("#stage").bounding_box()["width"] == pytest.approx(160, abs=1)  # 80 pixels, 2:1


def test_two_visitors_share_the_queue_and_see_their_own_images(serve, open_page: OpenPage) -> None:
    site = serve()
    site.go.clear()
    first, second = open_page(site), open_page(site)
    send(first, png(20, 10))
    wait_for(first, "Computing")
    send(second, png(30, 10, seed=1))
    wait_for(second, "Waiting: 1 image is before yours.")
    site.go.set()
    wait_for(first, "Done: 40×20 pixels.")
    wait_for(second, "Done: 60×20 pixels.")
    links = [page.get_attribute("#download", "href") for page in (first, second)]
    assert len(set(links)) == 2


def test_cancel_ends_a_running_and_a_waiting_image(serve, open_page: OpenPage) -> None:
    site = serve()
    site.go.clear()
    first, second = open_page(site), open_page(site)
    send(first, png())
    wait_for(first, "Computing")
    assert float(first.get_attribute("#progress", "value") or 0) == 0.25
    send(second, png())
    wait_for(second, "Waiting: 1")
    assert second.is_visible("#progress")
    assert second.get_attribute("#progress", "value") is None  # nothing to measure yet
    for page in (second, first):
        page.click("#cancel")
        wait_for(page, "Cancelled.")
        assert page.is_hidden("#cancel")
        assert page.is_enabled("#start")
    wait_until(lambda: list(site.folder.iterdir()) == [])
    site.go.set()
    first.click("#start")  # the same file again
    wait_for(first, "Done")


def test_mistakes_are_named_and_the_next_image_works(serve, open_page: OpenPage) -> None:
    page = open_page(serve())
    assert not page.is_enabled("#start")
    for name, content, text in (
        ("notes.png", b"no image", "notes.png: not an image that can be read"),
        ("cut.png", png(40, 40)[:900], "cut.png: a broken image"),
        ("wide.png", png(101, 100), "wide.png: 101×100 = 10,100 pixels, above the limit of 10,000."),
        ("<img src=x onerror=document.body.remove()>.png", b"", ">.png: an empty file"),
    ):
        send(page, content, name)
        wait_for(page, text)
        assert "error" in (page.get_attribute("#message", "class") or "")
        assert page.is_hidden("#result")
    choose(page, "heavy.png", bytes(10**6 + 1))
    wait_for(page, "heavy.png: larger than the limit of 1 MB.")
    assert not page.is_enabled("#start")  # nothing was sent
    send(page, png())
    wait_for(page, "Done")


def test_a_dropped_file_is_sent_by_the_keyboard_alone(serve, open_page: OpenPage) -> None:
    page = open_page(serve())
    page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            for (const name of ["one.png", "two.png"]) transfer.items.add(new File([new Uint8Array(bytes)], name));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        list(png(16, 16)),
    )
    assert "one.png" in page.inner_text("#chosen")
    assert "the first of 2" in page.inner_text("#chosen")
    page.focus("#file")
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["checkpoint", "leaves", "start"]
    page.keyboard.press("Enter")
    wait_for(page, "Done: 32×32 pixels.")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.name"))
    assert {"left", "right", "zoom", "download", "viewer", "split", "sr", "leaf11", "weight22"} <= reached
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, select, button, a')].filter(e => !e.hidden && !e.labels?.length"
        " && !e.textContent.trim() && !e.getAttribute('aria-label') && !e.querySelector('img[alt]')).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_sideways_scrolling(serve, open_page: OpenPage, scheme: str) -> None:
    page = open_page(serve(), color_scheme=scheme, viewport={"width": 320, "height": 640})
    send(page, png(60, 40), "a-long-name-without-a-break-" * 4 + ".png")
    wait_for(page, "Done")
    page.select_option("#zoom", "4")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    # WCAG 2.2, 1.4.3: at least 4.5
    assert page.evaluate(CONTRAST, ["body", "header p", "#start", "#download", "#gallery a", "#limits"]) >= 4.5


CONTRAST = """selectors => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    const rgb = channels(getComputedStyle(element).backgroundColor);
    return rgb[3] === 0 ? behind(element.parentElement) : rgb;
  };
  return Math.min(...selectors.map(selector => {
    const element = document.querySelector(selector);
    const pair = [channels(getComputedStyle(element).color), behind(element)].map(luminance);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  }));
}"""
