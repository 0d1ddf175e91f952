"""Times building data sets and reading training images, compared to bare JPEG decoders and PyTorch's DataLoader.

    pip install --constraint=constraints.txt --editable '.[bench]'
    python benchmarks/reading.py

Makes synthetic photographs, builds data sets in each encoding, and indexes the 256 pixel JPEGs and the photographs
themselves to be read in place. Then times all candidates in turn, each in its own process, which is idle while another
is timed: on one core, then on all cores. Prints Markdown tables; speeds of reading are medians over the rounds.
"""

import concurrent.futures
import io
import itertools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import synthetic
from absl import app, flags
from PIL import Image

BATCH = 128
CROP_PX = 224
_WARM_IMAGES = 3000
_TIMED_IMAGES = 6000
DATA_SETS = {
    "jpeg95": {},
    "jpeg85": {"quality": 85},
    "png": {"encoding": "png"},
    "raw": {"encoding": "raw"},
    "aspect": {"keep_aspect": True},
}


def define_flags():
    flags.DEFINE_integer("rounds", 5, "Number of rounds. Each times all candidates in turn.")
    flags.DEFINE_integer("photos", 2048, "Number of photographs.")
    flags.DEFINE_list("candidates", list(CANDIDATES), "Names of the candidates.")
    flags.DEFINE_string("candidate", None, "Internal: the candidate of this process.")
    flags.DEFINE_integer("cores", None, "Internal: number of cores.")
    flags.DEFINE_string("work_dir", None, "Folder of the photographs and data sets; a temporary one by default.")


def encoded_images(work_dir):
    """Reads the JPEGs of a data set."""
    import tensorflow as tf

    from alexnet_tf.tfrecords import schema

    paths = [str(path) for path in sorted((work_dir / "jpeg95").glob("train-*"))]
    examples = (tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(paths))
    return [example.features.feature[schema.ENCODED].bytes_list.value[0] for example in examples]


def photographs(work_dir):
    """Reads the JPEGs of the photographs."""
    return [path.read_bytes() for path in sorted((work_dir / "photos").glob("*/*"))]


def ours(data_set, **augmentation):
    def candidate(work_dir, cores):
        from alexnet_tf.tfrecords import reader
        from alexnet_tf.tfrecords.augmentation import Augmentation

        augment = Augmentation(**augmentation)
        dataset = reader.make_training_dataset(work_dir / data_set, BATCH, CROP_PX, augmentation=augment)
        for _, labels in dataset:
            yield len(labels)

    return candidate


def bare_tf(work_dir, cores):
    """Only TensorFlow's decoder, which crops as it decodes."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(encoded_images(work_dir)).repeat()
    window = [16, 16, CROP_PX, CROP_PX]
    dataset = dataset.map(
        lambda encoded: tf.reduce_max(tf.io.decode_and_crop_jpeg(encoded, window, channels=3)[0, 0]),
        num_parallel_calls=2 * cores,
    )
    for labels in dataset.batch(BATCH).prefetch(2):
        yield len(labels)


def bare_libjpeg(work_dir, cores):
    """Only libjpeg-turbo through simplejpeg, with one thread per core."""
    import simplejpeg  # pyright: ignore[reportMissingImports] (installed by `make bench`)

    encoded = encoded_images(work_dir)

    def decode(first):
        for image in itertools.islice(itertools.cycle(encoded), first, first + BATCH):
            simplejpeg.decode_jpeg(image)
        return BATCH

    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        futures = [pool.submit(decode, 0) for _ in range(2 * cores)]
        for number in itertools.count():
            yield futures.pop(0).result()
            futures.append(pool.submit(decode, BATCH * (number % 8)))


def random_resized(image):
    """torchvision's RandomResizedCrop of a Pillow image, with its default arguments."""
    import torch

    for _ in range(10):
        area = image.width * image.height * torch.empty(1).uniform_(0.08, 1).item()
        aspect = math.exp(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if columns <= image.width and rows <= image.height:
            break
    else:
        columns = rows = min(image.size)
    top, left = (int(torch.randint(most + 1, ())) for most in (image.height - rows, image.width - columns))
    box = image.crop((left, top, left + columns, top + rows))
    return np.asarray(box.resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR))


def torch_loader(decoder, full_size=False):
    """PyTorch's DataLoader with one worker per core, which shuffles, decodes, crops, flips, draws noise and batches."""

    def candidate(work_dir, cores):
        import torch

        torch.set_num_threads(cores)
        encoded = photographs(work_dir) if full_size else encoded_images(work_dir)

        class Images(torch.utils.data.Dataset):
            def __len__(self):
                return 1000 * len(encoded)

            def __getitem__(self, index):
                content = encoded[index % len(encoded)]
                if decoder == "PIL":
                    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
                else:
                    import simplejpeg  # pyright: ignore[reportMissingImports] (installed by `make bench`)

                    image = simplejpeg.decode_jpeg(content)
                top, left, flipped = (int(torch.randint(most, ())) for most in (32, 32, 2))
                if full_size:
                    image = random_resized(Image.fromarray(image))
                else:
                    image = image[top : top + CROP_PX, left : left + CROP_PX]
                image = image[:, ::-1] if flipped else image
                return torch.from_numpy(image.copy()), 0.1 * torch.randn(3), 0

        order = torch.utils.data.RandomSampler(range(len(encoded)), replacement=True, num_samples=10**7)
        loader = torch.utils.data.DataLoader(
            Images(), BATCH, sampler=order, num_workers=cores, drop_last=True, prefetch_factor=2
        )
        for _, _, labels in loader:
            yield len(labels)

    return candidate


