"""The signatures of a SavedModel and the decoding of images in its graph."""

import dataclasses
import io
import struct
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from made_photos import exif
from PIL import Image
from programs import ENVIRONMENT

from alexnet_tf.evaluation import features
from alexnet_tf.networks import structure
from alexnet_tf.serving import orientation, preprocessing, signatures
from alexnet_tf.tfrecords import crops, dataset_builder, images, reader, schema


def predictions(saved, signature, contents):
    outputs = saved.signatures[signature](images=tf.constant(contents, tf.string))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def photo(mode="RGB", size=(90, 70)):
    """An image with smooth colors, in one of Pillow's modes."""
    corners = np.random.default_rng(5).integers(0, 256, (4, 4, 3)).astype("uint8")
    return Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC).convert(mode)


def as_file(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat_png(width, height, bits=8, color_type=2, bytes_per_pixel=3):
    """A PNG of one color: the smallest file for its number of pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    compressor = zlib.compressobj(9)
    rows = [compressor.compress(bytes(1 + bytes_per_pixel * width)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    data = b"".join([*rows, compressor.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def top_down_bmp(width, height):
    """A BMP whose rows run from top to bottom: its height is negative."""
    content = bytearray(as_file(photo(size=(width, height)), "bmp"))
    content[22:26] = struct.pack("<i", -height)
    return bytes(content)


class TestSignatures:
    def test_predictions_equal_the_models(self, saved, untrained, encoded):
        model, description = untrained
        squares = tf.stack([preprocessing.decode_square(tf.constant(image), 64) for image in encoded])
        pixels = crops.center_crop(squares, 56)
        expected = model.predict(pixels, verbose=0)
        for name, dtype in (("predict", tf.float32), ("predict_uint8", tf.uint8)):
            served = saved.signatures[name](pixels=tf.cast(pixels, dtype))["probabilities"]
            np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
        served = predictions(saved, "serving_default", encoded)
        order = np.argsort(-expected, axis=1)[:, :5]
        np.testing.assert_array_equal(served["class_ids"], order)
        np.testing.assert_allclose(served["probabilities"], np.take_along_axis(expected, order, 1), rtol=1e-5)
        names = [[name.decode() for name in row] for row in served["class_names"]]
        assert names == [[description.class_names[c] for c in row] for row in order]
        assert served["valid"].all()

    def test_ten_views_and_features_equal_those_of_evaluation(self, saved, untrained, tmp_path):
        # The images are PNG in the data set and have 64 pixels: the server decodes the pixels that evaluation reads.
        model, _ = untrained
        for number in range(3):
            path = tmp_path / "images" / "validation" / "a" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(size=(64, 64)).rotate(90 * number).save(path)
        for split in ("train", "validation"):
            (tmp_path / "images" / split / "b").mkdir(parents=True)
            photo(size=(64, 64)).save(tmp_path / "images" / split / "b" / "b.png")
        (tmp_path / "images" / "train" / "a").mkdir()
        photo(size=(64, 64)).save(tmp_path / "images" / "train" / "a" / "a.png")
        source, data_dir = f"folder:{tmp_path / 'images'}", tmp_path / "data"
        dataset_builder.build_dataset(
            source, data_dir, image_px=64, encoding="png", num_train_shards=1, num_validation_shards=1, num_processes=1
        )
        description = schema.load_description(data_dir)
        ((views, _),) = reader.make_evaluation_dataset(data_dir, 10, 56, views=10)
        of_views = model.predict(tf.reshape(views, (-1, 56, 56, 3)), verbose=0).reshape(4, 10, -1).mean(axis=1)
        order = np.argsort(-of_views, axis=1)[:, :5]
        records = tf.data.TFRecordDataset(str(data_dir / description.splits["validation"].shards[0].name))
        parsed = [tf.train.Example.FromString(record.numpy()) for record in records]
        contents = [example.features.feature[schema.ENCODED].bytes_list.value[0] for example in parsed]
        served = predictions(saved, "ten_view", contents)
        np.testing.assert_array_equal(served["class_ids"], order)
        np.testing.assert_allclose(served["probabilities"], np.take_along_axis(of_views, order, 1), rtol=1e-5)
        expected = features.extract(model, ["relu7"], data_dir, description, "validation", 10)[0].vectors
        np.testing.assert_allclose(predictions(saved, "features", contents)["features"], expected, rtol=1e-5, atol=1e-6)

    def test_ten_views_run_32_crops_at_a_time(self, monkeypatch):
        class BatchSize(keras.layers.Layer):
            def call(self, x):
                return tf.fill((tf.shape(x)[0], 2), tf.cast(tf.shape(x)[0], tf.float32))

        image = keras.Input((8, 8, 3))
        hidden = keras.layers.Flatten(name="relu7")(image)
        outputs = keras.layers.Identity(name="softmax")(BatchSize(name="fc8")(hidden))
        description = schema.DatasetDescription(("a", "b"), 10, False, "png", splits={}, settings={})
        # This network has no layers of the project.
        monkeypatch.setattr(structure, "last_hidden_layer", lambda model: "relu7")
        monkeypatch.setattr(structure, "classifier", lambda model: "fc8")
        functions = signatures.make_signatures(keras.Model(image, outputs), description)
        images = tf.constant([as_file(photo(), "PNG")] * 40)
        assert functions["serving_default"](images)["probabilities"].numpy().max() == 40
        sizes = functions["ten_view"](images)["probabilities"].numpy()[:, 0]
        np.testing.assert_allclose(sizes[:38], 32)  # 400 crops: twelve times 32, and 16
        assert sizes[-1] == 16

    def test_rotated_photograph_gives_the_upright_ones_prediction(self, saved):
        upright = photo(size=(64, 64))
        turned = as_file(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif(6))
        served = predictions(
            saved, "serving_default", [as_file(upright, "PNG"), turned, as_file(upright.rotate(90), "PNG")]
        )
        np.testing.assert_array_equal(served["probabilities"][0], served["probabilities"][1])
        assert (served["probabilities"][0] != served["probabilities"][2]).any()

    def test_classify_equals_serving_default(self, saved, encoded):
        examples = []
        for image in [*encoded[:2], b"no image"]:
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(image)
            examples.append(example.SerializeToString())
        wrong_type = tf.train.Example()
        wrong_type.features.feature["image/encoded"].int64_list.value.append(1)
        examples += [b"", b"\xff no example", wrong_type.SerializeToString()]
        outputs = saved.signatures["classify"](inputs=tf.constant(examples))
        assert outputs.keys() == {"classes", "scores"}
        expected = predictions(saved, "serving_default", encoded[:2])
        np.testing.assert_array_equal(outputs["classes"][:2], expected["class_names"])
        np.testing.assert_allclose(outputs["scores"][:2], expected["probabilities"], rtol=1e-6)
        assert (outputs["classes"].numpy()[2:] == b"").all()
        assert (outputs["scores"].numpy()[2:] == 0).all()

    @pytest.mark.parametrize("signature", ["serving_default", "ten_view", "features"])
    def test_bad_image_affects_only_its_own_row(self, signature, saved, encoded):
        jpeg = as_file(photo(), "JPEG")
        bad = [b"", b"\xff", b"hello", jpeg[:300], jpeg[:3], encoded[0][:40], b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"]
        mixed = [part for pair in zip(bad, [*encoded, *encoded], strict=False) for part in pair]
        alone = predictions(saved, signature, mixed[1::2])
        served = predictions(saved, signature, mixed)
        assert served["valid"].tolist() == [False, True] * len(bad)
        for name, rows in served.items():
            same = np.testing.assert_array_equal if rows.dtype.kind in "OSb" else np.testing.assert_allclose
            same(rows[1::2], alone[name], *([1e-5, 1e-6] if same is np.testing.assert_allclose else []))
        nothing = {"class_names": b"", "class_ids": -1, "probabilities": 0, "features": 0}
        for name, value in nothing.items():
            assert name not in served or (served[name][0::2] == value).all()

    @pytest.mark.parametrize("signature", ["serving_default", "ten_view", "features", "classify", "predict"])
    def test_empty_batch_has_empty_outputs(self, signature, saved):
        (spec,) = saved.signatures[signature].structured_input_signature[1].values()
        empty = tf.zeros((0, *spec.shape[1:]), spec.dtype)
        outputs = saved.signatures[signature](**{spec.name: empty})
        assert outputs
        assert all(len(tensor) == 0 for tensor in outputs.values())

    def test_batch_of_only_bad_images(self, saved):
        served = predictions(saved, "serving_default", [b"a", b"b"])
        assert not served["valid"].any()

    def test_network_of_warped_images_warps_them(self, untrained):
        model, description = untrained
        warped = dataclasses.replace(description, settings=description.settings | {"resize": "warp"})
        made = signatures.make_signatures(model, warped)
        served = made["serving_default"](tf.constant([as_file(photo(size=(200, 90)), "PNG")]))
        square = images.prepare_image(as_file(photo(size=(200, 90)), "PNG"), 64, resize="warp")
        expected = np.sort(model.predict_on_batch(crops.center_crop(square[None], 56))[0])[::-1][:5]
        np.testing.assert_allclose(served["probabilities"][0], expected, atol=0.02)  # pixels may differ by 1


class TestDecodeSquare:
    @pytest.mark.parametrize("size", [(300, 200), (37, 90), (28, 28), (5000, 1), (1, 1)])
    @pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
    def test_pixels_equal_those_of_training(self, size, kind):
        image = as_file(photo(size=size), kind)
        served = preprocessing.decode_square(tf.constant(image), 64).numpy()
        assert np.abs(np.int32(served) - images.prepare_image(image, 64)).max() <= 1  # they round differently

    @pytest.mark.parametrize(
        "mode, kind, options",
        [
            ("L", "png", {}),
            ("LA", "png", {}),
            ("P", "png", {}),
            ("1", "png", {}),
            ("RGBA", "png", {}),
            ("I;16", "png", {}),
            ("L", "jpeg", {}),
            ("CMYK", "jpeg", {}),
            ("RGB", "jpeg", {"quality": 60}),
            ("RGB", "jpeg", {"progressive": True, "subsampling": 0}),
            ("RGBA", "bmp", {}),
        ],
    )
    def test_every_color_mode_becomes_the_rgb_of_training(self, mode, kind, options):
        image = Image.fromarray(np.uint16(photo("L")) * 257) if mode == "I;16" else photo(mode)
        content = as_file(image, kind, **options)
        served = preprocessing.decode_square(tf.constant(content), 64).numpy()
        assert np.abs(np.int32(served) - images.prepare_image(content, 64)).max() <= 1

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied_as_in_training(self, orientation):
        for size in ((91, 70), (70, 91)):
            for kind in ("JPEG", "PNG"):
                content = as_file(photo(size=size), kind, exif=exif(orientation))
                for honored in (True, False):
                    served = preprocessing.decode_square(tf.constant(content), 64, exif_orientation=honored).numpy()
                    expected = images.prepare_image(content, 64, exif_orientation=honored)
                    assert np.abs(np.int32(served) - expected).max() <= 1

    @pytest.mark.parametrize("orientation", [1, 3, 6])
    @pytest.mark.parametrize("size", [(91, 70), (70, 91), (300, 5)])
    def test_warped_pixels_equal_those_of_training(self, size, orientation):
        content = as_file(photo(size=size), "PNG", exif=exif(orientation))
        served = preprocessing.decode_square(tf.constant(content), 64, resize="warp").numpy()
        assert np.abs(np.int32(served) - images.prepare_image(content, 64, resize="warp")).max() <= 1

    def test_damaged_exif_data_is_read_as_in_training(self):
        read = tf.function(orientation.read_jpeg, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
        random, found = np.random.default_rng(0), []
        for number in range(400):
            tags = bytearray(exif(1 + number % 8).tobytes())
            if number % 2:  # little-endian
                tags[6:] = struct.pack("<4sIHHHIHH", b"II*\0", 8, 1, 0x0112, 3, 1, 1 + number % 8, 0)
            for _ in range(random.integers(3)):
                tags[6 + random.integers(len(tags) - 6)] = random.integers(256)
            content = as_file(photo(), "JPEG", exif=bytes(tags[: random.integers(20, 60)]))
            found.append(images.read_orientation(Image.open(io.BytesIO(content)).info["exif"]))
            assert int(read(content)) == found[-1], bytes(tags)
        assert set(found) == set(range(1, 9))

    def test_exif_data_is_found_after_other_segments_only(self):
        plain, turned = as_file(photo(), "JPEG"), as_file(photo(), "JPEG", exif=exif(6))
        segment = turned[turned.index(b"\xff\xe1") :][: 2 + 2 + 32]
        other = b"\xff\xe2\x00\x06abcd"
        for content, expected in (
            (plain[:2] + other * 5 + segment + plain[2:], 6),
            (plain[:2] + b"\xff\xff" + segment + plain[2:], 6),  # padding
            (plain + segment, 1),  # after the image
            (plain[:2] + b"\xff\xe2\x00\x24" + segment[:34] + plain[2:], 1),  # in another segment
            (plain[:2], 1),
            (segment, 1),
        ):
            assert int(orientation.read_jpeg(tf.constant(content))) == expected

    def test_exif_data_after_a_pngs_pixels_is_ignored_as_in_training(self):
        content = as_file(photo(), "PNG", exif=exif(6))
        start = content.index(b"eXIf") - 4
        chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4])]
        end = content.index(b"IEND") - 4
        moved = content[:start] + content[start + len(chunk) : end] + chunk + content[end:]
        for each, value in ((content, 6), (moved, 1)):
            assert int(orientation.read_png(tf.constant(each))[0]) == value
            served = preprocessing.decode_square(tf.constant(each), 64).numpy()
            assert np.abs(np.int32(served) - images.prepare_image(each, 64)).max() <= 1

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
    def test_transparent_images_get_a_white_background_as_in_training(self, mode):
        alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90)).astype("uint8"))
        image, options = photo(mode), {}
        if mode in ("RGBA", "LA"):
            image.putalpha(alpha)
        else:  # in a tRNS chunk: one color, or an alpha value for each color of the palette
            options["transparency"] = bytes(range(256)) if mode == "P" else image.getpixel((40, 30))
        content = as_file(image, "png", **options)
        served = preprocessing.decode_square(tf.constant(content), 64).numpy()
        assert np.abs(np.int32(served) - images.prepare_image(content, 64)).max() <= 1
        opaque = preprocessing.decode_square(tf.constant(as_file(photo("RGB"), "png")), 64).numpy()
        assert np.abs(np.int32(served) - opaque).max() > 1

    @pytest.mark.parametrize("largest", [255, 1000, 4095, 10_000, 65_535])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_16_bit_images_are_scaled_as_in_training(self, largest, channels, monkeypatch):
        monkeypatch.setattr(preprocessing, "_STRIP_PIXELS", 1000)  # 11 of 90 rows
        pixels = np.asarray(photo("RGBA")) / 255 * [largest, largest, largest, 65_535]
        pixels[:20, :, 3] = 9_999
        content = tf.io.encode_png(pixels[..., :channels].astype("uint16")).numpy()
        served = preprocessing.decode_square(tf.constant(content), 64).numpy()
        assert np.abs(np.int32(served) - images.prepare_image(content, 64)).max() <= 1
        assert served.max() > 140

    @pytest.mark.parametrize(
        "content, reason",
        [
            (b"hello", "not a JPEG, PNG or BMP"),
            (as_file(photo("P"), "gif"), "not a JPEG, PNG or BMP"),
            (as_file(photo("P"), "bmp"), "palette"),
            (flat_png(101, 100), "at most 10000 pixels"),
            (as_file(photo(size=(101, 100)), "jpeg"), "at most 10000 pixels"),
            (as_file(photo(size=(101, 100)), "bmp"), "at most 10000 pixels"),
            (top_down_bmp(101, 100), "at most 10000 pixels"),
        ],
    )
    def test_other_formats_and_larger_images_are_refused(self, content, reason):
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            preprocessing.decode_square(tf.constant(content), 64, max_pixels=10_000)


@pytest.mark.slow
class TestMemory:
    """In a process of its own: peak memory never falls."""

    SCRIPT = """
import resource, sys, tensorflow as tf
saved = tf.saved_model.load(sys.argv[1])
contents = [open(path, "rb").read() for path in sys.argv[2:]]
answer = lambda images: saved.signatures["serving_default"](images=tf.constant(images))["valid"].numpy().tolist()
answer([contents[0]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*answer(contents[1:]), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""

    def peak(self, export_dir, tmp_path, contents):
        paths = []
        for number, content in enumerate([flat_png(9, 9), *contents]):
            paths.append(tmp_path / str(number))
            paths[-1].write_bytes(content)
        command = [sys.executable, "-c", self.SCRIPT, export_dir / "1", *paths]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        *valid, megabytes = result.stdout.split()
        return valid, float(megabytes)

    def test_small_files_with_many_pixels_take_less_than_a_gigabyte(self, export_dir, tmp_path):
        progressive = as_file(Image.new("RGB", (7000, 7000)), "JPEG", progressive=True, subsampling=0)
        lines = [flat_png(3000, 1), flat_png(1, 3000), flat_png(49_000, 1000)]
        transparent = [flat_png(7000, 7000, 8, 6, 4), flat_png(7000, 7000, 16, 6, 8)]
        contents = [flat_png(7000, 7000), progressive, *lines, *transparent, progressive]
        valid, megabytes = self.peak(export_dir, tmp_path, contents)
        assert valid == ["True"] * len(contents)
        assert megabytes < 1000

    @pytest.mark.long
    def test_images_above_the_limit_take_no_memory(self, export_dir, tmp_path):
        contents = [flat_png(12_000, 12_000), as_file(Image.new("RGB", (12_000, 12_000)), "JPEG")]
        valid, megabytes = self.peak(export_dir, tmp_path, contents)
        assert valid == ["False", "False"]
        assert megabytes < 50
