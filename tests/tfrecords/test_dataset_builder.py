"""The builder: equal settings give equal bytes, and interrupted builds resume."""

import concurrent.futures
import io
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest
from batches import read_all
from made_fashion_mnist import write_fashion_mnist
from made_photos import encoded, photo, save_image
from made_records import contents, stored_records
from PIL import Image
from programs import ENVIRONMENT, program

from alexnet_tf.tfrecords import dataset_builder, images, reader, schema, shards, sources, verify


@pytest.fixture
def image_folder(tmp_path):
    """24 images in 2 classes."""
    for number in range(24):
        save_image(tmp_path / "images" / "ab"[number % 2] / f"{number}.jpg", photo(40 + number, 60))
    return tmp_path / "images"


def build_small(source, data_dir, **arguments):
    defaults = {"image_px": 16, "num_train_shards": 3, "num_validation_shards": 1, "num_processes": 1}
    return dataset_builder.build_dataset(source, data_dir, **defaults | arguments)


@pytest.fixture
def build(image_folder, tmp_path):
    """A function that builds a data set of these images, in the folder `data`."""
    return lambda **arguments: build_small(f"folder:{image_folder}", tmp_path / "data", **arguments)


class TestContent:
    def test_records_contain_the_images_of_the_source(self, build, image_folder, tmp_path):
        description = build(encoding="png")
        assert description.class_names == ("a", "b")
        source = sources.open_source(f"folder:{image_folder}")
        for split in schema.SPLITS:
            expected = read_all(source, split)
            entries = list(stored_records(tmp_path / "data", split))
            assert len(entries) == description.splits[split].count == source.count(split)
            for (name, label, text, image), (source_name, content, source_label) in zip(entries, expected, strict=True):
                assert (name, label, text) == (source_name, source_label, "ab"[label])
                np.testing.assert_array_equal(Image.open(io.BytesIO(image)), images.prepare_image(content, 16))
        assert sorted(contents(tmp_path / "data")) == [
            "dataset.json",
            "index.npz",
            "statistics.npz",
            *(f"train-0000{index}-of-00003" for index in range(3)),
            "validation-00000-of-00001",
        ]

    def test_full_shared_memory_names_the_flag(self, build, monkeypatch):
        def no_space(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", no_space)
        with pytest.raises(OSError, match=r"No space left on device in /dev/shm, .*--num_processes=1"):
            build(num_processes=2)

    def test_default_numbers_of_shards(self, tmp_path, monkeypatch):
        defaults = {"num_train_shards": None, "num_validation_shards": None}
        monkeypatch.setattr(dataset_builder, "_IMAGES_PER_SHARD", 10)
        for counts, expected in (((22, 2), (16, 2)), ((339, 60), (33, 6))):
            name = str(counts)
            write_fashion_mnist(tmp_path / f"images {name}", {"train": counts[0], "t10k": counts[1]})
            for _ in range(2):  # the second call accepts the numbers of the first
                description = build_small(f"fashion_mnist:{tmp_path / f'images {name}'}", tmp_path / name, **defaults)
                assert tuple(len(split.shards) for split in description.splits.values()) == expected
        with pytest.raises(ValueError, match="num_train_shards was 33 and is now 3"):
            build_small(f"fashion_mnist:{tmp_path / f'images {name}'}", tmp_path / name)


class TestUnreadableImages:
    def test_they_are_skipped_and_listed(self, build, image_folder, tmp_path):
        bad = {"a/0.jpg": b"", "b/1.jpg": b"text", "b/3.jpg": encoded(photo(), "JPEG")[:700]}
        for name, content in bad.items():
            (image_folder / name).write_bytes(content)
        (image_folder / "a" / "2.jpg").write_bytes(encoded(photo(), "PNG"))  # is read despite its name
        build(max_bad_fraction=0.5)
        description = schema.load_description(tmp_path / "data")
        skipped = {filename: reason for split in description.splits.values() for filename, reason in split.skipped}
        assert skipped.keys() == {str(image_folder / name) for name in bad}
        assert all(reason and " at 0x" not in reason for reason in skipped.values())  # no memory address
        assert sum(split.count for split in description.splits.values()) == 21
        assert build() == description  # is complete
        assert verify.verify_dataset(tmp_path / "data") == []

    @pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_too_many_stop_the_build(self, build, image_folder, tmp_path, processes):
        for number in range(0, 12, 2):
            (image_folder / "a" / f"{number}.jpg").write_bytes(b"text")
        with pytest.raises(ValueError, match=r"max_bad_fraction.*/a/\d+\.jpg \("):
            build(num_processes=processes)
        assert not (tmp_path / "data" / "dataset.json").exists()
        description = build(max_bad_fraction=0.9)
        assert sum(split.count for split in description.splits.values()) == 18

    def test_formats_that_models_can_not_decode_are_counted(self, build, image_folder, tmp_path, capsys):
        build_small(f"folder:{image_folder}", tmp_path / "served")
        assert "Warning" not in capsys.readouterr().out
        for number, kind in ((0, "WEBP"), (2, "WEBP"), (4, "GIF")):
            (image_folder / "a" / f"{number}.jpg").write_bytes(encoded(photo(), kind))
        (image_folder / "b" / "1.jpg").write_bytes(encoded(photo(mode="P"), "BMP"))
        (image_folder / "b" / "3.jpg").write_bytes(encoded(photo(), "BMP"))
        build()
        (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning: 4 images")]
        assert "1 BMP with less than 24 bits, 1 GIF, 2 WEBP. Send it JPEG, PNG, BMP" in warning


class TestSecondCall:
    def interrupt(self, build, monkeypatch):
        """Builds all shards, and nothing else."""
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(dataset_builder.statistics.Statistics, "save", lambda *_: 1 / 0)
            build()

    def test_complete_data_set_is_kept_and_other_settings_are_refused(self, build, tmp_path, capsys):
        build()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
        build()
        assert "data, which is complete.\n" in capsys.readouterr().out
        with pytest.raises(ValueError, match=r"image_px was 16 and is now 20; .*resize was 'crop' .*seed was 0 and is"):
            build(image_px=20, seed=3, resize="warp")
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == before

    def test_damaged_data_set_is_kept_until_its_source_is_found(self, build, image_folder, tmp_path):
        build()
        before = contents(tmp_path / "data")
        path = tmp_path / "data" / "train-00001-of-00003"
        path.write_bytes(path.read_bytes()[:-1])
        damaged = contents(tmp_path / "data")
        image_folder.rename(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match="does not exist"):
            build()
        assert contents(tmp_path / "data") == damaged
        (tmp_path / "elsewhere").rename(image_folder)
        build()
        assert contents(tmp_path / "data") == before

    @pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:100])])
    def test_index_is_rebuilt_without_the_source(self, build, damage, image_folder, tmp_path):
        build()
        before = contents(tmp_path / "data")
        damage(tmp_path / "data" / "index.npz")
        image_folder.rename(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match=r"index\.npz"):
            reader.make_training_dataset(tmp_path / "data", 2, 12)
        build()
        assert contents(tmp_path / "data") == before

    def test_missing_shard_of_an_interrupted_build_is_built_again(self, build, image_folder, tmp_path, monkeypatch):
        self.interrupt(build, monkeypatch)
        (tmp_path / "data" / "train-00001-of-00003").unlink()
        description = build()
        schema.check_shard_sizes(tmp_path / "data", description.splits["train"])

    def test_files_left_by_a_build_that_was_killed_at_its_end_are_deleted(self, build, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(dataset_builder, "_delete_leftovers", lambda data_dir: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                build()
        assert list((tmp_path / "data").glob(".*"))
        build()
        assert not list((tmp_path / "data").glob(".*"))

    def test_concurrent_build_is_refused(self, build, monkeypatch):
        build_shard, kept = shards.build_shard, []

        def build_both(task):
            if not kept:
                kept.append(task.path.with_name(".tmp-of-the-first"))
                kept[0].touch()
                with pytest.raises(ValueError, match="Another process is building a data set in"):
                    build()
                assert kept[0].exists()
                kept[0].unlink()
            build_shard(task)

        monkeypatch.setattr(shards, "build_shard", build_both)
        build()
        assert kept

    @pytest.mark.parametrize(
        ("complete", "change", "reason"),
        [
            (True, lambda folder: (folder / "a").rename(folder / "z"), "other classes \\('a', 'z'\\)"),
            (False, lambda folder: photo().save(folder / "a" / "new.jpg"), "22 train images, now 23"),
            (True, lambda folder: (folder / "a" / "0.jpg").rename(folder / "a" / "new.jpg"), "other file names or lab"),
            (
                False,
                lambda folder: (folder / "a" / "0.jpg").rename(folder / "b" / "0.jpg"),
                "other file names or labels",
            ),
        ],
        ids=["class renamed", "image added", "image renamed", "image moved"],
    )
    def test_changed_source_is_refused(self, build, image_folder, tmp_path, monkeypatch, complete, change, reason):
        if complete:
            build()
        else:
            self.interrupt(build, monkeypatch)
        before = contents(tmp_path / "data")
        change(image_folder)
        with pytest.raises(ValueError, match=rf"has changed since the data set was built: {reason}"):
            build()
        assert contents(tmp_path / "data") == before

    @pytest.mark.slow
    def test_resume_after_sigkill_gives_the_same_bytes(self, tmp_path):
        killed = tmp_path / "killed"
        flags = ("--source=fashion_mnist", "--image_px=48", f"--data_dir={killed}", "--num_processes=2")
        process = subprocess.Popen(program("tfrecords.build", *flags), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while len(parts := set(killed.glob(".part-*.npz"))) < 3 and time.monotonic() < deadline:
                time.sleep(0.005)
        finally:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert parts and not (killed / "dataset.json").exists()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert workers and not alive  # workers end with their parent
        (killed / ".tmp-1-train-00015-of-00016").write_bytes(b"half a shard")
        kept = {path.name.removeprefix(".part-").removesuffix(".npz") for path in parts}
        written = {name: (killed / name).stat().st_mtime_ns for name in kept}
        for name in ("killed", "undisturbed"):
            dataset_builder.build_dataset("fashion_mnist", tmp_path / name, image_px=48, num_processes=1)
        assert {name: (killed / name).stat().st_mtime_ns for name in kept} == written  # not built twice
        assert contents(killed) == contents(tmp_path / "undisturbed")


class TestErrors:
    def test_other_files_are_kept(self, build, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "train-00000-of-00003").write_text("other")
        with pytest.raises(ValueError, match="data_dir"):
            build()
        assert (tmp_path / "data" / "train-00000-of-00003").read_text() == "other"

    def test_label_without_class_is_refused(self, tmp_path, monkeypatch):
        class Unlabeled:
            class_names = ("a", "b")

            def count(self, split):
                return 4

            def checksum(self):
                return ""

            def read(self, split, start, stop):
                return ((str(index), np.zeros((9, 9), "uint8"), -1) for index in range(start, stop))

        monkeypatch.setattr(sources, "open_source", lambda *_: Unlabeled())
        with pytest.raises(ValueError, match="Received: label -1"):
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
            {"resize": "warp", "keep_aspect": True},
        ],
        ids=str,
    )
    def test_argument_out_of_range_is_named(self, build, arguments):
        name, value = next(iter(arguments.items()))
        with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: .*{value}"):
            build(**arguments)

    def test_folder_that_can_not_be_created_is_named(self, image_folder, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file/data"):
            build_small(f"folder:{image_folder}", tmp_path / "file" / "data")
