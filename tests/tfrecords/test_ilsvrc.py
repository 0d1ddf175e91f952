"""ImageNet's archives: a synthetic ILSVRC2012 with CMYK, PNG, damaged and very long images."""

import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from batches import read_all
from made_ilsvrc import DEVKIT, encode, image_of, make_ilsvrc, tar_of

from alexnet_tf.tfrecords import dataset_builder, ilsvrc, reader, schema, sources, verify


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return make_ilsvrc(tmp_path_factory.mktemp("ilsvrc"), images_per_class=60)


class TestLabels:
    def test_classes_are_sorted_by_wordnet_id(self, archives):
        source = sources.open_source(f"ilsvrc2012:{archives}")
        assert source.class_names == (
            "n01440764 tench, Tinca tinca",
            "n02012849 crane",
            "n02119789 kit fox, Vulpes macrotis",
            "n03126707 crane",
        )

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_images_have_the_labels_of_their_classes(self, archives, split):
        source = sources.open_source(f"ilsvrc2012:{archives}")
        seen = set()
        for name, content, label in read_all(source, split):
            seen.add(label)
            if split == "train":
                assert source.class_names[label].startswith(name.split("/")[0])
            if any(odd in name for odd in ("cmyk", "png", "gray", "long", "wide", "short", "text")):
                continue
            red = tf.io.decode_jpeg(content).numpy()[..., 0].mean()
            class_id, _ = DEVKIT[round(red / 60) - 1]
            assert source.class_names[label].startswith(class_id)
        assert seen == {0, 1, 2, 3}

    def test_seed_shuffles_only_training_images(self, archives):
        def names(split, seed):
            return [name for name, *_ in read_all(sources.open_source(f"ilsvrc2012:{archives}", seed=seed), split)]

        assert names("train", 0) == names("train", 0) != names("train", 1)
        assert names("validation", 0) == names("validation", 1)

    def test_validation_images_are_sorted_by_name(self, archives, tmp_path):
        for path in archives.iterdir():
            (tmp_path / path.name).symlink_to(path)
        archive = tmp_path / "ILSVRC2012_img_val.tar"
        with tarfile.open(archive) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        archive.unlink()
        archive.write_bytes(tar_of(dict(sorted(members.items(), key=lambda item: item[0][::-1]))))
        shuffled, original = (sources.open_source(f"ilsvrc2012:{folder}") for folder in (tmp_path, archives))
        assert list(shuffled.read("validation", 0, 12)) == list(original.read("validation", 0, 12))

    def test_unpacked_devkit_gives_the_same_labels(self, archives, tmp_path):
        for file in archives.glob("*.tar"):
            (tmp_path / file.name).symlink_to(file)
        with tarfile.open(archives / "ILSVRC2012_devkit_t12.tar.gz") as tar:
            tar.extractall(tmp_path, filter="data")
        packed, unpacked = (sources.open_source(f"ilsvrc2012:{folder}") for folder in (archives, tmp_path))
        assert packed.class_names == unpacked.class_names
        for split in schema.SPLITS:
            np.testing.assert_array_equal(packed.images[split], unpacked.images[split])

    def test_lists_that_replace_the_devkit(self):
        words, truth = ilsvrc.read_classes(), ilsvrc._read_tfds_validation_ids()
        assert len(words) == 1000
        assert list(words) == sorted(words)
        assert words["n01440764"] == "tench, Tinca tinca"
        assert words["n02012849"] == words["n03126707"] == "crane"  # the bird and the machine
        assert len(truth) == 50_000
        # The devkit's ground truth begins with its class 490, number 65 by sorted ids.
        assert sorted(words).index(truth[0]) == 65
        assert set(truth) == set(words)


@pytest.mark.slow
def test_odd_images_are_read_and_damaged_ones_listed(archives, tmp_path):
    arguments = {"image_px": 64, "max_bad_fraction": 0.1, "num_processes": 1}
    description = dataset_builder.build_dataset(f"ilsvrc2012:{archives}", tmp_path / "data", **arguments)
    train = description.splits["train"]
    assert {name.split("_")[-1] for name, _ in train.skipped} == {"short.JPEG", "text.JPEG"}
    assert train.count == 4 * 60 + 5
    assert train.count_per_class == (60, 60, 65, 60)
    assert description.splits["validation"].count == 12


