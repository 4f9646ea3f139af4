from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

import d2csr
from app_site import MEMORY, Site, png, wait_until
from d2csr.app import web_app
from d2csr.colormap import VIRIDIS
from d2csr.upscaling.image_reader import read_image


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    return serve()


def test_an_upload_becomes_16_bit_png_of_the_chosen_checkpoint(site: Site, tmp_path) -> None:
    status, job = site.send(png(12, 8), "photo.jpg", checkpoint="1", leaves=1)
    assert status == 201
    done = site.result(job)
    assert (done["state"], done["size"], done["progress"]) == ("done", [48, 32], 1)
    assert {"lr", "bicubic", "sr", "leaf11", "weight22"} <= set(done["files"])
    _, headers, content = site.request("GET", f"/api/jobs/{job['id']}/sr.png?download=1")
    assert headers["content-type"] == "image/png"
    assert headers["content-disposition"] == 'attachment; filename="photo_x4.png"'
    (tmp_path / "sr.png").write_bytes(content)
    lr = np.asarray(Image.open(io.BytesIO(png(12, 8)))) / np.float32(255)
    expected = d2csr.upscale(site.models[1].model, lr, memory=MEMORY)
    np.testing.assert_array_equal(read_image(tmp_path / "sr.png").colour, np.rint(expected * 65535).astype(np.uint16))


def test_the_settings_name_the_checkpoints_and_limits(site: Site) -> None:
    content = json.loads(site.request("GET", "/api/settings")[2])
    assert content["models"] == [{"name": "two", "scale": 2}, {"name": "four", "scale": 4}]
    assert (content["max_pixels"], content["max_bytes"]) == (10_000, 10**6)


def test_the_page_and_its_files_are_served(site: Site) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/style.css", "text/css")):
        status, headers, content = site.request("GET", path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        assert b"://" not in content.replace(b"http://www.w3.org/2000/svg", b"")  # nothing of another host
    assert site.request("GET", "/icon.svg")[0] == 200
    colours = Image.open(io.BytesIO(site.request("GET", "/viridis.png")[2]))
    assert (colours.size, colours.tobytes()) == ((256, 1), VIRIDIS)


def test_a_broken_image_fails_with_a_message_and_leaves_no_file(site: Site) -> None:
    status, answer = site.send(b"no image", "x.png")
    assert (status, answer) == (422, {"error": "x.png: not an image that can be read"})
    status, job = site.send(png(40, 40)[:900], "cut.png")  # its header is right
    assert status == 201
    failed = site.result(job)
    assert failed["state"] == "failed"
    assert failed["error"].startswith("cut.png: a broken image")
    site.request("DELETE", f"/api/jobs/{job['id']}")
    assert list(site.folder.iterdir()) == []


def test_images_above_a_limit_are_refused(site: Site) -> None:
    status, answer = site.send(png(101, 100), "wide.png")
    assert status == 413
    assert "wide.png: 101×100 = 10,100 pixels, above the limit of 10,000" in answer["error"]
    status, answer = site.send(bytes(10**6 + 1), "heavy.png")
    assert (status, answer["error"]) == (413, "heavy.png: larger than the limit of 1 MB.")
    # Without a stated length, the bytes are counted.
    status, answer = site.send(iter([bytes(500_000)] * 3), "chunks.png", transfer_encoding="chunked")
    assert (status, answer["error"]) == (413, "chunks.png: larger than the limit of 1 MB.")
    assert list(site.folder.iterdir()) == []


def test_an_upload_that_takes_too_long_loses_its_place(serve, monkeypatch) -> None:
    monkeypatch.setattr(web_app, "UPLOAD_SECONDS", 0)
    site = serve(queue=1)
    status, answer = site.send(png())
    assert (status, answer["error"]) == (408, "The upload took more than 0 seconds.")
    assert list(site.folder.iterdir()) == []


@pytest.mark.parametrize("checkpoint", ["2", "-1", "x", "", "²"])
def test_an_unknown_checkpoint_is_refused(site: Site, checkpoint: str) -> None:
    from urllib.parse import quote

    status, answer = site.send(png(), checkpoint=quote(checkpoint))
    assert (status, answer["error"]) == (400, "There is no such checkpoint.")


def test_the_queue_states_positions_and_refuses_when_it_is_full(serve) -> None:
    site = serve(queue=2)
    site.go.clear()
    first, second = (site.send(png(seed=seed))[1] for seed in (1, 2))
    wait_until(lambda: site.state(first)["state"] == "running")
    waiting = site.state(second)
    assert (waiting["state"], waiting["ahead"]) == ("waiting", 1)
    status, answer = site.send(png())
    assert status == 503
    assert "queue is full" in answer["error"]
    site.go.set()
    assert site.result(first)["state"] == site.result(second)["state"] == "done"


def test_cancelling_removes_a_running_image_and_its_files(site: Site) -> None:
    site.go.clear()
    _, job = site.send(png())
    wait_until(lambda: site.state(job)["state"] == "running")
    assert site.request("DELETE", f"/api/jobs/{job['id']}")[0] == 204
    assert site.request("GET", f"/api/jobs/{job['id']}")[0] == 404
    wait_until(lambda: list(site.folder.iterdir()) == [])


@pytest.mark.parametrize(
    ("name", "download"),
    [
        ("../../etc/passwd", "passwd_x2.png"),
        ("a\r\nSet-Cookie: x=1.png", "a_r Set-Cookie_ x=1_x2.png"),
        ('<img src="x">.png', "_img src=_x__x2.png"),
        ("", "image_x2.png"),
        ("Straße 写真.tif", "Straße 写真_x2.png"),
        ("...", "image_x2.png"),
        ("x" * 500 + ".png", "x" * 100 + "_x2.png"),
    ],
)
def test_names_of_strangers_reach_neither_headers_nor_the_disk(site: Site, name: str, download: str) -> None:
    _, job = site.send(png(), name)
    done = site.result(job)
    assert done["download"] == download
    status, headers, _ = site.request("GET", f"/api/jobs/{job['id']}/sr.png?download=1")
    assert status == 200
    assert "set-cookie" not in headers
    assert headers["content-disposition"].isascii()
    assert all(path.name in ("sr.png", "lr.png", "bicubic.png") for path in site.folder.glob("*/*"))


@pytest.mark.parametrize("path", ["upload", "..%2f..%2fupload", "sr.png%00", "leaf11"])
def test_only_the_images_of_a_job_are_served(site: Site, path: str) -> None:
    _, job = site.send(png())
    site.result(job)
    assert site.request("GET", f"/api/jobs/{job['id']}/{path}.png")[0] == 404
    assert site.request("GET", f"/api/jobs/another/{path}.png")[0] == 404
    assert site.request("GET", f"/api/jobs/another/{path}")[0] == 404
