from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import parse_hf_uri

from d2csr.errors import CheckpointError
from d2csr.hub.transfer import HubAddress, is_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://me/x4", HubAddress("me/x4")),
        ("hf://me/x4/x4.ckpt", HubAddress("me/x4", None, "x4.ckpt")),
        ("hf://me/d2c-sr_x4.v1@v1.0/weights/x4.pkl", HubAddress("me/d2c-sr_x4.v1", "v1.0", "weights/x4.pkl")),
        ("hf://me/x4@refs/pr/3/x4.ckpt", HubAddress("me/x4", "refs/pr/3", "x4.ckpt")),
        ("hf://models/me/x4", HubAddress("me/x4")),
        ("hf://me/x4@refs%2Fpr%2F3", HubAddress("me/x4", "refs/pr/3")),
    ],
)
def test_addresses_are_read_as_huggingface_hub_reads_them(text: str, expected: HubAddress) -> None:
    uri = parse_hf_uri(text)
    assert (uri.id, uri.revision, uri.path_in_repo or None) == (expected.repo, expected.revision, expected.file)
    assert HubAddress.parse(text) == HubAddress.parse(Path(text)) == expected
    assert is_address(text)
    assert is_address(Path(text))


@pytest.mark.parametrize("text", ["hf://me", "hf:///x4", "hf://me/x4@", "hf://me/x 4", "hf://me/x4/../../secret", "x4"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="not an address of the hub"):
        HubAddress.parse(text)


def test_paths_are_no_addresses() -> None:
    for path in ("me/x4", "/hf/x4", "hf/x4", "hf:", "x4.ckpt", "https://huggingface.co/me/x4"):
        assert not is_address(path)
