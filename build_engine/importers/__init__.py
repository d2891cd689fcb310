"""Models of other programs, read from their own files: MatConvNet, Caffe, Keras, ONNX."""
