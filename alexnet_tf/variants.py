"""The table of variants: every number of a network, with its source. No TensorFlow is imported here.

[paper]: Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012.
[code]: the original program, published by the Computer History Museum (github.com/computerhistory/AlexNet-Source-Code);
"net 145" is its file layers/layers-145.cfg.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Variant:
    """One AlexNet. What is written once for each layer stands in a tuple, from the image upwards.

    Attributes:
        title: what it is, in a line.
        source: where the numbers come from.
        image_px: side of the square image the network takes, in pixels.
        mean: what is subtracted: "image" (the training set's mean image) or "color" (its mean red, green and blue).
        input_scale: what the centered pixels are multiplied by, a number or one for each of red, green and blue.
        noise_divisor: what a training image with color noise is divided by.
        columns: columns (the paper's GPUs) among which kernels and units are split.
        columns_merged: whether a layer that sees every column is one for all of them, as on one device (True), or one
            for each column (False). The function is the same, the weights are cut differently.
        conv_names: names of the convolutional layers, as in figure 2.
        conv_kernels: kernels of each, in all columns together.
        conv_px: side of each layer's square kernels, in pixels.
        conv_strides: step of the kernels, in pixels.
        conv_padding: "valid", "same", or zeros as ((top, bottom), (left, right)).
        conv_sees: "own": kernels see the maps of their own column only; "all": those of every column.
        conv_std: standard deviation of the normal distribution the first weights are drawn from. None: weights and
            biases are uniform within ±1 / √(inputs of a unit), PyTorch's default.
        conv_bias: the first value of the biases; None: no biases, unless `conv_std` is None too.
        conv_then: names of what follows each convolution, in order. A name's first letters say what it is: "relu",
            "tanh", "norm" (LRN), "within" (within-map normalization), "bn" (batch normalization), "pool" (max-pooling)
            or "drop" (dropout).
        lrn_k, lrn_n, lrn_alpha, lrn_beta: hyper-parameters of LRN.
        lrn_alpha_divided_by_n: whether alpha multiplies the mean over n maps (True) or the sum (False).
        lrn_sees: "own": LRN's neighbouring maps are those of the same column; "all": of the whole layer.
        bn_momentum, bn_epsilon: of batch normalization: what its moving averages keep at each step, and what is
            added to the variance.
        pool_px, pool_stride: side and step of the pooling window, in maps' pixels.
        pool_padding: "valid": whole windows only; "same": also windows that reach over the right and bottom edge.
        fc_names: names of the fully-connected layers; the last is the classifier, with one unit a class.
        fc_units: units of the others, in all columns together.
        fc_sees, fc_std, fc_bias, fc_then: as for the convolutions.
        dropout_rate: probability that a unit is zeroed by "drop".
        dropout_rescaled: whether the others are divided by 1 - rate in training (True), or all are multiplied by
            1 - rate at test time (False).
    """

    title: str
    source: str
    image_px: int
    mean: str
    input_scale: float | tuple
    noise_divisor: float
    columns: int
    columns_merged: bool
    conv_names: tuple
    conv_kernels: tuple
    conv_px: tuple
    conv_strides: tuple
    conv_padding: tuple
    conv_sees: tuple
    conv_std: tuple
    conv_bias: tuple
    conv_then: tuple
    lrn_k: float
    lrn_n: int
    lrn_alpha: float
    lrn_beta: float
    lrn_alpha_divided_by_n: bool
    lrn_sees: str
    bn_momentum: float
    bn_epsilon: float
    pool_px: int
    pool_stride: int
    pool_padding: str
    fc_names: tuple
    fc_units: tuple
    fc_sees: tuple
    fc_std: tuple
    fc_bias: tuple
    fc_then: tuple
    dropout_rate: float
    dropout_rescaled: bool


# fmt: off
_PAPER = Variant(
    title="the network of the paper",
    source="[paper] section 3.5 and figure 2",
    # Figure 2 and section 3.5. The paper's 55 x 55 maps come out of 224 pixels only with 3 more rows and columns:
    # (224 + 3 - 11) / 4 + 1 = 55. The original program takes the ceiling of 54.25 and reads zeros past the right and
    # bottom edges; so do we.
    image_px=224,
    mean="image", input_scale=1.0, noise_divisor=1.0,                             # section 2
    columns=2, columns_merged=False,                                              # section 3.2
    conv_names=      ("conv1",          "conv2",  "conv3",  "conv4",  "conv5"),
    conv_kernels=    (96,               256,      384,      384,      256),       # section 3.5
    conv_px=         (11,               5,        3,        3,        3),         # section 3.5
    conv_strides=    (4,                1,        1,        1,        1),         # section 3.5
    conv_padding=    (((0, 3), (0, 3)), "same",   "same",   "same",   "same"),    # figure 2's sizes of the maps
    conv_sees=       ("all",            "own",    "all",    "own",    "own"),     # section 3.2
    conv_std=        (0.01,             0.01,     0.01,     0.01,     0.01),      # section 5
    conv_bias=       (0.0,              1.0,      0.0,      1.0,      1.0),       # section 5
    conv_then=(("relu1", "norm1", "pool1"), ("relu2", "norm2", "pool2"), ("relu3",), ("relu4",), ("relu5", "pool5")),
    # Section 3.3. That a column's LRN does not see the other column's maps is in [code].
    lrn_k=2.0, lrn_n=5, lrn_alpha=1e-4, lrn_beta=0.75, lrn_alpha_divided_by_n=False, lrn_sees="own",
    bn_momentum=0.9, bn_epsilon=1e-4,                                             # not in the paper: see batch_norm
    pool_px=3, pool_stride=2, pool_padding="valid",                               # section 3.4
    fc_names=        ("fc6",            "fc7",            "fc8"),
    fc_units=        (4096,             4096),                                    # section 3.5
    fc_sees=         ("all",            "all",            "all"),                 # figure 2
    fc_std=          (0.01,             0.01,             0.01),                  # section 5
    fc_bias=         (1.0,              1.0,              0.0),                   # section 5: 1 in the hidden layers
    fc_then=(("relu6", "drop6"), ("relu7", "drop7"), ()),                         # section 4.2
    dropout_rate=0.5, dropout_rescaled=False,                                     # section 4.2
)

_CAFFE = dataclasses.replace(
    _PAPER,
    title="Caffe's bvlc_alexnet",
    source="github.com/BVLC/caffe, models/bvlc_alexnet/train_val.prototxt",
    image_px=227,
    columns_merged=True,
    conv_padding=("valid", "same", "same", "same", "same"),
    conv_bias=(0.0, 0.1, 0.0, 0.1, 0.1),
    lrn_k=1.0, lrn_alpha_divided_by_n=True, lrn_sees="all",    # LRNParameter's k = 1; alpha / n in lrn_layer.cpp
    fc_std=(0.005, 0.005, 0.01), fc_bias=(0.1, 0.1, 0.0),
    dropout_rescaled=True,                                     # dropout_layer.cpp
)


def _without(row, layer):
    """The row less one layer: its weights, activation, normalization and dropout. Its pooling stays."""
    kind = layer.rstrip("0123456789")
    index = getattr(row, f"{kind}_names").index(layer)
    tuples = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name.startswith(f"{kind}_")}
    changes = {name: values[:index] + values[index + 1 :] for name, values in tuples.items()}
    if kind == "conv":
        pools = tuple(name for name in row.conv_then[index] if name.startswith("pool"))
        then = list(changes["conv_then"])
        then[index - 1] += pools
        changes["conv_then"] = tuple(then)
    return dataclasses.replace(
        row,
        title=f"the paper's, {layer} left out",
        source="[paper] section 3.5 and 6 report such nets. That the pooling stays, so that the maps above keep their "
        "size, and that the layers above see the same columns as before, is this project's choice",
        **changes,
    )


def _replace_names(then, *pairs):
    """Names of operations with some prefixes replaced, or left out where the new one is empty."""
    for old, new in pairs:
        then = tuple(
            tuple(name.replace(old, new) for name in names if new or not name.startswith(old)) for names in then
        )
    return then


_FOUR_LAYER = dataclasses.replace(
    _PAPER,
    title="figure 1's four layers, for images of 32 x 32 pixels",
    source="[paper] figure 1, which gives no sizes: they are those of cuda-convnet's four layers for CIFAR-10, "
    "example-layers/layers-18pct.cfg, less its LRN, and with max-pooling throughout",
    image_px=32,
    columns=1,
    conv_names=("conv1", "conv2", "conv3"),
    conv_kernels=(32, 32, 64),
    conv_px=(5, 5, 5), conv_strides=(1, 1, 1), conv_padding=("same",) * 3, conv_sees=("all",) * 3,
    conv_std=(0.0001, 0.01, 0.01), conv_bias=(0.0, 0.0, 0.0),
    conv_then=(("relu1", "pool1"), ("relu2", "pool2"), ("relu3", "pool3")),
    pool_padding="same",                                       # its pooling takes the ceiling
    fc_names=("fc4",), fc_units=(), fc_sees=("all",), fc_std=(0.01,), fc_bias=(0.0,), fc_then=((),),
)

VARIANTS = {
    "paper": _PAPER,
    "original": dataclasses.replace(
        _PAPER,
        title="the original program's network, with which the paper's figures were reached",
        source="[code] net 145 (layers-145.cfg, layer-params-145.cfg)",
        # convdata_jpeg.py divides by 1 + 0.1 while color noise of 0.1 is on, so that training images stay the size of
        # test images.
        noise_divisor=1.1,
        conv_std=(0.01, 0.01, 0.03, 0.03, 0.03),               # initW
        conv_then=(
            ("norm1", "pool1", "relu1"),                       # conv1 has no neuron, pool1 has: neuron=relu
            ("relu2", "norm2", "within2", "pool2"),            # cnorm2, of type rnorm; scale and power are the layer's
            ("relu3",),
            ("relu4",),
            ("pool5", "relu5"),
        ),
        lrn_alpha_divided_by_n=True,                           # layer.py divides `scale` by `size`
    ),
    "caffe": _CAFFE,
    "caffenet": dataclasses.replace(
        _CAFFE,
        title="Caffe's bvlc_reference_caffenet: pooling before normalization",
        source="github.com/BVLC/caffe, models/bvlc_reference_caffenet/train_val.prototxt",
        conv_bias=(0.0, 0.4, 0.0, 1.0, 0.4),
        conv_then=(("relu1", "pool1", "norm1"), ("relu2", "pool2", "norm2"), *_CAFFE.conv_then[2:]),
        fc_bias=(0.4, 0.4, 0.1),
    ),
    "one_weird_trick": dataclasses.replace(
        _PAPER,
        title="torchvision's alexnet: the one-column network of 2014",
        source="torchvision/models/alexnet.py, after Krizhevsky, One weird trick for parallelizing convolutional "
        "neural networks, 2014, footnote 1. Its adaptive average pooling to 6 x 6 does nothing at 224 pixels",
        mean="color",
        input_scale=(1 / 58.395, 1 / 57.12, 1 / 57.375),       # its transforms divide by 255 x (0.229, 0.224, 0.225)
        columns=1,
        conv_kernels=(64, 192, 384, 256, 256),
        conv_padding=(((2, 2), (2, 2)), "same", "same", "same", "same"),
        conv_std=(None,) * 5, conv_bias=(None,) * 5,           # PyTorch's default
        conv_then=(("relu1", "pool1"), ("relu2", "pool2"), ("relu3",), ("relu4",), ("relu5", "pool5", "drop5")),
        fc_std=(None,) * 3, fc_bias=(None,) * 3,
        fc_then=(("relu6", "drop6"), ("relu7",), ()),
        dropout_rescaled=True,
    ),
    "batch_norm": dataclasses.replace(
        _CAFFE,
        title="batch normalization in place of LRN, for large batches",
        source="You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks, 2017; their network is "
        "github.com/borisgin/nvcaffe, models/alexnet_bn/train_val.prototxt",
        conv_bias=(None, None, None, None, 0.1),               # bias_term: false, but for conv5
        conv_then=(("bn1", "relu1", "pool1"), ("bn2", "relu2", "pool2"), ("bn3", "relu3"), ("bn4", "relu4"),
                   ("bn5", "relu5", "pool5")),
    ),
    "no_lrn": dataclasses.replace(
        _PAPER,
        title="the paper's without local response normalization",
        source="[paper] section 3.3; [code] net 148",
        conv_then=_replace_names(_PAPER.conv_then, ("norm", "")),
    ),
    "no_overlap": dataclasses.replace(
        _PAPER,
        title="the paper's with pooling that does not overlap",
        source="[paper] section 3.4; [code] net 147, whose paddings bring the maps to 28, 26, 13, 11 and 6 pixels",
        pool_px=2, pool_stride=2, pool_padding="same",         # the original program's pooling takes the ceiling
        conv_padding=(((0, 3), (0, 3)), ((1, 1), (1, 1)), "same", "same", "valid"),
    ),
    "one_column": dataclasses.replace(
        _PAPER,
        title="the paper's with one column of half the kernels",
        source="[paper] section 3.2 and its footnote: conv5, fc6 and fc7 are not halved; [code] net 145-half",
        columns=1,
        conv_kernels=(48, 128, 192, 192, 256),
    ),
    "independent_columns": dataclasses.replace(
        _PAPER,
        title="two columns that meet in the classifier alone",
        source="[code] net 150, with wider conv2 and fc6; not in the paper",
        conv_kernels=(96, 320, 384, 384, 256),
        conv_sees=("all", "own", "own", "own", "own"),
        fc_units=(8192, 4096),
        fc_sees=("own", "own", "all"),
    ),
    "tanh": dataclasses.replace(
        _PAPER,
        title="the paper's with tanh in place of ReLU",
        source="[paper] section 3.1, which makes the comparison on a four-layer network",
        conv_then=_replace_names(_PAPER.conv_then, ("relu", "tanh")),
        fc_then=_replace_names(_PAPER.fc_then, ("relu", "tanh")),
    ),
    "no_dropout": dataclasses.replace(
        _PAPER,
        title="the paper's without dropout",
        source="[paper] section 4.2: without it the network overfits substantially",
        fc_then=_replace_names(_PAPER.fc_then, ("drop", "")),
    ),
    "six_conv": dataclasses.replace(
        _PAPER,
        title="the paper's with a sixth convolution after the last pooling, for pre-training on many classes",
        source="[paper] section 6.1; [code] net 146 (conv6). For 21,841 classes it put 2,048 linear units before the "
        "classifier as well",
        conv_names=(*_PAPER.conv_names, "conv6"),
        conv_kernels=(*_PAPER.conv_kernels, 256),
        conv_px=(*_PAPER.conv_px, 3),
        conv_strides=(*_PAPER.conv_strides, 1),
        conv_padding=(*_PAPER.conv_padding, "same"),
        conv_sees=(*_PAPER.conv_sees, "all"),
        conv_std=(*_PAPER.conv_std, 0.01),                     # section 5; net 146 has 0.03, as net 145 above conv2
        conv_bias=(*_PAPER.conv_bias, 1.0),
        conv_then=(*_PAPER.conv_then, ("relu_conv6",)),
    ),
    **{f"no_{layer}": _without(_PAPER, layer) for layer in ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7")},
    "four_layer": _FOUR_LAYER,
    "four_layer_tanh": dataclasses.replace(
        _FOUR_LAYER,
        title="the same with tanh in place of ReLU",
        conv_then=_replace_names(_FOUR_LAYER.conv_then, ("relu", "tanh")),
    ),
    "testing": dataclasses.replace(
        _PAPER,
        title="the paper's wiring with a few kernels on a small image: for tests, where it trains in seconds",
        source="this project's tests",
        image_px=56,
        conv_kernels=(8, 16, 24, 24, 16),
        conv_px=(7, 5, 3, 3, 3),
        conv_strides=(2, 1, 1, 1, 1),
        fc_units=(32, 32),
    ),
}
# fmt: on
