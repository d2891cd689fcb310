"""The GPU path: a frame goes to the GPU once, a mask comes back once, and everything between runs on one stream."""
