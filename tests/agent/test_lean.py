"""What is deferred is there when it is used, and takes no memory until then."""

import subprocess
import sys

DEFERRED = """
import sys
from agent.lean import defer
defer("urllib.request")
import urllib.request
before = "http.client" in sys.modules
request = urllib.request.Request("http://127.0.0.1/")
print(before, "http.client" in sys.modules, request.host)
"""


def test_deferred_module_is_loaded_at_its_first_use_and_not_before() -> None:
    found = subprocess.run([sys.executable, "-c", DEFERRED], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["False", "True", "127.0.0.1"]


def test_running_agent_never_loads_what_paho_does_not_use() -> None:
    code = "import sys; from agent.lean import defer; defer('urllib.request'); import agent.service; print('http.client' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "False"


def test_path_and_isolation_sources_load_no_optional_library() -> None:
    sources = "path_probe, path_reflector, isolation_probe, isolation_responder, management_access, exposure_scan, firewall_rules"
    code = (
        f"import sys; from agent.sources import {sources}; print({{'dns', 'icmplib', 'pysnmp'}} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"


def test_database_sources_load_no_client_before_they_dial() -> None:
    sources = "continuity_probe, mysql_replication, oracle_dataguard, postgresql_replication, sqlserver_alwayson"
    clients = "{'psycopg', 'pymysql', 'oracledb', 'pytds', 'OpenSSL', 'cryptography'}"
    code = f"import sys; from agent.sources import {sources}; print({clients} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"
