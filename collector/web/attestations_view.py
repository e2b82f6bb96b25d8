"""Everything that people vouch for: what is due first, what nobody has vouched for last."""

from agent.language import say
from collector.snapshot import Snapshot
from collector.web.view import View
from collector.web.vouching import count_states, list_vouching, vouching_row


def attestations_view(snapshot: Snapshot) -> View:
    """Those of the two indicators, and apart from them those of the rest of the index."""
    found = list_vouching(snapshot)
    near, city = [one for one in found if one.is_near], [one for one in found if not one.is_near]
    words = say(
        "准则 --value 数值 --reason 理由 --author 姓名 --role 职务 --document 文件 --expires 日期",
        "CRITERION --value VALUE --reason REASON --author NAME --role ROLE --document FILE --expires DATE",
    )
    return View(
        "attestations.html",
        {
            "near": [vouching_row(snapshot, one) for one in near],
            "near_counts": count_states(near),
            "city": [vouching_row(snapshot, one) for one in city],
            "city_counts": count_states(city),
            "zone": snapshot.zone.key,
            "add": snapshot.commands.spell("attest add", words),
            "list": snapshot.commands.spell("attest list"),
        },
    )
