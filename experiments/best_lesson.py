"""The lesson's 784-16-16-10 at its best: its 13,002 parameters, and everything else as it helps most.

    jaxmlp train experiments/best_lesson.py

Source: 3Blue1Brown, "But what is a neural network?" (2017): 96 % of new images right, and "a couple of tweaks" to 98 %.
SiLU, softmax and cross-entropy, Adam under a cosine, and images that are shifted, turned, scaled and sheared a little,
anew in every step, so that a network so small goes on learning.
Expected: 97.34 % of the test images right, as the mean of seeds 0 to 2, in about 154 s on 2 CPU cores.
The settings were chosen on validation examples, of seeds that the figures above don't use.
"""

from jaxmlp import Distort, Experiment, Network, Optimizer, Schedule, Train


def experiment() -> Experiment:
    """13,002 parameters."""
    return Experiment(
        network=Network(sizes=(784, 16, 16, 10), activation="silu", output="softmax", loss="cross_entropy"),
        optimizer=Optimizer(name="adam", learning_rate=0.005),
        schedule=Schedule("cosine"),
        train=Train(epochs=400, batch_size=100),
        distort=Distort(shift=1.0, rotation=10.0, scaling=0.1, shear=0.1),
    )
