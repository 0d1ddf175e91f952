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


class TestDamagedFiles:
    @pytest.mark.parametrize("name", ["net.keras", "net.h5", "net.weights.h5"])
    def test_mutated_files_open_or_raise_value_error(self, name, saved, tmp_path):
        content, draw, refused = (saved / name).read_bytes(), random.Random(0), 0
        path = tmp_path / name
        for _ in range(12):
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
        assert refused > 5

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
    @pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
    def test_zip_bomb(self, member, saved, tmp_path):
        rewrite(saved, tmp_path / "bomb.keras", zipfile.ZIP_DEFLATED, **{member.replace(".", "__"): bytes(200_000_000)})
        assert (tmp_path / "bomb.keras").stat().st_size < 1_000_000
        with pytest.raises(ValueError, match=r"bomb\.keras is not a complete Keras model"):
            open_model(tmp_path / "bomb.keras")

    def test_huge_dataset_of_no_bytes(self, saved, tmp_path):
        weights = io.BytesIO()
        with zipfile.ZipFile(saved / "net.keras") as file:
            weights.write(file.read("model.weights.h5"))
        with h5py.File(weights, "a") as file:
            group = file["layers/grouped_conv2d/vars"]
            del group["0"]
            group.create_dataset("0", (1_000_000, 1_000_000), "f4", chunks=(1000, 1000))
        rewrite(saved, tmp_path / "huge.keras", model__weights__h5=weights.getvalue())
        with pytest.raises(ValueError, match=r"huge\.keras is not a complete Keras model"):
            open_model(tmp_path / "huge.keras")

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
        for replacement in (
            keras.saving.serialize_keras_object(layer),
            {"module": "os", "class_name": "system", "config": "touch ran", "registered_name": None},
            {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "ran"]}},
        ):
            changed = json.loads(json.dumps(network))
            (index,) = [i for i, each in enumerate(changed["config"]["layers"]) if each["name"] == "relu1"]
            changed["config"]["layers"][index] |= json.loads(json.dumps(replacement))
            rewrite(saved, tmp_path / "code.keras", config__json=json.dumps(changed))
            with pytest.raises(ValueError, match=r"code\.keras is not a complete Keras model"):
                open_model(tmp_path / "code.keras")
        assert not list(tmp_path.rglob("ran"))

    def test_network_larger_than_its_file(self, saved, tmp_path):
        network = config(saved)
        for layer in network["config"]["layers"]:
            if layer["name"] == "fc6":
                layer["config"]["units"] = 10**12
        rewrite(saved, tmp_path / "large.keras", config__json=json.dumps(network))
        with pytest.raises(ValueError, match=r"large\.keras is not a complete Keras model"):
            open_model(tmp_path / "large.keras")


def test_saved_network_opens(saved):
    pixels = np.zeros((1, 56, 56, 3), "uint8")
    np.testing.assert_array_equal(open_model(saved / "net.keras")(pixels), open_model(saved / "net.h5")(pixels))
