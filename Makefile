# make up     install what it needs (no root, no apt) and show this machine
# make test   everything: set-up (apt packages too), lint, strict types, tests
# make check  lint and types only      make bench  speed and memory against peers and limits
# make pages  the generated reference    make screenshots  the README's pictures, of the demo
# make chaos  CHAOS_SECONDS=180 of kill -9 on every part, then the books are balanced

PYTHON ?= python3
VENV := .venv/bin
DATA ?= data
TEST_PACKAGES := mosquitto mosquitto-clients influxdb victoria-metrics chromium fonts-wqy-microhei chrony btrfs-progs libatomic1 mount openssl prometheus util-linux \
  iproute2 nftables dnsmasq-base dropbear-bin snmp snmpd lldpd tinyproxy-bin \
  keepalived postgresql mariadb-server galera-4 rsync pacemaker pacemaker-cli-utils corosync libvirt-clients \
  ceph-mon ceph-osd ceph-mgr ceph-common libfaketime \
  libvirt-daemon-system qemu-system-x86 \
  iptables memcached \
  systemd docker-compose \
  ansible-core ansible-lint openssh-client
CHAOS_PACKAGES := mosquitto influxdb openssl
SHOT_PACKAGES := chromium fonts-wqy-microhei pngquant
BENCH_PACKAGES := prometheus-node-exporter mosquitto influxdb iproute2 nftables prometheus-snmp-exporter snmpd

.PHONY: up test check bench chaos lock pages screenshots clean

up: .venv/up.stamp
	@exec $(VENV)/infravitals up --data-dir $(DATA)

test: .venv/dev.stamp check
	tools/apt_packages.sh $(TEST_PACKAGES)
	$(VENV)/pytest

check: .venv/dev.stamp
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

bench: .venv/dev.stamp
	tools/apt_packages.sh $(BENCH_PACKAGES)
	$(VENV)/python tests/bench/run.py

chaos: .venv/dev.stamp
	tools/apt_packages.sh $(CHAOS_PACKAGES)
	PYTHONPATH=tests $(VENV)/python -m chaos

# the generated reference pages and Grafana's files
pages: .venv/dev.stamp
	$(VENV)/python -m agent.catalogue.page
	PYTHONPATH=tools $(VENV)/python -m dashboards

# the README's pictures, of the demo's page
screenshots: .venv/dev.stamp
	tools/apt_packages.sh $(SHOT_PACKAGES)
	$(VENV)/python tools/screenshots.py

# new versions of everything, on purpose and in a commit of its own
lock: .venv/dev.stamp
	$(VENV)/uv pip compile -q pyproject.toml requirements/build.in --extra collector --extra databases --extra oracle --extra probe --extra snmp --extra sqlserver \
	  --python-version 3.11 --upgrade --generate-hashes --no-header --no-emit-index-url -o requirements/up.lock
	$(VENV)/uv pip compile -q pyproject.toml requirements/build.in --extra collector --extra databases --extra probe --extra snmp --extra dev \
	  --python-version 3.11 --upgrade --generate-hashes --no-header --no-emit-index-url -o requirements/dev.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/up.stamp: requirements/up.lock pyproject.toml tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py requirements/up.lock
	@touch $@

.venv/dev.stamp: requirements/dev.lock pyproject.toml tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py requirements/dev.lock
	@touch .venv/up.stamp $@
