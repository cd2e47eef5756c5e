"""What people look at: the progress of a run and its tables."""
