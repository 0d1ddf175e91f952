"""The program alexnet-tfrecords: the effect of each flag."""

import io
import pathlib
import shutil

import numpy as np
import pytest
from made_photos import encoded, exif, photo, save_image
from made_records import stored_records
from PIL import Image

from alexnet_tf.tfrecords import images, pool, schema


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Ten images in each of two classes. b/turned.png has an EXIF orientation, b/large.png has the most pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(20):
        save_image(folder / "ab"[number % 2] / f"{number}.jpg", photo(60, 80 - number))
    (folder / "b" / "1.jpg").unlink()
    (folder / "b" / "3.jpg").unlink()
    (folder / "b" / "turned.png").write_bytes(encoded(photo(60, 60), "PNG", exif=exif(6)))
    photo(100, 100).save(folder / "b" / "large.png")
    return folder


@pytest.fixture
def built(run_build, photographs, tmp_path):
    """A function that builds a data set with more flags and returns its folder."""

    def built(name, *arguments, source=None):
        defaults = ("--image_px=16", "--num_processes=1", "--num_train_shards=2", "--num_validation_shards=1")
        source = source or f"folder:{photographs}"
        result = run_build(f"--source={source}", f"--data_dir={tmp_path / name}", *defaults, *arguments)
        assert result.status == 0, result.stderr
        return tmp_path / name

    return built


def stored(data_dir):
    """A dict from split to a dict from file name to stored bytes, in the order of the records."""
    return {
        split: {pathlib.Path(name).name: content for name, _, _, content in stored_records(data_dir, split)}
        for split in schema.SPLITS
    }


def opened(data_dir):
    """A dict from file name to the stored image."""
    splits = stored(data_dir).values()
    return {name: Image.open(io.BytesIO(image)) for split in splits for name, image in split.items()}


class TestFlags:
    @pytest.mark.parametrize(
        ("flags", "arguments"),
        [
            (["--image_px=20"], {"image_px": 20}),
            (["--keep_aspect"], {"keep_aspect": True}),
            (["--noexif_orientation"], {"exif_orientation": False}),
            (["--resize=warp"], {"resize": "warp"}),
            (["--interpolation=area"], {"interpolation": "area"}),
            (["--max_pixels=5000", "--max_bad_fraction=0.9"], {"max_pixels": 5000}),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_stored_images(self, built, photographs, flags, arguments):
        found = opened(built("data", "--encoding=png", *flags))
        every = {path.name: path for path in photographs.glob("*/*")}
        assert set(every) - set(found) == ({"large.png"} if "max_pixels" in arguments else set())
        for name, image in found.items():
            np.testing.assert_array_equal(image, images.prepare_image(every[name], **{"image_px": 16} | arguments))

    def test_encoding_and_quality(self, built):
        for name, quality in (("jpeg", 95), ("small", 30)):
            tables = Image.open(io.BytesIO(encoded(photo(), "JPEG", quality=quality))).quantization
            found = opened(built(name, *([] if quality == 95 else [f"--quality={quality}"]))).values()
            assert all(image.format == "JPEG" and image.quantization == tables for image in found)

    def test_numbers_of_shards(self, built):
        folder = built("data", "--num_train_shards=3", "--num_validation_shards=2")
        assert [len(list(folder.glob(f"{split}-*"))) for split in schema.SPLITS] == [3, 2]

    @pytest.mark.parametrize("fraction", [0.1, 0.5])
    def test_validation_fraction(self, built, fraction):
        assert len(stored(built("data", f"--validation_fraction={fraction}"))["validation"]) == 20 * fraction

    def test_seed_changes_order_and_held_out_images(self, built):
        arguments = {"default": [], "same": ["--seed=0"], "other": ["--seed=5"]}
        default, same, other = (stored(built(name, *each)) for name, each in arguments.items())
        assert [list(split) for split in default.values()] == [list(split) for split in same.values()]
        assert list(default["train"]) != list(other["train"])
        assert set(default["validation"]) != set(other["validation"])

    def test_max_bad_fraction(self, built, run_build, tmp_path):
        for number in range(24):
            path = tmp_path / "images" / ("val" if number > 19 else "train") / "ab"[number % 2] / f"{number}.png"
            save_image(path, photo())
            if number < 2:
                path.write_bytes(b"no image")
        places = (f"--source=folder:{tmp_path / 'images'}", f"--data_dir={tmp_path / 'data'}", "--num_processes=1")
        for arguments, percent in (([], 1), (["--max_bad_fraction=0.09"], 9)):
            result = run_build(*places, "--image_px=16", *arguments)
            assert result.status == 2
            assert f"More than {percent}.00% of the 20 train images can't be read" in result.stderr
        folder = built("other", "--max_bad_fraction=0.1", source=f"folder:{tmp_path / 'images'}")
        assert stored(folder)["train"].keys() == {f"{number}.png" for number in range(2, 20)}

    def test_num_processes(self, run_build, photographs, tmp_path, monkeypatch):
        started = []

        def executor(processes, *_):
            started.append(processes)
            raise ValueError

        monkeypatch.setattr(pool.concurrent.futures, "ProcessPoolExecutor", executor)
        run_build(f"--source=folder:{photographs}", f"--data_dir={tmp_path / 'data'}", "--num_processes=3")
        assert started == [3]

    def test_tfds_data_dir(self, built, tfds_dir):
        splits = stored(built("data", f"--tfds_data_dir={tfds_dir}", source="tfds:with_test"))
        assert {split: len(names) for split, names in splits.items()} == {"train": 20, "validation": 6}

    def test_complete_data_set_needs_no_source(self, built, photographs, tmp_path):
        source = shutil.copytree(photographs, tmp_path / "source")
        built("data", source=f"folder:{source}")
        shutil.rmtree(source)
        built("data", source=f"folder:{source}")


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--source=nothing", "--data_dir=data"], "Received: 'nothing'"),
            (["--data_dir=data"], "--source and --data_dir to build"),
            (["--source=fashion_mnist", "--data_dir=data", "--label_offset=1"], "without --source=tfrecords:PATH"),
            (["--source=fashion_mnist", "--data_dir=data", "--", "--direct_num_workers=2"], "--runner"),
        ],
        ids=["source", "nothing to do", "record format", "Beam arguments"],
    )
    def test_mistakes_are_named(self, run_build, arguments, message):
        result = run_build(*arguments)
        assert result.status == 2
        assert message in result.stderr