class TestErrors:
    @staticmethod
    def changed(archives, tmp_path, name, content):
        folder = tmp_path / "changed"
        shutil.copytree(archives, folder)
        (folder / name).write_bytes(content)
        return folder

    def test_truncated_archive(self, archives, tmp_path):
        complete = (archives / "ILSVRC2012_img_train.tar").read_bytes()
        for length in (len(complete) // 2, 100_000, 700):
            folder = self.changed(archives, tmp_path / str(length), "ILSVRC2012_img_train.tar", complete[:length])
            with pytest.raises(
                ValueError, match=r"ILSVRC2012_img_train\.tar (is not a complete tar file|must contain one tar)"
            ):
                sources.open_source(f"ilsvrc2012:{folder}")

    def test_missing_class(self, archives, tmp_path):
        classes = {f"{class_id}.tar": tar_of({"a.JPEG": encode(image_of(1, 1))}) for class_id, _ in DEVKIT[1:]}
        folder = self.changed(archives, tmp_path, "ILSVRC2012_img_train.tar", tar_of(classes))
        with pytest.raises(ValueError, match=r"each of the 4 classes. Found: 3. Missing or unknown: n02119789"):
            sources.open_source(f"ilsvrc2012:{folder}")

    def test_validation_image_without_label(self, archives, tmp_path):
        content = tar_of({"ILSVRC2012_val_00000013.JPEG": encode(image_of(1, 1))})
        folder = self.changed(archives, tmp_path, "ILSVRC2012_img_val.tar", content)
        with pytest.raises(ValueError, match=r"images 1 to 12, .* Found: ILSVRC2012_val_00000013\.JPEG"):
            sources.open_source(f"ilsvrc2012:{folder}")

    def test_missing_archive(self, tmp_path):
        with pytest.raises(ValueError, match=r"must contain one file ILSVRC2012_im\*_train.tar. Found: none"):
            sources.open_source(f"ilsvrc2012:{tmp_path}")


class TestRelease:
    def test_half_of_each_class_is_held_out(self, archives):
        source = sources.open_source(f"imagenet:{archives / 'ILSVRC2012_img_train.tar'}", 3, validation_fraction=0.5)
        halves = [read_all(source, split) for split in ("train", "validation")]
        counts = [np.bincount([label for _, _, label in half]).tolist() for half in halves]
        assert abs(np.subtract(*counts)).max() <= 1 and sum(map(sum, counts)) == sum(map(len, halves))
        names = [{name for name, _, _ in half} for half in halves]
        assert not names[0] & names[1]
        assert source.class_names[0] == "n01440764 tench, Tinca tinca"
        assert all(source.class_names[label].startswith(name.split("/")[0]) for name, _, label in halves[1])

    def test_seed_draws_the_halves_and_their_order(self, archives):
        tar = f"imagenet:{archives / 'ILSVRC2012_img_train.tar'}"
        first, same, other = (sources.open_source(tar, seed, validation_fraction=0.5) for seed in (3, 3, 4))
        for split in ("train", "validation"):
            assert read_all(first, split) == read_all(same, split) != read_all(other, split)

    def test_folder_is_not_a_tar(self, tmp_path):
        with pytest.raises(ValueError, match=r"must name a tar of tars, one per class. Received: imagenet:"):
            sources.open_source(f"imagenet:{tmp_path}")


class TestIlsvrc2010:
    def test_same_images_as_2012(self, tmp_path):
        folders = {year: make_ilsvrc(tmp_path / year, year=year) for year in ("2010", "2012")}
        first, second = (sources.open_source(f"ilsvrc{year}:{folder}") for year, folder in folders.items())
        assert first.class_names == second.class_names
        assert list(first.read("train", 0, 80)) == list(second.read("train", 0, 80))
        validation, expected = (list(source.read("validation", 0, 12)) for source in (first, second))
        assert validation[0][0] == "ILSVRC2010_val_00000001.JPEG"
        assert [image[1:] for image in validation] == [image[1:] for image in expected]

    def test_test_images_have_their_labels(self, tmp_path):
        folder = make_ilsvrc(tmp_path / "archives", year="2010", test_images=8)
        data_dir = tmp_path / "data"
        arguments = {"image_px": 32, "num_processes": 1, "max_bad_fraction": 1.0}
        description = dataset_builder.build_dataset(f"ilsvrc2010:{folder}", data_dir, **arguments)
        assert {name: split.count for name, split in description.splits.items()}["test"] == 8
        expected = [sorted(range(4), key=lambda i: DEVKIT[i][0]).index((number + 1) % 4) for number in range(1, 9)]
        assert reader.read_labels(data_dir, schema.load_description(data_dir), "test").tolist() == expected
        assert verify.verify_dataset(data_dir) == []
        dataset_builder.build_dataset(f"ilsvrc2010:{folder}", data_dir, **arguments)  # complete
        (folder / "ILSVRC2010_images_test.tar").unlink()
        with pytest.raises(ValueError, match=r"must contain one file ILSVRC2010_im\*_test.tar. Found: none"):
            sources.open_source(f"ilsvrc2010:{folder}")

    def test_devkit_is_required(self, archives, tmp_path):
        for name, new in (("img_train", "images_train"), ("img_val", "images_val")):
            shutil.copy(archives / f"ILSVRC2012_{name}.tar", tmp_path / f"ILSVRC2010_{new}.tar")
        with pytest.raises(ValueError, match=r"must contain ILSVRC2010_devkit\*"):
            sources.open_source(f"ilsvrc2010:{tmp_path}")
