"""Predictions and features of a data set, the metrics computed from them, and the report."""
