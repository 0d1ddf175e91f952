"""Third-party TFRecords read in place: like a built data set, and never written."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from batches import CROP_PX, assert_equal_batches, training_batches
from made_photos import encoded, photo
from made_records import change_records, set_feature, state, write_records
from programs import call

from alexnet_tf.tfrecords import dataset_builder, epochs, in_place, reader, records, schema, verify
from alexnet_tf.tfrecords import statistics as pixel_statistics
from alexnet_tf.tfrecords.augmentation import Augmentation

IMAGE_PX = 64


@pytest.fixture(scope="module")
def stored(own_dir):
    """For each shard's name the (JPEG, label) of each record."""
    description = schema.load_description(own_dir)
    names = [shard.name for split in description.splits.values() for shard in split.shards]
    found = {}
    for name in names:
        parsed = (records.parse_record(record, description) for record in tf.data.TFRecordDataset(str(own_dir / name)))
        found[name] = [(content.numpy(), int(label)) for content, _, label in parsed]
    return found


def write_others(stored, folder):
    """Writes the same images like TensorFlow's first ImageNet scripts, with labels from 1."""
    for name, images in stored.items():
        write_records(folder / name, [(content, label + 1) for content, label in images])
    return folder


@pytest.fixture
def others_dir(stored, tmp_path):
    """Third-party files that a test may change."""
    return write_others(stored, tmp_path / "others")


@pytest.fixture(scope="module")
def indexed(stored, tmp_path_factory):
    """Third-party files and their index, which no test changes."""
    root = tmp_path_factory.mktemp("indexed")
    index(write_others(stored, root / "others"), root / "index")
    return root / "others", root / "index"


def index(others_dir, index_dir, image_px=IMAGE_PX, label_offset=1, **arguments):
    record_format = {"label_offset": label_offset} | arguments.pop("record_format", {})
    source = f"tfrecords:{others_dir}"
    return in_place.index_in_place(source, index_dir, image_px=image_px, record_format=record_format, **arguments)


