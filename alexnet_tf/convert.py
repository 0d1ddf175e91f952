"""Weights from elsewhere: other programs' files, and this project's models in the other form of columns."""

import json
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow_datasets as tfds
from absl import flags

from alexnet_tf import layers, model, variants
from alexnet_tf.tfrecords import program, schema
from alexnet_tf.weights import pretrained_files

_MEAN_IMAGE_PX = 256  # section 2


def copy_weights(source, target, new_head=False):
    """Gives a model the weights of another, so that both compute the same function.

    The columns may be merged in one and split in the other. What the two do differently around the weights is put
    into them: another input scale into conv1, another place of dropout's factor (at test time or in training) into the
    layer above it.

    Args:
        source, target: from `model.build_alexnet`.
        new_head: whether the classifier keeps its own first weights.

    Raises:
        ValueError: where a layer of the target is missing in the source, or has other shapes.
    """
    weights = {layer.name: _merged(layer) for layer in source.layers if layer.weights}
    for name, values in weights.items():
        if "kernel" in values and name in {layer.name for layer in target.layers}:
            values["kernel"] = values["kernel"] * (_dropout_factor(source, name) / _dropout_factor(target, name))
    _set_weights(target, weights, source.get_layer("mean_image").scale, new_head)


def load_foreign(network, target):
    """Gives a model the weights of a `pretrained_files.ForeignNetwork`.

    Args:
        network: what a reader of `foreign` returned.
        target: from `model.build_alexnet`, in either form of columns.

    Raises:
        ValueError: where a layer is missing, or its shapes are others than the target's.
    """
    weights = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in network.weights.items()}
    mean = target.get_layer("mean_image").mean
    weights["mean_image"] = {"mean": np.broadcast_to(np.float32(network.mean_color), mean.shape)}
    if network.maps_first:
        (first_dense,) = [layer for layer in target.layers if layer.weights and len(layer.input.shape) == 4][-1:]
        values = weights.get(first_dense.name)
        if values:
            _check_shape(first_dense, "kernel", values["kernel"].shape)
            rows, columns, maps = first_dense.input.shape[1:]
            kernel = values["kernel"].reshape(maps, rows, columns, -1).transpose(1, 2, 0, 3)
            values["kernel"] = kernel.reshape(rows * columns * maps, -1)
    _set_weights(target, weights, network.input_scale, new_head=False)


def _set_weights(target, weights, input_scale, new_head):
    """Gives a model weights by the names of their layers, each as `_merged` returns it."""
    *below, head = [layer for layer in target.layers if layer.weights]
    ratio = np.ones(3) * input_scale / target.get_layer("mean_image").scale
    for layer in below if new_head else [*below, head]:
        if layer.name not in weights:
            raise ValueError(f"{layer.name} is missing. There are {', '.join(sorted(weights))}.")
        values, expected = dict(weights[layer.name]), _merged(layer)
        if values.keys() != expected.keys():
            raise ValueError(f"{layer.name} must have {sorted(expected)}. Received: {sorted(values)}")
        for name, value in values.items():
            _check_shape(layer, name, value.shape)
        if layer.name == target.layers[2].name:  # the first convolution
            values["kernel"] = values["kernel"] * np.float32(ratio)[:, None]
        for name, variables in _by_column(layer).items():
            for variable, part in zip(variables, np.split(values[name], len(variables), axis=-1), strict=True):
                variable.assign(part)


def _by_column(layer):
    """A layer's variables by name, each a list of one for each column."""
    if hasattr(layer, "kernels"):
        return {"kernel": layer.kernels} | ({"bias": layer.biases} if layer.biases else {})
    return {variable.name: [variable] for variable in layer.weights}


def _merged(layer):
    """A layer's weights by name, those of all columns behind one another along the last axis."""
    return {
        name: np.concatenate([np.asarray(variable) for variable in variables], axis=-1)
        for name, variables in _by_column(layer).items()
    }


def _check_shape(layer, name, shape):
    expected = _merged(layer)[name].shape
    if tuple(shape) != expected:
        raise ValueError(f"{layer.name}'s {name} must be of shape {expected}. Received: {tuple(shape)}")


def _dropout_factor(network, name):
    """What dropout multiplies the inputs of a layer by at test time."""
    before = None
    for layer in network.layers:
        if layer.name == name:
            break
        if layer.weights:
            before = None
        elif isinstance(layer, layers.PaperDropout):
            before = layer
    return 1.0 if before is None else 1.0 - before.rate


