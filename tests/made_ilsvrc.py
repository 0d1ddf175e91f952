"""Makes small ImageNet archives for ILSVRC2010 or ILSVRC2012: training and validation images and a devkit."""

import gzip
import io
import tarfile

import numpy as np
import scipy.io
from PIL import Image

# In the order of the devkit; WordNet ids are not sorted.
DEVKIT = (
    ("n02119789", "kit fox, Vulpes macrotis"),
    ("n01440764", "tench, Tinca tinca"),
    ("n03126707", "crane"),
    ("n02012849", "crane"),
)


def encode(pixels, form="JPEG", mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def image_of(devkit_id, number, height=60, width=80):
    """An image with noise whose red is 60 times its class in the devkit."""
    noise = np.random.default_rng(number).integers(0, 12, (height, width, 3))
    return np.uint8(np.array([60 * devkit_id, 100, 100]) + noise)


def odd_images(devkit_id):
    """Unusual images of a class: CMYK, PNG, gray, very long, truncated, and not an image."""
    complete = encode(image_of(devkit_id, 900))
    return {
        "cmyk": encode(image_of(devkit_id, 901), mode="CMYK"),
        "png": encode(image_of(devkit_id, 902), "PNG"),
        "gray": encode(image_of(devkit_id, 903), mode="L"),
        "long": encode(image_of(devkit_id, 904, 1, 5000)),
        "wide": encode(image_of(devkit_id, 905, 5000, 1)),
        "short": complete[: len(complete) // 2],
        "text": b"this is no image",
    }


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            add(tar, name, content)
    return buffer.getvalue()


def make_ilsvrc(folder, images_per_class=20, validation_images=12, devkit=True, year="2012", test_images=0):
    """Writes the archives into a folder. Validation image i has class 1 + i % 4 in the devkit, test image i class
    1 + (i + 1) % 4."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, devkit_name = {"2010": ("images", "devkit-1.0"), "2012": ("img", "devkit_t12")}[year]
    classes = {}
    for devkit_id, (class_id, _) in enumerate(DEVKIT, 1):
        files = {
            f"{class_id}_{number}.JPEG": encode(image_of(devkit_id, number), quality=95)
            for number in range(images_per_class)
        }
        if devkit_id == 1:
            files |= {f"{class_id}_{name}.JPEG": content for name, content in odd_images(devkit_id).items()}
        classes[f"{class_id}.tar"] = tar_of(files)
    (folder / f"ILSVRC{year}_{kind}_train.tar").write_bytes(tar_of(classes))
    validation = {
        f"ILSVRC{year}_val_{number:08d}.JPEG": encode(image_of(1 + number % 4, number), quality=95)
        for number in range(1, validation_images + 1)
    }
    (folder / f"ILSVRC{year}_{kind}_val.tar").write_bytes(tar_of(validation))
    if test_images:
        numbers = range(1, test_images + 1)
        test = {
            f"ILSVRC{year}_test_{i:08d}.JPEG": encode(image_of(1 + (i + 1) % 4, 50 + i), quality=95) for i in numbers
        }
        (folder / f"ILSVRC{year}_{kind}_test.tar").write_bytes(tar_of(test))
        truth = "".join(f"{1 + (i + 1) % 4}\n" for i in numbers)
        (folder / f"ILSVRC{year}_test_ground_truth.txt").write_text(truth)
    if devkit:
        fields = [(f"ILSVRC{year}_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
        rows = [(number, class_id, words, 0) for number, (class_id, words) in enumerate(DEVKIT, 1)]
        rows.append((1001, "n00001740", "entity", 3))  # an inner node of the tree
        matrix = io.BytesIO()
        scipy.io.savemat(matrix, {"synsets": np.array(rows, fields).reshape(-1, 1)})
        truth = "".join(f"{1 + number % 4}\n" for number in range(1, validation_images + 1))
        truth_name = f"ILSVRC{year}_validation_ground_truth.txt"
        content = {"meta.mat": matrix.getvalue(), truth_name: truth.encode()}
        content = tar_of({f"ILSVRC{year}_{devkit_name}/data/{name}": each for name, each in content.items()})
        (folder / f"ILSVRC{year}_{devkit_name}.tar.gz").write_bytes(gzip.compress(content))
    return folder
