"""AlexNet (Krizhevsky, Sutskever, Hinton, 2012) for TensorFlow and Keras.

What a program or a notebook needs first can be had from here; TensorFlow is imported when it is asked for.
"""

import importlib
import os

# oneDNN's convolutions and pooling are much faster than TensorFlow's own on any x86 processor, also on those for which
# TensorFlow does not turn them on by itself (without AVX512_VNNI or the like). It looks once, when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_MODULES = {
    "VARIANTS": "variants",
    "build_alexnet": "model",
    "with_color_offset": "model",
    "load_model": "model",
    "PaperMomentum": "training.optimizers",
    "make_dataset": "notebook",
    "preprocess": "notebook",
    "decode_predictions": "notebook",
    "GroupedConv2D": "layers",
    "ColumnDense": "layers",
    "ColumnWise": "layers",
    "LocalResponseNormalization": "layers",
    "MeanImage": "layers",
    "PaperDropout": "layers",
    "ReplicaDropout": "layers",
    "WithinMapNormalization": "layers",
}
__all__ = list(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__():
    return [*globals(), *_MODULES]
