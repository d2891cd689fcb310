"""What a network should take on a board that is not here: devices, layers of a graph, a roofline, published figures."""
