"""Fine-tuning on VOC folders: what `fcn-build train` runs."""
