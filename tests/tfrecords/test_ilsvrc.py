"""ImageNet's own archives: a made ILSVRC2012 with CMYK, PNG, broken and endless images, to shards and into training."""

import json
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from made_ilsvrc import DEVKIT, encode, image_of, make_ilsvrc, tar_of
from programs import run, run_well

from alexnet_tf.tfrecords import dataset_builder, ilsvrc, make_imagenet_classes, reader, schema, sources, storage


class TestMakeClasses:
    def test_words_of_wordnet_become_the_shipped_list(self, tmp_path):
        lines = ["  1 This software and database is being provided to you"]
        for class_id, words in ilsvrc.read_classes().items():
            listed = words.split(", ")
            synset = [class_id[1:], "05", "n", f"{len(listed):02x}", *(f"{w.replace(' ', '_')} 0" for w in listed)]
            lines.append(" ".join([*synset, "001", "@", "00001740", "n", "0000", "|", "a thing"]))
        (tmp_path / "data.noun").write_text("\n".join(lines) + "\n", encoding="ascii")
        make_imagenet_classes.make_classes(tmp_path / "data.noun", tmp_path / "classes.txt")
        shipped = pathlib.Path(ilsvrc.__file__).parent / "imagenet_classes" / "classes.txt"
        assert (tmp_path / "classes.txt").read_bytes() == shipped.read_bytes()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return make_ilsvrc(tmp_path_factory.mktemp("ilsvrc"), images_per_class=600)


