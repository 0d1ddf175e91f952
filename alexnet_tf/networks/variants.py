"""The table of variants: the layers of each network in order, each number with its source.

This module does not import TensorFlow.

[paper]: Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012.
[code]: the original program, published by the Computer History Museum (github.com/computerhistory/AlexNet-Source-Code);
"net 145" is its file layers/layers-145.cfg.
"""

from alexnet_tf.networks.rows import (
    LRN,
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Local,
    MaxPool,
    Variant,
    WithinMapNorm,
)


def _with_tanh(variant: Variant) -> Variant:
    tanh = (
        Activation(row.name.replace("relu", "tanh"), "tanh") if isinstance(row, Activation) else row
        for row in variant.layers
    )
    return variant.replace(layers=tuple(tanh))


def _with_one_column(variant: Variant) -> Variant:
    one = variant.replace(columns=1).with_layers("conv1", filters=48).with_layers("conv2", filters=128)
    return one.with_layers("conv3 conv4", filters=192)  # conv5, fc6 and fc7 are not halved


def _without_overlap(variant: Variant) -> Variant:
    # The original's pooling takes the ceiling. Maps of 28, 26, 13, 11 and 6 pixels follow from its paddings.
    pooled = variant.with_layers(MaxPool, pool_size=2, padding="same")
    return pooled.with_layers("conv2", padding=((1, 1), (1, 1))).with_layers("conv5", padding="valid")


def _with_independent_columns(variant: Variant) -> Variant:
    wider = variant.with_layers("conv2", filters=320).with_layers("fc6", units=8192)
    return wider.with_layers("conv3 fc6 fc7", input_columns="own")


def find_variant(name: str, argument: str = "variant") -> Variant:
    """Returns the variant of that name, which was given as an argument.

    Raises:
        ValueError: if there is no such variant.
    """
    if name not in VARIANTS:
        raise ValueError(f"`{argument}` must be one of {sorted(VARIANTS)}. Received: {argument}={name!r}")
    return VARIANTS[name]


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

_ORIGINAL = (
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
)

_ORIGINAL_SIX_CONV = _ORIGINAL.insert(
    Conv("conv6", 256, 3, input_columns="all", std=0.03, bias=1.0), Activation("relu_conv6"), after="relu5"
).replace(
    title="the original network with a sixth convolution after the last pooling",
    source="[code] net 146 (layers-146-2009.cfg, layers-146-2012-2011.cfg)",
)

_CUDA_CONVNET2 = (
    _ORIGINAL.replace(
        title="the one-column network of cuda-convnet2",
        source="github.com/akrizhevsky/cuda-convnet2, layers/layers-imagenet-1gpu.cfg",
        columns=1,
    )
    .without(WithinMapNorm)
    .with_layers("conv1", filters=64)
    .with_layers("conv2", filters=192)
    .with_layers("conv4", filters=256)
    .with_layers("fc8", bias=-7.0)
)

_FOUR_LAYER = Variant(
    title="figure 1's four layers, for images of 32 x 32 pixels",
    source="[paper] figure 1, which gives no sizes: they are those of [code] example-layers/layers-18pct.cfg, without "
    "its normalization, and with max-pooling throughout",
    image_px=32,
    columns=1,
    layers=(                                                                      # its pooling takes the ceiling
        Conv("conv1", 32, 5, input_columns="all", std=0.0001), Activation("relu1"), MaxPool("pool1", padding="same"),
        Conv("conv2", 32, 5, input_columns="all"), Activation("relu2"), MaxPool("pool2", padding="same"),
        Conv("conv3", 64, 5, input_columns="all"), Activation("relu3"), MaxPool("pool3", padding="same"),
        Dense("fc4", None),
    ),
)

_CIFAR = Variant(
    title="section 3.3's network for CIFAR-10, without normalization",
    source="[paper] section 3.3, whose footnote refers to [code] example-layers/layers-conv-local-13pct.cfg",
    image_px=24,                                                                  # crops of 32 x 32 pixels
    columns=1,
    layers=(                                                                      # its pooling takes the ceiling
        Conv("conv1", 64, 5, input_columns="all", std=0.0001), Activation("relu1"), MaxPool("pool1", padding="same"),
        Conv("conv2", 64, 5, input_columns="all"), Activation("relu2"), MaxPool("pool2", padding="same"),
        Local("local3", 32, 3, std=0.04), Activation("relu3"),
        Local("local4", 32, 3, std=0.04), Activation("relu4"),
        Dense("fc10", None),
    ),
)

