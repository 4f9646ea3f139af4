"""Training from HR images alone, through the loader: places, determinism, validation pairs, and wrong input."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from d2csr.data.datamodule import PairDataModule
from d2csr.data.degraded import CACHES, DegradedDataModule
from d2csr.data.images import read_rgb
from d2csr.data.lists import read_list
from d2csr.errors import ConfigError, DataError

PLAIN = {  # LR is the mean of each block
    "resampling": ["area"],
    **{step: {"probability": 0.0} for step in ("blur", "noise", "jpeg")},
}


def coordinates(height: int, width: int, third: int = 0) -> np.ndarray:
    """An image whose pixels hold their row and column."""
    image = np.full((height, width, 3), third, np.uint8)
    image[..., 0], image[..., 1] = np.indices((height, width))
    return image


@pytest.fixture
def hr(tmp_path: Path, noise) -> Path:
    """A folder of eight HR images, two of them in a subfolder."""
    for number in range(8):
        path = tmp_path / "hr" / ("sub" if number > 5 else ".") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(50 + number, 60, number)).save(path)
    return tmp_path / "hr"


@pytest.fixture
def build(tmp_path: Path, hr: Path):
    def make(**settings) -> DegradedDataModule:
        defaults = {"hr": str(hr), "list_dir": str(tmp_path / "degraded"), "batch_size": 2, "patch_size": 12}
        return DegradedDataModule(scale=2, **{**defaults, "val_share": 0.2, **settings})

    return make


def started(datamodule: DegradedDataModule) -> DegradedDataModule:
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def epoch_of(datamodule: DegradedDataModule, epoch: int = 1) -> list[dict[str, torch.Tensor]]:
    loader = started(datamodule).train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(batches, others) -> bool:
    return len(batches) == len(others) and all(
        torch.equal(a[key], b[key]) for a, b in zip(batches, others, strict=True) for key in ("lr", "hr", "index")
    )


def test_batches_are_patches_of_uint8(build) -> None:
    batches = epoch_of(build(patches_per_image=3))
    assert len(batches) == 9  # 6 of the 8 images; 2 are for validation
    for batch in batches:
        assert (batch["lr"].shape, batch["hr"].shape) == ((2, 3, 12, 12), (2, 3, 24, 24))
        assert batch["lr"].dtype == batch["hr"].dtype == torch.uint8


def test_lr_and_hr_show_the_same_place_and_all_places_occur(tmp_path: Path, build) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(coordinates(27, 31)).save(tmp_path / name / "0.png")
    datamodule = build(
        hr=str(tmp_path / "a"), val_hr=str(tmp_path / "b"), degradation=PLAIN, patches_per_image=200, batch_size=200
    )
    [batch] = epoch_of(datamodule)
    hr = batch["hr"].float()
    means = torch.nn.functional.avg_pool2d(hr, 2)
    assert (batch["lr"].float() - means).abs().max() < 0.51
    corners = hr.amin(dim=(2, 3))[:, :2].int().tolist()
    assert {row for row, _ in corners} == set(range(4))  # odd ones too, and the last
    assert {column for _, column in corners} == set(range(8))
    first_axis_is_rows = (hr[:, 0, 1, 0] != hr[:, 0, 0, 0]).float().mean()
    assert 0.3 < first_axis_is_rows < 0.7  # half of them are transposed


def test_blur_reaches_into_a_patch_from_around_it(tmp_path: Path, build, noise) -> None:
    (tmp_path / "one").mkdir()
    Image.fromarray(noise(80, 90)).save(tmp_path / "one" / "0.png")
    blur = {"probability": 1.0, "sigma": [1.5, 1.5], "anisotropic": 0.0}
    settings = {**PLAIN, "blur": blur, "order": ["blur", "resampling", "noise", "jpeg"]}
    one = str(tmp_path / "one")
    datamodule = started(build(hr=one, val_hr=one, degradation=settings, augment=False, patches_per_image=8))
    image = read_rgb(tmp_path / "one" / "0.png")
    for number in range(8):
        item = datamodule._train[3, number]
        places = np.lib.stride_tricks.sliding_window_view(image, (24, 24, 3))[:, :, 0]
        top, left = np.argwhere((places == item["hr"].transpose(1, 2, 0)).all(axis=(2, 3, 4)))[0]
        whole = datamodule.degradation(image[top % 2 :, left % 2 :], 2, np.random.default_rng(0))
        expected = whole[top // 2 : top // 2 + 12, left // 2 : left // 2 + 12]
        assert np.abs(item["lr"].transpose(1, 2, 0).astype(int) - expected).max() <= 1


def test_a_patch_follows_from_seed_epoch_and_number(build) -> None:
    batches = epoch_of(build())
    assert same(batches, epoch_of(build()))
    assert not same(batches, epoch_of(build(), epoch=2))
    assert not same(batches, epoch_of(build(seed=1)))


def test_the_number_of_workers_changes_no_batch(build) -> None:
    assert same(epoch_of(build(patches_per_image=2)), epoch_of(build(patches_per_image=2, num_workers=2)))


@pytest.mark.parametrize("cache", CACHES)
def test_the_cache_changes_no_batch(build, tmp_path: Path, cache: str) -> None:
    cached = build(cache=cache, cache_dir=str(tmp_path / "cache"))
    assert same(epoch_of(build()), epoch_of(cached))
    assert len(list((tmp_path / "cache").glob("images/*/*.npy"))) == (6 if cache == "disk" else 0)
    if cache == "ram":
        lr, hr = cached._train.source[0]
        assert np.shares_memory(lr, hr)  # kept once


def test_two_ranks_share_the_batches_of_one(build) -> None:
    whole = epoch_of(build(patches_per_image=2))
    halves = []
    for rank in range(2):
        datamodule = build(patches_per_image=2, batch_size=1)
        datamodule.trainer = SimpleNamespace(
            **{"global_rank": rank, "world_size": 2, "overfit_batches": 0, "num_devices": 2},
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        halves.append(epoch_of(datamodule))
    for batch, first, second in zip(whole, *halves, strict=True):
        for name in ("lr", "hr"):
            assert torch.equal(batch[name], torch.cat([first[name], second[name]]))


def test_training_can_begin_in_the_middle_of_an_epoch(build) -> None:
    batches = epoch_of(build(patches_per_image=2))
    datamodule = build(patches_per_image=2)
    datamodule.start_at(1, 4)
    datamodule.prepare_data()
    datamodule.setup("fit")
    assert same(list(datamodule.train_dataloader()), batches[4:])


def test_validation_images_are_held_out_and_degraded_once(build, hr: Path) -> None:
    datamodule = started(build())
    held_out = {pair.hr for pair in datamodule.val_pairs}
    assert len(held_out) == 2
    assert held_out.isdisjoint(pair.hr for pair in datamodule.train_pairs)
    assert {pair.hr for pair in datamodule.train_pairs} | held_out == set(hr.rglob("*.png"))
    other = started(build(seed=5))
    assert other.splits.val_list == datamodule.splits.val_list
    for batch, pair in zip(datamodule.val_dataloader(), datamodule.val_pairs, strict=True):
        image = read_rgb(pair.hr)
        height, width = (side // 2 for side in image.shape[:2])
        assert batch["lr"].shape == (1, 3, height, width)
        assert np.array_equal(batch["hr"][0].permute(1, 2, 0), image[: 2 * height, : 2 * width])


def test_the_pairs_of_validation_stay_and_other_settings_have_others(build, tmp_path: Path) -> None:
    first = started(build()).splits.val_list
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "degraded").rglob("*.*")}
    assert started(build(degradation=PLAIN)).splits.val_list != first
    started(build())
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == state for path, state in before.items())
    for path in before:
        path.unlink()
    assert started(build()).splits.val_list == first
    assert {path: path.read_bytes() for path in before} == {path: state[0] for path, state in before.items()}


def test_a_changed_image_is_degraded_anew(build) -> None:
    first = started(build())
    pair = first.val_pairs[0]
    Image.fromarray(255 - read_rgb(pair.hr)).save(pair.hr)
    second = started(build())
    assert second.splits.val_list != first.splits.val_list
    assert np.abs(read_rgb(second.val_pairs[0].lr).astype(int) - read_rgb(pair.lr)).mean() > 20


def test_folders_for_validation_and_test(build, tmp_path: Path, hr: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("val", "test"):
        (tmp_path / name).mkdir()
        for suffix in ("png", "bmp"):
            Image.fromarray(coordinates(21, 33)).save(tmp_path / name / f"a.{suffix}")
    folders = {"val_hr": str(tmp_path / "val"), "test_hr": str(tmp_path / "test"), "val_share": None}
    datamodule = started(build(**folders))
    datamodule.setup("test")
    assert len(datamodule.train_pairs) == 8
    assert [pair.hr.parent.name for pair in datamodule.test_pairs] == ["test", "test"]
    assert [pair.lr.name for pair in datamodule.test_pairs] == ["a_bmp_LR2.png", "a_png_LR2.png"]
    assert "Validating on the test images" not in caplog.text
    described = datamodule.describe()  # what a checkpoint keeps
    evaluation = PairDataModule(scale=2, test_list=described["test_list"])
    evaluation.setup("test")
    assert [pair.lr for pair in evaluation.test_pairs] == [pair.lr for pair in datamodule.test_pairs]


def test_lists_of_pairs_can_validate_and_test(build, pair, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = pair(1, (9, 8), (18, 16))
    (tmp_path / "mine.txt").write_text(f"{named.lr} {named.hr}\n")
    with caplog.at_level(logging.WARNING):
        datamodule = started(build(val_list=str(tmp_path / "mine.txt")))
    assert len(datamodule.train_pairs) == 8
    assert [pair.lr for pair in datamodule.val_pairs] == [named.lr]
    assert "name other test images by data.test_hr=FOLDER or data.test_list=LIST" in caplog.text
    assert not (tmp_path / "degraded").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hr": "nowhere"}, "nowhere: no such folder. Name the folder of HR images by data.hr=FOLDER."),
        ({"val_hr": "nowhere"}, "nowhere: no such folder. Name the folder of HR images by data.val_hr=FOLDER."),
        ({"train_list": "a.txt"}, "train_list: names pairs; data=degraded takes HR images, data.hr=FOLDER."),
        ({"root": "a"}, "root: names pairs"),
        ({"cache": "device"}, "cache: must be one of none, ram, disk, got 'device'."),
        ({"scale": 5}, "scale: must be one of 2, 3, 4, 8, got 5."),
        ({"val_share": 1.0}, "val_share: must be a number above 0 and below 1, got 1.0."),
        ({"val_share": None}, "val_share: name a share of the HR images, data.val_hr=FOLDER or data.val_list=LIST."),
        ({"val_hr": ".", "val_list": "a.txt"}, "val_hr and val_list exclude each other."),
        ({"degradation": {"jpeg": {"quality": [0, 9]}}}, "degradation.jpeg.quality: must be two numbers from 1 to 100"),
    ],
)
def test_a_wrong_setting_is_one_message(
    hr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, DataError)) as error:
        DegradedDataModule(**{"scale": 2, "hr": str(hr), **settings})
    assert str(error.value).startswith(message)


def test_a_folder_without_images_is_named(build, tmp_path: Path) -> None:
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    Image.new("RGB", (50, 50)).save(tmp_path / "empty" / ".hidden" / "a.png")
    with pytest.raises(DataError, match=r"empty: holds no image \(\.png, .* Name another folder by data\.hr=FOLDER"):
        build(hr=str(tmp_path / "empty"))
    Image.new("RGB", (50, 50)).save(tmp_path / "empty" / "a.png")
    with pytest.raises(DataError, match=r"holds one image; data\.val_share=0\.2 needs 2"):
        build(hr=str(tmp_path / "empty"))


def test_images_smaller_than_the_patch_are_refused_or_skipped(build, hr: Path) -> None:
    Image.new("RGB", (60, 23)).save(hr / "small.png")
    everything = {"val_hr": str(hr / "sub"), "val_share": None}
    with pytest.raises(DataError) as error:
        started(build(**everything))
    assert "1 of 9 HR images cannot be used" in str(error.value)
    message = "small.png is 60×23 (width×height): smaller than the LR patch of 12, 24 in HR; data.patch_size=11"
    assert message in str(error.value)
    assert len(started(build(**everything, on_error="skip")).train_pairs) == 8


def test_a_broken_image_for_validation_is_refused_or_skipped(build, tmp_path: Path) -> None:
    folder = tmp_path / "val"
    folder.mkdir()
    Image.fromarray(coordinates(20, 20)).save(folder / "good.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:60])
    Image.new("RGB", (1, 20)).save(folder / "thin.png")
    with pytest.raises(DataError, match=r"2 of 3 HR images(?s:.*)broken\.png: (?s:.*)thin\.png: 1×20 pixels"):
        started(build(val_hr=str(folder)))
    datamodule = started(build(val_hr=str(folder), on_error="skip"))
    assert [pair.hr.name for pair in datamodule.val_pairs] == ["good.png"]
    assert len(read_list(datamodule.splits.val_list)) == 1
