"""What went wrong at a broker, in plain words: MQTT 5 reason codes, TLS and socket errors."""

import socket
import ssl

from agent.foreign_words import explain_system
from agent.language import say

BAD_LOGIN = 0x86
NOT_AUTHORIZED = 0x87
UNSPECIFIED = 0x80
NO_ANSWER = 0x8D
TAKEN_OVER = 0x8E

# OpenSSL's X509_V_ERR_* numbers
_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64


def explain_login(code: int, user: str | None) -> str:
    """Why a broker refused the login (MQTT 5, table 3-1). mosquitto answers 0x87 to a wrong password too."""
    who = user or say("匿名", "nobody, no user is configured")
    if code in (BAD_LOGIN, NOT_AUTHORIZED):
        return say(
            f"登录被拒绝(用户 {who})，请检查用户名、密码或客户端证书",
            f"the login was refused (user {who}); check user name, password or client certificate",
        )
    if code == UNSPECIFIED:
        return say(
            "登录前连接被对方关闭；可能要求 TLS 或客户端证书，或该端口不是 MQTT",
            "it closed the connection before the login; it may want TLS or a client certificate, or not speak MQTT here",
        )
    return explain_code(code)


def explain_code(code: int) -> str:
    """The meaning of a reason code in CONNACK, PUBACK, SUBACK or DISCONNECT."""
    meanings = {
        UNSPECIFIED: say("连接断开", "the connection broke"),
        0x84: say(
            "对方不支持 MQTT 5，请使用 mosquitto 1.6 以上", "it does not speak MQTT 5; mosquitto does from 1.6 on"
        ),
        0x85: say("客户端标识被拒绝", "the client identifier was refused"),
        NOT_AUTHORIZED: say("没有权限，请检查其访问控制表", "not authorized; check its access control list"),
        0x88: say("服务不可用", "it is not available"),
        0x89: say("服务繁忙", "it is busy"),
        0x8A: say("本客户端被封禁", "this client is banned"),
        0x8B: say("对方正在关闭", "it is shutting down"),
        NO_ANSWER: say("对方长时间没有应答", "it did not answer for too long"),
        TAKEN_OVER: say(
            "有人以同一名称登录，顶替了本端：诊断命令，或同名的采集代理",
            "somebody logged in under this name and took its place: a doctor, or another agent of the same name",
        ),
        0x93: say("未确认的消息超过对方上限", "more unacknowledged messages than it allows"),
        0x95: say(
            "消息超过对方上限，请调大其 max_packet_size",
            "a message is larger than it allows; raise its max_packet_size",
        ),
        0x97: say("超出对方配额", "its quota is exceeded"),
        0x9E: say("对方不支持共享订阅", "it does not support shared subscriptions"),
    }
    return meanings.get(code) or say(f"对方返回代码 {code:#04x}", f"it answered with code {code:#04x}")


def explain_double() -> str:
    """Another agent has our name: it was not only a doctor."""
    return say(
        "另有同名的采集代理连接，顶替了本端；请给每个采集代理各起一个名称(配置中的 agent)",
        "another agent with the same name is connected; give each agent its own name (`agent` in its configuration)",
    )


def explain_size(size_bytes: int, most_bytes: int, where: str) -> str:
    """Why a message is not even sent."""
    return say(
        f"消息有 {size_bytes} 字节，超过 MQTT 服务器 {where} 的上限({most_bytes})；请调大其 max_packet_size",
        f"a message of {size_bytes} bytes is more than the MQTT broker {where} takes ({most_bytes}); "
        "raise its max_packet_size",
    )


def explain_dialling(cause: BaseException | None, host: str, is_tls: bool) -> str:
    """Why no connection came about, from the error of the socket or of TLS."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _explain_certificate(cause, host)
    if isinstance(cause, ssl.SSLError):
        return say(
            f"TLS 握手失败({cause.reason})，该端口是否提供 TLS?",
            f"the TLS handshake failed ({cause.reason}); does this port speak TLS?",
        )
    if isinstance(cause, ConnectionRefusedError):
        return say("连接被拒绝，服务未启动或端口不对", "connection refused; it is not running or the port is another")
    if isinstance(cause, socket.gaierror):
        return say(f"无法解析主机名 {host}", f"the host name {host} is unknown")
    if isinstance(cause, TimeoutError):
        return say("连接超时，没有应答", "no answer in time")
    text = explain_system(cause) if isinstance(cause, OSError) else str(cause)
    hint = say("，该端口是否提供 TLS?", "; does this port speak TLS?") if is_tls else ""
    return say(f"连接失败({text}){hint}", f"the connection failed ({text}){hint}")


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    match error.verify_code:
        case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
            return say(
                f"服务器证书与名称 {host} 不符，请用证书中的名称连接或重新签发",
                f"its certificate is not for {host}; connect by a name in the certificate or issue it anew",
            )
        case code if code in (_EXPIRED, _NOT_YET_VALID):
            return say(
                "服务器证书不在有效期内，请检查证书与本机时钟",
                "its certificate is not valid now; check it and this clock",
            )
        case _:
            return say(
                f"服务器证书不受信任({error.verify_message})，请检查 tls.ca",
                f"its certificate is not trusted ({error.verify_message}); check tls.ca",
            )
