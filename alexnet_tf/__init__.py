"""AlexNet for TensorFlow and Keras."""
