"""The multi-task ranker: its examples, its training, its calibration and its measures."""
