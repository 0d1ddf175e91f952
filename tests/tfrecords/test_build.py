"""The program alexnet-tfrecords: the effect of each flag on what it builds."""

import io
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from made_photos import encoded, exif, photo
from PIL import Image
from programs import run

from alexnet_tf.tfrecords import build, images, pool, schema


@pytest.fixture(scope="module")
def program():
    """A function that runs the program in this process: from flags to nothing."""
    before = set(flags.FLAGS)
    build.define_flags()

    def program(*arguments):
        for each in flags.FLAGS.get_flags_for_module(build.__name__):
            each.unparse()
        flags.FLAGS(["alexnet-tfrecords", *arguments])
        build.main([])

    yield program
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Ten images in each of two classes; b/turned.png has an EXIF orientation, b/large.png more pixels than others."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(20):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        photo(60, 80 - number).save(path)
    (folder / "b" / "1.jpg").unlink()
    (folder / "b" / "3.jpg").unlink()
    (folder / "b" / "turned.png").write_bytes(encoded(photo(60, 60), "PNG", exif=exif(6)))
    photo(100, 100).save(folder / "b" / "large.png")
    return folder


@pytest.fixture
def built(program, photographs, tmp_path):
    """A function that builds a data set of them with more flags, and returns its folder."""

    def built(name, *arguments, source=None):
        defaults = ("--image_px=16", "--num_processes=1", "--num_train_shards=2", "--num_validation_shards=1")
        source = source or f"folder:{photographs}"
        program(f"--source={source}", f"--data_dir={tmp_path / name}", *defaults, *arguments)
        return tmp_path / name

    return built


def stored(data_dir):
    """A dict from split to a dict from each image's file name to its bytes, in the order of the files."""
    splits = {}
    for name, split in schema.load_description(data_dir).splits.items():
        splits[name] = {}
        for shard in split.shards:
            for record in tf.data.TFRecordDataset(str(data_dir / shard.name)):
                feature = tf.train.Example.FromString(record.numpy()).features.feature
                file_name, content = (feature[key].bytes_list.value[0] for key in (schema.FILENAME, schema.ENCODED))
                splits[name][pathlib.Path(file_name.decode()).name] = content
    return splits


def opened(data_dir):
    return [Image.open(io.BytesIO(image)) for split in stored(data_dir).values() for image in split.values()]


_TESTS = ("test_build.py", "test_beam.py", "test_record_files.py", "test_in_place.py")


