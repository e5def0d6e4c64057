"""Several processes played in one."""


def compute_together(*metrics):
    """What each metric computes as one process of several; like gloo, of tensors of one type and number of axes only.

    A process that saw nothing takes part, with what torchmetrics makes up for it.
    """
    sent = []
    for metric in metrics:
        own = []
        metric.sync(dist_sync_fn=lambda tensor, group, own=own: [own.append(tensor), tensor][1:], **EVERYWHERE)
        metric.unsync()
        sent.append(own)
    gathered = list(zip(*sent, strict=True))
    for tensors in gathered:
        assert len({(tensor.dtype, tensor.dim()) for tensor in tensors}) == 1, "gloo would write past a buffer"
    values = []
    for metric in metrics:
        turns = iter(gathered)
        metric.dist_sync_fn = lambda tensor, group, turns=turns: list(next(turns))
        metric.distributed_available_fn = EVERYWHERE["distributed_available"]
        values.append(metric.compute().item())
    return values


EVERYWHERE = {"distributed_available": lambda: True}
