"""LeCun's network of two hidden layers, 784-500-150-10.

    jaxmlp train experiments/lecun_500_150.py

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998),
figure 9: 2.95 % of the test images wrong, on a squared error. Here the cost is the
cross-entropy, and the learning rate falls to 0.
Expected: 2.04 % of the test images wrong, as the mean of seeds 0 to 2, in about 34 s on 2 CPU cores.
The learning rate was chosen on validation examples, of seeds that the figures above don't use.
"""

from jaxmlp import Experiment, Network, Optimizer, Schedule, Train


def experiment() -> Experiment:
    """469,160 parameters."""
    return Experiment(
        network=Network(sizes=(784, 500, 150, 10), activation="scaled_tanh", output="softmax", loss="cross_entropy"),
        optimizer=Optimizer(name="sgd", learning_rate=0.05, parameters=(("momentum", 0.9),)),
        schedule=Schedule("cosine"),
        train=Train(epochs=30, batch_size=128),
    )