CANDIDATES = {
    "this pipeline": ours("jpeg95"),
    "bare tf.io.decode_and_crop_jpeg": bare_tf,
    "bare libjpeg-turbo (simplejpeg)": bare_libjpeg,
    "PyTorch DataLoader, PIL": torch_loader("PIL"),
    "PyTorch DataLoader, simplejpeg": torch_loader("simplejpeg"),
    "this pipeline, jpeg of quality 85": ours("jpeg85"),
    "this pipeline, png": ours("png"),
    "this pipeline, raw": ours("raw"),
    "this pipeline, jpeg with --keep_aspect": ours("aspect"),
    "in place, jpeg of 256 pixels": ours("jpeg95_in_place"),
    "in place, full size, random resized crops": ours("photos_in_place", crop_scale=(0.08, 1)),
    "PyTorch DataLoader, PIL, random resized crops": torch_loader("PIL", full_size=True),
    "PyTorch DataLoader, simplejpeg, random resized crops": torch_loader("simplejpeg", full_size=True),
}


def time_candidate(flag):
    """Runs a candidate's process: for each line of input, times some thousand images."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: flag.cores]))
    batches = CANDIDATES[flag.candidate](pathlib.Path(flag.work_dir), flag.cores)
    for _ in sys.stdin:
        for least in (_WARM_IMAGES, _TIMED_IMAGES):  # the first ones come from buffers that filled while it was idle
            begin, images = time.perf_counter(), 0
            while images < least:
                images += next(batches)
        print(json.dumps(images / (time.perf_counter() - begin)), flush=True)


def build_data_sets(work_dir, photos):
    """Makes photographs and data sets. Returns the lines of a table of their sizes and the builder's speed."""
    from alexnet_tf.tfrecords import dataset_builder, images

    paths = synthetic.write_photos(work_dir / "photos", photos)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    lines = [
        "| stored as | bytes per image | built on one core, images/s | relative to Pillow |",
        "|---|---|---|---|",
    ]
    for name, settings in DATA_SETS.items():
        begin = time.perf_counter()
        for path in paths:
            image = images.prepare_image(path, 256, settings.get("keep_aspect", False))
            images.encode_image(image, settings.get("encoding", "jpeg"), settings.get("quality", 95))
        bare = photos / (time.perf_counter() - begin)
        begin = time.perf_counter()
        description = dataset_builder.build_dataset(
            f"folder:{work_dir / 'photos'}", work_dir / name, num_processes=1, **settings
        )
        rate = photos / (time.perf_counter() - begin)
        size = sum(shard.bytes for split in description.splits.values() for shard in split.shards) / photos
        lines.append(f"| {name} | {size:,.0f} | {rate:,.0f} | {rate / bare:.2f} |")
    os.sched_setaffinity(0, cores)
    index_in_place(work_dir)
    return lines


def index_in_place(work_dir):
    """Writes the photographs as third-party records, and indexes them and the 256 pixel JPEGs."""
    from alexnet_tf.tfrecords import in_place

    sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))
    import made_records

    contents = photographs(work_dir)
    for split, first, files in (("validation", 0, 1), ("train", 1, 15)):
        for number in range(files):
            part = [(content, label % 2) for label, content in enumerate(contents[first + number :: 16])]
            path = work_dir / "third_party" / f"{split}-{number:05d}-of-{files:05d}"
            made_records.write_records(path, part, "image", "label")
    for records, index in (("jpeg95", "jpeg95_in_place"), ("third_party", "photos_in_place")):
        in_place.index_in_place(f"tfrecords:{work_dir / records}", work_dir / index)


def main(argv):
    flag = flags.FLAGS
    if flag.candidate:
        time_candidate(flag)
        return
    work_dir = pathlib.Path(flag.work_dir or tempfile.mkdtemp())
    lines = build_data_sets(work_dir, flag.photos)
    all_cores = len(os.sched_getaffinity(0))
    table = {}
    for cores in (1, all_cores):
        processes = {}
        for name in flag.candidates:
            command = [sys.executable, __file__, f"--candidate={name}", f"--cores={cores}", f"--work_dir={work_dir}"]
            processes[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        for _ in range(flag.rounds):
            for name, process in processes.items():
                process.stdin.write("\n")
                process.stdin.flush()
                table.setdefault((name, cores), []).append(float(process.stdout.readline()))
                print(f"{name}, {cores} cores: {table[name, cores][-1]:,.0f} images/s", flush=True)
        for process in processes.values():
            process.kill()
    lines += [
        "",
        f"| images/s | one core | {all_cores} cores | speed of the first relative to it, {all_cores} cores |",
        "|---|---|---|---|",
    ]
    first = statistics.median(table[flag.candidates[0], all_cores])
    for name in flag.candidates:
        one, all_of = (statistics.median(table[name, cores]) for cores in (1, all_cores))
        spread = f"{min(table[name, all_cores]):,.0f} to {max(table[name, all_cores]):,.0f}"
        lines.append(f"| {name} | {one:,.0f} | {all_of:,.0f} ({spread}) | {first / all_of:.2f} |")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    define_flags()
    app.run(main)
