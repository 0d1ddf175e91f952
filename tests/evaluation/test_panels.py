"""The panels of figure 4."""

import numpy as np

from alexnet_tf.evaluation import features, panels
from alexnet_tf.tfrecords import crops, reader, schema


class TestDrawPredictions:
    def test_images_titles_and_predictions(self, untrained, data_dir, monkeypatch):
        model, _ = untrained
        description = schema.load_description(data_dir)
        drawn = {}
        monkeypatch.setattr(panels.image_grids, "prediction_panel", lambda *args: drawn.update(args=args))
        panels.draw_predictions(model, data_dir, description, count=3)
        images, predicted, titles = drawn["args"]
        labels = reader.read_labels(data_dir, description, "validation")[[0, 500, 999]]  # 499.5 rounds to even
        assert titles == [description.class_names[label] for label in labels]
        np.testing.assert_array_equal(images, reader.read_images(data_dir, description, "validation", [0, 500, 999]))
        expected = model.predict(crops.center_crop(images, 56), verbose=0)
        for (names, probabilities), row in zip(predicted, expected, strict=True):
            order = np.argsort(-row)[:5]
            assert list(names) == [description.class_names[label] for label in order]
            np.testing.assert_array_equal(probabilities, row[order])


class TestDrawNeighbors:
    def test_queries_of_several_classes_with_their_neighbors(self, tiny_data_dir, monkeypatch):
        description = schema.load_description(tiny_data_dir)
        sets = {}
        for split in ("train", "validation"):
            labels = reader.read_labels(tiny_data_dir, description, split)
            sets[split] = features.Features(
                "relu7", description.class_names, split, "", labels, np.zeros((0, 1)), labels
            )
        indices = np.arange(30).reshape(10, 3)
        drawn = []
        monkeypatch.setattr(panels.image_grids, "image_rows", lambda rows: drawn.extend(rows))
        panels.draw_neighbors(sets["validation"], sets["train"], indices, tiny_data_dir, description, num_queries=2)
        assert {row[0][1] for row in drawn} == {"even", "odd"}
        first = np.sort(np.unique(sets["validation"].labels, return_index=True)[1])
        for row, query in zip(drawn, first, strict=True):
            numbers = [int(image[0, 0, 2]) for image, _ in row]  # a tiny image's blue is its number
            assert numbers[0] >= 100 and max(numbers[1:]) < 46
            for number, (_, name) in zip(numbers, row, strict=True):
                assert name == ("odd" if number % 2 else "even")
            found = reader.read_images(tiny_data_dir, description, "train", indices[query])
            assert numbers[1:] == found[:, 0, 0, 2].tolist()

    def test_neighbors_of_figure_4_are_the_nearest_by_euclidean_distance(self, untrained, monkeypatch):
        model, description = untrained
        vectors = {"train": np.float32([[i, 0] for i in range(8, 0, -1)]), "validation": np.float32([[0, 2]])}

        def extract(model, layers, data_dir, description, split, batch_size):
            assert layers == ["relu7"]
            count = len(vectors[split])
            return [features.Features("relu7", (), split, "", np.zeros(count, int), vectors[split], np.zeros(count))]

        drawn = []
        monkeypatch.setattr(panels.features, "extract", extract)
        monkeypatch.setattr(
            panels,
            "draw_neighbors",
            lambda queries, searched, indices, *_, **__: drawn.append(
                (queries.split, searched.split, indices.tolist())
            ),
        )
        panels.draw_nearest_training_images(model, "data", description)
        assert drawn == [("validation", "train", [[7, 6, 5, 4, 3, 2]])]  # by cosine all are equally far

    def test_neighbors_of_files_are_those_of_the_drawn_queries(self, monkeypatch):
        monkeypatch.setattr(panels, "_named_images", lambda shown, indices, *_: indices.tolist())
        monkeypatch.setattr(panels.image_grids, "image_rows", lambda rows: rows)
        none = np.zeros(0, int)
        files = features.Features("relu7", (), "", "", none, np.zeros((5, 1)), np.array(list("abcde")))
        indices = np.arange(15).reshape(5, 3)
        rows = panels.draw_neighbors(files, files, indices, None, None, num_queries=2)
        assert rows == [[0, 0, 1, 2], [4, 12, 13, 14]]
