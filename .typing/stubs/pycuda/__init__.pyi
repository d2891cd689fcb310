# A source package that needs CUDA's headers: the names below exist, what they are is Any.