def save_converted(converted, class_names, source, output_dir):
    """Writes a folder as alexnet-train does, with model.keras and dataset.json. It appears whole or not at all.

    Raises:
        ValueError: where the folder exists already.
    """
    output_dir = pathlib.Path(output_dir)
    if output_dir.exists():
        raise ValueError(f"`output_dir` must not exist yet. Received: {output_dir}")
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".tmp-{output_dir.name}-", dir=output_dir.parent))
    try:
        converted.save(temporary / "model.keras")
        schema.DatasetDescription(
            class_names=tuple(class_names),
            image_px=max(_MEAN_IMAGE_PX, converted.input_shape[1]),
            keep_aspect=False,
            encoding="jpeg",
            splits={},
            settings={"source": f"converted from {source}"},
        ).save(temporary)
        temporary.chmod(0o755)
        temporary.rename(output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_class_names(path, classes):
    """The names of the classes: one in each line of a file, or those of a dataset.json; or, where `path` is None and
    there are 1000, ImageNet's sorted WordNet ids, which Caffe's and torchvision's labels follow.

    Raises:
        ValueError: where the names are not as many as the classes.
    """
    if path is None:
        if classes != 1000:
            raise ValueError(f"`class_names` must be given: only 1000 classes have names of their own, not {classes}.")
        return tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    text = pathlib.Path(path).read_text(encoding="utf-8")
    names = json.loads(text)["class_names"] if str(path).endswith(".json") else text.splitlines()
    if len(names) != classes:
        raise ValueError(f"`class_names` must name the {classes} classes. Received: {len(names)} names in {path}")
    return names


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "input",
        None,
        "A .caffemodel (bvlc_alexnet, bvlc_reference_caffenet), a .npy dictionary made from one, a .pth state dict of "
        "torchvision's alexnet (needs PyTorch), or a model of this project: a folder, .keras or .h5.",
        required=True,
    )
    flags.DEFINE_string("output_dir", None, "A new folder, as alexnet-train makes them.", required=True)
    flags.DEFINE_enum(
        "variant", None, sorted(variants.VARIANTS), "What the file holds; by default what its kind and its name say."
    )
    flags.DEFINE_enum(
        "columns",
        None,
        ["split", "merged"],
        "Whether layers that see every column are one for each column, as on two devices, or one for all; by default "
        "as in the variant.",
    )
    flags.DEFINE_string(
        "mean_image", None, "Caffe's mean image, .binaryproto or .npy; without it its mean color is subtracted."
    )
    flags.DEFINE_string(
        "class_names",
        None,
        "A file with a class name in each line, or a dataset.json; by default ImageNet's WordNet ids.",
    )


def main(arguments):
    flag = flags.FLAGS
    merge = None if flag.columns is None else flag.columns == "merged"
    path = pathlib.Path(flag.input)
    if path.is_dir() or path.suffix in (".keras", ".h5"):
        source = model.open_model(path)
        variant = flag.variant or source.name.removeprefix("alexnet_")
        converted = model.build_alexnet(variant, source.output_shape[-1], initializer="zeros", merge_columns=merge)
        try:
            copy_weights(source, converted)
        except ValueError as error:
            raise ValueError(f"{path} does not fit --variant={variant}: {error}") from error
        beside = (path if path.is_dir() else path.parent) / schema.DATASET_FILE
        class_names = read_class_names(
            flag.class_names or (beside if beside.exists() else None), source.output_shape[-1]
        )
    else:
        network = pretrained_files.read_foreign(path)
        variant = flag.variant or network.variant
        head = variants.VARIANTS[variant].fc_names[-1]
        classes = len(network.weights[head][1]) if head in network.weights else 1000
        converted = model.build_alexnet(variant, classes, initializer="zeros", merge_columns=merge)
        try:
            load_foreign(network, converted)
        except ValueError as error:
            raise ValueError(f"{path} does not fit --variant={variant}: {error}") from error
        class_names = read_class_names(flag.class_names, classes)
    if flag.mean_image:
        converted.get_layer("mean_image").set_mean_image(pretrained_files.read_caffe_mean(flag.mean_image))
    save_converted(converted, class_names, path.name, flag.output_dir)
    print(
        f"Converted {path} to {flag.output_dir}: {variant}, {converted.count_params():,} parameters, "
        f"{len(class_names)} classes."
    )


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
