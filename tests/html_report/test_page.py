"""The page in a browser: Chromium opens it from the disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from d2csr.evaluation.report import Report

pytestmark = pytest.mark.slow  # starts Chromium

NAMES = [
    "plain.png",
    "<script>document.title='broken'.png",
    "\"quoted\" 'twice' & <b>bold.png",
    "100%25 #1?a=b&amp;.png",
    "Ünïcödé 日本語 \x1b[31m\n.png",
]
METHODS = ("<img src=x onerror=document.title='broken'>", "_x $y$ {{ 7*7 }}")
SETTINGS = "ckpt: '</pre><script>document.title=\"broken\"</script>'\n"
VIEWS = {"wide": {"width": 1440, "height": 900}, "narrow": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def report(write_report, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("a folder #1 with 100% of ?")
    return write_report(folder / "report", NAMES, METHODS, settings=SETTINGS)


@pytest.fixture
def open_page(browser, report) -> Iterator:
    """Return a function that opens the page, and fail if it logs an error or asks for anything but its own files."""
    folder, problems, contexts = report[0].parent, [], []

    def check_request(request) -> None:
        url = urlsplit(request.url)
        if url.scheme != "data" and not unquote(url.path).startswith(str(folder)):
            problems.append(request.url)

    def check_message(message) -> None:
        if message.type in ("error", "warning"):
            problems.append(message.text)

    def open_it(view: str = "wide", theme: str = "light"):
        contexts.append(browser.new_context(viewport=VIEWS[view], color_scheme=theme))
        page = contexts[-1].new_page()
        page.on("request", check_request)
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        page.on("console", check_message)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(report[0].as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def load(article) -> None:
    """Scroll through an image's part of the page, so that its pictures are loaded."""
    article.scroll_into_view_if_needed()
    for image in article.locator("img:visible").all():
        image.evaluate("image => { image.scrollIntoView({behavior: 'instant'}); return image.decode(); }")


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def test_all_pictures_load_and_all_links_lead_to_files(open_page, report) -> None:
    page = open_page()
    load(page.locator("article").last)
    assert page.title() == "Super-resolution ×2, 5 images · d2csr"
    sizes = page.evaluate(
        "[...document.querySelectorAll('article:last-of-type img')].filter(one => one.offsetParent)"
        ".map(one => one.naturalWidth)"
    )
    assert len(sizes) == 2 + 3 * 11 + 3 * 4 + 5 + 1  # slider, crops, leaves, errors, spectra of one theme
    assert all(sizes)
    sources = page.evaluate("[...document.images].map(one => one.getAttribute('src'))")
    assert all((report[0].parent / source).is_file() for source in sources)
    for link in page.evaluate("[...document.querySelectorAll('a')].map(one => one.href)"):
        url = urlsplit(link)
        assert Path(unquote(url.path)).is_file()
        assert not url.fragment or page.locator(f"[id='{url.fragment}']").count() == 1
    options = page.evaluate(
        "[...document.querySelectorAll('option[data-full]')].flatMap(o => [o.value, o.dataset.full])"
    )
    assert all((report[0].parent / option).is_file() for option in options)


def test_names_and_settings_of_the_user_are_shown_as_they_are(open_page) -> None:
    page = open_page()
    shown = [name.removesuffix(".png") for name in NAMES[:4]]
    assert page.locator("article h3").all_text_contents()[:4] == shown
    assert page.locator("article h3").all_text_contents()[4] == r"Ünïcödé 日本語 \x1b[31m" + "\n"
    assert page.locator("#scores table.scores tbody th").all_text_contents()[1:3] == list(METHODS)
    assert page.locator("#run pre").last.text_content() == SETTINGS
    assert page.locator("script").count() == 1
    assert page.locator("td b, th b, h3 b, img[onerror]").count() == 0
    page.get_by_role("link", name="100%25 #1?a=b&amp;").first.click()
    assert page.evaluate("location.hash") == "#image-3"


def test_a_script_that_is_not_of_the_report_does_not_run(browser, report) -> None:
    page = browser.new_page()
    page.goto(report[0].as_uri())
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.wait_for_timeout(100)
    assert page.title().startswith("Super-resolution")
    page.close()


def test_the_slider_moves_by_mouse_and_by_key(open_page) -> None:
    page = open_page()
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()

    def border() -> float:
        return float(stage.evaluate("stage => parseFloat(getComputedStyle(stage).getPropertyValue('--border'))"))

    assert border() == 50
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 30, steps=4)
    assert border() == pytest.approx(80, abs=1)
    page.mouse.up()
    before = border()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert border() == before - 1
    page.keyboard.press("Home")
    assert border() == 0
    page.keyboard.press("End")
    assert border() == 100
    assert stage.locator("input").evaluate("input => document.activeElement === input")


