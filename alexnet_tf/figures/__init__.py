"""Pictures of a network, of its training and of its predictions."""
