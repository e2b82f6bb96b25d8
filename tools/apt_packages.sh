#!/bin/sh
# Installs the Debian packages that the tests talk to, those that are missing only, and says which.
set -eu
missing=""
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
echo "正在用 apt 安装测试所需的软件 / installing with apt what the tests talk to:$missing"
root=""
[ "$(id -u)" = 0 ] || root="sudo"
command -v apt-get >/dev/null || { echo "没有 apt-get,请自行安装 / there is no apt-get, please install:$missing" >&2; exit 1; }
$root apt-get update -qq
# shellcheck disable=SC2086  # a list of packages
DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing
