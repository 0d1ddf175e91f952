"""Weights from elsewhere: files of other programs, and copying weights between networks."""
