from dataclasses import replace

import numpy as np

import jaxmlp
from jaxmlp import Data, Dataset, Experiment, Network, Train
from jaxmlp.training.sweeps import Swept
from jaxmlp.views.sweeps import describe_swept


def test_a_runs_line_has_its_scores(digits: Dataset) -> None:
    experiment = Experiment(Network((20, 8, 3)), data=Data(validation=40), train=Train(epochs=1, batch_size=16))
    run = jaxmlp.fit(experiment, digits)
    line = describe_swept(Swept(2, "seed=1", run, "", 61.0), 3)
    scores = [f"{100 * score:.2f} %" for score in (run.result.validation_accuracy, run.result.test_accuracy)]
    assert line == f"2/3  seed=1  validation {scores[0]}  test {scores[1]}  1:01"
    assert describe_swept(Swept(2, "seed=1", run, "", None), 3).endswith(f"  test {scores[1]}  had ended before")


def test_a_diverged_runs_line_leaves_the_examples_to_its_folder() -> None:
    failure = (
        "training diverged in epoch 1, at step 2 of 3: the losses are not finite; its batch has the training examples "
        "3 1 and 2 more; a smaller optimizer.learning_rate than 9 may help"
    )
    assert describe_swept(Swept(1, "seed=0", None, failure, 2.0), 3) == (
        "1/3  seed=0  training diverged in epoch 1, at step 2 of 3: the losses are not finite; a smaller "
        "optimizer.learning_rate than 9 may help  2 s"
    )


def test_a_regressions_line_has_its_losses_and_without_validation_none() -> None:
    x = np.arange(12.0, dtype=np.float32)[:, None]
    network = Network((1, 1), output="identity")
    run = jaxmlp.fit(
        Experiment(
            network, data=Data(validation=0), train=Train(epochs=1), optimizer=jaxmlp.Optimizer(learning_rate=0.001)
        ),
        jaxmlp.Dataset.from_arrays(x, x, x, x),
    )
    run = replace(run, result=replace(run.result, test_loss=0.25))
    assert describe_swept(Swept(1, "run", run, "", 1.0), 1) == "1/1  run  test loss 0.25  1 s"
