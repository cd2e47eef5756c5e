"""LeCun's network of 300 hidden units: 784-300-10.

    jaxmlp train experiments/lecun_300.py

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998), figure 9: 4.7
% of the test images wrong, on a squared error. Here the cost is the cross-entropy, and the learning rate falls to 0.
Expected: 2.06 % of the test images wrong, as the mean of seeds 0 to 4, in about 26 s on 2 CPU cores.
The learning rate was chosen on validation examples, of seeds that the figures above don't use.
"""

from jaxmlp import Experiment, Network, Optimizer, Schedule, Train


def experiment() -> Experiment:
    """238,510 parameters."""
    return Experiment(
        network=Network(sizes=(784, 300, 10), activation="scaled_tanh", output="softmax", loss="cross_entropy"),
        optimizer=Optimizer(name="sgd", learning_rate=0.1, parameters=(("momentum", 0.9),)),
        schedule=Schedule("cosine"),
        train=Train(epochs=30, batch_size=128),
    )
