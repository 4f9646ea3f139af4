from __future__ import annotations

import subprocess
import sys

import pytest

from d2csr.data.discovery import discover
from d2csr.data.layouts import LAYOUTS
from d2csr.errors import ConfigError, DataError


def scale_of(dataset):
    return 8 if dataset == "d2crealsr" else 4


def test_unknown_data_set(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no data set 'set5': choose one of realsr, drealsr, d2crealsr, pairs.*plugins="
    ):
        discover("set5", tmp_path, 4)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_missing_folder(dataset, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        discover(dataset, tmp_path / "nowhere", scale_of(dataset))


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_file_for_a_folder(dataset, tmp_path):
    (tmp_path / "list.txt").write_text("a b")
    with pytest.raises(DataError, match=r"list.txt: is a file, not a folder"):
        discover(dataset, str(tmp_path / "list.txt"), scale_of(dataset))


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_empty_folder(dataset, tmp_path):
    with pytest.raises(DataError, match=r"no pairs of scale \d found(?s:.*)Found in it: no folder\."):
        discover(dataset, tmp_path, scale_of(dataset))


def test_message_names_expected_and_present_folders(tmp_path):
    (tmp_path / "photos" / "summer").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        discover("realsr", tmp_path, 4)
    message = str(error.value)
    for looked_for in (
        "RealSR(V3), RealSR_V3, RealSR",
        "\n  Canon|Nikon/{train,test}/4: HR in ., LR in .\n",
        "\n  Canon|Nikon/{train,test}/4: HR in HR, LR in LR\n",
        "\n  .: HR in {train,test}_HR/x4, LR in {train,test}_LR/x4\n",
        "\n  {train,test}/x4: HR in HR, LR in LR\n",
    ):
        assert looked_for in message
    assert "Found in it: photos, photos/summer." in message
    assert "use the data set 'pairs'; or write a list" in message


def test_message_lists_some_of_many_folders(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02}").mkdir()
    with pytest.raises(DataError, match=r"18, 19, \.\.\. and 10 more"):
        discover("pairs", tmp_path, 4)


def test_needs_no_torch():
    code = "import sys, d2csr.data.discovery; print([m for m in ('torch', 'numpy', 'hydra') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
