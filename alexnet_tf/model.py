"""The network: one row of the table of variants made into a Keras model."""

import math
import pathlib
import re
import zipfile

import keras

from alexnet_tf import variants
from alexnet_tf.layers import (
    ColumnDense,
    ColumnWise,
    GroupedConv2D,
    LocalResponseNormalization,
    MeanImage,
    PaperDropout,
    ReplicaDropout,
    WithinMapNormalization,
    columns,
)
from alexnet_tf.tfrecords import schema


def build_alexnet(
    variant="paper",
    num_classes=1000,
    *,
    initializer=None,
    input_scale=None,
    merge_columns=None,
    column_devices=None,
):
    """Builds an AlexNet.

    The layers are named as in figure 2 (conv1, relu1, norm1, pool1, ... fc8, softmax), so that
    `model.get_layer("fc7").output` is what it says.

    Args:
        variant: a key of `variants.VARIANTS`.
        num_classes: number of classes, at least 2.
        initializer: None for the variant's own first weights and biases, or an initializer as Keras takes it, such
            as "he_normal", for all kernels; the biases are then 0, since the paper's biases of 1 belong to its
            small weights.
        input_scale: what the centered pixels are multiplied by (see `layers.MeanImage`); None for the variant's own.
        merge_columns: whether a layer that sees every column is one layer (True: fewer, larger products on one
            device) or one for each column (False: a column can have a device of its own); None for the variant's own.
            The function is the same; `convert.copy_weights` brings weights from one form to the other.
        column_devices: None, or a TensorFlow device name for each column, such as ["GPU:0", "GPU:1"]: the column's
            variables, its forward and its backward operations are on it, and the devices exchange activations only
            where the columns see each other. The layers' outputs are then lists of one tensor for each column. The
            devices are not saved with the model.

    Returns:
        A functional `keras.Model` from RGB pixels, float32 or uint8 (batch, image_px, image_px, 3) from 0 to 255, to
        class probabilities, float32 (batch, num_classes). Its mean image is zero until
        `model.get_layer("mean_image").set_mean_image(...)` sets it.

    Raises:
        ValueError: where the variant does not exist, `num_classes` is below 2, or there are no such devices, or no such
            columns to place on them.

    Source: section 3.5 and figure 2; the table of variants for each number.
    """
    if variant not in variants.VARIANTS:
        raise ValueError(f"`variant` must be one of {sorted(variants.VARIANTS)}. Received: variant={variant!r}")
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    row = variants.VARIANTS[variant]
    merged = row.columns_merged if merge_columns is None else merge_columns
    if column_devices is not None:
        if merged or row.columns != len(column_devices) or any("bn" in str(names) for names in row.conv_then):
            raise ValueError(
                "`column_devices` must name one device for each of several separate columns. "
                f"{variant} has {1 if merged else row.columns}. Received: column_devices={column_devices}"
            )
        columns.check_devices_exist(column_devices)

    def groups(sees):
        return 1 if merged and sees == "all" else row.columns

    def first_values(std, bias, inputs):
        if initializer is not None:
            return {"kernel_initializer": initializer, "bias_initializer": "zeros"}
        if std is None:
            uniform = keras.initializers.RandomUniform(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs))
            return {"kernel_initializer": uniform, "bias_initializer": uniform}
        return {
            "kernel_initializer": keras.initializers.RandomNormal(stddev=std),
            "bias_initializer": keras.initializers.Constant(bias or 0.0),
        }

    def follow(x, names):
        for name in names:
            x = _operation(row, name, column_devices)(x)
        return x

    def channels(x):
        return sum(part.shape[-1] for part in x) if isinstance(x, list) else x.shape[-1]

    # With devices, each column is a tensor of its own from conv1 to the classifier.
    placed = {"devices": column_devices, "output_per_group": column_devices is not None}

    image = keras.Input((row.image_px, row.image_px, 3), name="image")
    x = MeanImage(
        scale=row.input_scale if input_scale is None else input_scale,
        noise_divisor=row.noise_divisor,
        name="mean_image",
    )(image)

    for index, name in enumerate(row.conv_names):
        side, sees = row.conv_px[index], row.conv_sees[index]
        inputs = side * side * channels(x) // (row.columns if sees == "own" else 1)
        x = GroupedConv2D(
            row.conv_kernels[index],
            side,
            strides=row.conv_strides[index],
            padding=row.conv_padding[index],
            groups=groups(sees),
            sees=sees,
            use_bias=row.conv_bias[index] is not None or row.conv_std[index] is None,
            **first_values(row.conv_std[index], row.conv_bias[index], inputs),
            **placed,
            name=name,
        )(x)
        x = follow(x, row.conv_then[index])

    *hidden, classifier = row.fc_names
    for index, name in enumerate(hidden):
        sees = row.fc_sees[index]
        places = math.prod((x[0] if isinstance(x, list) else x).shape[1:-1])
        inputs = places * channels(x) // (row.columns if sees == "own" else 1)
        x = ColumnDense(
            row.fc_units[index],
            groups=groups(sees),
            sees=sees,
            **first_values(row.fc_std[index], row.fc_bias[index], inputs),
            **placed,
            name=name,
        )(x)
        x = follow(x, row.fc_then[index])

    # float32 at least: the paper's 1000 probabilities do not fit the 8 bits of bfloat16.
    dtype = keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")
    x = ColumnDense(
        num_classes,
        groups=1,
        devices=column_devices and column_devices[:1],  # as in the original program: gpu=0
        **first_values(row.fc_std[-1], row.fc_bias[-1], channels(x)),
        dtype=dtype,
        name=classifier,
    )(x)
    x = keras.layers.Softmax(dtype=dtype, name="softmax")(x)
    return keras.Model(image, x, name=f"alexnet_{variant}")