VARIANTS: dict[str, Variant] = {
    "paper": _PAPER,
    "original": _ORIGINAL,
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
            title="torchvision's alexnet: one column, without LRN",
            source="torchvision/models/alexnet.py, which names Krizhevsky's paper of 2014 (see krizhevsky_2014). Its "
            "adaptive average pooling to 6 x 6 does nothing at 224 pixels",
            mean="color",
            input_scale=(1 / 58.395, 1 / 57.12, 1 / 57.375),  # its transforms divide by 255 x (0.229, 0.224, 0.225)
            columns=1,
        )
        .without(LRN, "drop7")
        .with_layers("conv1", filters=64, padding=((2, 2), (2, 2)))
        .with_layers("conv2", filters=192)
        .with_layers("conv4", filters=256)
        .with_layers(Conv, std=None)                                              # PyTorch's default
        .with_layers(Dense, std=None)
        .insert(Dropout("drop5"), after="pool5")
        .with_layers(Dropout, rescaled=True)
    ),
    "cuda_convnet2": _CUDA_CONVNET2,
    "krizhevsky_2014": _CUDA_CONVNET2.with_layers("conv4", filters=384).replace(
        title="the one-column network of the 2014 paper, with 384 kernels in conv4",
        source="Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, footnote 1; the "
        "rest from cuda-convnet2. Its 1,000 logistic units are a softmax here",
    ),
    "batch_norm": (
        _CAFFE.replace(
            title="batch normalization instead of LRN, for large batches",
            source="You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks, 2017; their network is "
            "github.com/borisgin/nvcaffe-0.16, models/alexnet_bn/train_val.prototxt",
            input_scale=1 / 256,
        )
        .without(LRN)
        .with_layers("conv1 conv2 conv3 conv4", bias=None)                        # bias_term: false, but for conv5
        .insert(BatchNorm("bn1"), after="conv1")
        .insert(BatchNorm("bn2"), after="conv2")
        .insert(BatchNorm("bn3"), after="conv3")
        .insert(BatchNorm("bn4"), after="conv4")
        .insert(BatchNorm("bn5"), after="conv5")
    ),
    "batch_norm_32k": (
        _CAFFE.replace(
            title="batch normalization before four convolutions, for batches of 32,768 images",
            source="github.com/borisgin/nvcaffe-0.16, models/alexnet_bn/train_val2_fp16.prototxt, which its "
            "solver_32k.prototxt trains",
            input_scale=1 / 256,
        )
        .without(LRN)
        .with_layers(Conv, bias=0.01)
        .with_layers("fc8", bias=0.01)
        .insert(BatchNorm("bn2", scaled=False), after="pool1")
        .insert(BatchNorm("bn3", scaled=False), after="pool2")
        .insert(BatchNorm("bn4", scaled=False), after="relu3")
        .insert(BatchNorm("bn5", scaled=False), after="relu4")
    ),
    "no_lrn": _PAPER.without(LRN).replace(
        title="the paper's network without local response normalization", source="[paper] section 3.3"
    ),
    "no_overlap": _without_overlap(_PAPER).replace(
        title="the paper's network with pooling that does not overlap",
        source="[paper] section 3.4; the paddings of [code] net 147",
    ),
    "one_column": _with_one_column(_PAPER).replace(
        title="one column, with half the kernels",
        source="[paper] section 3.2 and its footnote: conv5, fc6 and fc7 are not halved",
    ),
    "independent_columns": _with_independent_columns(_PAPER).replace(
        title="two columns that are connected only in the classifier",
        source="not in the paper; the sizes of [code] net 150, with wider conv2 and fc6",
    ),
    # The networks on which the paper's ablations were measured.
    "original_no_lrn": _ORIGINAL.without(LRN, WithinMapNorm).replace(
        title="the original network without any normalization", source="[code] net 148 (layers-148.cfg)"
    ),
    "original_no_overlap": _without_overlap(_ORIGINAL).replace(
        title="the original network with pooling that does not overlap", source="[code] net 147 (layers-147.cfg)"
    ),
    "original_one_column": _with_one_column(_ORIGINAL).replace(
        title="the original network with one column and half the kernels",
        source="[code] net 145-half (layers-145-half.cfg)",
    ),
    "original_independent_columns": _with_independent_columns(_ORIGINAL).replace(
        title="the original network without communication between its columns",
        source="[code] net 150 (layers-150.cfg)",
    ),
    "original_six_conv": _ORIGINAL_SIX_CONV,
    "original_six_conv_2011": _ORIGINAL_SIX_CONV.insert(Dense("fc_linear", 2048), after="drop7").replace(
        title="the original network with a sixth convolution, and linear units before its 21,843 classes",
        source="[code] net 146 (layers-146-2011.cfg: fc1a and fc1b)",
    ),
    "tanh": _with_tanh(_PAPER).replace(
        title="the paper's network with tanh instead of ReLU",
        source="[paper] section 3.1, which makes the comparison on a four-layer network",
    ),
    "no_dropout": _PAPER.without(Dropout).replace(
        title="the paper's network without dropout",
        source="[paper] section 4.2: without it the network overfits substantially",
    ),
    "six_conv": _PAPER.insert(                                                    # section 5 for its std
        Conv("conv6", 256, 3, input_columns="all", bias=1.0), Activation("relu_conv6"), after="pool5"
    ).replace(
        title="the paper's network with a sixth convolution after the last pooling, for pre-training on many classes",
        source="[paper] section 6",
    ),
    "no_conv1": (
        _PAPER.without("conv1 relu1 norm1")
        .with_layers("pool1", pool_size=16, strides=8)
        .with_layers("conv2", input_columns="all")
        .replace(
            title="the paper's network without conv1",
            source="[paper] sections 1 and 7. In this project pool1 takes over conv1's stride, so that maps keep 27 "
            "pixels, and both columns of conv2 see the three colors",
        )
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
    "cifar_13pct": _CIFAR,
    "cifar_11pct": (
        _CIFAR.with_layers("local3", filters=64)
        .insert(LRN("norm1", k=1.0, n=9, alpha=1e-3, alpha_divided_by_n=True), after="pool1")
        .insert(LRN("norm2", k=1.0, n=9, alpha=1e-3, alpha_divided_by_n=True), after="relu2")
        .replace(
            title="section 3.3's network for CIFAR-10, with local response normalization",
            source="[paper] section 3.3; github.com/akrizhevsky/cuda-convnet2, layers/layers-cifar10-11pct.cfg, which "
            "also doubles local3",
        )
    ),
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