class TestReading:
    @pytest.mark.parametrize(
        "arguments", [{}, {"last_offset": True, "seed": 1}, {"crop_scale": (0.2, 1)}], ids=["paper", "last", "random"]
    )
    def test_training_images_equal_a_built_data_sets(self, arguments, own_dir, indexed):
        assert_equal_batches(
            *(training_batches(each, 6, color_noise="none", **arguments) for each in (own_dir, indexed[1]))
        )

    @pytest.mark.parametrize("views", [1, 10])
    def test_evaluation_images_equal_a_built_data_sets(self, views, own_dir, indexed):
        ours, theirs = (reader.make_evaluation_dataset(each, 5, CROP_PX, views=views) for each in (own_dir, indexed[1]))
        assert_equal_batches(list(theirs), list(ours))

    def test_description_and_statistics(self, own_dir, indexed):
        others_dir, index_dir = indexed
        ours, theirs = schema.load_description(own_dir), schema.load_description(index_dir)
        assert theirs.class_names == ("0", "1", "2", "3")
        for split in schema.SPLITS:
            assert theirs.splits[split].count_per_class == ours.splits[split].count_per_class
            paths = [pathlib.Path(shard.name) for shard in theirs.splits[split].shards]
            assert [path.name for path in paths] == [shard.name for shard in ours.splits[split].shards]
            assert {path.parent for path in paths} == {others_dir}
        sums = pixel_statistics.PixelSums(IMAGE_PX)
        for image in reader.read_images(own_dir, ours, "train", range(60)):
            sums.add_image(image)
        expected = pixel_statistics.Statistics.of(sums)
        np.testing.assert_array_equal(pixel_statistics.Statistics.load(index_dir).mean_image, expected.mean_image)
        assert verify.verify_dataset(index_dir) == []
        assert {path.name for path in index_dir.iterdir()} == {"dataset.json", "index.npz", "statistics.npz"}

    @pytest.mark.slow
    def test_statistics_of_a_sample_of_many_images(self, others_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(in_place, "STATISTICS_IMAGES", 20)
        means = []
        for seed in (0, 0, 1):
            folder = tmp_path / f"index {len(means)}"
            index(others_dir, folder, seed=seed)
            means.append(pixel_statistics.Statistics.load(folder).mean_image)
        assert (means[0] == means[1]).all() and (means[0] != means[2]).any()
        assert np.allclose(means[0] * 20, np.round(means[0] * 20), atol=1e-3)

    @pytest.mark.parametrize("keep_aspect", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_images_of_any_size_and_both_formats(self, keep_aspect, tmp_path):
        sizes = [(70, 90), (200, 90), (40, 50), (64, 64)]
        contents = [encoded(photo(*size), format) for size in sizes for format in ("JPEG", "PNG")]
        for split in schema.SPLITS:
            path = tmp_path / "tfds" / f"x-{split}.tfrecord-00000-of-00001"
            write_records(path, zip(contents, range(8), strict=True), "image", "label")
        (tmp_path / "tfds" / "label.labels.txt").write_text("\n".join("abcdefgh"))
        description = index(tmp_path / "tfds", tmp_path / "index", label_offset=0, keep_aspect=keep_aspect)
        assert description.class_names == tuple("abcdefgh")
        squares = reader.read_images(tmp_path / "index", description, "validation", range(8))
        # The photograph is the same at each size: red is the row, green the column, from 0 to 255.
        for (height, width), pair in zip(sizes, squares.reshape(4, 2, *squares.shape[1:]), strict=True):
            side = min(height, width)
            top, left = ((length - side) / 2 / length * 255 for length in (height, width))
            expected = [top + 255 * side / height / 2, left + 255 * side / width / 2]
            assert np.abs(pair[:, 28:36, 28:36, :2].mean(axis=(1, 2)) - expected).max() < 8
        for scale in ((0.1, 1), None):
            augmentation = Augmentation(crop_scale=scale)
            dataset = reader.make_training_dataset(tmp_path / "index", 8, CROP_PX, augmentation=augmentation)
            inputs, labels = next(iter(dataset))
            assert inputs["image"].shape == (8, CROP_PX, CROP_PX, 3) and sorted(labels.numpy()) == list(range(8))


class TestThirdPartyFiles:
    def test_their_folder_is_never_written(self, others_dir, tmp_path):
        before = state(others_dir)
        index(others_dir, tmp_path / "index")
        index(others_dir, tmp_path / "index")
        for damaged in ("index.npz", "statistics.npz"):
            (tmp_path / "index" / damaged).write_bytes(b"damaged")
        index(others_dir, tmp_path / "index")
        assert verify.verify_dataset(tmp_path / "index") == []
        assert state(others_dir) == before

    def test_builder_refuses_the_folder_of_an_index(self, others_dir, tmp_path):
        index_dir = tmp_path / "index"
        index(others_dir, index_dir)
        path = others_dir / "train-00000-of-00003"
        path.write_bytes(path.read_bytes()[:-5])  # a built data set would be built again
        before, own = state(others_dir), state(index_dir)
        with pytest.raises(ValueError, match="must not be an index of records that are read in place"):
            dataset_builder.build_dataset(f"tfrecords:{others_dir}", index_dir, record_format={"label_offset": 1})
        assert (state(others_dir), state(index_dir)) == (before, own)

    def test_added_file_is_named(self, others_dir, tmp_path):
        index(others_dir, tmp_path / "index")
        shutil.copy(others_dir / "train-00000-of-00003", others_dir / "more-train-00000-of-00001")
        with pytest.raises(ValueError, match=r"must be those that were indexed in .*/more-train-00000-of-00001"):
            index(others_dir, tmp_path / "index")

    @pytest.mark.parametrize("how", [pytest.param("longer", marks=pytest.mark.slow), "of the same size"])
    def test_changed_file_is_an_error(self, how, others_dir, stored, tmp_path):
        index_dir = tmp_path / "index"
        index(others_dir, index_dir)
        path = others_dir / "validation-00001-of-00002"
        if how == "longer":
            change_records(path, set_feature(0, "image/note", b"new"))
        else:
            (content, label), *rest = stored[path.name]
            write_records(path, [*rest, (content, label + 1)])
        with pytest.raises(ValueError, match=rf"{path} must .* have changed since they were indexed in {index_dir}"):
            index(others_dir, index_dir)
        with pytest.raises(ValueError, match=f"{path} must"):
            reader.make_evaluation_dataset(index_dir, 5, CROP_PX)

    @pytest.mark.slow
    def test_damaged_image_is_named_or_skipped(self, others_dir, stored, tmp_path, capsys):
        path = others_dir / "train-00001-of-00003"
        change_records(path, set_feature(7, schema.ENCODED, stored[path.name][7][0][:300]))
        before = state(others_dir)
        description = index(others_dir, tmp_path / "index")
        assert "1 of 60 images can't be read. The mean image excludes them" in capsys.readouterr().out
        with (
            pytest.raises(ValueError, match=rf"{path}, record 7: the image can't be decoded as JPEG or PNG"),
            verify.naming_damaged_shards(tmp_path / "index", description),
        ):
            training_batches(tmp_path / "index", 9)
        kept, skipped = verify.skip_damaged_records(tmp_path / "index", description, 1)
        assert [(problem.path, problem.record) for problem in skipped] == [(str(path), 7)]
        assert kept.splits["train"].count == 59
        assert len(training_batches(tmp_path / "index", 9, description=kept)) == 9
        assert state(others_dir) == before

    @pytest.mark.slow
    def test_label_out_of_range_is_named(self, others_dir, tmp_path):
        index(others_dir, tmp_path / "index")
        description = schema.load_description(tmp_path / "index")
        description.settings["label_offset"] = 2
        description.save(tmp_path / "index")
        with (
            pytest.raises(ValueError, match=r"(?s)train-00000-of-00003, record \d+: it can't be parsed: .* 0 to 3"),
            verify.naming_damaged_shards(tmp_path / "index", description),
        ):
            training_batches(tmp_path / "index", 9)


class TestErrors:
    def test_other_settings(self, indexed):
        others_dir, index_dir = indexed
        with pytest.raises(ValueError, match="image_px was 64 and is now 32"):
            index(others_dir, index_dir, image_px=32)
        with pytest.raises(ValueError, match=r"record_format was \{'label_offset': '1'\} and is now .* '0'"):
            index(others_dir, index_dir, label_offset=0)

    def test_files_without_validation(self, others_dir, tmp_path):
        for path in others_dir.glob("validation*"):
            path.unlink()
        with pytest.raises(ValueError, match=rf"`validation` or `test` .*--source=tfrecords:{others_dir} --data_dir="):
            index(others_dir, tmp_path / "index")

    def test_image_of_another_format(self, others_dir, tmp_path):
        change_records(others_dir / "train-00002-of-00003", set_feature(3, schema.ENCODED, encoded(photo(), "GIF")))
        with pytest.raises(ValueError, match=r"train-00002-of-00003, record 3, must hold a JPEG or PNG .*b'GIF8'"):
            index(others_dir, tmp_path / "index")

    def test_folder_with_other_files(self, others_dir):
        before = state(others_dir)
        with pytest.raises(ValueError, match=r"must hold nothing but the index. Received: .* exists"):
            index(others_dir, others_dir)
        assert state(others_dir) == before

    def test_other_sources(self, tmp_path):
        with pytest.raises(ValueError, match=r"`source` must be tfrecords:PATH .* Received: source=fashion_mnist"):
            in_place.index_in_place("fashion_mnist", tmp_path / "index")


class TestOrder:
    @pytest.mark.slow
    @pytest.mark.parametrize("order", ["sorted", "random"])
    def test_warns_of_sorted_images(self, order, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(epochs, "WINDOW_IMAGES", 1000)
        monkeypatch.setattr(epochs, "MIN_BLOCKS", 8)
        monkeypatch.setattr(in_place, "STATISTICS_IMAGES", 20)
        content = encoded(photo(8, 8), "PNG")
        of_files = np.random.default_rng(0).permutation(np.arange(4000) % 50).reshape(8, 500)
        if order == "sorted":
            of_files = np.sort(of_files, axis=None).reshape(8, 500)
        for number, of_file in enumerate(of_files.tolist()):
            write_records(tmp_path / "others" / f"train-{number}", [(content, label) for label in of_file])
        write_records(tmp_path / "others" / "validation-0", [(content, label) for label in range(50)])
        description = index(tmp_path / "others", tmp_path / "index", image_px=8, label_offset=0)
        found = records.Records.open(tmp_path / "index", description, "train")
        in_windows, random = in_place.classes_in_batch(found, of_files.ravel())
        batches = reader.make_training_dataset(tmp_path / "index", 128, 8).take(8 * (4000 // 128))
        counted = np.mean([len(set(labels.numpy())) for _, labels in batches])
        assert abs(in_windows - counted) < 0.08 * counted and abs(random - 46.2) < 0.1
        assert ("the images are sorted by class" in capsys.readouterr().out) == (order != "random")
        assert (in_windows < 0.97 * random) == (order != "random")


class TestProgram:
    def test_index(self, others_dir, tmp_path):
        before = state(others_dir)
        flags = [f"--source=tfrecords:{others_dir}", f"--data_dir={tmp_path / 'index'}", "--in_place"]
        printed = call("tfrecords.build", *flags, "--label_offset=1", f"--image_px={IMAGE_PX}", "--keep_aspect")
        assert "train: 60 images in 3 shards" in printed
        description = schema.load_description(tmp_path / "index")
        assert (description.image_px, description.exif_orientation, description.in_place) == (IMAGE_PX, False, True)
        assert description.keep_aspect
        assert state(others_dir) == before

    def test_flags_of_the_builder_are_errors(self, others_dir, tmp_path):
        flags = [f"--source=tfrecords:{others_dir}", f"--data_dir={tmp_path}", "--in_place", "--encoding=png"]
        with pytest.raises(ValueError, match="--in_place builds nothing and can't be combined with --encoding"):
            call("tfrecords.build", *flags)
