from jaxmlp import Experiment, Network, Optimizer
def experiment() -> Experiment:
    return Experiment(network=Network((784,16,16,10)), optimizer=Optimizer(learning_rate=1.5))
