"""The signatures of a SavedModel."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from made_photos import encoded as as_file
from made_photos import exif, photo
from PIL import Image

from alexnet_tf.evaluation import features
from alexnet_tf.networks import structure
from alexnet_tf.serving import preprocessing, signatures
from alexnet_tf.tfrecords import crops, dataset_builder, images, reader, schema


def predictions(saved, signature, contents):
    outputs = saved.signatures[signature](images=tf.constant(contents, tf.string))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def test_images_above_the_limit_of_pixels_are_not_valid(untrained):
    classify = signatures.make_signatures(*untrained, max_pixels=1200)["serving_default"]
    files = [as_file(photo(*size), "PNG") for size in ((40, 30), (30, 40), (41, 30), (30, 41))]
    assert classify(tf.constant(files))["valid"].numpy().tolist() == [True, True, False, False]


def test_predictions_equal_the_models(saved, untrained, encoded):
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


def test_ten_views_and_features_equal_those_of_evaluation(saved, untrained, tmp_path):
    # The images are PNG in the data set and have 64 pixels: the server decodes the pixels that evaluation reads.
    model, _ = untrained
    for number, name in enumerate(("train/a/0", "train/b/0", "validation/a/0", "validation/a/1", "validation/b/0")):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(64, 64).rotate(90 * number).save(path)
    source, data_dir = f"folder:{tmp_path / 'images'}", tmp_path / "data"
    dataset_builder.build_dataset(
        source, data_dir, image_px=64, encoding="png", num_train_shards=1, num_validation_shards=1, num_processes=1
    )
    description = schema.load_description(data_dir)
    ((views, _),) = reader.make_evaluation_dataset(data_dir, 10, 56, views=10)
    of_views = model.predict(tf.reshape(views, (-1, 56, 56, 3)), verbose=0).reshape(3, 10, -1).mean(axis=1)
    order = np.argsort(-of_views, axis=1)[:, :5]
    records = tf.data.TFRecordDataset(str(data_dir / description.splits["validation"].shards[0].name))
    parsed = [tf.train.Example.FromString(record.numpy()) for record in records]
    contents = [example.features.feature[schema.ENCODED].bytes_list.value[0] for example in parsed]
    served = predictions(saved, "ten_view", contents)
    np.testing.assert_array_equal(served["class_ids"], order)
    np.testing.assert_allclose(served["probabilities"], np.take_along_axis(of_views, order, 1), rtol=1e-5)
    expected = features.extract(model, ["relu7"], data_dir, description, "validation", 10)[0].vectors
    np.testing.assert_allclose(predictions(saved, "features", contents)["features"], expected, rtol=1e-5, atol=1e-6)


def test_ten_views_run_32_crops_at_a_time(monkeypatch):
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


def test_rotated_photograph_gives_the_upright_ones_prediction(saved):
    upright = photo(64, 64)
    turned = as_file(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif(6))
    served = predictions(
        saved, "serving_default", [as_file(upright, "PNG"), turned, as_file(upright.rotate(90), "PNG")]
    )
    np.testing.assert_array_equal(served["probabilities"][0], served["probabilities"][1])
    assert (served["probabilities"][0] != served["probabilities"][2]).any()


def test_classify_equals_serving_default(saved, encoded):
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
def test_bad_image_affects_only_its_own_row(signature, saved, encoded):
    jpeg = as_file(photo(), "JPEG")
    bad = [b"", b"\xff", b"hello", jpeg[:300], jpeg[:3], encoded[0][:40], b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"]
    mixed = [part for pair in zip(bad, [*encoded, *encoded], strict=False) for part in pair]
    assert not predictions(saved, signature, bad[:2])["valid"].any()
    alone = predictions(saved, signature, mixed[1::2])
    served = predictions(saved, signature, mixed)
    assert served["valid"].tolist() == [False, True] * len(bad)
    for name, rows in served.items():
        if rows.dtype.kind == "f":
            np.testing.assert_allclose(rows[1::2], alone[name], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(rows[1::2], alone[name])
    for name, value in {"class_names": b"", "class_ids": -1, "probabilities": 0, "features": 0}.items():
        assert name not in served or (served[name][0::2] == value).all()


@pytest.mark.parametrize("signature", ["serving_default", "ten_view", "features", "classify", "predict"])
def test_empty_batch_has_empty_outputs(signature, saved):
    (spec,) = saved.signatures[signature].structured_input_signature[1].values()
    empty = tf.zeros((0, *spec.shape[1:]), spec.dtype)
    outputs = saved.signatures[signature](**{spec.name: empty})
    assert outputs
    assert all(len(tensor) == 0 for tensor in outputs.values())


def test_network_of_warped_images_warps_them(untrained):
    model, description = untrained
    warped = dataclasses.replace(description, settings=description.settings | {"resize": "warp"})
    made = signatures.make_signatures(model, warped)
    served = made["serving_default"](tf.constant([as_file(photo(90, 200), "PNG")]))
    square = images.prepare_image(as_file(photo(90, 200), "PNG"), 64, resize="warp")
    expected = np.sort(model.predict_on_batch(crops.center_crop(square[None], 56))[0])[::-1][:5]
    np.testing.assert_allclose(served["probabilities"][0], expected, atol=0.02)  # pixels may differ by 1


def mutate(content, random):
    """Flips a bit, cuts, removes, inserts or repeats bytes, or writes extreme sizes into the header."""
    content = bytearray(content)
    for _ in range(random.integers(1, 4)):
        place, length = int(random.integers(len(content) + 1)), int(random.integers(1, 60))
        match random.integers(6):
            case 0:
                content[place : place + 1] = bytes(
                    byte ^ 1 << random.integers(8) for byte in content[place : place + 1]
                )
            case 1:
                del content[place:]
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = random.bytes(length)
            case 4:
                content[place:place] = content[place : place + length]
            case 5:
                place %= 64  # sizes are there
                content[place : place + 4] = bytes(random.choice([0, 1, 127, 128, 255], 4).tolist())
    return bytes(content)


@pytest.mark.slow
def test_no_mutated_image_crashes_or_changes_another_row(saved):
    kinds = [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("BMP", "RGB")]
    good = [as_file(photo(61, 47, mode), kind) for kind, mode in kinds]
    good.append(as_file(photo(61, 47), "JPEG", progressive=True))
    originals = [*good, as_file(photo(61, 47, "L"), "GIF"), as_file(photo(61, 47), "WEBP")]
    alone, random, readable = predictions(saved, "serving_default", good), np.random.default_rng(0), 0
    assert alone["valid"].all()
    for _ in range(125):  # 16 mutated images among six good ones
        mutated = [mutate(originals[random.integers(8)], random) for _ in range(16)]
        order = random.permutation(22)
        outputs = predictions(saved, "serving_default", np.array([*good, *mutated], object)[order])
        outputs = {name: rows[np.argsort(order)] for name, rows in outputs.items()}
        np.testing.assert_allclose(outputs["probabilities"][:6], alone["probabilities"], atol=1e-5)
        np.testing.assert_array_equal(outputs["class_names"][:6], alone["class_names"])
        valid, probabilities = outputs["valid"][6:], outputs["probabilities"][6:]
        assert outputs["valid"][:6].all() and np.isfinite(probabilities).all()
        assert ((probabilities.sum(axis=1) > 0) == valid).all()
        assert ((outputs["class_ids"][6:] >= 0).all(axis=1) == valid).all()
        readable += valid.sum()
    assert 100 < readable < 1900  # some are still images, many are not
