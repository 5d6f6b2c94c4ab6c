"""ImageNet from generated pictures in folders."""

import os
import re
import sys

import numpy as np
import pytest

from shiftwright.hw.arch.errors import DataError, ToolError
from shiftwright.sw.data import fetch, imagenet, load, locate

CLASSES = ("n01440764", "n01443537", "n02084071")


def put(folder, side=(260, 300), grey=200):
    """A picture of one grey with a black column at its left edge."""
    picture = pytest.importorskip("PIL.Image")
    pixels = np.full((side[1], side[0], 3), grey, np.uint8)
    pixels[:, 0] = 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    picture.fromarray(pixels).save(folder, quality=95)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two training classes with two pictures each, and three of validation; the second lacks its second picture."""
    monkeypatch.delenv(fetch.ENVIRONMENT, raising=False)
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data" / "imagenet"
    for number, name in enumerate(CLASSES):
        for picture in range(2):
            grey = 100 + 20 * number + 10 * picture
            if name != CLASSES[1] or picture == 0:
                put(root / "val" / name / f"ILSVRC2012_val_{picture}.JPEG", grey=grey)
            if number:
                put(root / "train" / name / f"{name}_{picture}.jpg", grey=grey)
    (root / "val" / "notes").mkdir()
    (root / "val" / CLASSES[0] / "list.txt").write_text("no picture")
    return tmp_path / "data"


def test_both_splits_number_classes_alike(tree):
    found = load("imagenet", data_dir=tree)
    assert (found.images.dtype, found.images.shape) == (np.uint8, (5, 3, 224, 224))
    assert found.classes == CLASSES
    assert found.labels.tolist() == [0, 1, 2, 0, 2] and found.labels.dtype == np.int64
    assert found.images[:, 0, 100, 100].tolist() == pytest.approx([100, 120, 140, 110, 150], abs=2)
    train = load("imagenet", split="train", data_dir=tree)
    assert (train.labels.tolist(), train.classes, train.split) == ([1, 2, 1, 2], CLASSES, "train")


@pytest.mark.parametrize("place", ["data", "data/imagenet"])
def test_where_it_is_searched(tree, monkeypatch, place):
    monkeypatch.setenv(fetch.ENVIRONMENT, str(tree.parent / place))
    assert locate("imagenet") == str(tree / "imagenet")
    assert len(load("imagenet")) == 5


def test_at_most_so_many_are_read(tree, monkeypatch):
    assert load("imagenet", data_dir=tree, limit=2).labels.tolist() == [0, 1]
    monkeypatch.setitem(imagenet.LIMITS, "train", 3)
    assert len(load("imagenet", split="train", data_dir=tree)) == 3
    assert len(load("digits", limit=7)) == 7
    with pytest.raises(DataError, match="data set imagenet: limit must be at least 1, not 0"):
        load("imagenet", data_dir=tree, limit=0)


@pytest.mark.parametrize("side", [(300, 500), (501, 300), (256, 256), (40, 30), (2000, 260)])
def test_the_centre_of_the_scaled_picture(tmp_path, side):
    """Against the picture's own resampling: what is cut out is centred to half a pixel."""
    picture = pytest.importorskip("PIL.Image")
    ramp = np.broadcast_to(np.linspace(0, 255, side[0]), (side[1], side[0])).round().astype(np.uint8)
    (tmp_path / "val" / CLASSES[0]).mkdir(parents=True)
    picture.fromarray(ramp).save(tmp_path / "val" / CLASSES[0] / "a.JPEG", quality=100, subsampling=0)
    images, _, _ = imagenet.read("test", tmp_path)
    row = images[0, 0, 112].astype(float)
    width = 256 * (side[0] - 1) / min(side)
    assert row.mean() == pytest.approx(127.5, abs=2)
    assert row[-1] - row[0] == pytest.approx(255 * 223 / width, abs=3)
    assert (images[0, 0] == images[0, 1]).all()


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_other_colour_spaces(tmp_path, mode):
    picture = pytest.importorskip("PIL.Image")
    (tmp_path / "val" / CLASSES[0]).mkdir(parents=True)
    picture.new("RGB", (300, 260), (90, 90, 90)).convert(mode).save(tmp_path / "val" / CLASSES[0] / "a.JPEG")
    images, _, _ = imagenet.read("test", tmp_path)
    assert images.reshape(-1).tolist() == pytest.approx([90] * images.size, abs=2)


def test_it_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv(fetch.ENVIRONMENT, str(tmp_path / "environment"))
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "val" / "images").mkdir(parents=True)
    for act in load, locate:
        with pytest.raises(DataError) as caught:
            act("imagenet", data_dir=tmp_path)
        message = str(caught.value)
        for part in ("data set imagenet (test) is not here: val/<WordNet ID>/*.JPEG not found in ", f"{tmp_path}, ",
                     str(tmp_path / "environment" / "imagenet"), "https://image-net.org", "put train and val into",
                     "--data-dir or SHIFTWRIGHT_DATA"):
            assert part in message
    with pytest.raises(DataError, match=r"imagenet \(train\) is not here: train/<WordNet ID>"):
        load("imagenet", split="train", data_dir=tmp_path)


def test_damage(tree):
    place = tree / "imagenet" / "val"
    (place / CLASSES[1] / "ILSVRC2012_val_0.JPEG").write_bytes(b"no picture")
    with pytest.raises(DataError, match=re.escape(f"{place / CLASSES[1]}/ILSVRC2012_val_0.JPEG: not a picture, or")):
        load("imagenet", data_dir=tree)
    picture = place / CLASSES[0] / "ILSVRC2012_val_0.JPEG"
    picture.write_bytes(picture.read_bytes()[:700])
    with pytest.raises(DataError, match=re.escape(f"{picture}: not a picture, or damaged")):
        load("imagenet", data_dir=tree)
    for path in place.rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(DataError, match=r"val: no images; put \*.JPEG into its folders n01440764 and so on"):
        load("imagenet", data_dir=tree)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_can_not_be_listed(tree):
    place = tree / "imagenet" / "val"
    place.chmod(0)
    with pytest.raises(DataError, match="val: can't list the folder: Permission denied"):
        load("imagenet", data_dir=tree)
    place.chmod(0o755)


def test_pillow_is_missing(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ToolError, match=r"Pillow is needed .* pip install 'shiftwright\[imagenet\]'$"):
        load("imagenet", data_dir=tree)
