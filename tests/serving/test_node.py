"""The SavedModel in Node: on TensorFlow's C library, without Python."""

import base64
import json
import os
import pathlib
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import image_files

from alexnet_tf.serving import preprocessing
from alexnet_tf.tfrecords import crops

# Built against the library in TensorFlow's Python package, since tfjs-node has none.
TFJS = "@tensorflow/tfjs-node@4.22.0"


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory):
    """A folder with tfjs-node, built against the installed TensorFlow."""
    folder = tmp_path_factory.mktemp("node")
    npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, TFJS]
    subprocess.run(npm, check=True, capture_output=True, timeout=300)
    package = folder / "node_modules" / "@tensorflow" / "tfjs-node"
    libraries, tensorflow = package / "deps" / "lib", pathlib.Path(tf.sysconfig.get_lib())
    libraries.mkdir(parents=True)
    for name, library in (("libtensorflow", "libtensorflow_cc"), ("libtensorflow_framework",) * 2):
        for suffix in (".so", ".so.2"):
            (libraries / f"{name}{suffix}").symlink_to(tensorflow / f"{library}.so.2")
    (package / "deps" / "include").symlink_to(tf.sysconfig.get_include())
    node = pathlib.Path(shutil.which("node")).resolve()
    npm_folder = subprocess.run(["npm", "root", "--global"], check=True, capture_output=True, text=True).stdout.strip()
    gyp = pathlib.Path(npm_folder) / "npm" / "node_modules" / "node-gyp" / "bin" / "node-gyp.js"
    command = [node, gyp, "configure", "build", f"--nodedir={node.parent.parent}", "--module_name=tfjs_binding"]
    command += [f"--module_path={package / 'lib' / 'napi-v8'}", "--napi_version=8", "--napi_build_version=8"]
    result = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return folder / "node_modules"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_every_signature_predicts_in_node_like_keras(export_dir, untrained, node_modules, tmp_path):
    contents = [path.read_bytes() for path in image_files(tmp_path, 4)]
    contents.insert(2, b"no image")
    good = [0, 1, 3, 4]
    examples = []
    for content in contents:
        example = tf.train.Example()
        example.features.feature["image/encoded"].bytes_list.value.append(content)
        examples.append(example.SerializeToString())
    squares = tf.stack([preprocessing.decode_square(tf.constant(contents[index]), 64) for index in good])
    pixels = crops.center_crop(squares, 56).numpy()
    inputs = {
        "images": [base64.b64encode(content).decode() for content in contents],
        "examples": [base64.b64encode(example).decode() for example in examples],
        "pixels": pixels.ravel().tolist(),
        "shape": pixels.shape,
    }
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    script = pathlib.Path(__file__).with_name("served_by_node.js")
    environment = os.environ | {"NODE_PATH": str(node_modules), "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"LD_LIBRARY_PATH": tf.sysconfig.get_lib()}
    command = ["node", script, export_dir / "1", tmp_path / "inputs.json"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    served = {
        signature: {name: np.reshape(each["values"], each["shape"]) for name, each in outputs.items()}
        for signature, outputs in json.loads(result.stdout.splitlines()[-1]).items()
    }

    model, description = untrained
    crop_rows = model.predict(pixels, verbose=0)
    views = tf.reshape(crops.ten_views(squares, 56), (-1, 56, 56, 3))
    view_rows = model.predict(views, verbose=0).reshape(4, 10, -1).mean(axis=1)
    for signature in ("predict", "predict_uint8"):
        np.testing.assert_allclose(served[signature]["probabilities"], crop_rows, atol=1e-5)
    names = np.array(description.class_names)
    for signature, expected in (("serving_default", crop_rows), ("ten_view", view_rows)):
        order = np.argsort(-expected, axis=1)[:, :5]
        outputs = served[signature]
        assert outputs["valid"].tolist() == [1, 1, 0, 1, 1]
        np.testing.assert_array_equal(outputs["class_ids"][good], order)
        np.testing.assert_array_equal(outputs["class_names"][good], names[order])
        np.testing.assert_allclose(outputs["probabilities"][good], np.take_along_axis(expected, order, 1), atol=1e-5)
        assert (outputs["class_ids"][2] == -1).all()
    order = np.argsort(-crop_rows, axis=1)[:, :5]
    np.testing.assert_array_equal(served["classify"]["classes"][good], names[order])
    np.testing.assert_allclose(served["classify"]["scores"][good], np.take_along_axis(crop_rows, order, 1), atol=1e-5)
    hidden = keras.Model(model.input, model.get_layer("relu7").output).predict(pixels, verbose=0)
    np.testing.assert_allclose(served["features"]["features"][good], hidden, rtol=1e-5, atol=1e-5)
