"""The table of variants: the layers of each network in order, each number with its source.

This module does not import TensorFlow.

[paper]: Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012.
[code]: the original program, published by the Computer History Museum (github.com/computerhistory/AlexNet-Source-Code);
"net 145" is its file layers/layers-145.cfg.
"""

from alexnet_tf.networks.rows import LRN, Activation, BatchNorm, Conv, Dense, Dropout, MaxPool, Variant, WithinMapNorm


def _with_tanh(row: Variant) -> Variant:
    rows = (
        Activation(layer.name.replace("relu", "tanh"), "tanh") if isinstance(layer, Activation) else layer
        for layer in row.layers
    )
    return row.replace(layers=tuple(rows))


# fmt: off
_PAPER = Variant(
    title="the network of the paper",
    source="[paper] section 3.5 and figure 2",
    # Kernels, their sizes and strides: section 3.5. Which columns a layer is connected to: section 3.2 and figure 2.
    # Initial biases: section 5 (1 in conv2, conv4, conv5 and the hidden fully-connected layers).
    # 224 pixels give the paper's 55 x 55 feature maps only with 3 more rows and columns: (224 + 3 - 11) / 4 + 1 = 55.
    # The original program takes the ceiling of 54.25 and reads zeros past the right and bottom edges; so do we.
    layers=(
        Conv("conv1", 96, 11, strides=4, padding=((0, 3), (0, 3)), input_columns="all"),
        Activation("relu1"), LRN("norm1"), MaxPool("pool1"),                                          # 27 x 27 x 96
        Conv("conv2", 256, 5, bias=1.0), Activation("relu2"), LRN("norm2"), MaxPool("pool2"),         # 13 x 13 x 256
        Conv("conv3", 384, 3, input_columns="all"), Activation("relu3"),                              # 13 x 13 x 384
        Conv("conv4", 384, 3, bias=1.0), Activation("relu4"),                                         # 13 x 13 x 384
        Conv("conv5", 256, 3, bias=1.0), Activation("relu5"), MaxPool("pool5"),                       # 6 x 6 x 256
        Dense("fc6", 4096, bias=1.0), Activation("relu6"), Dropout("drop6"),
        Dense("fc7", 4096, bias=1.0), Activation("relu7"), Dropout("drop7"),
        Dense("fc8", None),
    ),
)

_CAFFE = (
    _PAPER.replace(
        title="Caffe's bvlc_alexnet",
        source="github.com/BVLC/caffe, models/bvlc_alexnet/train_val.prototxt",
        image_px=227,
        columns_merged=True,
    )
    .with_layers("conv1", padding="valid")
    .with_layers("conv2 conv4 conv5 fc6 fc7", bias=0.1)
    .with_layers("fc6 fc7", std=0.005)
    # LRNParameter's k is 1; lrn_layer.cpp divides alpha by n.
    .with_layers(LRN, k=1.0, alpha_divided_by_n=True, input_columns="all")
    .with_layers(Dropout, rescaled=True)                                                            # dropout_layer.cpp
)

_FOUR_LAYER = Variant(
    title="figure 1's four layers, for images of 32 x 32 pixels",
    source="[paper] figure 1, which gives no sizes: they are those of cuda-convnet's four layers for CIFAR-10, "
    "example-layers/layers-18pct.cfg, without its LRN, and with max-pooling throughout",
    image_px=32,
    columns=1,
    layers=(                                                                      # its pooling takes the ceiling
        Conv("conv1", 32, 5, input_columns="all", std=0.0001), Activation("relu1"), MaxPool("pool1", padding="same"),
        Conv("conv2", 32, 5, input_columns="all"), Activation("relu2"), MaxPool("pool2", padding="same"),
        Conv("conv3", 64, 5, input_columns="all"), Activation("relu3"), MaxPool("pool3", padding="same"),
        Dense("fc4", None),
    ),
)

