"""Folders of image files: common layouts are read, and skipped files are printed."""

import collections
import os
import pathlib
import re

import pytest
from batches import read_all

from alexnet_tf.tfrecords import sources


def names_of(folder, source, split):
    """The paths of the images of a split relative to a folder."""
    return {str(pathlib.Path(name).relative_to(folder)) for name, _, _ in read_all(source, split)}


def write_folder(root, counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(f"{name} {number}".encode())
    return root


class TestFolder:
    def test_fraction_of_each_class_is_held_out(self, tmp_path):
        write_folder(tmp_path, {"b": 20, "a": 40, "c": 2})
        source = sources.open_source(f"folder:{tmp_path}", validation_fraction=0.25)
        assert source.class_names == ("a", "b", "c")
        train, validation = read_all(source, "train"), read_all(source, "validation")
        assert collections.Counter(label for _, _, label in train) == {0: 30, 1: 15, 2: 1}
        assert collections.Counter(label for _, _, label in validation) == {0: 10, 1: 5, 2: 1}
        names = [name for name, _, _ in train + validation]
        assert len(set(names)) == 62
        for name, content, label in train + validation:
            path = pathlib.Path(name)
            assert content == path  # read by the process that decodes it
            assert path.read_bytes() == f"{path.parent.name} {path.stem}".encode()
            assert source.class_names[label] == path.parent.name

    def test_seed_determines_a_mixed_order(self, tmp_path):
        write_folder(tmp_path, {"a": 30, "b": 30})
        one, same, other = (sources.open_source(f"folder:{tmp_path}", seed=seed) for seed in (1, 1, 2))
        assert one.files == same.files
        assert one.files["train"] != other.files["train"]
        assert {label for _, _, label in one.read("train", 0, 15)} == {0, 1}

    @pytest.mark.parametrize(
        "train, name",
        [("train", "validation"), ("Training", "valid"), ("TRAIN", "Val"), ("train", "dev"), ("train", "test")],
    )
    def test_folders_of_splits(self, tmp_path, train, name, capsys):
        write_folder(tmp_path / train, {"a": 3, "b": 2})
        write_folder(tmp_path / name, {"a": 1, "b": 1})
        source = sources.open_source(f"folder:{tmp_path}")
        assert source.class_names == ("a", "b")
        assert (source.count("train"), source.count("validation")) == (5, 2)
        assert names_of(tmp_path, source, "validation") == {f"{name}/a/0.png", f"{name}/b/0.png"}
        output = capsys.readouterr().out
        assert output == (f"Using {tmp_path / 'test'} as the validation split.\n" * (name == "test"))

    def test_test_folder_is_skipped_if_there_is_a_validation_folder(self, tmp_path, capsys):
        for split in ("train", "valid", "Test"):
            write_folder(tmp_path / split, {"a": 2, "b": 2})
        write_folder(tmp_path, {"annotations": 1})
        source = sources.open_source(f"folder:{tmp_path}")
        assert names_of(tmp_path, source, "validation") == {f"valid/{c}/{n}.png" for c in "ab" for n in (0, 1)}
        output = capsys.readouterr().out
        assert f"Skipped {tmp_path / 'Test'}: the validation split is {tmp_path / 'valid'}." in output
        assert "skipped 1 folders that are not splits: 'annotations'" in output

    def test_test_folder_without_classes_is_skipped(self, tmp_path, capsys):
        write_folder(tmp_path / "train", {"a": 10, "b": 10})
        write_folder(tmp_path, {"test": 3})
        source = sources.open_source(f"folder:{tmp_path}")
        assert (source.count("train"), source.count("validation")) == (18, 2)
        assert capsys.readouterr().out == f"Skipped {tmp_path / 'test'}: it has no folders of classes.\n"

    @pytest.mark.parametrize(
        ("train", "other", "beside"),
        [
            ("training_set", "test_set", []),
            ("seg_train/seg_train", "seg_test/seg_test", ["seg_pred"]),
            ("train2017", "val2017", []),
            ("ILSVRC2012_img_train", "ILSVRC2012_img_val", []),
            ("Trainset", "Testset", ["annotations"]),
        ],
    )
    def test_longer_names_of_splits(self, tmp_path, train, other, beside):
        write_folder(tmp_path / train, {"cats": 3, "dogs": 2})
        write_folder(tmp_path / other, {"cats": 1, "dogs": 1})
        write_folder(tmp_path, dict.fromkeys(beside, 2))
        source = sources.open_source(f"folder:{tmp_path}")
        assert source.class_names == ("cats", "dogs")
        assert (source.count("train"), source.count("validation")) == (5, 2)

    def test_classes_with_split_words_in_their_names(self, tmp_path):
        write_folder(tmp_path, {"train station": 4, "bus": 4, "test tube": 4})
        assert sources.open_source(f"folder:{tmp_path}").class_names == ("bus", "test tube", "train station")

    def test_class_names_have_one_unicode_form(self, tmp_path):
        write_folder(tmp_path / "train", {"cafe\u0301": 2, "b": 2})
        write_folder(tmp_path / "val", {"caf\u00e9": 2, "b": 2})
        source = sources.open_source(f"folder:{tmp_path}")
        assert source.class_names == ("b", "caf\u00e9")
        assert names_of(tmp_path, source, "train") > {"train/cafe\u0301/0.png"}
        write_folder(tmp_path / "val", {"cafe\u0301": 2})
        with pytest.raises(ValueError, match="two folders with the same name in different Unicode forms: 'caf\u00e9'"):
            sources.open_source(f"folder:{tmp_path}")

    def test_class_names_that_differ_only_in_case_are_printed(self, tmp_path, capsys):
        write_folder(tmp_path, {"Cat": 2, "cat": 2, "dog": 2})
        assert sources.open_source(f"folder:{tmp_path}").class_names == ("Cat", "cat", "dog")
        assert "names differ only in case: Cat, cat\n" in capsys.readouterr().out

    def test_class_name_that_is_not_utf8(self, tmp_path):
        write_folder(tmp_path, {"a": 3, "b": 3})
        (tmp_path / "b").rename(tmp_path / os.fsdecode(b"\xff"))
        with pytest.raises(ValueError, match=r"Class names must be UTF-8. Received: '.*\\udcff'"):
            sources.open_source(f"folder:{tmp_path}")

    @pytest.mark.parametrize(
        ("folders", "message"),
        [
            ("bus train", "the name of .*: bus, train$"),
            ("bus Test", "the name of .*: Test, bus$"),
            ("test val", "the name of .*: test, val$"),
            ("train/a train/b val/a val/b validation/a validation/b", "the name of .*: train, val, validation$"),
            ("train/a train/b TRAIN/a TRAIN/b test/a test/b", "the name of .*: TRAIN, test, train$"),
            ("train/train train/test", "the names of splits. Found: test, train$"),
            ("fold1/cats fold1/dogs fold2/cats fold2/dogs", "All its folders contain the same folders: cats, dogs"),
            ("training_set/a training_set/b test_set/a test_set/c", "the same classes. In only one: .'b', 'c'.$"),
            ("train/a train/b val/a val/b val/c", "the same classes. In only one: .'c'.$"),
            ("train/a train/b train/c val/a val/b", "the same classes. In only one: .'c'.$"),
            ("a", "one folder of images for each of at least 2 classes, .* Found: a$"),
            ("", "images does not exist.$"),
            (".hidden", "Found no folders of classes.$"),
        ],
    )
    def test_unclear_folders_are_refused(self, tmp_path, folders, message):
        write_folder(tmp_path / "images", dict.fromkeys(folders.split(), 2))
        with pytest.raises(ValueError, match=message):
            sources.open_source(f"folder:{tmp_path / 'images'}")

    @pytest.mark.parametrize(
        ("folders", "names"),
        [
            ("fold1/cats fold1/dogs fold2/cats fold2/small", ("fold1", "fold2")),  # classes may have folders
            ("train/bus train/train val/bus val/train", ("bus", "train")),
            ("train/a train/b", ("a", "b")),
        ],
    )
    def test_unusual_folders_are_read(self, tmp_path, folders, names):
        write_folder(tmp_path, dict.fromkeys(folders.split(), 5))
        source = sources.open_source(f"folder:{tmp_path}")
        assert source.class_names == names
        assert (source.count("train"), source.count("validation")) in ((18, 2), (10, 10), (8, 2))

    def test_empty_class_is_refused(self, tmp_path):
        write_folder(tmp_path, {"a": 3, "b": 0})
        with pytest.raises(ValueError, match=f"{tmp_path / 'b'} must contain the images of a class"):
            sources.open_source(f"folder:{tmp_path}")

    def test_links_are_followed_and_dangling_links_count_as_images(self, tmp_path):
        root = write_folder(tmp_path / "images", {"a": 3, "b": 3})
        write_folder(tmp_path, {"elsewhere": 4})
        (root / "a" / "linked").symlink_to(tmp_path / "elsewhere")
        (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        source = sources.open_source(f"folder:{root}")
        names = names_of(root, source, "train") | names_of(root, source, "validation")
        assert {name for name in names if name.startswith("a")} == {
            *(f"a/{number}.png" for number in range(3)),
            *(f"a/linked/{number}.png" for number in range(4)),
            "a/gone.png",
        }

    def test_two_classes_that_are_one_folder_are_refused(self, tmp_path):
        write_folder(tmp_path, {"a": 3, "b": 3})
        (tmp_path / "c").symlink_to(tmp_path / "a")
        with pytest.raises(ValueError, match="two links to the same folder: 'a' and 'c'"):
            sources.open_source(f"folder:{tmp_path}")

    def test_circular_links_and_pipes_are_skipped(self, tmp_path, capsys):
        write_folder(tmp_path, {"a": 3, "b": 3})
        (tmp_path / "a" / "up").symlink_to(tmp_path)
        (tmp_path / "a" / "same").symlink_to(tmp_path / "a")
        os.mkfifo(tmp_path / "a" / "pipe.png")
        source = sources.open_source(f"folder:{tmp_path}")
        assert source.count("train") + source.count("validation") == 6
        assert re.search(r"a: skipped 3 pipes.*: 'pipe.png', 'same', 'up'\n", capsys.readouterr().out)

    def test_folder_without_permission_counts_as_an_image(self, tmp_path, monkeypatch):
        write_folder(tmp_path, {"a": 3, "b": 3, "a/locked": 5})
        listing = os.scandir

        def scandir(path):
            if str(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", str(path))
            return listing(path)

        monkeypatch.setattr(os, "scandir", scandir)
        source = sources.open_source(f"folder:{tmp_path}")
        assert "a/locked" in names_of(tmp_path, source, "train") | names_of(tmp_path, source, "validation")

    def test_files_outside_of_classes_are_skipped(self, tmp_path, capsys):
        write_folder(tmp_path, {"a": 3, "b": 3})
        for number in range(4):
            (tmp_path / f"{number}.png").write_bytes(b"x")
        sources.open_source(f"folder:{tmp_path}")
        expected = f"{tmp_path}: skipped 4 files outside of the folders of classes: '0.png', '1.png', '2.png', ...\n"
        assert capsys.readouterr().out == expected

    def test_files_with_other_names_are_skipped(self, tmp_path, capsys):
        write_folder(tmp_path, {"a": 3, "b": 3})
        for name in ("notes.txt", "Thumbs.db", "Desktop.ini", "boxes.XML", ".DS_Store", "image", "photo.jpg.1"):
            (tmp_path / "a" / name).write_bytes(b"x")
        source = sources.open_source(f"folder:{tmp_path}")
        names = names_of(tmp_path, source, "train") | names_of(tmp_path, source, "validation")
        assert {name for name in names if name.startswith("a")} == {
            *(f"a/{number}.png" for number in range(3)), "a/image", "a/photo.jpg.1"
        }  # fmt: skip
        skipped = "skipped 4 files whose names are not those of images: 'Desktop.ini', 'Thumbs.db', 'boxes.XML', ..."
        assert capsys.readouterr().out == f"{tmp_path / 'a'}: {skipped}\n"

    def test_hidden_files_and_folders_are_skipped(self, tmp_path):
        write_folder(tmp_path, {"a": 3, "b": 3, ".cache": 3, "a/.ipynb_checkpoints": 3})
        (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
        (tmp_path / "README").write_bytes(b"x")
        source = sources.open_source(f"folder:{tmp_path}")
        assert source.class_names == ("a", "b")
        assert source.count("train") + source.count("validation") == 6
