"""TFRecords: building them from images, their statistics, and reading them."""
