"""Ciresan's deep network: 784-2500-2000-1500-1000-500-10, scaled tanh, elastic and affine distortions. For a GPU.

    jaxmlp train experiments/ciresan_2010.py

Source: Ciresan, Meier, Gambardella, Schmidhuber, "Deep, big, simple neural nets for handwritten digit recognition" (2010):
0.35 % of the test images wrong, after 114 hours on a GPU; step by step, weights from -0.05 to 0.05, a learning rate from
0.001 down to 0.000001 times 0.997 an epoch. Their squared error and batches of one are a cross-entropy and batches of 128
here.
Expected: not trained to its end here, for want of a GPU; an epoch takes about 120 s on 2 CPU cores, and 1 % of it is tested.
"""

from jaxmlp import Distort, Experiment, Network, Optimizer, Schedule, Train


def experiment() -> Experiment:
    """11,972,510 parameters."""
    return Experiment(
        network=Network(
            sizes=(784, 2500, 2000, 1500, 1000, 500, 10),
            activation="scaled_tanh",
            output="softmax",
            loss="cross_entropy",
            initializer="uniform:0.05",
        ),
        optimizer=Optimizer(name="sgd", learning_rate=0.05, parameters=(("momentum", 0.9),)),
        schedule=Schedule("exponential", factor=0.997),
        train=Train(epochs=800, batch_size=128),
        distort=Distort(rotation=15.0, scaling=0.15, alpha=36.0, sigma=5.5),
    )
