"""Private training, DP-SGD: 99-256-10, relu, softmax, of each image's 99 lowest frequencies, at epsilon 2, delta 1e-5.

    jaxmlp train experiments/dp_sgd.py

Source: Abadi et al., "Deep learning with differential privacy" (2016), section 5: 90, 95 and 97 % of the test images at
epsilon 0.5, 2 and 8, with 60 principal components for inputs, found privately.
Expected: 96.0 %, about 12 s in all on 2 cores; 92.6 % with --privacy.epsilon 0.5 --optimizer.learning-rate 1.5, 97.3 %
with --privacy.epsilon 8 --optimizer.learning-rate 6 (benchmarks/dp_sgd.py, means of 3 seeds).
The frequencies are a fixed transform of each image alone, which tells nothing of others (jaxmlp.data.frequencies).
"""

from jaxmlp import Data, Experiment, Network, Optimizer, Privacy, Train


def experiment() -> Experiment:
    """28,170 parameters."""
    return Experiment(
        network=Network(sizes=(99, 256, 10), activation="relu", output="softmax", loss="cross_entropy"),
        data=Data(source="dct:mnist", validation=0),
        optimizer=Optimizer(name="sgd", learning_rate=4.0),
        train=Train(epochs=40, batch_size=4096),
        privacy=Privacy(epsilon=2.0, delta=1e-5, clip=3.0),
    )
