"""Keras FCN to bundle: export, fuse, verify, write; and train, inspect, examine."""
