"""Data sets as arrays: bundled MNIST, folders of IDX files, NPZ files, TensorFlow Datasets."""
