"""Experiments, the compiled epoch, fitting, and the run folder."""
