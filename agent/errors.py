"""Our own errors; whoever catches one knows what kind of trouble it is.

    InfravitalsError            a sentence for a person: where, what was found, what to do
    +-- FileMistakes            a person's file is wrong: refuse to start, show all mistakes
    +-- WrongCall               the command line names what is not there: exit code 2
    +-- SourceError             the world is in trouble at one source: expected, go on
    |   +-- NoData              this machine has nothing of the kind: no trouble at all
    |   |   +-- Off               a probe outside of its hours: nobody looked, as it was told
    |   +-- Incomplete          a round that failed after it had seen something (agent.sources)
    |   +-- OwnMistake          what a probe asks with is wrong: of what it asks nobody knows anything
    |   |   +-- NotAsked          and so wrong that nobody was asked
    |   +-- NoAnswer, Refused, EndlessWalk, AgentTrouble    an SNMP agent (agent.snmp.troubles)
    +-- LinkError               the broker or the other side is away: expected, go on
    |   +-- UnfitSecret         what stands in a secret's place is none: refuse to start, exit code 2
    |   +-- MissingSecret       what names a secret leads nowhere: it may be mounted yet, go on and say so again and again
    |   +-- LoginRefused        the broker does not know this user, password or certificate
    |   +-- NameTaken           somebody else is connected under our name: go on, but rarely
    |   +-- NotAllowed          the broker's access control forbids a publish or a subscription
    +-- SpoolError              the agent's own disk cannot keep a batch
    +-- StoreError              the database is away or refuses: expected, go on
        +-- PointsRefused       it takes others and will never take these: trying again is of no use

Anything else that is raised is our own bug.
"""


class InfravitalsError(Exception):
    """A trouble that is explained in one sentence; `str(error)` is what a person reads."""


class WrongCall(InfravitalsError):
    """What the command line names is not there, or cannot be what it is meant for."""


class SourceError(InfravitalsError):
    """A source could not gather; the runner counts it, logs it once and goes on."""


class NoData(SourceError):
    """There is nothing of this kind on this machine; not a failure and not a value."""


class Off(NoData):
    """A probe that keeps still outside of its hours; its rounds say so and are expected to give nothing."""


class OwnMistake(SourceError):
    """What we ask with is of no use, such as our password, a file or a right: that says nothing of whom we ask."""


class NotAsked(OwnMistake):
    """Nobody was asked, as with a file that cannot be read: whether anybody is there is not known either."""


class LinkError(InfravitalsError):
    """The link is down or refuses; what the spool holds stays in the spool."""


class UnfitSecret(LinkError):
    """A password or token is empty, out of an example, or of several lines."""


class MissingSecret(LinkError):
    """The file, variable or credential of a secret is not there or cannot be read."""


class LoginRefused(LinkError):
    """The broker answered the login with 0x86 or 0x87: MQTT 5's bad user name or password, and mosquitto's word for it."""


class NameTaken(LinkError):
    """Another agent with our name took our place at the broker; dialling at once would only take it back."""


class NotAllowed(LinkError):
    """The broker answered that this user may not do this: MQTT 5, reason code 0x87."""


class SpoolError(InfravitalsError):
    """The spool cannot write: a full disk, a directory without permission, a damaged file."""


class StoreError(InfravitalsError):
    """The store is away, busy, full or refuses; nothing was acknowledged."""


class PointsRefused(StoreError):
    """The store took the other points of a write and will never take these; their batches have no row yet."""
