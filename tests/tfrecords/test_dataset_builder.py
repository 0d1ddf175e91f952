"""The builder: the same bytes in every run, and a killed build resumes."""

import io
import json
import pathlib
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import psutil
import pytest
import tensorflow as tf
from made_fashion_mnist import write_fashion_mnist
from made_photos import encoded, exif, photo
from PIL import Image

from alexnet_tf.tfrecords import dataset_builder, images, reader, schema, shards, sources, verify


def read_examples(data_dir, split):
    """(filename, label, text, encoded image) of each record, in the order of the files."""
    entries = []
    for shard in schema.load_description(data_dir).splits[split].shards:
        for record in tf.data.TFRecordDataset(str(data_dir / shard.name)):
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            name, text, image = (
                feature[key].bytes_list.value[0] for key in (schema.FILENAME, schema.TEXT, schema.ENCODED)
            )
            entries.append((name.decode(), feature[schema.LABEL].int64_list.value[0], text.decode(), image))
    return entries


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def image_folder(tmp_path):
    """24 images in 2 classes."""
    for number in range(24):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(40 + number, 60).save(path)
    return tmp_path / "images"


def build_small(source, data_dir, **arguments):
    defaults = {"image_px": 16, "num_train_shards": 3, "num_validation_shards": 1, "num_processes": 1}
    return dataset_builder.build_dataset(source, data_dir, **defaults | arguments)


