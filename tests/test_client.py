"""alexnet-client and a server with TensorFlow Serving's protocols."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import call, image_files, run

from alexnet_tf.serving import remote_model

pytest.importorskip("tensorflow_serving")
import model_server


@pytest.fixture(scope="module")
def server(export_dir, saved):
    with model_server.ModelServer(model_server.Model(export_dir, "alexnet", saved)) as served:
        yield served


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of five images, two of them in a subfolder, and a text file."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "nested").mkdir()
    for number, path in enumerate(image_files(folder, 5)):
        path.rename(folder / ("nested" if number % 2 else "") / path.name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden").write_text("not to be sent")
    return folder


def expected(saved, path, signature="serving_default"):
    outputs = saved.signatures[signature](images=tf.constant([path.read_bytes()]))
    return [name.decode() for name in outputs["class_names"].numpy()[0]], outputs["probabilities"].numpy()[0]


def test_folder_gives_json_lines_and_a_panel(server, saved, photos, tmp_path):
    arguments = [f"--server={server.address('http')}", "--format=jsonl", "--batch_size=2"]
    result = run("client", *arguments, f"--panel={tmp_path / 'panel.png'}", photos)
    assert result.returncode == 1  # notes.txt is not an image
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    names = ["image-0.png", "image-2.png", "image-4.png", "nested/image-1.png", "nested/image-3.png", "notes.txt"]
    assert [line["file"] for line in lines] == [str(photos / name) for name in names]
    for line in lines[:-1]:
        names, probabilities = expected(saved, pathlib.Path(line["file"]))
        assert line["error"] is None
        assert [row["class"] for row in line["classes"]] == names
        np.testing.assert_allclose([row["probability"] for row in line["classes"]], probabilities, rtol=1e-5)
    assert lines[-1]["classes"] == []
    assert lines[-1]["error"] == "not an image that the server can decode"
    assert "No prediction for 1 of 6 files" in result.stderr
    assert Image.open(tmp_path / "panel.png").size[0] > 500


def test_table_has_a_line_for_each_file(server, saved, photos, capsys):
    path, address = photos / "image-0.png", f"--server={server.address('grpc')}"
    output = call("client", address, "--signature=ten_view", path)
    names, probabilities = expected(saved, path, "ten_view")
    row = "  ".join(f"{p:6.2%} {name}" for name, p in zip(names, probabilities, strict=True))
    assert output == f"{path}  {row}\n"
    with pytest.raises(SystemExit):
        call("client", address, "--version=9", path)
    assert "not found" in capsys.readouterr().err


def test_missing_path_and_absent_server_are_named(photos):
    with pytest.raises(ValueError, match="There is no file or folder nowhere"):
        call("client", "--server=http://localhost:1", "nowhere")
    result = run("client", "--server=http://localhost:1", "--deadline=0.5", "--batch_size=1", photos)
    assert result.returncode == 1
    assert "http://localhost:1 doesn't respond: 5 files were not sent." in result.stderr
    assert "No prediction for 6 of 6 files." in result.stderr


def test_every_flag_of_the_connection_reaches_it(photos, monkeypatch):
    def connect(*arguments, **options):
        raise ConnectionError(arguments, options)

    monkeypatch.setattr(remote_model, "connect", connect)
    flags = ["--server=grpcs://a:1", "--model=flowers", "--version=3", "--signature=ten_view", "--ca_certificate=a.pem"]
    with pytest.raises(ConnectionError) as raised:
        call("client", *flags, photos)
    options = {"version": 3, "signature": "ten_view", "ca_certificate": "a.pem"}
    assert raised.value.args == (("grpcs://a:1", "flowers"), options)
