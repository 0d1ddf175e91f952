"""The 2012 AlexNet in plain NumPy, float64 and channels last, written from the sources and nothing else.

Tests hold the Keras layers and the model against it, so it shares no code with them. A forward function's
companion `..._gradient` or `..._gradients` takes the output's gradient first and recomputes what it needs.

Sources: [paper] Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural
networks", NIPS 2012. [code] the original program, github.com/computerhistory/AlexNet-Source-Code.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Kernels per layer (one per column: [paper] 3.2 and figure 2) and the shape of each: [paper] 3.5.
KERNEL_SHAPES = {
    "conv1": (2, (11, 11, 3, 48)),  # (height, width, input channels, filters)
    "conv2": (2, (5, 5, 48, 128)),
    "conv3": (2, (3, 3, 256, 192)),
    "conv4": (2, (3, 3, 192, 192)),
    "conv5": (2, (3, 3, 192, 128)),
    "fc6": (2, (6 * 6 * 256, 2048)),  # (inputs, outputs)
    "fc7": (2, (4096, 2048)),
    "fc8": (1, (4096, 1000)),
}
# (stride, ((top, bottom), (left, right)) zeros, input columns). Strides and input columns: [paper] 3.5. Zeros, not in
# its text: conv2 to conv5 keep the 27 x 27 and 13 x 13 maps of figure 2; for conv1, where (224 - 11) / 4 + 1
# is 54.25 and figure 2 has 55, [code] reads zeros past the bottom and the right edge.
CONVOLUTIONS = {
    "conv1": (4, ((0, 3), (0, 3)), "all"),
    "conv2": (1, ((2, 2), (2, 2)), "own"),
    "conv3": (1, ((1, 1), (1, 1)), "all"),
    "conv4": (1, ((1, 1), (1, 1)), "own"),
    "conv5": (1, ((1, 1), (1, 1)), "own"),
}
# k, n, alpha, beta: [paper] 3.3 ([code] divides alpha by n). Each column is normalized by itself: [code].
NORMALIZATION = {"k": 2.0, "n": 5, "alpha": 1e-4, "beta": 0.75, "columns": 2}
POOL = {"size": 3, "stride": 2}  # [paper] 3.4
DROPOUT_TEST_SCALE = 0.5  # [paper] 4.2: at test time every output is multiplied by 0.5.


def _windows(images, rows, columns, stride, writeable=False):
    """Returns the windows of images (B, H, W, C), a view (B, out_rows, out_columns, C, rows, columns)."""
    windows = sliding_window_view(images, (rows, columns), axis=(1, 2), writeable=writeable)
    return windows[:, ::stride, ::stride]


def conv2d(images, kernel, bias, stride, padding):
    """Cross-correlates images (B, H, W, cin) with a kernel (kh, kw, cin, cout) and adds a bias (cout,).

    `padding` is ((top, bottom), (left, right)), in zeros; a window that does not fit is dropped. Returns
    (B, out_rows, out_columns, cout).
    """
    windows = _windows(np.pad(images, ((0, 0), *padding, (0, 0))), *kernel.shape[:2], stride)
    return np.tensordot(windows, kernel, axes=((4, 5, 3), (0, 1, 2))) + bias


def conv2d_gradients(output_gradient, images, kernel, stride, padding):
    """Returns the gradients of `conv2d` with respect to images, kernel and bias, in their shapes.

    `output_gradient` is (B, out_rows, out_columns, cout).
    """
    padded = np.pad(images, ((0, 0), *padding, (0, 0)))
    windows = _windows(padded, *kernel.shape[:2], stride)
    d_kernel = np.tensordot(windows, output_gradient, axes=((0, 1, 2), (0, 1, 2)))  # (cin, kh, kw, cout)
    d_padded = np.zeros(padded.shape)
    d_windows = _windows(d_padded, *kernel.shape[:2], stride, writeable=True)
    contributions = np.tensordot(output_gradient, kernel, axes=(3, 3))  # (B, rows, columns, kh, kw, cin)
    for row, column in np.ndindex(kernel.shape[:2]):  # At one position, no two windows share a pixel.
        d_windows[..., row, column] += contributions[..., row, column, :]
    (top, _), (left, _) = padding
    d_images = d_padded[:, top : top + images.shape[1], left : left + images.shape[2]]
    return d_images, d_kernel.transpose(1, 2, 0, 3), output_gradient.sum(axis=(0, 1, 2))


def _column_inputs(images, columns, input_columns):
    """Returns, for each column, the channels of images (B, H, W, C) that it is connected to."""
    return np.split(images, columns, axis=-1) if input_columns == "own" else [images] * columns


def grouped_conv2d(images, kernels, biases, stride, padding, input_columns):
    """Convolves images (B, H, W, C) in columns, and concatenates the columns' outputs.

    Column g has kernels[g] (kh, kw, cin, cout) and biases[g] (cout,), and is connected to the g-th equal slice of the
    channels (`input_columns="own"`, cin = C / columns) or to all of them (`input_columns="all"`, cin = C). Returns
    (B, out_rows, out_columns, columns * cout).
    """
    columns = zip(_column_inputs(images, len(kernels), input_columns), kernels, biases, strict=True)
    return np.concatenate([conv2d(*column, stride, padding) for column in columns], axis=-1)


def grouped_conv2d_gradients(output_gradient, images, kernels, stride, padding, input_columns):
    """Returns the gradients of `grouped_conv2d`: d_images (B, H, W, C), list of d_kernel, list of d_bias."""
    d_outputs = np.split(output_gradient, len(kernels), axis=-1)
    columns = zip(d_outputs, _column_inputs(images, len(kernels), input_columns), kernels, strict=True)
    gradients = [conv2d_gradients(*column, stride, padding) for column in columns]
    d_inputs, d_kernels, d_biases = zip(*gradients, strict=True)
    d_images = np.concatenate(d_inputs, axis=-1) if input_columns == "own" else sum(d_inputs)
    return d_images, list(d_kernels), list(d_biases)


def relu(x):
    return np.maximum(x, 0.0)


def relu_gradient(output_gradient, x):
    """Returns the gradient of `relu` with respect to x, in its shape; relu(x) may stand for x."""
    return output_gradient * (x > 0.0)


def max_pool(images, size, stride):
    """Returns the maxima of the size x size windows in images (B, H, W, C): (B, out_rows, out_columns, C)."""
    return _windows(images, size, size, stride).max(axis=(-2, -1))


def max_pool_gradient(output_gradient, images, size, stride):
    """Returns the gradient of `max_pool` with respect to images, (B, H, W, C).

    Of equal maxima, the first in the row-major order of the window takes the gradient.
    """
    windows = _windows(images, size, size, stride)
    first_maximum = windows.reshape(*windows.shape[:4], size * size).argmax(axis=-1)
    d_images = np.zeros(images.shape)
    d_windows = _windows(d_images, size, size, stride, writeable=True)
    for row, column in np.ndindex(size, size):
        d_windows[..., row, column] += output_gradient * (first_maximum == row * size + column)
    return d_images


def _neighbors(maps, n, columns):
    """Returns the symmetric (maps, maps) matrix that is 1 where two maps normalize each other, else 0."""
    index = np.arange(maps)
    block = index // (maps // columns)
    near = np.abs(index[:, None] - index) <= n // 2
    return np.float64(near & (block[:, None] == block))


def local_response_normalization(x, k, n, alpha, beta, columns):
    """Returns b_i = x_i / (k + alpha * sum_j x_j^2)^beta, in the shape of x, (..., maps).

    j runs from map i - n // 2 to i + n // 2, cut at the edges of i's column, one of `columns` equal blocks.
    """
    scale = k + alpha * np.tensordot(x**2, _neighbors(x.shape[-1], n, columns), axes=1)
    return x * scale**-beta


def local_response_normalization_gradient(output_gradient, x, k, n, alpha, beta, columns):
    """Returns the gradient of `local_response_normalization` with respect to x, in its shape.

    With s_i the sum in brackets: d_j = g_j s_j^-beta - 2 alpha beta x_j * sum_i g_i x_i s_i^(-beta - 1).
    """
    neighbors = _neighbors(x.shape[-1], n, columns)
    scale = k + alpha * np.tensordot(x**2, neighbors, axes=1)
    through_scale = np.tensordot(output_gradient * x * scale ** (-beta - 1.0), neighbors, axes=1)
    return output_gradient * scale**-beta - 2.0 * alpha * beta * x * through_scale


def _box_sums(x, n):
    """Returns, at each position of x (B, H, W, C), the sum over the n x n positions around it; outside are zeros."""
    margin = n // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return sum(padded[:, row : row + x.shape[1], column : column + x.shape[2]] for row, column in np.ndindex(n, n))


def within_map_normalization(x, k, n, alpha, beta):
    """Returns x / (k + alpha / n^2 * sum of x^2 over n x n positions)^beta, x (B, H, W, C). Source: [code] `rnorm`."""
    return x * (k + alpha / n**2 * _box_sums(x**2, n)) ** -beta


def within_map_normalization_gradient(output_gradient, x, k, n, alpha, beta):
    """Returns the gradient of `within_map_normalization` with respect to x, in its shape."""
    scale = k + alpha / n**2 * _box_sums(x**2, n)
    through_scale = _box_sums(output_gradient * x * scale ** (-beta - 1.0), n)
    return output_gradient * scale**-beta - 2.0 * alpha / n**2 * beta * x * through_scale


def dense(x, kernels, biases):
    """Returns the x @ kernels[g] + biases[g], concatenated; x (B, in), kernels (in, out), biases (out,)."""
    return np.concatenate([x @ kernel + bias for kernel, bias in zip(kernels, biases, strict=True)], axis=-1)


def dense_gradients(output_gradient, x, kernels):
    """Returns the gradients of `dense`: d_x (B, in), list of d_kernel (in, out), list of d_bias (out,)."""
    d_outputs = np.split(output_gradient, len(kernels), axis=-1)
    d_x = sum(d_output @ kernel.T for d_output, kernel in zip(d_outputs, kernels, strict=True))
    return d_x, [x.T @ d_output for d_output in d_outputs], [d_output.sum(axis=0) for d_output in d_outputs]


def softmax_cross_entropy(logits, labels):
    """Returns the mean of -log softmax(logits)[label] and its gradient; logits (B, classes), labels (B,)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    one_hot = np.eye(logits.shape[-1])[labels]
    return -(one_hot * log_softmax).sum(axis=-1).mean(), (np.exp(log_softmax) - one_hot) / len(logits)


