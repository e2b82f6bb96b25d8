"""What goes wrong between us and a database, a sentence each, for all doors: what was wrong, and what to do."""

from agent.databases import Account
from agent.errors import NotAsked, OwnMistake, SourceError
from agent.language import say


def missing_client(database: str, extra: str) -> NotAsked:
    """For a door whose library is not installed."""
    return NotAsked(
        say(f"缺少 {database} 客户端，请安装附加包 {extra}", f"the {database} client is missing: the extra `{extra}`")
    )


def trouble(text: str, *, is_own: bool) -> SourceError:
    """The error of a door. is_own: whether our account, right or table is wrong, which says nothing of the service."""
    return OwnMistake(text) if is_own else SourceError(text)


def explain_certificate(host: str, why: str, account: Account) -> str:
    """A sentence for a server that could not prove who it is; why: in the library's words, which tell the name from the signer."""
    if any(words in why.lower() for words in ("match", "not valid for", "hostname")):
        return say(
            f"服务器证书(由 {account.ca} 核对)不是签给 {host} 的：{why}；请按此地址重新签发，或在 {account.key} 中改用证书上的名称",
            f"the server's certificate, checked with {account.ca}, is not for {host}: {why}; issue one for that address, or use "
            f"the name that it holds in {account.key}",
        )
    return say(
        f"服务器证书不是由 {account.ca} 中的 CA 签发的：{why}；请把签发它的 CA 放进该文件({account.key}.ca)",
        f"the server's certificate is not signed by the CA in {account.ca}: {why}; put the CA that signed it into that file "
        f"({account.key}.ca)",
    )


def explain_plain(account: Account) -> str:
    """A sentence for a server that offers no TLS where the configuration asks for it."""
    return say(
        f"服务器没有启用 TLS，而 {account.key} 要求 TLS({account.wire})；请在服务器上启用，或写 tls: off",
        f"the server offers no TLS and {account.key} asks for it ({account.wire}); switch it on there, or set tls: off",
    )


def explain_unreachable(why: str) -> str:
    """A sentence for a server that no session could be opened at, or whose session broke; why: in the library's words."""
    return say(
        f"连不上或连接中断({why})，请核对地址、端口、账号，以及数据库是否在运行",
        f"cannot be reached, or the connection broke ({why}); check the address, the port, the user, and that the database runs",
    )


def explain_right(account: Account, why: str, source: str = "") -> str:
    """A sentence for a right that is missing; source: whose sample says it, where it is one's alone."""
    sample = f"infravitals-agent sample {source}".rstrip()
    return say(
        f"账号 {account.user} 缺少权限：{why}；所需的 GRANT 见 {sample}",
        f"user {account.user} lacks a right: {why}; `{sample}` prints the GRANT",
    )


def explain_no_table(why: str) -> str:
    """A sentence for the table of tokens that nobody made."""
    return say(
        f"没有这张表：{why}；建表语句见 infravitals-agent sample continuity_probe",
        f"{why}; `infravitals-agent sample continuity_probe` prints the CREATE TABLE",
    )
