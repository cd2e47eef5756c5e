"""LeCun's network of two hidden layers, 784-300-100-10.

    jaxmlp train experiments/lecun_300_100.py

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998), figure 9: 3.05
% of the test images wrong, on a squared error. Here the cost is the cross-entropy, and the learning rate falls to 0.
Expected: 2.10 % of the test images wrong, as the mean of seeds 0 to 4, in about 28 s on 2 CPU cores.
The learning rate was chosen on validation examples, of seeds that the figures above don't use.
"""

from jaxmlp import Experiment, Network, Optimizer, Schedule, Train


def experiment() -> Experiment:
    """266,610 parameters."""
    return Experiment(
        network=Network(sizes=(784, 300, 100, 10), activation="scaled_tanh", output="softmax", loss="cross_entropy"),
        optimizer=Optimizer(name="sgd", learning_rate=0.05, parameters=(("momentum", 0.9),)),
        schedule=Schedule("cosine"),
        train=Train(epochs=30, batch_size=128),
    )
