"""The table of variants: every number of a network, with its source. No TensorFlow is imported here."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Variant:
    """One AlexNet. What is written once for each layer stands in a tuple, from the image upwards.

    Attributes:
        source: where the numbers come from.
        image_px: side of the square image the network takes, in pixels.
        columns: columns (the paper's GPUs) among which kernels and units are split.
        conv_names: names of the convolutional layers, as in figure 2.
        conv_kernels: kernels of each, in all columns together.
        conv_px: side of each layer's square kernels, in pixels.
        conv_strides: step of the kernels, in pixels.
        conv_padding: "valid", "same", or zeros as ((top, bottom), (left, right)).
        conv_sees: "own": kernels see the maps of their own column only; "all": those of every column.
        conv_std: standard deviation of the normal distribution the first weights are drawn from.
        conv_bias: the first value of the biases.
        conv_then: what follows each convolution, in order: "relu", "norm" (LRN), "pool" (max-pooling).
        lrn_k, lrn_n, lrn_alpha, lrn_beta: hyper-parameters of LRN.
        lrn_alpha_divided_by_n: whether alpha multiplies the mean over n maps (True) or the sum (False).
        lrn_sees: "own": LRN's neighbouring maps are those of the same column; "all": of the whole layer.
        pool_px, pool_stride: side and step of the pooling window, in maps' pixels.
        fc_names: names of the fully-connected layers; the last is the classifier, with one unit a class.
        fc_units: units of the others, in all columns together.
        fc_std, fc_bias: as for the convolutions.
        dropout_rate: probability that a unit of a fully-connected layer other than the last is zeroed.
    """

    source: str
    image_px: int
    columns: int
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
    pool_px: int
    pool_stride: int
    fc_names: tuple
    fc_units: tuple
    fc_std: tuple
    fc_bias: tuple
    dropout_rate: float


# fmt: off
_PAPER = Variant(
    source="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012",
    # Figure 2 and section 3.5. The paper's 55 x 55 maps come out of 224 pixels only with 3 more rows and columns:
    # (224 + 3 - 11) / 4 + 1 = 55. The original program takes the ceiling of 54.25 and reads zeros past the right and
    # bottom edges; so do we.
    image_px=224,
    columns=2,
    conv_names=      ("conv1",          "conv2",  "conv3",  "conv4",  "conv5"),
    conv_kernels=    (96,               256,      384,      384,      256),       # section 3.5
    conv_px=         (11,               5,        3,        3,        3),         # section 3.5
    conv_strides=    (4,                1,        1,        1,        1),         # section 3.5
    conv_padding=    (((0, 3), (0, 3)), "same",   "same",   "same",   "same"),    # figure 2's sizes of the maps
    conv_sees=       ("all",            "own",    "all",    "own",    "own"),     # section 3.2
    conv_std=        (0.01,             0.01,     0.01,     0.01,     0.01),      # section 5
    conv_bias=       (0.0,              1.0,      0.0,      1.0,      1.0),       # section 5
    conv_then=(("relu", "norm", "pool"), ("relu", "norm", "pool"), ("relu",), ("relu",), ("relu", "pool")),  # 3.5
    # Section 3.3. That a column's LRN does not see the other column's maps is in the original program.
    lrn_k=2.0, lrn_n=5, lrn_alpha=1e-4, lrn_beta=0.75, lrn_alpha_divided_by_n=False, lrn_sees="own",
    pool_px=3, pool_stride=2,                                                     # section 3.4
    fc_names=        ("fc6",            "fc7",    "fc8"),
    fc_units=        (4096,             4096),                                    # section 3.5
    fc_std=          (0.01,             0.01,     0.01),                          # section 5
    fc_bias=         (1.0,              1.0,      0.0),                           # section 5: 1 in the hidden layers
    dropout_rate=0.5,                                                             # section 4.2: fc6 and fc7
)

VARIANTS = {
    "paper": _PAPER,
    # The paper's wiring with a few kernels on a small image: for tests, where it trains in seconds.
    "testing": dataclasses.replace(
        _PAPER,
        source="this project's tests",
        image_px=56,
        conv_kernels=(8, 16, 24, 24, 16),
        conv_px=(7, 5, 3, 3, 3),
        conv_strides=(2, 1, 1, 1, 1),
        fc_units=(32, 32),
    ),
}
# fmt: on
