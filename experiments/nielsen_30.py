"""Nielsen's first network: 784-30-10, sigmoid, squared error, batches of 10, 30 epochs.

    jaxmlp train experiments/nielsen_30.py

Source: Michael Nielsen, "Neural Networks and Deep Learning" (2015), chapter 1, where it reaches 95.42 % at its best
epoch on the test images. His learning rate of 3.0 belongs to a cost with a factor 1/2 and to wider initial weights.
Expected: 96.2 % of the test images, as the mean of seeds 0 to 4, in about 6 s on 2 CPU cores.
The learning rate was chosen on validation examples, of seeds that the figures above don't use.
"""

from jaxmlp import Experiment, Network, Optimizer, Train


def experiment() -> Experiment:
    """23,860 parameters."""
    return Experiment(
        network=Network(sizes=(784, 30, 10), activation="sigmoid", output="sigmoid", loss="squared_error"),
        optimizer=Optimizer(name="sgd", learning_rate=0.5),
        train=Train(epochs=30, batch_size=10),
    )
