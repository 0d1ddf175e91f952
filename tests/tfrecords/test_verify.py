"""alexnet-tfrecords --verify finds all damage; --describe describes a data set."""

import dataclasses
import pathlib
import random
import re

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_IMAGE_PX, tiny_image
from made_photos import encoded, photo
from made_records import change_records, set_feature
from matplotlib import font_manager
from PIL import Image
from programs import call

from alexnet_tf.tfrecords import describe, reader, schema, statistics, verify

SHARD = "validation-00001-of-00002"
SMALL_PNG = encoded(photo(9, 8), "PNG")


class TestVerify:
    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda e: e[3].features.feature.pop(schema.LABEL), "record 3: it can't be parsed: .*image/class/label"),
            (set_feature(2, schema.LABEL, 2), r"(?s)record 2: it can't be parsed: .*must be from 0 to 1.*\.png.*2"),
            (set_feature(1, schema.LABEL, -1), r"(?s)record 1: it can't be parsed: .*must be from 0 to 1.*\.png.*-1"),
            (set_feature(4, schema.ENCODED, b"no image"), "record 4: .* can't be decoded as png of 40 x 40 pixels"),
            (set_feature(0, schema.ENCODED, SMALL_PNG), "record 0: .* can't be decoded as png of 40 x 40 pixels"),
            (lambda e: e.pop(), "record 4: it is missing"),
        ],
    )
    def test_invalid_record_is_named(self, change, message, copy):
        path = copy / SHARD
        change_records(path, change)
        problems = list(map(str, verify.verify_dataset(copy)))
        assert all(problem.startswith(str(path)) for problem in problems)
        found = [problem for problem in problems if re.search(message, problem)]
        assert len(found) == 1, problems

    def test_missing_shard_is_named_and_others_are_checked(self, copy):
        (copy / SHARD).unlink()
        (copy / "train-00002-of-00005").write_bytes(b"")
        problems = verify.verify_dataset(copy)
        assert {pathlib.PurePath(problem.path).name for problem in problems} == {SHARD, "train-00002-of-00005"}

    def test_program_exits_with_status_1(self, copy, capsys):
        with pytest.raises(SystemExit, match="0"):
            call("tfrecords.build", "--verify", f"--data_dir={copy}")
        content = bytearray((copy / SHARD).read_bytes())
        content[-10] ^= 4
        (copy / SHARD).write_bytes(content)
        with pytest.raises(SystemExit, match="1"):
            call("tfrecords.build", "--verify", f"--data_dir={copy}")
        errors = capsys.readouterr().err
        assert f"{copy / SHARD}, record 4: it can't be read: corrupted record" in errors
        assert errors.count("\n") == 2


class TestDamage:
    @pytest.mark.slow
    @pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.long)])
    def test_every_bit_flip_and_cut_is_noticed(self, copy, count):
        chance = random.Random(7)
        complete = (copy / SHARD).read_bytes()
        noticed = {"flip": 0, "cut": 0}
        for number in range(count):
            content, kind = bytearray(complete), ("flip", "cut")[number % 2]
            place = chance.randrange(len(complete))
            if kind == "flip":
                content[place] ^= 1 << chance.randrange(8)
            else:
                del content[place:]
            (copy / SHARD).write_bytes(content)
            try:
                for images, labels in reader.make_evaluation_dataset(copy, 4, TINY_IMAGE_PX):
                    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
                        original = int(image[0, 0, 2])
                        np.testing.assert_array_equal(image, tiny_image(original))
                        assert label == original % 2
            except (ValueError, tf.errors.OpError):
                noticed[kind] += 1
        assert noticed == {"flip": count // 2, "cut": count // 2}


class TestDescribe:
    def test_text_has_counts_and_statistics(self, tiny_data_dir):
        text = describe.describe_dataset(tiny_data_dir)
        assert "2 classes; images of 40 x 40 pixels, stored as png." in text
        assert "| train | 46 | 5 |" in text
        assert "| even | 23 | 5 |" in text
        mean = ", ".join(f"{value:.3g}" for value in statistics.Statistics.load(tiny_data_dir).rgb_mean)
        assert f"Mean RGB of the training images, 0 to 255: {mean}." in text
        split = schema.load_description(tiny_data_dir).splits["train"]
        in_all = sum(shard.bytes for shard in split.shards)
        assert f"| {in_all / 1e6:,.1f} | {in_all / 46:,.0f} | 23, 23, 23 | 0 |" in text

    @pytest.mark.parametrize("classes", [2, 23])
    def test_largest_classes_come_first_and_the_middle_of_many_is_left_out(self, classes, tiny_data_dir, monkeypatch):
        description = schema.load_description(tiny_data_dir)
        counts = (*range(10, 9 + classes), 1000)
        splits = {
            name: dataclasses.replace(split, count_per_class=counts) for name, split in description.splits.items()
        }
        names = tuple(f"of {count}" for count in counts)
        changed = dataclasses.replace(description, class_names=names, splits=splits)
        monkeypatch.setattr(schema, "load_description", lambda _: changed)
        text = describe.describe_dataset(tiny_data_dir)
        rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| of ")]
        expected = [f"| of {count}" for count in reversed(counts)]
        assert rows == (expected if classes == 2 else expected[:10] + expected[-10:])
        assert ("(The 10 largest and the 10 smallest of 23 classes.)" in text) == (classes == 23)
        assert f"| 10, {505 if classes == 2 else 21}, 1,000 |" in text  # minimum, median, maximum

    def test_program_writes_the_pictures(self, copy):
        output = call("tfrecords.build", "--describe", copy)
        assert "contact_sheet.png" in output
        np.testing.assert_array_equal(
            np.asarray(Image.open(copy / "mean_image.png")),
            np.uint8(np.round(statistics.Statistics.load(copy).mean_image)),
        )
        assert Image.open(copy / "contact_sheet.png").size == (8 * 116, 6 * (116 + 14))  # 46 images, 8 in a row

    def test_captions_show_class_names_of_any_script(self, tiny_data_dir, made_font, monkeypatch):
        path = made_font("猫")
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [path])
        description = schema.load_description(tiny_data_dir)
        sheets = {}
        for names in (("even", "odd"), ("猫", "odd"), ("猫" * 50, "odd")):
            changed = dataclasses.replace(description, class_names=names)
            monkeypatch.setattr(schema, "load_description", lambda _, changed=changed: changed)
            sheets[names[0][:2]] = describe.draw_dataset(tiny_data_dir)["contact_sheet.png"]
        captions = {name: sheet[114:128, 2:114] for name, sheet in sheets.items()}  # of the first image, which is even
        black = {name: np.sum(np.all(caption == 0, axis=-1)) for name, caption in captions.items()}
        assert black["猫"] == 10 * 10 and 5 < black["ev"] < 100 < black["猫猫"] <= 11 * 100

    def test_noise_samples_have_the_size_that_the_statistics_give(self, tiny_data_dir):
        pictures = describe.draw_dataset(tiny_data_dir)
        sheet = pictures["color_noise.png"].astype("float64")
        # The center of each thumbnail of the first row, against the first, which has no noise.
        centers = np.array([sheet[58, 116 * column + 58] for column in range(8)])
        offsets = centers[1:] - centers[0]
        expected = (
            np.random.default_rng(0).normal(size=(4, 7, 3)) @ statistics.Statistics.load(tiny_data_dir).color_noise().T
        )
        assert np.abs(offsets - expected[0]).max() <= 1
