"""An exported page in a browser, which several files test."""

import os
import subprocess

import numpy as np
import pytest
from browser import open_chromium, open_page, serve

from alexnet_tf.serving import browser_runtime, exporter, formats


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """The npm package onnxruntime-web, as `npm pack` writes it."""
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", "--prefer-offline", f"onnxruntime-web@{browser_runtime.VERSION}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"npm or its registry is not there, so neither is onnxruntime-web: {error}")
    return next(folder.glob("*.tgz"))


@pytest.fixture(scope="session")
def page_dir(untrained, data_dir, runtime, made_once):
    """The page of a small network with random weights."""
    for package in formats.PACKAGES["web"]:
        pytest.importorskip(package)
    config = formats.ExportConfig(format="web", precision="int8", data_dir=data_dir, num_images=100, runtime=runtime)
    return made_once("page", lambda folder: exporter.export_model(*untrained, folder, config)) / "1"


@pytest.fixture(scope="session")
def network(page_dir):
    """A function from pixels and gates to the outputs of the page's model by name, from onnxruntime in Python."""
    import onnxruntime

    session = onnxruntime.InferenceSession(page_dir / "model.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def run(pixels, gates=(1, 1)):
        pixels = np.float32(pixels).reshape(-1, 56, 56, 3)
        return dict(zip(names, session.run(names, {"pixels": pixels, "gates": np.float32([gates])}), strict=True))

    return run


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with open_chromium(tmp_path_factory.mktemp("chromium"), "--window-size=1360,900", *camera) as chrome:
        yield chrome


@pytest.fixture(scope="session")
def served(page_dir):
    """The page's address, and a list of all requests."""
    with serve(page_dir) as address_and_requests:
        yield address_and_requests


@pytest.fixture
def page(browser, served):
    """The page with its first example shown."""
    return open_page(browser, served[0])
