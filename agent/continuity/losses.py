"""What a switch cost: tokens that were acknowledged and are not there afterwards."""

from collections.abc import Collection, Iterable

import msgspec

from agent.continuity.tokens import Token


class Loss(msgspec.Struct, frozen=True):
    """lost: the numbers of acknowledged tokens that are missing. span_seconds: from the last token that survived before
    the first lost one to the last acknowledgement that was lost; what a hospital calls RPO. 0 when nothing is lost.
    """

    lost: tuple[int, ...]
    span_seconds: float


def measure_loss(tokens: Iterable[Token], present: Collection[int]) -> Loss:
    """The loss among `tokens`, given which numbers were read back; tokens that were never acknowledged lose nothing."""
    acknowledged = sorted((token for token in tokens if token.is_good), key=lambda token: token.number)
    lost = [token for token in acknowledged if token.number not in present]
    if not lost:
        return Loss((), 0.0)
    before = [token for token in acknowledged if token.number < lost[0].number]
    # with nothing before it that survived, the loss is at least as long as the lost tokens themselves
    since = before[-1].settled_at if before else lost[0].sent_at
    until = max(token.settled_at for token in lost)
    return Loss(tuple(token.number for token in lost), max(0.0, until - since))
