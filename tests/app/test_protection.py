from __future__ import annotations

import pytest

from app_site import Site, png


@pytest.fixture
def site(serve) -> Site:
    return serve()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("sr.example.org", 200),  # named at the start
        ("attacker.example", 421),  # a name that leads to 127.0.0.1
        ("attacker.example:{port}", 421),
        ("127.0.0.1.attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1@attacker.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_a_request_under_a_foreign_name_is_refused(site: Site, host: str, status: int) -> None:
    for path in ("/", "/api/settings"):
        assert site.request("GET", path, host=host.format(port=site.port))[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),  # no browser
        ({"origin": "http://127.0.0.1:{port}"}, 201),
        ({"origin": "http://127.0.0.1:{port}", "sec_fetch_site": "same-origin"}, 201),
        ({"origin": "http://attacker.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),  # another program of this machine
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"content_type": "text/plain"}, 415),  # what a form can send
        ({"content_type": "multipart/form-data; boundary=x"}, 415),
    ],
)
def test_an_upload_from_another_site_is_refused(site: Site, headers: dict[str, str], status: int) -> None:
    filled = {name: value.format(port=site.port) for name, value in headers.items()}
    filled = {"content_type": "application/octet-stream", **filled}
    answered, _, _ = site.request("POST", "/api/jobs?name=a.png", png(), **filled)
    assert answered == status


def test_another_site_cannot_cancel(site: Site) -> None:
    _, job = site.send(png())
    path = f"/api/jobs/{job['id']}"
    assert site.request("DELETE", path, origin="http://attacker.example")[0] == 403
    assert site.request("GET", path)[0] == 200


def test_every_response_forbids_frames_and_foreign_files(site: Site) -> None:
    for path in ("/", "/page.js", "/api/settings", "/missing", "/api/jobs/x"):
        _, headers, _ = site.request("GET", path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