def layer_output(model, name):
    """The output of a layer as one tensor: where each column has a tensor of its own, theirs one after another."""
    output = model.get_layer(name).output
    return keras.layers.Concatenate()(output) if isinstance(output, list) else output


def _operation(row, name, column_devices):
    """The layer of a name in `conv_then` or `fc_then`."""
    kind = re.match("[a-z]+", name).group()
    if kind == "drop" and row.dropout_rescaled:
        return ReplicaDropout(row.dropout_rate, name=name)
    if kind == "drop":
        return PaperDropout(row.dropout_rate, groups=row.columns, devices=column_devices, name=name)
    if kind == "relu":
        layer = keras.layers.ReLU(name=name)
    elif kind == "tanh":
        layer = keras.layers.Activation("tanh", name=name)
    elif kind == "norm":
        layer = LocalResponseNormalization(
            k=row.lrn_k,
            n=row.lrn_n,
            alpha=row.lrn_alpha,
            beta=row.lrn_beta,
            alpha_divided_by_n=row.lrn_alpha_divided_by_n,
            groups=row.columns if row.lrn_sees == "own" and column_devices is None else 1,
            name=name,
        )
    elif kind == "within":
        layer = WithinMapNormalization(name=name)
    elif kind == "bn":
        layer = keras.layers.BatchNormalization(momentum=row.bn_momentum, epsilon=row.bn_epsilon, name=name)
    elif kind == "pool":
        layer = keras.layers.MaxPooling2D(row.pool_px, row.pool_stride, padding=row.pool_padding, name=name)
    else:
        raise ValueError(f"`conv_then` and `fc_then` must hold names as `Variant` describes them. Received: {name!r}")
    return layer if column_devices is None else ColumnWise(layer, column_devices, name=name)


def with_color_offset(model, model_class=keras.Model):
    """The same layers and weights in a model that takes color noise as well.

    Args:
        model: from `build_alexnet`.
        model_class: `strategies.DistributedModel` for a model that a distribution strategy is to train.

    Returns:
        A functional model of that class that takes {"image": pixels (batch, image_px, image_px, 3), "color_offset":
        float32 (batch, 3)}: what `tfrecords.reader.make_training_dataset` gives. It is for training; `model` sees each
        change of its weights.

    Source: section 4.1.
    """
    image = keras.Input(model.input_shape[1:], name="image")
    color_offset = keras.Input((3,), name="color_offset")
    mean_image, *others = model.layers[1:]
    x = mean_image(image, color_offset)
    for layer in others:
        x = layer(x)
    return model_class({"image": image, "color_offset": color_offset}, x, name=model.name)


def open_model(path):
    """Opens a network that this project saved.

    Args:
        path: a folder with model.keras, or a .keras or .h5 file.

    Returns: a `keras.Model` from RGB pixels, float32 or uint8 (batch, side, side, 3), to probabilities (batch,
    classes).

    Raises:
        ValueError: where there is no model, it is damaged, or it is not one of this project's.
    """
    path = pathlib.Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"There is no model at {file}: a run's folder or a .keras file is expected.")
    try:
        opened = keras.models.load_model(file, compile=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is not a complete Keras model: {error}") from error
    if not any(isinstance(layer, MeanImage) for layer in opened.layers):
        raise ValueError(f"{file} is not a model of this project: it has no MeanImage layer.")
    return opened


def load_model(path):
    """Opens a trained model and the description of its data.

    Args:
        path: a run's folder, or a .keras file beside which the run's dataset.json lies.

    Returns:
        (model, description): what `open_model` returns, and the `tfrecords.schema.DatasetDescription` of the data that
        it was trained on.

    Raises:
        ValueError: as `open_model`, and where the data set is not described beside the model or has other classes.
    """
    path = pathlib.Path(path)
    model = open_model(path)
    description = schema.load_description(path if path.is_dir() else path.parent)
    classes = len(description.class_names)
    if model.output_shape[-1] != classes:
        raise ValueError(
            f"{path} has {model.output_shape[-1]} classes, but the data set described beside it has {classes}."
        )
    return model, description
