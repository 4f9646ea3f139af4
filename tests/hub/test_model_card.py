from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from d2csr.hub.model_card import CardFacts, Scores, card_text, write_card

FACTS = CardFacts(
    settings={"scale": 4, "features": 64, "branching": [2, 2], "fusion_features": 64, "body": {"name": "rcab"}},
    parameters=5_769_572,
    leaves=4,
    whole_image=True,
    for_spandrel=True,
    training={"Training data": "RealSR, list a|b.txt"},
    dataset="RealSR test, ×4",
    scores=[
        Scores("d2csr", "float", 100, {"bicubic": {"psnr": 27.25, "ssim": 0.764}, "this model": {"psnr": 29.721}}),
        Scores("y", "8-bit", 100, {"bicubic": {"psnr": 27.0}, "this model": {"psnr": 29.5, "ssim": 0.82341}}),
    ],
)
ABOUT = {"title": "Photos: 'sharp' \"4×\" #1", "author": "Ada\n# Heading", "license": "cc-by-4.0"}


def test_the_hub_reads_the_front_matter() -> None:
    card = ModelCard(card_text(FACTS, ABOUT, repo="ada/x4"))
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "d2csr", "image-to-image")
    assert data.model_name == ABOUT["title"]
    results = [(r.dataset_name, r.metric_type, r.metric_name, r.metric_value) for r in data.eval_results]
    assert results == [
        ("RealSR test, ×4", "psnr", "PSNR, protocol d2csr", 29.72),
        ("RealSR test, ×4", "psnr", "PSNR, protocol y", 29.5),
        ("RealSR test, ×4", "ssim", "SSIM, protocol y", 0.8234),
    ]
    assert {result.dataset_type for result in data.eval_results} == {"realsr-test-4"}


def test_the_text_holds_scores_training_and_commands() -> None:
    text = card_text(FACTS, ABOUT, repo="ada/x4")
    assert "| bicubic | 27.25 | 0.7640 |" in text
    assert "| this model | 29.72 |  |" in text
    assert "| Training data | RealSR, list a\\|b.txt |" in text
    assert 'd2csr.load_model("hf://ada/x4")' in text
    assert "**Author**: Ada # Heading\n" in text  # a line of the author is no heading of the card
    assert "FILL IN" not in text
    assert "$" not in text


def test_what_is_unknown_is_to_be_filled_in() -> None:
    text = card_text(replace(FACTS, training={}, scores=(), dataset=None, for_spandrel=False), {})
    assert "# license: FILL IN" in text
    assert text.count("FILL IN") == 5
    assert "hf://USER/NAME" in text
    assert "spandrel" not in text
    assert "model-index" not in text
    assert ModelCard(text).data.license is None


def test_a_body_without_attention_is_local() -> None:
    assert "depends on the whole image" in card_text(FACTS, ABOUT)
    assert "depends on its surroundings" in card_text(replace(FACTS, whole_image=False), ABOUT)


def test_control_characters_are_escaped() -> None:
    text = card_text(replace(FACTS, dataset="a\x1b[2Jb"), {"title": "t\x07"})
    assert "\x1b" not in text
    assert "\x07" not in text
    ModelCard(text)


def test_pictures_are_copied_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (2000, 500), "red").save(tmp_path / "a b.png")
    write_card(tmp_path / "card" / "README.md", replace(FACTS, pictures=[tmp_path / "a b.png"]), ABOUT)
    with Image.open(tmp_path / "card" / "images" / "a b.png") as copy:
        assert copy.size == (1600, 400)
    text = (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
    assert "](images/a%20b.png)" in text  # Markdown ends an address at a space


def test_a_picture_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(OSError, match="cannot identify"):
        write_card(tmp_path / "card" / "README.md", replace(FACTS, pictures=[tmp_path / "a.png"]), ABOUT)
    assert not (tmp_path / "card" / "README.md").exists()
