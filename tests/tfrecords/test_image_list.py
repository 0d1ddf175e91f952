"""Lists of image paths and labels."""

import pytest
from batches import read_all
from made_photos import photo, save_image

from alexnet_tf.tfrecords import dataset_builder, sources


@pytest.fixture
def folder(tmp_path):
    """Images a/0.png to a/11.png."""
    for number in range(12):
        save_image(tmp_path / "a" / f"{number}.png", photo(20, 20 + number))
    return tmp_path


def write_list(path, form="{path},{label}\n", numbers=range(12), labels="bc", header=""):
    lines = [form.format(path=f"a/{number}.png", label=labels[number % len(labels)]) for number in numbers]
    path.write_text(header + "".join(lines), encoding="utf-8")
    return path


def read(source):
    """A dict from split to a dict from relative path to class name."""
    return {
        split: {"/".join(path.parts[-2:]): source.class_names[label] for _, path, label in read_all(source, split)}
        for split in ("train", "validation")
    }


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "form", "header"),
        [
            ("list.csv", "{path},{label}\n", ""),
            ("list.csv", "{path},{label}\r\n", "\ufefffilename,class\r\n"),
            ("list.csv", "{label},7,{path}\n", "Label,Age,Image\n"),
            ("list.CSV", '"{path}","{label}"\n\n', ""),
            ("list.tsv", "{path}\t{label}\n", "path\tlabel\n"),
            ("list.txt", "{path} {label}\n", ""),
            ("list", "{path}   {label}  \n", ""),
        ],
    )
    def test_paths_and_labels(self, folder, name, form, header):
        source = sources.open_source(f"list:{write_list(folder / name, form, header=header)}")
        assert source.class_names == ("b", "c")
        splits = read(source)
        assert splits["train"] | splits["validation"] == {f"a/{number}.png": "bc"[number % 2] for number in range(12)}
        assert len(splits["validation"]) == 2  # one of each class

    def test_paths_with_blanks_and_absolute_paths(self, folder):
        (folder / "a b.png").write_bytes((folder / "a" / "1.png").read_bytes())
        lines = f"a b.png b\n{folder / 'a' / '2.png'} c\na/3.png b\na/4.png c\n"
        (folder / "list.txt").write_text(lines)
        splits = read(sources.open_source(f"list:{folder / 'list.txt'}"))
        assert len(splits["train"] | splits["validation"]) == 4

    def test_split_column(self, folder):
        rows = "".join(f"a/{n}.png,{'bc'[n % 2]},{['train', 'Train', 'val', 'test'][n // 3]}\n" for n in range(12))
        (folder / "list.csv").write_text("path,label,split\n" + rows)
        splits = read(sources.open_source(f"list:{folder / 'list.csv'}"))
        assert splits["train"].keys() == {f"a/{number}.png" for number in range(6)}
        assert splits["validation"].keys() == {f"a/{number}.png" for number in (6, 7, 8)}

    @pytest.mark.parametrize("name", ["val.txt", "test.txt"])
    def test_one_file_per_split(self, folder, name):
        write_list(folder / "train.txt", "{path} {label}\n", range(8))
        write_list(folder / name, "{path} {label}\n", range(8, 12))
        splits = read(sources.open_source(f"list:{folder}"))
        assert splits["validation"].keys() == {f"a/{number}.png" for number in range(8, 12)}

    def test_numbers_are_sorted_by_value(self, folder):
        labels = [str(label) for label in range(12)]
        write_list(folder / "train.txt", "{path} {label}\n", labels=labels)
        write_list(folder / "val.txt", "x{path} {label}\n", labels=labels)
        assert sources.open_source(f"list:{folder}").class_names == tuple(labels)


class TestErrors:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "at least 2 classes. Found: \\[\\]"),
            ("a/1.png,b\n", "at least 2 classes. Found: \\['b'\\]"),
            ("a/1.png,b\na/2.png\n", "line 2, must have a path and a label"),
            ("a/1.png,b\na/2.png,\n", "line 2, must have a path and a label"),
            ("a/1.png,b\na/1.png,c\n", "only once. .*line 2, repeats .*a/1.png"),
            ("path,label,split\na/1.png,b,training\na/2.png,c,other\n", "line 3: the split must be .*'other'"),
            ("path,label,split\na/1.png,b,train\na/2.png,c,train\na/3.png,b,val\n", "the same classes. .*'c'"),
            ("a/1.png,b\na/2.png,c\n", "class 'b' must have at least 2 images"),
            ("a/1.png,\xff\xfe", "can't be read as a list"),
        ],
        ids=["empty", "one class", "no label", "empty label", "twice", "split", "classes", "one image", "encoding"],
    )
    def test_content(self, folder, content, message):
        (folder / "list.csv").write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=message):
            sources.open_source(f"list:{folder / 'list.csv'}")

    def test_missing_list(self, folder):
        with pytest.raises(ValueError, match="none does not exist"):
            sources.open_source(f"list:{folder / 'none'}")
        with pytest.raises(ValueError, match="one file per split"):
            sources.open_source(f"list:{folder}")

    def test_missing_image_is_unreadable(self, folder):
        write_list(folder / "list.txt", "{path} {label}\n", range(13))
        description = dataset_builder.build_dataset(
            f"list:{folder / 'list.txt'}", folder / "data", image_px=16, num_processes=1, max_bad_fraction=0.2
        )
        (skipped,) = [name for split in description.splits.values() for name, _ in split.skipped]
        assert skipped.endswith("a/12.png")
