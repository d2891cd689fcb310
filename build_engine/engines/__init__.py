"""Bundle to engine: the graph of one precision, compiled by TensorRT or TensorRT-RTX for one kind of GPU."""