class TestFlags:
    def test_image_px_and_keep_aspect_set_the_size(self, built):
        assert {image.size for image in opened(built("square", "--image_px=20"))} == {(20, 20)}
        sizes = {image.size for image in opened(built("whole", "--image_px=20", "--keep_aspect"))}
        assert {min(size) for size in sizes} == {20}
        assert (27, 20) in sizes

    def test_encoding_and_quality_set_the_files(self, built):
        assert {image.format for image in opened(built("png", "--encoding=png"))} == {"PNG"}
        for name, quality in (("jpeg", 95), ("small", 30)):
            tables = Image.open(io.BytesIO(encoded(photo(), "JPEG", quality=quality))).quantization
            found = opened(built(name, *([] if quality == 95 else [f"--quality={quality}"])))
            assert all(image.format == "JPEG" and image.quantization == tables for image in found)

    def test_exif_orientation_turns_images(self, built):
        for name, arguments, honored in (("turned", [], True), ("not", ["--noexif_orientation"], False)):
            splits = stored(built(name, "--encoding=png", *arguments))
            (image,) = [split["turned.png"] for split in splits.values() if "turned.png" in split]
            file = encoded(photo(60, 60), "PNG", exif=exif(6))
            expected = images.prepare_image(file, 16, exif_orientation=honored)
            np.testing.assert_array_equal(Image.open(io.BytesIO(image)), expected)

    def test_resize_warps_the_complete_image(self, built):
        (whole,) = {image.size for image in opened(built("warped", "--image_px=20", "--resize=warp"))}
        assert whole == (20, 20)
        cropped = stored(built("crop", "--encoding=png"))["train"]
        warped = stored(built("warp", "--encoding=png", "--resize=warp"))["train"]
        assert list(cropped) == list(warped)
        changed = {name for name in cropped if cropped[name] != warped[name]}
        assert "large.png" not in changed and len(changed) > 10  # it alone, and turned.png, are square

    def test_max_pixels_leaves_out_larger_images(self, built):
        all_images = [name for split in stored(built("all")).values() for name in split]
        kept = built("small", "--max_pixels=5000", "--max_bad_fraction=0.9")
        names = [name for split in stored(kept).values() for name in split]
        assert set(all_images) - set(names) == {"large.png"}

    def test_numbers_of_shards_are_those_of_the_files(self, built):
        folder = built("data", "--num_train_shards=3", "--num_validation_shards=2")
        assert [len(list(folder.glob(f"{split}-*"))) for split in schema.SPLITS] == [3, 2]

    def test_validation_fraction_is_held_out(self, built):
        for name, fraction in (("tenth", 0.1), ("half", 0.5)):
            splits = stored(built(name, f"--validation_fraction={fraction}"))
            assert len(splits["validation"]) == 20 * fraction

    def test_seed_changes_the_order_and_what_is_held_out(self, built):
        flags_of = {"zero": [], "same": ["--seed=0"], "other": ["--seed=5"]}
        zero, same, other = (stored(built(name, *arguments)) for name, arguments in flags_of.items())
        assert [list(split) for split in zero.values()] == [list(split) for split in same.values()]
        assert list(zero["train"]) != list(other["train"])
        assert set(zero["validation"]) != set(other["validation"])

    def test_more_unreadable_images_than_max_bad_fraction_stop_it(self, built, tmp_path):
        for number in range(24):
            path = tmp_path / "images" / ("val" if number > 19 else "train") / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no image" if number < 2 else encoded(photo(), "PNG"))
        for arguments, percent in (([], 1), (["--max_bad_fraction=0.09"], 9)):
            with pytest.raises(ValueError, match=rf"More than {percent}\.00% of the 20 train images can't be read"):
                built("data", *arguments, source=f"folder:{tmp_path / 'images'}")
        folder = built("data", "--max_bad_fraction=0.1", source=f"folder:{tmp_path / 'images'}")
        assert stored(folder)["train"].keys() == {f"{number}.png" for number in range(2, 20)}

    def test_num_processes_are_started(self, program, photographs, tmp_path, monkeypatch):
        started = []

        def executor(processes, *_):
            started.append(processes)
            raise InterruptedError

        monkeypatch.setattr(pool.concurrent.futures, "ProcessPoolExecutor", executor)
        with pytest.raises(InterruptedError):
            program(f"--source=folder:{photographs}", f"--data_dir={tmp_path / 'data'}", "--num_processes=3")
        assert started == [3]

    def test_tfds_data_dir_is_where_the_images_are_from(self, built, tfds_dir):
        splits = stored(built("data", f"--tfds_data_dir={tfds_dir}", source="tfds:with_test"))
        assert {split: len(names) for split, names in splits.items()} == {"train": 20, "validation": 6}

    def test_verify_and_describe_read_what_was_built(self, built, program, capsys):
        folder = built("data")
        program(f"--describe={folder}")
        assert "2 classes" in capsys.readouterr().out
        assert (folder / "contact_sheet.png").exists()
        for damaged, status in ((False, 0), (True, 1)):
            if damaged:
                path = next(folder.glob("train-*"))
                content = path.read_bytes()
                path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(SystemExit) as ended:
                program("--verify", f"--data_dir={folder}")
            assert ended.value.code == status

    def test_every_flag_is_tried_here_or_with_its_subject(self, program):
        text = "".join(pathlib.Path(__file__).with_name(name).read_text() for name in _TESTS)
        for flag in flags.FLAGS.get_flags_for_module(build.__name__):
            assert re.search(rf"--(no)?{flag.name}\b", text), flag.name


def test_help_describes_every_flag():
    output = run("tfrecords.build", "--help").stdout
    for name in ("source", "data_dir", "image_px", "encoding", "quality", "num_processes", "max_bad_fraction"):
        assert f"--{name}: " in output
    assert "tfds:NAME" in output


def test_unknown_source_ends_with_an_error_that_names_it(tmp_path):
    result = run("tfrecords.build", "--source=nothing", f"--data_dir={tmp_path / 'data'}", "--image_px=48")
    assert result.returncode != 0
    assert "Received: 'nothing'" in result.stderr


def test_flags_that_say_nothing_to_do_are_refused():
    result = run("tfrecords.build", "--data_dir=somewhere")
    assert result.returncode != 0
    assert "--source and --data_dir to build" in result.stdout + result.stderr