VARIANTS: dict[str, Variant] = {
    "paper": _PAPER,
    "original": (
        _PAPER.replace(
            title="the original program's network, which reached the paper's error rates",
            source="[code] net 145 (layers-145.cfg, layer-params-145.cfg)",
            # convdata_jpeg.py divides by 1 + 0.1 while color noise of 0.1 is on, so that training images keep the size
            # of test images.
            noise_divisor=1.1,
        )
        .with_layers("conv3 conv4 conv5", std=0.03)                               # initW
        .move("relu1", after="pool1")                                             # conv1 has no neuron, pool1 has
        .insert(WithinMapNorm("within2"), after="norm2")                          # cnorm2, of type rnorm
        .move("relu5", after="pool5")
        .with_layers(LRN, alpha_divided_by_n=True)                                # layer.py divides `scale` by `size`
    ),
    "caffe": _CAFFE,
    "caffenet": (
        _CAFFE.replace(
            title="Caffe's bvlc_reference_caffenet: pooling before normalization",
            source="github.com/BVLC/caffe, models/bvlc_reference_caffenet/train_val.prototxt",
        )
        .move("norm1", after="pool1")
        .move("norm2", after="pool2")
        .with_layers("conv2 conv4 conv5 fc6 fc7", bias=1.0)
    ),
    "caffe_224": (
        _CAFFE.replace(
            title="Caffe's bvlc_alexnet for 224 pixels, as in the ONNX model zoo",
            source="github.com/onnx/models, bvlcalexnet: maps of 54, 26 and 12 pixels; pool5 reaches over the right "
            "and bottom edges",
            image_px=224,
        )
        .with_layers("pool5", padding="same")
    ),
    "one_weird_trick": (
        _PAPER.replace(
            title="torchvision's alexnet: the one-column network of 2014",
            source="torchvision/models/alexnet.py, after Krizhevsky, One weird trick for parallelizing convolutional "
            "neural networks, 2014, footnote 1. Its adaptive average pooling to 6 x 6 does nothing at 224 pixels",
            mean="color",
            input_scale=(1 / 58.395, 1 / 57.12, 1 / 57.375),  # its transforms divide by 255 x (0.229, 0.224, 0.225)
            columns=1,
        )
        .without(LRN, "drop7")
        .with_layers("conv1", filters=64, padding=((2, 2), (2, 2)))
        .with_layers("conv2", filters=192)
        .with_layers("conv4", filters=256)
        .with_layers(Conv, std=None, bias=None)                                   # PyTorch's default
        .with_layers(Dense, std=None, bias=None)
        .insert(Dropout("drop5"), after="pool5")
        .with_layers(Dropout, rescaled=True)
    ),
    "batch_norm": (
        _CAFFE.replace(
            title="batch normalization instead of LRN, for large batches",
            source="You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks, 2017; their network is "
            "github.com/borisgin/nvcaffe, models/alexnet_bn/train_val.prototxt",
        )
        .without(LRN)
        .with_layers("conv1 conv2 conv3 conv4", bias=None)                        # bias_term: false, but for conv5
        .insert(BatchNorm("bn1"), after="conv1")
        .insert(BatchNorm("bn2"), after="conv2")
        .insert(BatchNorm("bn3"), after="conv3")
        .insert(BatchNorm("bn4"), after="conv4")
        .insert(BatchNorm("bn5"), after="conv5")
    ),
    "no_lrn": _PAPER.without(LRN).replace(
        title="the paper's network without local response normalization",
        source="[paper] section 3.3; [code] net 148",
    ),
    "no_overlap": (
        _PAPER.replace(
            title="the paper's network with pooling that does not overlap",
            source="[paper] section 3.4; [code] net 147, whose paddings bring the maps to 28, 26, 13, 11 and 6 pixels",
        )
        .with_layers(MaxPool, pool_size=2, padding="same")                        # its pooling takes the ceiling
        .with_layers("conv2", padding=((1, 1), (1, 1)))
        .with_layers("conv5", padding="valid")
    ),
    "one_column": (
        _PAPER.replace(
            title="one column, with half the kernels",
            source="[paper] section 3.2 and its footnote: conv5, fc6 and fc7 are not halved; [code] net 145-half",
            columns=1,
        )
        .with_layers("conv1", filters=48)
        .with_layers("conv2", filters=128)
        .with_layers("conv3 conv4", filters=192)
    ),
    "independent_columns": (
        _PAPER.replace(
            title="two columns that are connected only in the classifier",
            source="[code] net 150, with wider conv2 and fc6; not in the paper",
        )
        .with_layers("conv2", filters=320)
        .with_layers("conv3", input_columns="own")
        .with_layers("fc6", units=8192, input_columns="own")
        .with_layers("fc7", input_columns="own")
    ),
    "tanh": _with_tanh(_PAPER).replace(
        title="the paper's network with tanh instead of ReLU",
        source="[paper] section 3.1, which makes the comparison on a four-layer network",
    ),
    "no_dropout": _PAPER.without(Dropout).replace(
        title="the paper's network without dropout",
        source="[paper] section 4.2: without it the network overfits substantially",
    ),
    "six_conv": _PAPER.insert(                       # section 5 for its std; net 146 has 0.03, as net 145 above conv2
        Conv("conv6", 256, 3, input_columns="all", bias=1.0), Activation("relu_conv6"), after="pool5"
    ).replace(
        title="the paper's network with a sixth convolution after the last pooling, for pre-training on many classes",
        source="[paper] section 6; [code] net 146 (conv6). For 21,841 classes it put 2,048 linear units before the "
        "classifier as well",
    ),
    **{
        f"no_{removed.split()[0]}": _PAPER.without(removed).replace(
            title=f"the paper's network without {removed.split()[0]}",
            source="[paper] sections 1 and 7 report such networks. This project keeps the pooling, so that the maps "
            "above keep their size, and the connections between the columns",
        )
        for removed in (
            "conv2 relu2 norm2", "conv3 relu3", "conv4 relu4", "conv5 relu5", "fc6 relu6 drop6", "fc7 relu7 drop7"
        )
    },
    "four_layer": _FOUR_LAYER,
    "four_layer_tanh": _with_tanh(_FOUR_LAYER).replace(title="figure 1's four layers with tanh instead of ReLU"),
    "testing": (
        _PAPER.replace(
            title="the paper's architecture with few kernels on small images, for tests",
            source="this project's tests",
            image_px=56,
        )
        .with_layers("conv1", filters=8, kernel_size=7, strides=2)
        .with_layers("conv2 conv5", filters=16)
        .with_layers("conv3 conv4", filters=24)
        .with_layers("fc6 fc7", units=32)
    ),
}
# fmt: on


def list_variants() -> list[str]:
    """Returns the names of the networks that `build_alexnet` builds."""
    return list(VARIANTS)
