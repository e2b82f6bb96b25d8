"""Everything that the faces show, taken at one moment."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from collector.continuity import NO_SERVICES, Continuity
from collector.coverage import Coverage
from collector.evaluate import Rules
from collector.health import AgentHealth
from collector.history import HistoryRow
from collector.ledger import Ledger
from collector.network import NOTHING_SEEN, NetworkFacts
from collector.past import DayCard
from collector.reasons import Reason
from collector.score import Scorecard
from collector.site_folder import SiteFolder


@dataclass(frozen=True)
class Commands:
    """How a reader asks for the same figures in a shell. program: what starts it; place: the words that name this data.

    register: where this site's asset register belongs.
    """

    program: str = "infravitals"
    place: str = ""
    register: Path = Path("site/register.yaml")

    def spell(self, command: str, *words: str) -> str:
        """A command on this data, ready to be copied."""
        return " ".join(word for word in (self.program, command, self.place, *words) if word)

    def spell_draft(self) -> str:
        """The command that writes a first register where it belongs."""
        return self.spell("register draft", "-o", shlex.quote(str(self.register)))


def program_word(started_as: str) -> str:
    """What starts the program in a shell: its name, or where it lies when no shell would find it, as in a venv."""
    name = "infravitals"
    path = Path(started_as).absolute()
    return shlex.quote(str(path)) if path.name == name and shutil.which(name) is None else name


@dataclass(frozen=True)
class Snapshot:
    """Everything that the faces show, taken at one moment.

    set_aside: by reason, what this collector ever refused. owners: asset -> the agent that first reported it. folder: what
    the site says of itself. coverage: what feeds what and what to enrol next. history: stored revisions, oldest first. ledger: what every agent made and what became of it. folder_trouble:
    the mistakes of the site folder while what it said before holds on, else empty. network: what the wire said last. continuity: services,
    outages, switchovers, pairs. past: of each day of a year the last stored scorecard, oldest first.
    clocks_off: agent -> by how many milliseconds its clock is behind (minus: ahead), of those that are off.
    store_trouble: why the store could not be read since, else empty.
    """

    taken_at: int
    zone: ZoneInfo
    rules: Rules
    scorecard: Scorecard
    agents: Sequence[AgentHealth]
    set_aside: Mapping[Reason, int]
    owners: Mapping[str, str]
    folder: SiteFolder
    coverage: Coverage
    history: Sequence[HistoryRow]
    commands: Commands
    ledger: Ledger
    folder_trouble: str = ""
    network: NetworkFacts = NOTHING_SEEN
    continuity: Continuity = NO_SERVICES
    past: Sequence[DayCard] = ()
    clocks_off: Mapping[str, int] = field(default_factory=dict)
    store_trouble: str = ""