def test_the_slider_shows_the_two_pictures_that_are_chosen(open_page, report) -> None:
    page = open_page()
    compare = page.locator(".compare").first
    left, right = compare.locator("select[data-side=left]"), compare.locator("select[data-side=right]")
    labels = left.locator("option").all_text_contents()
    assert labels[0] == "LR (nearest)"
    assert labels[1:] == ["bicubic", *METHODS, "leaf 11", "leaf 12", "leaf 21", "leaf 22", "mean", "fusion", "HR"]
    assert (left.input_value(), right.input_value()) == tuple(
        f"images/0000/{name}.webp" for name in ("00-bicubic", "08-fusion")
    )
    left.select_option(label="HR")
    right.select_option(label="LR (nearest)")
    load(compare)
    assert compare.locator("[data-caption=left]").text_content().strip() == "HR"
    found = pixels(compare.locator(".stage").screenshot())
    folder = report[0].parent / "images" / "0000"
    size = found.shape[1], found.shape[0]
    hr, lr = (
        np.asarray(Image.open(folder / name).convert("RGB").resize(size, resample), dtype=int)
        for name, resample in (("hr.webp", Image.Resampling.BILINEAR), ("lr.webp", Image.Resampling.NEAREST))
    )
    part = slice(20, -20), slice(20, size[0] // 2 - 40)
    assert np.abs(found[part] - hr[part]).mean() < 3
    part = slice(20, -20), slice(size[0] // 2 + 40, -20)
    assert np.abs(found[part] - lr[part]).mean() < 2


def test_a_crop_is_shown_in_the_slider(open_page) -> None:
    page = open_page()
    article = page.locator("article").first
    article.get_by_role("button", name="Show in the slider").first.press("Enter")
    assert article.locator("[data-zoom]").input_value() == "4"
    assert article.locator(".stage").bounding_box()["width"] == 4 * 128


def test_the_table_is_sorted_by_its_buttons(open_page, report) -> None:
    page = open_page()
    table = page.locator("table.sortable").first
    button = table.get_by_role("button", name="over bicubic").last
    assert table.locator("th[aria-sort]").count() == 1 + 2 + 3 * 3
    images = report[1].images["d2csr"]
    gains = [f"{scores['fusion']['psnr'] - scores['bicubic']['psnr']:+.2f}" for scores in images]
    for direction in ("ascending", "descending"):
        button.focus()
        page.keyboard.press("Enter")
        expected = sorted(gains, key=float, reverse=direction == "descending")
        assert table.locator("tbody tr td:nth-last-child(2)").all_text_contents() == expected
        assert table.locator(f"th[aria-sort={direction}]").count() == 1
    table.get_by_role("button", name="image").click()
    assert len(set(table.locator("tbody th").all_text_contents())) == len(NAMES)
    assert table.locator("th[aria-sort=none]").count() == 2 + 3 * 3


def test_images_are_found_by_a_part_of_their_names(open_page) -> None:
    page = open_page()
    page.locator("#filter").fill("UOTED")
    assert page.locator("article:visible").count() == 1
    assert page.locator("table.sortable tbody tr:visible").count() == 1
    assert page.locator("#found").text_content() == "1 found"


def test_the_theme_can_be_switched(open_page) -> None:
    page = open_page(theme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.locator("#theme").press("Enter")
    assert page.evaluate(colour) == "rgb(255, 255, 255)" != dark
    assert page.locator(".only-light").first.evaluate("image => getComputedStyle(image).display") == "inline"
    page.reload()
    assert page.evaluate(colour) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_the_page_fits_the_screen_and_is_readable(open_page, view: str, theme: str) -> None:
    page = open_page(view, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWS[view]["width"]
    first = pixels(page.screenshot())
    background = first[300, 2]
    assert (background.mean() > 128) == (theme == "light")
    text = np.abs(first - background).max(axis=2) > 100
    assert 0.005 < text.mean() < 0.5
    load(page.locator(".compare").first)
    assert len(np.unique(pixels(page.screenshot()).reshape(-1, 3), axis=0)) > 1000
    muted, back = (
        np.array([int(value) for value in page.evaluate(f"getComputedStyle({where})[{key!r}]")[4:-1].split(",")])
        for where, key in (("document.querySelector('.lead')", "color"), ("document.body", "backgroundColor"))
    )
    assert contrast(muted, back) > 4.5  # WCAG 2, level AA


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """Return the contrast of two colours by WCAG 2."""
    shares = np.stack([one, other]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (high + 0.05) / (low + 0.05)
