"""Ciresan's deep network: 784-2500-2000-1500-1000-500-10, scaled tanh, elastic and affine distortions. For a GPU.

    jaxmlp train experiments/ciresan_2010.py

Source: Ciresan, Meier, Gambardella, Schmidhuber, "Deep, big, simple neural nets for handwritten digit recognition"
(2010): 0.35 % of the test images wrong, after 114 hours on a GPU; example by example, weights from -0.05 to 0.05, and a
learning rate that falls from 0.001 to 0.000001. Here the cost is the cross-entropy, and the steps are of 128 examples.
Expected: not trained to its end, for want of a GPU: an epoch takes about 41 s on 2 CPU cores. The tests train it on
10,000 distorted images, after which it has more than 80 % right.
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