class TestBuildDataset:
    def test_records_hold_the_images_of_the_source(self, image_folder, tmp_path):
        description = build_small(f"folder:{image_folder}", tmp_path / "data", encoding="png")
        assert description.class_names == ("a", "b")
        source = sources.open_source(f"folder:{image_folder}")
        for split in schema.SPLITS:
            expected = list(source.read(split, 0, source.count(split)))
            entries = read_examples(tmp_path / "data", split)
            assert len(entries) == description.splits[split].count == source.count(split)
            for (name, label, text, image), (source_name, content, source_label) in zip(entries, expected, strict=True):
                assert (name, label, text) == (source_name, source_label, "ab"[label])
                np.testing.assert_array_equal(Image.open(io.BytesIO(image)), images.prepare_image(content, 16))

    def test_raw_images_are_read_as_those_of_png(self, image_folder, tmp_path):
        batches = {}
        for encoding in ("png", "raw"):
            build_small(f"folder:{image_folder}", tmp_path / encoding, encoding=encoding)
            training = reader.make_training_dataset(tmp_path / encoding, 2, 12).take(3)
            validation = reader.make_evaluation_dataset(tmp_path / encoding, 2, 12, views=10)
            batches[encoding] = [inputs["image"] for inputs, _ in training] + [views for views, _ in validation]
            assert verify.verify_dataset(tmp_path / encoding) == []
        for png, raw in zip(*batches.values(), strict=True):
            np.testing.assert_array_equal(raw, png)

    def test_nothing_but_the_data_set_is_left(self, image_folder, tmp_path):
        build_small(f"folder:{image_folder}", tmp_path / "data")
        assert sorted(contents(tmp_path / "data")) == [
            "dataset.json",
            "index.npz",
            "statistics.npz",
            *(f"train-0000{index}-of-00003" for index in range(3)),
            "validation-00000-of-00001",
        ]

    def test_one_and_two_processes_write_the_same_bytes(self, image_folder, tmp_path):
        for processes in (1, 2):
            build_small(f"folder:{image_folder}", tmp_path / str(processes), num_processes=processes)
        assert contents(tmp_path / "1") == contents(tmp_path / "2")

    def test_png_named_jpeg_is_read(self, image_folder, tmp_path):
        (image_folder / "a" / "0.jpg").write_bytes(encoded(photo(), "PNG"))
        description = build_small(f"folder:{image_folder}", tmp_path / "data")
        assert sum(split.count for split in description.splits.values()) == 24
        for split in schema.SPLITS:
            for _, _, _, image in read_examples(tmp_path / "data", split):
                assert image.startswith(b"\xff\xd8")

    def test_unreadable_images_are_skipped_and_listed(self, image_folder, tmp_path):
        bad = {"a/0.jpg": b"", "b/1.jpg": b"text", "b/3.jpg": encoded(photo(), "JPEG")[:700]}
        for name, content in bad.items():
            (image_folder / name).write_bytes(content)
        build_small(f"folder:{image_folder}", tmp_path / "data", max_bad_fraction=0.5)
        splits = schema.load_description(tmp_path / "data").splits.values()
        skipped = {filename: reason for split in splits for filename, reason in split.skipped}
        assert skipped.keys() == {str(image_folder / name) for name in bad}
        assert all(skipped.values())
        assert sum(split.count for split in splits) == 21
        stored = [entry[0] for split in schema.SPLITS for entry in read_examples(tmp_path / "data", split)]
        assert not skipped.keys() & set(stored)

    def test_too_many_unreadable_images_stop_it_and_a_larger_fraction_resumes(self, image_folder, tmp_path):
        for number in range(0, 12, 2):
            (image_folder / "a" / f"{number}.jpg").write_bytes(b"text")
        with pytest.raises(ValueError, match=r"max_bad_fraction.*/a/\d+\.jpg \("):
            build_small(f"folder:{image_folder}", tmp_path / "data")
        assert not (tmp_path / "data" / "dataset.json").exists()
        description = build_small(f"folder:{image_folder}", tmp_path / "data", max_bad_fraction=0.9)
        assert sum(split.count for split in description.splits.values()) == 18

    @pytest.mark.parametrize("unreadable, refused", [(2, False), (3, True)])
    def test_fraction_itself_may_be_unreadable_and_no_image_more(self, unreadable, refused):
        others = {"image_px": 8, "keep_aspect": False, "encoding": "png", "quality": 95, "max_pixels": 64}
        others["resize"] = "crop"
        tasks = [
            shards.ShardTask(split, start, start + 10, pathlib.Path("shard"), exif_orientation=True, **others)
            for split, start in (("train", 0), ("train", 10), ("validation", 0))
        ]
        with pytest.raises(ValueError, match=r"More than 10.00% of the 20 train") if refused else nullcontext():
            shards.check_unreadable(tasks, "train", [("name", "reason")] * unreadable, 0.1)

    def test_reasons_are_the_same_in_every_run(self, image_folder, tmp_path):
        (image_folder / "a" / "0.jpg").write_bytes(b"text")
        description = build_small(f"folder:{image_folder}", tmp_path / "data", max_bad_fraction=0.5)
        ((_, reason),) = [image for split in description.splits.values() for image in split.skipped]
        assert " at 0x" not in reason  # a memory address, another in each run

    def test_photographs_are_turned_upright_unless_asked_not_to(self, tmp_path):
        for name in "ab":
            for number in range(2):
                path = tmp_path / "images" / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(photo(30, 30), "PNG", exif=exif(8)))
        shown = {}
        for honored in (True, False):
            data_dir, arguments = tmp_path / str(honored), {"num_train_shards": 1, "encoding": "png"}
            build_small(f"folder:{tmp_path / 'images'}", data_dir, exif_orientation=honored, **arguments)
            assert schema.load_description(data_dir).exif_orientation is honored
            shown[honored] = images.prepare_image(read_examples(data_dir, "train")[0][3], 16)
        np.testing.assert_array_equal(shown[False], images.prepare_image(np.asarray(photo(30, 30)), 16))
        assert np.abs(np.int32(shown[True]) - np.rot90(shown[False])).max() <= 1

    def test_warped_images_are_stored_and_told_from_cropped_ones(self, image_folder, tmp_path):
        source = f"folder:{image_folder}"
        assert build_small(source, tmp_path / "data", resize="warp", encoding="png").resize == "warp"
        by_name = {name: content for name, content, _ in sources.open_source(source).read("train", 0, 22)}
        for name, _, _, image in read_examples(tmp_path / "data", "train"):
            expected = Image.open(by_name[name]).resize((16, 16), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(Image.open(io.BytesIO(image)), expected)
        with pytest.raises(ValueError, match="resize was 'warp' and is now 'crop'"):
            build_small(source, tmp_path / "data", encoding="png")
        with pytest.raises(
            ValueError, match=r"`resize` must be .*\"crop\" with `keep_aspect`\. Received: resize='warp'"
        ):
            build_small(source, tmp_path / "other", resize="warp", keep_aspect=True)

    def test_old_data_set_is_complete_and_says_that_it_ignores_orientations(self, image_folder, tmp_path, capsys):
        build_small(f"folder:{image_folder}", tmp_path / "data")
        path = tmp_path / "data" / "dataset.json"
        content = json.loads(path.read_text())
        for name in ("exif_orientation", "max_pixels", "resize"):
            del content["settings"][name]
        del content["checksum"]
        path.write_text(json.dumps(content))
        assert build_small(f"folder:{image_folder}", tmp_path / "data").exif_orientation is None
        output = capsys.readouterr().out
        assert "built by an older version, which ignored EXIF orientations" in output
        assert "is complete: nothing to build" in output
        with pytest.raises(ValueError, match="resize was 'crop' and is now 'warp'"):
            build_small(f"folder:{image_folder}", tmp_path / "data", resize="warp")

    def test_formats_that_are_not_served_are_counted_in_a_warning(self, image_folder, tmp_path, capsys):
        build_small(f"folder:{image_folder}", tmp_path / "served")
        assert "Warning" not in capsys.readouterr().out
        for number, kind in ((0, "WEBP"), (2, "WEBP"), (4, "GIF")):
            (image_folder / "a" / f"{number}.jpg").write_bytes(encoded(photo(), kind))
        (image_folder / "b" / "1.jpg").write_bytes(encoded(photo(mode="P"), "BMP"))
        (image_folder / "b" / "3.jpg").write_bytes(encoded(photo(), "BMP"))
        build_small(f"folder:{image_folder}", tmp_path / "data")
        (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning: 4 images")]
        assert "1 BMP of less than 24 bits, 1 GIF, 2 WEBP. It must be sent JPEG, PNG, BMP." in warning

    def test_larger_images_are_skipped_with_the_flags_name(self, image_folder, tmp_path):
        description = build_small(f"folder:{image_folder}", tmp_path / "data", max_pixels=60 * 62, max_bad_fraction=0.5)
        skipped = [entry for split in description.splits.values() for entry in split.skipped]
        assert {pathlib.Path(name).name for name, _ in skipped} == {"23.jpg"}
        assert all("--max_pixels" in reason for _, reason in skipped)

    def test_few_photographs_build_by_default_and_the_same_call_finds_them_complete(self, image_folder, tmp_path):
        for _ in range(2):
            description = build_small(
                f"folder:{image_folder}", tmp_path / "data", num_train_shards=None, num_validation_shards=None
            )
            assert {name: len(split.shards) for name, split in description.splits.items()} == {
                "train": 16,
                "validation": 2,
            }
        with pytest.raises(ValueError, match="num_train_shards was 16 and is now 3"):
            build_small(f"folder:{image_folder}", tmp_path / "data")

    def test_many_images_have_a_shard_for_every_thousand(self, tmp_path, monkeypatch):
        monkeypatch.setattr(dataset_builder, "_IMAGES_PER_SHARD", 10)
        write_fashion_mnist(tmp_path / "set", {"train": 339, "t10k": 60})
        description = build_small(
            f"fashion_mnist:{tmp_path / 'set'}", tmp_path / "data", num_train_shards=None, num_validation_shards=None
        )
        assert {name: len(split.shards) for name, split in description.splits.items()} == {
            "train": 33,
            "validation": 6,
        }

    def test_second_call_does_nothing_and_reports_it(self, image_folder, tmp_path, capsys):
        build_small(f"folder:{image_folder}", tmp_path / "data")
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
        build_small(f"folder:{image_folder}", tmp_path / "data")
        assert "is complete: nothing to build" in capsys.readouterr().out
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == before

    def test_other_settings_are_refused_and_listed(self, image_folder, tmp_path):
        build_small(f"folder:{image_folder}", tmp_path / "data")
        with pytest.raises(ValueError, match=r"image_px was 16 and is now 20; seed was 0 and is now 3.*--data_dir"):
            build_small(f"folder:{image_folder}", tmp_path / "data", image_px=20, seed=3)

    def test_cut_short_shard_of_a_complete_data_set_is_built_again(self, image_folder, tmp_path):
        build_small(f"folder:{image_folder}", tmp_path / "data")
        before = contents(tmp_path / "data")
        path = tmp_path / "data" / "train-00001-of-00003"
        path.write_bytes(path.read_bytes()[:-1])
        build_small(f"folder:{image_folder}", tmp_path / "data")
        assert contents(tmp_path / "data") == before

    @pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:100])])
    def test_damaged_index_is_rebuilt_without_the_images(self, damage, image_folder, tmp_path):
        build_small(f"folder:{image_folder}", tmp_path / "data")
        before = contents(tmp_path / "data")
        damage(tmp_path / "data" / "index.npz")
        image_folder.rename(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match=r"index\.npz must hold the sizes of all records"):
            reader.make_training_dataset(tmp_path / "data", 2, 12)
        build_small(f"folder:{image_folder}", tmp_path / "data")
        assert contents(tmp_path / "data") == before

    def test_damaged_data_set_is_not_deleted_before_its_images_are_found(self, image_folder, tmp_path):
        build_small(f"folder:{image_folder}", tmp_path / "data")
        (tmp_path / "data" / "train-00001-of-00003").write_bytes(b"")
        before = contents(tmp_path / "data")
        image_folder.rename(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match="must be a folder"):
            build_small(f"folder:{image_folder}", tmp_path / "data")
        assert contents(tmp_path / "data") == before

    def test_shard_that_vanished_from_a_stopped_build_is_built_again(self, image_folder, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(dataset_builder.statistics.Statistics, "save", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                build_small(f"folder:{image_folder}", tmp_path / "data")
        (tmp_path / "data" / "train-00001-of-00003").unlink()
        description = build_small(f"folder:{image_folder}", tmp_path / "data")
        schema.check_shard_sizes(tmp_path / "data", description.splits["train"])

    def test_second_builder_at_the_same_time_is_refused_and_deletes_nothing(self, image_folder, tmp_path, monkeypatch):
        build_shard, kept = shards.build_shard, []

        def build_both(task):
            if not kept:
                kept.append(task.path.with_name(".tmp-of-the-first"))
                kept[0].touch()
                with pytest.raises(ValueError, match="Another process builds a data set in `data_dir`"):
                    build_small(f"folder:{image_folder}", tmp_path / "data")
                assert kept[0].exists()
                kept[0].unlink()
            build_shard(task)

        monkeypatch.setattr(shards, "build_shard", build_both)
        build_small(f"folder:{image_folder}", tmp_path / "data")
        assert kept

    def test_files_that_it_did_not_write_are_kept(self, image_folder, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "train-00000-of-00003").write_text("somebody's")
        with pytest.raises(ValueError, match="data_dir"):
            build_small(f"folder:{image_folder}", tmp_path / "data")
        assert (tmp_path / "data" / "train-00000-of-00003").read_text() == "somebody's"

    def test_label_that_is_no_class_is_refused(self, tmp_path, monkeypatch):
        class Unlabeled:
            """As the test splits of TensorFlow Datasets are: every label -1."""

            class_names = ("a", "b")

            def count(self, split):
                return 4

            def read(self, split, start, stop):
                return ((str(index), np.zeros((9, 9), "uint8"), -1) for index in range(start, stop))

        monkeypatch.setattr(sources, "open_source", lambda *_: Unlabeled())
        with pytest.raises(ValueError, match="Received: -1"):
            build_small("unlabeled", tmp_path / "data")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"encoding": "gif"},
            {"quality": 0},
            {"image_px": 0},
            {"max_pixels": 0},
            {"num_train_shards": 0},
            {"num_train_shards": 25},
            {"num_validation_shards": 25},
        ],
        ids=str,
    )
    def test_argument_out_of_range_is_named(self, image_folder, tmp_path, arguments):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: .*{value}"):
            build_small(f"folder:{image_folder}", tmp_path / "data", **arguments)

    def test_folder_that_can_not_be_created_is_named(self, image_folder, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file/data"):
            build_small(f"folder:{image_folder}", tmp_path / "file" / "data")


class TestRun:
    """The program, in a process of its own."""

    def command(self, data_dir, *arguments):
        module = [sys.executable, "-m", "alexnet_tf.tfrecords.build"]
        return [*module, "--source=fashion_mnist", f"--data_dir={data_dir}", "--image_px=48", *arguments]

    @pytest.mark.slow
    def test_killed_in_the_middle_the_same_command_ends_with_the_same_bytes(self, tmp_path):
        command = self.command(tmp_path / "killed", "--num_processes=2")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while len(parts := set((tmp_path / "killed").glob(".part-*.npz"))) < 3 and time.monotonic() < deadline:
                time.sleep(0.005)
        finally:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert parts
        assert not (tmp_path / "killed" / "dataset.json").exists()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert workers and not alive  # they noticed that it is gone
        (tmp_path / "killed" / ".tmp-1-train-00015-of-00016").write_bytes(b"half a shard")
        kept = {path.name.removeprefix(".part-").removesuffix(".npz") for path in parts}
        written = {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in kept}

        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        assert {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in kept} == written  # not built twice
        dataset_builder.build_dataset("fashion_mnist", tmp_path / "undisturbed", image_px=48, num_processes=1)
        assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


class TestDatasetOnDisk:
    def test_json_is_readable_by_anything(self, tiny_data_dir):
        content = json.loads(pathlib.Path(tiny_data_dir, "dataset.json").read_text())
        assert content["class_names"] == ["even", "odd"]
        assert content["splits"]["train"]["shards"][0]["name"] == "train-00000-of-00005"
