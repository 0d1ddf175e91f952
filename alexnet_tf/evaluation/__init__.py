"""Predictions and features of a data set, the metrics that are computed from them, and the report."""
