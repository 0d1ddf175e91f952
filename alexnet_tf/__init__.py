"""AlexNet (Krizhevsky, Sutskever, Hinton, 2012) for TensorFlow and Keras.

The names below are imported when they are first used, so that `import alexnet_tf` itself imports neither TensorFlow nor
Keras.
"""

import importlib
import os
from typing import TYPE_CHECKING

from alexnet_tf import quiet, registration

if TYPE_CHECKING:  # what _MODULES says, for type checkers and editors
    from alexnet_tf.distribution.strategies import DistributedModel as DistributedModel
    from alexnet_tf.figures.activations import activations as activations
    from alexnet_tf.layers import ColumnDense as ColumnDense
    from alexnet_tf.layers import ColumnWise as ColumnWise
    from alexnet_tf.layers import GroupedConv2D as GroupedConv2D
    from alexnet_tf.layers import LocalResponseNormalization as LocalResponseNormalization
    from alexnet_tf.layers import MeanImage as MeanImage
    from alexnet_tf.layers import PaperDropout as PaperDropout
    from alexnet_tf.layers import Preprocess as Preprocess
    from alexnet_tf.layers import ReplicaDropout as ReplicaDropout
    from alexnet_tf.layers import WithinMapNormalization as WithinMapNormalization
    from alexnet_tf.lpips import LPIPS as LPIPS
    from alexnet_tf.model import build_alexnet as build_alexnet
    from alexnet_tf.model import load_model as load_model
    from alexnet_tf.model import with_color_offset as with_color_offset
    from alexnet_tf.networks.structure import features as features
    from alexnet_tf.networks.variants import VARIANTS as VARIANTS
    from alexnet_tf.notebook import decode_predictions as decode_predictions
    from alexnet_tf.notebook import preprocess as preprocess
    from alexnet_tf.tfrecords.keras_dataset import make_dataset as make_dataset
    from alexnet_tf.training.optimizers import PaperMomentum as PaperMomentum
    from alexnet_tf.weights.published import list_models as list_models

__version__ = "0.1.0"  # setup.py reads it here

# oneDNN's convolutions and pooling are much faster than TensorFlow's own on any x86 processor, also on those for which
# TensorFlow does not turn them on by itself (without AVX512_VNNI or the like). TensorFlow reads it once.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# What TensorFlow reads ahead of each file that it opens in Google Cloud Storage. By default 64 MB, also for one record.
os.environ.setdefault("GCS_READAHEAD_BUFFER_SIZE_BYTES", str(2**20))

_MODULES = {
    "VARIANTS": "networks.variants",
    "list_models": "weights.published",
    "build_alexnet": "model",
    "with_color_offset": "model",
    "load_model": "model",
    "LPIPS": "lpips",
    "PaperMomentum": "training.optimizers",
    "DistributedModel": "distribution.strategies",
    "make_dataset": "tfrecords.keras_dataset",
    "features": "networks.structure",
    "activations": "figures.activations",
    "preprocess": "notebook",
    "decode_predictions": "notebook",
    "GroupedConv2D": "layers",
    "ColumnDense": "layers",
    "ColumnWise": "layers",
    "LocalResponseNormalization": "layers",
    "MeanImage": "layers",
    "PaperDropout": "layers",
    "Preprocess": "layers",
    "ReplicaDropout": "layers",
    "WithinMapNormalization": "layers",
}
__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]


registration.register_with_keras()
# A program that silences TensorFlow sets this variable, which its worker processes inherit.
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") >= "2":
    quiet.silence_tensorflow()
