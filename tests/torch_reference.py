"""The AlexNets of the table of variants in plain PyTorch, channels first, written layer by layer from their sources.

Tests hold the Keras networks against these, so no number here is read from the table. Every network takes float images
(batch, 3, side, side), red, green, blue, centered and scaled, and returns logits (batch, classes). Its layers with
weights are its attributes conv1, bn1, ... fc8; dropout is that of test time.

Sources: [paper] Krizhevsky, Sutskever, Hinton, NIPS 2012; [code] the original program,
github.com/computerhistory/AlexNet-Source-Code; [caffe] github.com/BVLC/caffe; [nvcaffe] github.com/borisgin/nvcaffe;
[torchvision] github.com/pytorch/vision.
"""

import torch
from torch.nn import BatchNorm2d, Conv2d, Linear, Module, ModuleList
from torch.nn.functional import avg_pool2d, max_pool2d, pad, relu

CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def normalize_across_maps(x, k, alpha, columns, n=5, beta=0.75):
    """x / (k + alpha * sum of x^2 over n neighbouring maps)^beta, within each of `columns` blocks. [paper] 3.3."""
    blocks = []
    for block in x.chunk(columns, dim=1):
        squares = pad(block**2, (0, 0, 0, 0, n // 2, n // 2))
        sums = sum(squares[:, i : i + block.shape[1]] for i in range(n))
        blocks.append(block / (k + alpha * sums) ** beta)
    return torch.cat(blocks, dim=1)


def normalize_within_maps(x, n=5, alpha=1e-3, beta=0.75):
    """x / (1 + alpha / n^2 * sum of x^2 over n x n positions of the same map)^beta, zeros outside. [code] `rnorm`."""
    return x / (1 + alpha * avg_pool2d(x**2, n, stride=1, padding=n // 2, count_include_pad=True)) ** beta


class PaperNetwork(Module):
    """[paper] section 3.5 and figure 2, in eval mode; the arguments are what its ablations change.

    Args:
        classes: number of classes.
        widths: kernels of the five convolutions.
        groups: of the five convolutions, 2 where a column sees its own maps only.
        without: a layer to leave out, with its activation and normalization.
        columns: 2, or 1.
        activation: after every layer but the last.
        normalized: whether there is LRN.
        kept_by_dropout: what the outputs of fc6 and fc7 are multiplied by at test time.
        overlapping: whether pooling is 3 x 3, and not 2 x 2.
        sixth: whether there is a sixth convolution.
    """

    def __init__(
        self,
        classes,
        widths=(96, 256, 384, 384, 256),
        groups=(1, 2, 1, 2, 2),
        without=None,
        columns=2,
        activation=relu,
        normalized=True,
        kept_by_dropout=0.5,
        overlapping=True,
        sixth=False,
    ):
        super().__init__()
        self.columns, self.activation, self.normalized = columns, activation, normalized
        self.kept, self.overlapping = kept_by_dropout, overlapping
        sides, paddings = (11, 5, 3, 3, 3), (0, 2, 1, 1, 1) if overlapping else (0, 1, 1, 1, 0)
        channels = 3
        for name, width, side, padding, group in zip(CONVOLUTIONS, widths, sides, paddings, groups, strict=True):
            if name != without:
                stride = 4 if name == "conv1" else 1
                setattr(self, name, Conv2d(channels, width, side, stride, padding, groups=group))
                channels = width
        if sixth:
            self.conv6 = Conv2d(channels, 256, 3, 1, 1)
            channels = 256
        inputs = channels * 6 * 6
        for name in ("fc6", "fc7"):
            if name != without:
                setattr(self, name, Linear(inputs, 4096))
                inputs = 4096
        self.fc8 = Linear(inputs, classes)

    def pool(self, x):
        return max_pool2d(x, 3, 2) if self.overlapping else max_pool2d(x, 2, 2, ceil_mode=True)

    def norm(self, x):
        return normalize_across_maps(x, 2.0, 1e-4, self.columns) if self.normalized else x

    def forward(self, x):
        x = pad(x, (0, 3, 0, 3))  # [code] reads zeros past the right and bottom edges
        x = self.pool(self.norm(self.activation(self.conv1(x))))
        if hasattr(self, "conv2"):
            x = self.norm(self.activation(self.conv2(x)))
        x = self.pool(x)
        for name in ("conv3", "conv4", "conv5"):
            if hasattr(self, name):
                x = self.activation(getattr(self, name)(x))
        x = self.pool(x)
        if hasattr(self, "conv6"):
            x = self.activation(self.conv6(x))
        x = x.flatten(1)
        for name in ("fc6", "fc7"):
            if hasattr(self, name):
                x = self.activation(getattr(self, name)(x)) * self.kept
        return self.fc8(x)


class OriginalNetwork(PaperNetwork):
    """[code] layers-145.cfg and layer-params-145.cfg: `scale` is divided by the size, pool1 and pool3 have the ReLU."""

    def forward(self, x):
        x = self.conv1(pad(x, (0, 3, 0, 3)))
        x = relu(max_pool2d(normalize_across_maps(x, 2.0, 1e-4 / 5, 2), 3, 2))
        x = normalize_across_maps(relu(self.conv2(x)), 2.0, 1e-4 / 5, 2)
        x = max_pool2d(normalize_within_maps(x), 3, 2)
        x = relu(self.conv4(relu(self.conv3(x))))
        x = relu(max_pool2d(self.conv5(x), 3, 2)).flatten(1)
        return self.fc8(0.5 * relu(self.fc7(0.5 * relu(self.fc6(x)))))


class IndependentColumns(PaperNetwork):
    """[code] layers-150.cfg: 160 kernels a column in conv2, and fully-connected layers that see their own column."""

    def __init__(self, classes):
        super().__init__(classes, widths=(96, 320, 384, 384, 256), groups=(1, 2, 2, 2, 2))
        self.fc6 = ModuleList([Linear(128 * 6 * 6, 4096) for _ in range(2)])
        self.fc7 = ModuleList([Linear(4096, 2048) for _ in range(2)])

    def forward(self, x):
        x = self.pool(self.norm(relu(self.conv1(pad(x, (0, 3, 0, 3))))))
        x = self.pool(self.norm(relu(self.conv2(x))))
        x = self.pool(relu(self.conv5(relu(self.conv4(relu(self.conv3(x)))))))
        columns = []
        for column, fc6, fc7 in zip(x.chunk(2, dim=1), self.fc6, self.fc7, strict=True):
            hidden = 0.5 * relu(fc6(column.flatten(1)))
            columns.append(0.5 * relu(fc7(hidden)))
        return self.fc8(torch.cat(columns, dim=1))


class CaffeNetwork(PaperNetwork):
    """[caffe] bvlc_alexnet, or with `pool_first` bvlc_reference_caffenet. Dropout is rescaled in training."""

    def __init__(self, classes, pool_first=False):
        super().__init__(classes)
        self.pool_first = pool_first

    def pool_and_norm(self, x):
        if self.pool_first:
            return normalize_across_maps(max_pool2d(x, 3, 2), 1.0, 1e-4 / 5, 1)
        return max_pool2d(normalize_across_maps(x, 1.0, 1e-4 / 5, 1), 3, 2)

    def forward(self, x):
        x = self.pool_and_norm(relu(self.conv1(x)))  # 227 pixels, no zeros
        x = self.pool_and_norm(relu(self.conv2(x)))
        x = relu(self.conv5(relu(self.conv4(relu(self.conv3(x))))))
        x = max_pool2d(x, 3, 2).flatten(1)
        return self.fc8(relu(self.fc7(relu(self.fc6(x)))))


class BatchNormNetwork(PaperNetwork):
    """[nvcaffe] models/alexnet_bn/train_val.prototxt: batch normalization before each ReLU, biases in conv5 alone."""

    def __init__(self, classes):
        super().__init__(classes)
        for number, width in enumerate((96, 256, 384, 384, 256), start=1):
            setattr(self, f"bn{number}", BatchNorm2d(width, eps=1e-4))
            if number < 5:
                getattr(self, f"conv{number}").bias = None

    def forward(self, x):
        for number in range(1, 6):
            x = relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
            if number in (1, 2, 5):
                x = max_pool2d(x, 3, 2)
        return self.fc8(relu(self.fc7(relu(self.fc6(x.flatten(1))))))


class TorchvisionNetwork(Module):
    """[torchvision] alexnet: the network of Krizhevsky 2014."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = Conv2d(3, 64, 11, 4, 2)
        self.conv2 = Conv2d(64, 192, 5, 1, 2)
        self.conv3 = Conv2d(192, 384, 3, 1, 1)
        self.conv4 = Conv2d(384, 256, 3, 1, 1)
        self.conv5 = Conv2d(256, 256, 3, 1, 1)
        self.fc6 = Linear(256 * 6 * 6, 4096)
        self.fc7 = Linear(4096, 4096)
        self.fc8 = Linear(4096, classes)

    def forward(self, x):
        x = max_pool2d(relu(self.conv1(x)), 3, 2)
        x = max_pool2d(relu(self.conv2(x)), 3, 2)
        x = max_pool2d(relu(self.conv5(relu(self.conv4(relu(self.conv3(x)))))), 3, 2)
        return self.fc8(relu(self.fc7(relu(self.fc6(x.flatten(1))))))


_BUILDERS = {
    "paper": PaperNetwork,
    "original": OriginalNetwork,
    "caffe": CaffeNetwork,
    "caffenet": lambda classes: CaffeNetwork(classes, pool_first=True),
    "one_weird_trick": TorchvisionNetwork,
    "batch_norm": BatchNormNetwork,
    "no_lrn": lambda classes: PaperNetwork(classes, normalized=False),
    "no_overlap": lambda classes: PaperNetwork(classes, overlapping=False),
    "one_column": lambda classes: PaperNetwork(classes, (48, 128, 192, 192, 256), (1,) * 5, columns=1),
    "independent_columns": IndependentColumns,
    "tanh": lambda classes: PaperNetwork(classes, activation=torch.tanh),
    "no_dropout": lambda classes: PaperNetwork(classes, kept_by_dropout=1.0),
    "six_conv": lambda classes: PaperNetwork(classes, sixth=True),
    "no_conv2": lambda classes: PaperNetwork(classes, without="conv2"),
    "no_conv3": lambda classes: PaperNetwork(classes, without="conv3"),
    "no_conv4": lambda classes: PaperNetwork(classes, without="conv4"),
    "no_conv5": lambda classes: PaperNetwork(classes, without="conv5"),
    "no_fc6": lambda classes: PaperNetwork(classes, without="fc6"),
    "no_fc7": lambda classes: PaperNetwork(classes, without="fc7"),
}
NAMES = tuple(_BUILDERS)


def build(name, classes):
    """The network of a name in `NAMES`, a `torch.nn.Module`."""
    return _BUILDERS[name](classes)
