"""Damaged and hostile .keras and .h5 files: each is refused with a ValueError, and nothing in it is run or unpacked."""

import io
import json
import pathlib
import random
import zipfile

import h5py
import keras
import numpy as np
import pytest

from alexnet_tf.identification import describe_file
from alexnet_tf.model import build_alexnet, open_model
from alexnet_tf.weights import keras_files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a network as net.keras, net.h5 and net.weights.h5."""
    folder = tmp_path_factory.mktemp("saved")
    model = build_alexnet("testing", 3)
    model.save(folder / "net.keras")
    model.save(folder / "net.h5")
    model.save_weights(folder / "net.weights.h5")
    return folder


def rewrite(saved, path, compression=zipfile.ZIP_STORED, **replaced):
    """Writes net.keras with other members; double underscores in their names stand for dots."""
    contents = {name.replace("__", "."): content for name, content in replaced.items()}
    with zipfile.ZipFile(saved / "net.keras") as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, contents.pop(name, None) or old.read(name))
        for name, content in contents.items():
            new.writestr(name, content)


def config(saved):
    with zipfile.ZipFile(saved / "net.keras") as file:
        return json.loads(file.read("config.json"))


def weights_of(saved):
    with zipfile.ZipFile(saved / "net.keras") as file:
        return file.read("model.weights.h5")


def widened(network):
    """The configuration with two million units in fc6."""
    for layer in network["config"]["layers"]:
        if layer["config"]["name"] == "fc6":
            layer["config"]["units"] = 2_000_000
    return network


def replace_by_empty_array(file, name):
    """Replaces an array in an HDF5 file by one of 1.6 GB without content."""
    with h5py.File(file, "a") as opened:
        del opened[name]
        opened.create_dataset(name, (20_000, 20_000), "f4", chunks=(1000, 1000))


class TestDamagedFiles:
    @pytest.mark.parametrize("name", ["net.keras", "net.h5", "net.weights.h5"])
    def test_mutated_files_open_or_raise_value_error(self, name, saved, tmp_path):
        content, draw, refused = (saved / name).read_bytes(), random.Random(0), 0
        path = tmp_path / name
        for _ in range(8):
            mutated = bytearray(content)
            for _ in range(draw.randrange(1, 8)):
                position = draw.randrange(min(len(mutated), 8000))  # where the structure is
                mutated[position : position + 3] = draw.randbytes(3)
            path.write_bytes(mutated)
            for read in (describe_file, lambda path: build_alexnet("testing", 3, weights=path)):
                try:
                    read(path)
                except ValueError:
                    refused += 1
        assert refused > 4

    def test_cyclic_h5_group(self, saved, tmp_path):
        path = tmp_path / "net.h5"
        path.write_bytes((saved / "net.h5").read_bytes())
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = "[" * 100_000
        with pytest.raises(ValueError, match=r"net\.h5 is not a complete Keras model"):
            open_model(path)

    def test_git_lfs_pointer(self, tmp_path):
        (tmp_path / "net.keras").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
        with pytest.raises(ValueError, match=r"net\.keras is a Git LFS pointer"):
            open_model(tmp_path / "net.keras")


class TestHostileFiles:
    @pytest.mark.parametrize("kind", ["configuration", "asset", "array", "network", "array.h5", "network.h5", "folder"])
    def test_small_file_of_gigabytes_allocates_nothing(self, kind, saved, tmp_path):
        path = tmp_path / f"small{pathlib.Path(kind).suffix or '.keras'}"
        wide, weights = json.dumps(widened(config(saved))), io.BytesIO(weights_of(saved))
        match kind:
            case "configuration":
                spaces = json.dumps(config(saved)) + " " * 60_000_000
                rewrite(saved, path, zipfile.ZIP_DEFLATED, config__json=spaces)
            case "asset":
                rewrite(saved, path, zipfile.ZIP_DEFLATED, **{"assets/large": bytes(60_000_000)})
            case "array":
                replace_by_empty_array(weights, "layers/grouped_conv2d/vars/0")
                rewrite(saved, path, model__weights__h5=weights.getvalue())
            case "network":
                rewrite(saved, path, config__json=wide)
            case "array.h5" | "network.h5":
                path.write_bytes((saved / "net.h5").read_bytes())
                with h5py.File(path, "a") as file:
                    file.attrs["model_config"] = json.dumps(widened(json.loads(file.attrs["model_config"])))
                if kind == "array.h5":
                    path.write_bytes((saved / "net.h5").read_bytes())
                    replace_by_empty_array(path, "model_weights/conv1/conv1/kernel_1")
            case "folder":
                path.mkdir()
                (path / "config.json").write_text(wide)
                (path / "model.weights.h5").write_bytes(weights.getvalue())
        with pytest.raises(ValueError, match=r"its (members|arrays|network) would take \d+ MB, more than 10 times"):
            open_model(path)

    def test_empty_array_in_weights_file(self, saved, tmp_path):
        (tmp_path / "net.weights.h5").write_bytes((saved / "net.weights.h5").read_bytes())
        replace_by_empty_array(tmp_path / "net.weights.h5", "layers/grouped_conv2d/vars/0")
        with pytest.raises(ValueError, match="its arrays would take 1600 MB"):
            build_alexnet("testing", 3, weights=tmp_path / "net.weights.h5")

    @pytest.mark.parametrize(
        "megabytes, of_the_file, allowed", [(49, 0.001, True), (51, 0.001, False), (249, 25, True), (251, 25, False)]
    )
    def test_what_is_large_may_be_ten_times_the_file(self, megabytes, of_the_file, allowed):
        sizes = (megabytes * 1_000_000, int(of_the_file * 1_000_000))
        if allowed:
            keras_files._check("it", *sizes)
        else:
            with pytest.raises(ValueError, match=f"it would take {megabytes} MB"):
                keras_files._check("it", *sizes)

    def test_many_arrays_that_are_large_together(self, tmp_path):
        with h5py.File(tmp_path / "net.weights.h5", "w") as file:
            for number in range(4):
                file.create_dataset(f"array{number}", (5_000_000,), "float32")  # 20 MB, which take no space
        with pytest.raises(ValueError, match="its arrays would take 80 MB"):
            build_alexnet("testing", 3, weights=tmp_path / "net.weights.h5")

    def test_sizes_leave_the_random_numbers_alone(self, saved):
        draws = []
        for open_file in (open_model, lambda path: keras.models.load_model(path, compile=False)):
            keras.utils.set_random_seed(0)
            open_file(saved / "net.keras")
            draws.append(random.random())
        assert draws[0] == draws[1]

    def test_members_are_not_unpacked_elsewhere(self, saved, tmp_path):
        folder = tmp_path / "inner"
        folder.mkdir()
        with zipfile.ZipFile(folder / "net.keras", "w") as new, zipfile.ZipFile(saved / "net.keras") as old:
            for name in old.namelist():
                new.writestr(name, old.read(name))
            for name in ("../evil.txt", "assets/../../evil.txt", "/tmp/evil_of_a_model.txt"):
                new.writestr(name, b"evil")
        open_model(folder / "net.keras")
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["inner", "net.keras"]

    def test_code_is_not_run(self, saved, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        network = config(saved)
        layer = keras.layers.Lambda(lambda x: pathlib.Path("ran").touch() or x, name="relu1")
        call = {"module": "os", "class_name": "system", "config": "touch ran", "registered_name": None}
        for replacement in (
            keras.saving.serialize_keras_object(layer),
            call,
            {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "ran"]}},
        ):
            changed = json.loads(json.dumps(network))
            (index,) = [i for i, each in enumerate(changed["config"]["layers"]) if each["name"] == "relu1"]
            changed["config"]["layers"][index] |= json.loads(json.dumps(replacement))
            for each in (changed, call):
                rewrite(saved, tmp_path / "code.keras", config__json=json.dumps(each))
                with pytest.raises(ValueError, match=r"code\.keras is not a complete Keras model"):
                    open_model(tmp_path / "code.keras")
        assert not list(tmp_path.rglob("ran"))


def test_saved_network_opens(saved):
    pixels = np.zeros((1, 56, 56, 3), "uint8")
    np.testing.assert_array_equal(open_model(saved / "net.keras")(pixels), open_model(saved / "net.h5")(pixels))


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["compiled.keras", "compiled.h5"])
def test_compiled_network_opens(name, nested, tmp_path):
    model = build_alexnet("testing", 3)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9)), "categorical_crossentropy")
    if nested:
        model = keras.Sequential([model, keras.layers.Dense(2, activation="softmax")])
        model.compile("sgd", "categorical_crossentropy")
    pixels = np.zeros((2, 56, 56, 3), "uint8")
    model.fit(pixels, np.eye(model.output_shape[-1])[:2], verbose=0)
    model.save(tmp_path / name)
    np.testing.assert_array_equal(open_model(tmp_path / name)(pixels), model(pixels))
