"""Early stopping: an end to a run that has ceased to improve."""


def patience_exhausted(epoch: int, best_epoch: int, patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; patience 0: never."""
    return patience > 0 and epoch - best_epoch >= patience
