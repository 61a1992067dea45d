"""Early stopping: ends a run that has stopped improving."""


def patience_exhausted(epoch: int, best_epoch: int, patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; never if `patience` is 0."""
    return patience > 0 and epoch - best_epoch >= patience
