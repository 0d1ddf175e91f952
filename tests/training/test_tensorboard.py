"""What a run logs to TensorBoard: the event files, and what TensorBoard's server reads from them."""

import io
import json
import time

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
from event_files import entries
from PIL import Image
from tensorboard import program

RUN = "run/tensorboard"  # as TensorBoard names the folder of the whole run
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@pytest.mark.slow
class TestEventFiles:
    def test_validation_has_the_tags_of_training_and_a_complete_confusion_matrix(self, run_dir):
        train, validation = (entries(run_dir / "tensorboard" / name) for name in ("train", "validation"))
        tags = {"epoch/loss", "epoch/top1_error", "epoch/top5_error"}
        assert {tag for tag in validation if tag != "confusion matrix"} == tags
        assert all(list(written[tag]) == [60, 120] for written in (train, validation) for tag in tags)
        summary = json.loads((run_dir / "training.json").read_text())
        np.testing.assert_allclose(validation["epoch/top1_error"][120], summary["val_top1_error"], rtol=1e-6)
        assert list(validation["confusion matrix"]) == [60, 120]

    def test_images_histograms_and_graph_are_of_this_run(self, run_dir):
        train = entries(run_dir / "tensorboard" / "train")
        width, height, png = train["augmented inputs"][0]
        assert (int(width), int(height)) == (4 * 56, 2 * 56)
        assert len(np.unique(tf.io.decode_png(png))) > 50
        assert list(train["conv1 kernels"]) == list(train["activations"]) == [60, 120]
        kernels = keras.models.load_model(run_dir / "model.keras").get_layer("fc7").kernels
        for number, kernel in enumerate(kernels, 1):
            left, right, counts = train[f"fc7/kernel_{number}"][120].T
            assert counts.sum() == np.size(kernel)
            np.testing.assert_allclose([left[0], right[-1]], [np.min(kernel), np.max(kernel)], rtol=1e-5)
        names = {node.name for node in train["graph"]}
        assert all(source.split(":")[0] in names for node in train["graph"] for source in node.input)


@pytest.fixture(scope="module")
def get(whole_run):
    """A function that requests a run's data from TensorBoard, as its pages do."""
    # Without its data server, with which it talks by gRPC: processes that other tests fork would inherit this.
    server = program.TensorBoard()
    server.configure(argv=["tensorboard", f"--logdir={whole_run.folder.parent}", "--port=0", "--load_fast=false"])
    address = server.launch()

    def get(path, **parameters):
        response = requests.get(f"{address}data/plugin/{path}", params=parameters, timeout=60)
        response.raise_for_status()
        return response

    deadline = time.monotonic() + 60
    while "epoch/top5_error" not in get("scalars/tags").json().get(f"{RUN}/validation", ()):
        assert time.monotonic() < deadline, "TensorBoard found no run"
        time.sleep(0.1)
    return get


class TestServer:
    @pytest.mark.parametrize(
        "run, tag", [("train", "augmented inputs"), ("train", "activations"), ("validation", "confusion matrix")]
    )
    def test_images_are_those_that_were_logged(self, run, tag, get, whole_run):
        *_, (_, _, expected) = entries(whole_run.folder / "tensorboard" / run)[tag].values()
        *_, shown = get("images/images", run=f"{RUN}/{run}", tag=tag, sample=0).json()
        assert get(f"images/individualImage?{shown['query']}").content == expected

    def test_graph_has_the_layers(self, get):
        nodes = get("graphs/graph", run=f"{RUN}/train", conceptual="false").text
        assert all(f'name: "{name}/' in nodes for name in (*LAYERS, "mean_image", "norm1", "pool5", "drop7", "softmax"))

    def test_every_layer_has_histograms(self, get):
        layers = {tag.split("/")[0] for tag in get("histograms/tags").json()[f"{RUN}/train"]}
        assert layers == {*LAYERS} - {"conv2"}  # which is frozen

    def test_texts_are_flags_and_data(self, get):
        flags, data = (get("text/text", run=f"{RUN}/train", tag=tag).json()[0]["text"] for tag in ("flags", "data"))
        assert "--variant=testing" in flags and "train: 46 images" in data

    def test_hparams_compare_runs_by_flags_and_errors(self, get, whole_run):
        request = json.dumps({"allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 10})
        (group,) = get("hparams/session_groups", request=request).json()["sessionGroups"]
        summary = json.loads((whole_run.folder / "training.json").read_text())
        assert group["hparams"]["learning_rate"] == 0.64 and group["hparams"]["epochs"] == 2
        errors = {each["name"]["group"] + "/" + each["name"]["tag"]: each["value"] for each in group["metricValues"]}
        assert errors["validation/epoch/top1_error"] == pytest.approx(summary["val_top1_error"])
        metrics = get("hparams/experiment", request="{}").json()["metricInfos"]
        assert {"top-1 error", "images/s"} <= {metric["displayName"] for metric in metrics}

    def test_projector_has_features_classes_and_thumbnails(self, get):
        info = get("projector/info", run=RUN).json()["embeddings"][0]
        name = {"run": RUN, "name": info["tensorName"]}
        assert (info["tensorName"], info["tensorShape"]) == ("fc7", [10, 32])
        assert len(get("projector/tensor", **name).content) == 10 * 32 * 4
        assert get("projector/metadata", **name).text.startswith("class\tpredicted class\n$x^2$")
        with Image.open(io.BytesIO(get("projector/sprite_image", **name).content)) as sprite:
            assert sprite.size == (4 * 48, 3 * 48)