def paper_alexnet(images, weights, labels):
    """The paper's network at test time: no unit is dropped, and fc6 and fc7 are multiplied by 0.5.

    Args:
        images: float64 (B, 224, 224, 3), the mean image already subtracted.
        weights: dict of name -> (list of kernels, list of biases), float64, one of each per column, as `KERNEL_SHAPES`
            has them (fc8: lists of one). fc6 takes pool5 flattened in the order (row, column, map).
        labels: (B,) integers in [0, 1000).

    Returns: the logits (B, 1000), the mean loss, and the gradients in the structure of weights.
    """
    for name, (count, shape) in KERNEL_SHAPES.items():
        assert [[a.shape for a in part] for part in weights[name]] == [[shape] * count, [shape[-1:]] * count], name

    conv1 = relu(grouped_conv2d(images, *weights["conv1"], *CONVOLUTIONS["conv1"]))  # 55 x 55 x 96
    norm1 = local_response_normalization(conv1, **NORMALIZATION)
    pool1 = max_pool(norm1, **POOL)  # 27 x 27 x 96
    conv2 = relu(grouped_conv2d(pool1, *weights["conv2"], *CONVOLUTIONS["conv2"]))  # 27 x 27 x 256
    norm2 = local_response_normalization(conv2, **NORMALIZATION)
    pool2 = max_pool(norm2, **POOL)  # 13 x 13 x 256
    conv3 = relu(grouped_conv2d(pool2, *weights["conv3"], *CONVOLUTIONS["conv3"]))  # 13 x 13 x 384
    conv4 = relu(grouped_conv2d(conv3, *weights["conv4"], *CONVOLUTIONS["conv4"]))  # 13 x 13 x 384
    conv5 = relu(grouped_conv2d(conv4, *weights["conv5"], *CONVOLUTIONS["conv5"]))  # 13 x 13 x 256
    pool5 = max_pool(conv5, **POOL)  # 6 x 6 x 256
    flat5 = pool5.reshape(len(images), -1)  # 9216
    fc6 = DROPOUT_TEST_SCALE * relu(dense(flat5, *weights["fc6"]))  # 4096
    fc7 = DROPOUT_TEST_SCALE * relu(dense(fc6, *weights["fc7"]))  # 4096
    fc8 = dense(fc7, *weights["fc8"])  # 1000

    layers = {name: (weights[name][0], *CONVOLUTIONS.get(name, ())) for name in weights}
    gradients = {}
    loss, d_fc8 = softmax_cross_entropy(fc8, labels)
    d_fc7, *gradients["fc8"] = dense_gradients(d_fc8, fc7, *layers["fc8"])
    d_fc7 = relu_gradient(DROPOUT_TEST_SCALE * d_fc7, fc7)
    d_fc6, *gradients["fc7"] = dense_gradients(d_fc7, fc6, *layers["fc7"])
    d_fc6 = relu_gradient(DROPOUT_TEST_SCALE * d_fc6, fc6)
    d_flat5, *gradients["fc6"] = dense_gradients(d_fc6, flat5, *layers["fc6"])
    d_conv5 = relu_gradient(max_pool_gradient(d_flat5.reshape(pool5.shape), conv5, **POOL), conv5)
    d_conv4, *gradients["conv5"] = grouped_conv2d_gradients(d_conv5, conv4, *layers["conv5"])
    d_conv4 = relu_gradient(d_conv4, conv4)
    d_conv3, *gradients["conv4"] = grouped_conv2d_gradients(d_conv4, conv3, *layers["conv4"])
    d_conv3 = relu_gradient(d_conv3, conv3)
    d_pool2, *gradients["conv3"] = grouped_conv2d_gradients(d_conv3, pool2, *layers["conv3"])
    d_norm2 = max_pool_gradient(d_pool2, norm2, **POOL)
    d_conv2 = relu_gradient(local_response_normalization_gradient(d_norm2, conv2, **NORMALIZATION), conv2)
    d_pool1, *gradients["conv2"] = grouped_conv2d_gradients(d_conv2, pool1, *layers["conv2"])
    d_norm1 = max_pool_gradient(d_pool1, norm1, **POOL)
    d_conv1 = relu_gradient(local_response_normalization_gradient(d_norm1, conv1, **NORMALIZATION), conv1)
    _, *gradients["conv1"] = grouped_conv2d_gradients(d_conv1, images, *layers["conv1"])
    return fc8, loss, {name: tuple(gradients[name]) for name in weights}