@pytest.fixture(scope="module")
def ilsvrc_data_dir(archives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "imagenet"
    flags = ["--image_px=64", "--num_train_shards=3", "--num_validation_shards=2", "--max_bad_fraction=0.1"]
    run_well("tfrecords.build", f"--source=ilsvrc2012:{archives}", f"--data_dir={folder}", *flags, "--num_processes=2")
    return folder


@pytest.fixture(scope="module")
def ilsvrc_run(ilsvrc_data_dir, tmp_path_factory):
    """A run of two epochs."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--variant=testing", "--batch_size=17", "--epochs=2", f"--data_dir={ilsvrc_data_dir}"]
    recipe = ["--initializer=he_normal", "--input_scale=0.0125", "--schedule=constant", "--learning_rate=0.01"]
    run_well("train", *flags, *recipe, f"--run_dir={run_dir}")
    return run_dir


class TestLabels:
    def test_classes_are_in_the_order_of_wordnet_ids_and_not_the_devkits(self, archives):
        source = sources.open_source(f"ilsvrc2012:{archives}")
        assert source.class_names == (
            "n01440764 tench, Tinca tinca",
            "n02012849 crane",
            "n02119789 kit fox, Vulpes macrotis",
            "n03126707 crane",
        )

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_every_image_has_the_label_of_its_class(self, archives, split):
        source = sources.open_source(f"ilsvrc2012:{archives}")
        seen = set()
        for name, content, label in source.read(split, 0, source.count(split)):
            seen.add(label)
            if split == "train":
                assert source.class_names[label].startswith(name.split("/")[0])
            if any(odd in name for odd in ("cmyk", "png", "gray", "long", "wide", "short", "text")):
                continue
            red = tf.io.decode_jpeg(content).numpy()[..., 0].mean()
            class_id, _ = DEVKIT[round(red / 60) - 1]
            assert source.class_names[label].startswith(class_id)
        assert seen == {0, 1, 2, 3}

    def test_training_images_are_shuffled_by_the_seed_and_validation_images_are_not(self, archives):
        def names(split, seed):
            source = sources.open_source(f"ilsvrc2012:{archives}", seed=seed)
            return [name for name, *_ in source.read(split, 0, source.count(split))]

        assert names("train", 0) == names("train", 0) != names("train", 1)
        assert names("validation", 0) == names("validation", 1) == sorted(names("validation", 0))

    def test_unpacked_devkit_is_the_same(self, archives, tmp_path):
        for file in archives.glob("*.tar"):
            (tmp_path / file.name).symlink_to(file)
        with tarfile.open(archives / "ILSVRC2012_devkit_t12.tar.gz") as tar:
            tar.extractall(tmp_path, filter="data")
        packed, unpacked = (sources.open_source(f"ilsvrc2012:{folder}") for folder in (archives, tmp_path))
        assert packed.class_names == unpacked.class_names
        for split in schema.SPLITS:
            np.testing.assert_array_equal(packed.images[split], unpacked.images[split])

    def test_lists_of_tensorflow_datasets_stand_in_for_the_devkit(self):
        words, truth = ilsvrc.read_classes(), ilsvrc._validation_labels_of_tfds()
        assert len(words) == 1000
        assert list(words) == sorted(words)
        assert words["n01440764"] == "tench, Tinca tinca"
        assert words["n02012849"] == words["n03126707"] == "crane"  # the bird and the machine
        assert len(truth) == 50_000
        # The devkit's ground truth begins with its class 490, number 65 by sorted ids.
        assert sorted(words).index(truth[0]) == 65
        assert set(truth) == set(words)


@pytest.mark.slow
class TestBuild:
    def test_odd_images_are_read_by_their_content_and_broken_ones_listed(self, ilsvrc_data_dir):
        description = schema.load_description(ilsvrc_data_dir)
        train = description.splits["train"]
        skipped = dict(train.skipped)
        assert {name.split("_")[-1] for name in skipped} == {"short.JPEG", "text.JPEG"}
        assert train.count == 4 * 600 + 5
        assert train.count_per_class == (600, 600, 605, 600)
        assert description.splits["validation"].count == 12

    def test_pixels_are_those_of_the_archive(self, ilsvrc_data_dir):
        images, labels = next(iter(reader.make_evaluation_dataset(ilsvrc_data_dir, 12, 64)))
        assert [round(red / 60) for red in images.numpy()[..., 0].mean((1, 2))] == [1 + i % 4 for i in range(1, 13)]
        ids = [name.split()[0] for name in schema.load_description(ilsvrc_data_dir).class_names]
        assert [ids[label] for label in labels] == [DEVKIT[i % 4][0] for i in range(1, 13)]

    def test_bytes_are_the_same_whatever_the_number_of_processes(self, archives, ilsvrc_data_dir, tmp_path):
        dataset_builder.build_dataset(
            f"ilsvrc2012:{archives}",
            tmp_path / "again",
            image_px=64,
            num_train_shards=3,
            num_validation_shards=2,
            max_bad_fraction=0.1,
            num_processes=1,
        )
        for split in schema.load_description(ilsvrc_data_dir).splits.values():
            for shard in split.shards:
                assert storage.sha256(tmp_path / "again" / shard.name) == shard.sha256

    def test_nothing_but_the_data_set_is_written(self, ilsvrc_data_dir):
        shards = {f"train-0000{i}-of-00003" for i in range(3)} | {f"validation-0000{i}-of-00002" for i in range(2)}
        others = {"dataset.json", "index.npz", "statistics.npz"}
        assert {path.name for path in ilsvrc_data_dir.iterdir()} == others | shards

    def test_alexnet_trains_on_it(self, ilsvrc_run):
        assert json.loads((ilsvrc_run / "training.json").read_text())["epochs"] == 2


class TestRefusals:
    @staticmethod
    def changed(archives, tmp_path, name, content):
        folder = tmp_path / "changed"
        shutil.copytree(archives, folder)
        (folder / name).write_bytes(content)
        return folder

    def test_archive_cut_short_is_refused(self, archives, tmp_path):
        complete = (archives / "ILSVRC2012_img_train.tar").read_bytes()
        for length in (len(complete) // 2, 100_000, 700):
            folder = self.changed(archives, tmp_path / str(length), "ILSVRC2012_img_train.tar", complete[:length])
            with pytest.raises(
                ValueError, match=r"ILSVRC2012_img_train\.tar (is not a complete tar file|must hold a tar)"
            ):
                sources.open_source(f"ilsvrc2012:{folder}")

    def test_missing_class_is_named(self, archives, tmp_path):
        classes = {f"{class_id}.tar": tar_of({"a.JPEG": encode(image_of(1, 1))}) for class_id, _ in DEVKIT[1:]}
        folder = self.changed(archives, tmp_path, "ILSVRC2012_img_train.tar", tar_of(classes))
        with pytest.raises(ValueError, match=r"each of the 4 classes. It holds 3. Only in one of the two: n02119789"):
            sources.open_source(f"ilsvrc2012:{folder}")

    def test_validation_image_without_a_label_is_named(self, archives, tmp_path):
        content = tar_of({"ILSVRC2012_val_00000013.JPEG": encode(image_of(1, 1))})
        folder = self.changed(archives, tmp_path, "ILSVRC2012_img_val.tar", content)
        with pytest.raises(ValueError, match=r"images 1 to 12, .* holds ILSVRC2012_val_00000013\.JPEG"):
            sources.open_source(f"ilsvrc2012:{folder}")

    def test_missing_archive_is_named(self, tmp_path):
        result = run("tfrecords.build", f"--source=ilsvrc2012:{tmp_path}", f"--data_dir={tmp_path / 'data'}")
        assert result.returncode != 0
        assert "must hold one ILSVRC2012_im*_train.tar. Found: none" in result.stderr

    def test_2010_is_read_as_2012_is(self, tmp_path):
        sources_of_years = [
            sources.open_source(f"ilsvrc{year}:{make_ilsvrc(tmp_path / year, year=year)}") for year in ilsvrc.YEARS
        ]
        first, second = sources_of_years
        assert first.class_names == second.class_names
        assert list(first.read("train", 0, 80)) == list(second.read("train", 0, 80))
        of_2010, of_2012 = (list(source.read("validation", 0, 12)) for source in sources_of_years)
        assert of_2010[0][0] == "ILSVRC2010_val_00000001.JPEG"
        assert [each[1:] for each in of_2010] == [each[1:] for each in of_2012]

    def test_2010_without_a_devkit_is_refused(self, archives, tmp_path):
        for name, new in (("img_train", "images_train"), ("img_val", "images_val")):
            shutil.copy(archives / f"ILSVRC2012_{name}.tar", tmp_path / f"ILSVRC2010_{new}.tar")
        with pytest.raises(ValueError, match=r"must hold ILSVRC2010_devkit\*"):
            sources.open_source(f"ilsvrc2010:{tmp_path}")
