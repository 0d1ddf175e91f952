"""The networks: rows of a table, and the Keras layers that they become."""
