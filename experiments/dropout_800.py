"""Hinton's dropout network: two hidden layers of 800 units, the norm of each unit's weights bounded.

    jaxmlp train experiments/dropout_800.py

Source: Hinton, Srivastava, Krizhevsky, Sutskever, Salakhutdinov, "Improving neural networks by preventing co-adaptation
of feature detectors" (2012), section "MNIST": about 1.3 % of the test images wrong (130 errors) with half of the hidden
units left out, and about 1.1 % (110) with a fifth of the inputs left out too. Units are rectified linear here.
Expected: 1.26 % of the test images wrong, with seed 0, in 327 s on 2 CPU cores.
Nothing was chosen for this network: the settings are those that dropout_1024.py had before its own were.
"""

from jaxmlp import Experiment, Network, Optimizer, Schedule, Train


def experiment() -> Experiment:
    """1,276,810 parameters."""
    return Experiment(
        network=Network(
            sizes=(784, 800, 800, 10),
            activation="relu",
            output="softmax",
            loss="cross_entropy",
            dropout=0.5,
            input_dropout=0.2,
        ),
        optimizer=Optimizer(name="sgd", learning_rate=0.1, parameters=(("momentum", 0.9),), max_norm=2.0),
        schedule=Schedule("cosine"),
        train=Train(epochs=100, batch_size=128),
    )
