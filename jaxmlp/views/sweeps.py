"""A sweep's progress: a line a run."""

import re

from jaxmlp.training.sweeps import Swept
from jaxmlp.views.progress import duration
from jaxmlp.views.runs import score


def describe_swept(swept: Swept, count: int) -> str:
    """How a run of `count` ended. Of one that diverged, the batch's examples are left out: its folder names them.

    >>> describe_swept(Swept(3, "seed=2", None, "training diverged in epoch 1", 4.2), 12)
    ' 3/12  seed=2  training diverged in epoch 1  4 s'
    """
    found = re.sub(r"; its batch has the training examples [^;]*", "", swept.failure)
    if swept.run is not None and swept.run.result is not None:
        result = swept.run.result
        found = f"test {score(result.test_accuracy, result.test_loss)}"
        if result.validation_loss is not None:
            found = f"validation {score(result.validation_accuracy, result.validation_loss)}  {found}"
    took = "had ended before" if swept.seconds is None else duration(swept.seconds)
    return f"{swept.number:{len(str(count))}}/{count}  {swept.name}  {found}  {took}"
